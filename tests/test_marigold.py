"""Depth completion by diffusion: a pipeline with random weights is steered by what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, MarigoldDepthPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.depth import MarigoldDepth
from lucibot.providers.depth.guidance import Completion
from lucibot.providers.depth.marigold import known_depth

W, H, T = 64, 44, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, sample_size=8,
        in_channels=8, out_channels=4, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16,
        attention_head_dim=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=[8, 16], norm_num_groups=4, down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, sample_size=16,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1,
        timestep_spacing="trailing", rescale_betas_zero_snr=True,
    )  # fmt: skip
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=3,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=8,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    tokenizer = CLIPTokenizer(vocab=words, merges=[], model_max_length=8)
    path = tmp_path_factory.mktemp("marigold")
    MarigoldDepthPipeline(
        unet=unet, vae=vae, scheduler=scheduler, text_encoder=text, tokenizer=tokenizer,
        prediction_type="depth", scale_invariant=True, shift_invariant=True,
        default_denoising_steps=4, default_processing_resolution=W,
    ).save_pretrained(path)  # fmt: skip
    return path


@pytest.fixture
def pipeline(folder):
    return MarigoldDepthPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def frame():
    return np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)


@pytest.fixture(scope="module")
def known():
    """A slope with a hole [m]."""
    slope = np.linspace(0.6, 1.4, H, dtype=np.float32)[:, None].repeat(W, 1)
    slope[15:30, 20:40] = np.nan
    return slope


def complete(pipeline, **more):
    settings = dict(steps=8, resolution=0, renewed=0.5, seed=0) | more
    return Completion(pipeline, **settings)


def off(estimate, known):
    """RMS [m] of the best line through an estimate at what is known."""
    x, y = estimate[np.isfinite(known)], known[np.isfinite(known)]
    return np.sqrt(np.mean((np.polyval(np.polyfit(x, y, 1), x) - y) ** 2))


def test_what_is_known_steers_the_estimate(pipeline, frame, known):
    unguided = complete(pipeline, rate=0.0)(frame, known)
    guided = complete(pipeline, rate=0.5)(frame, known)
    assert guided.shape == (H, W) and guided.dtype == np.float32
    assert off(guided, known) < 0.75 * off(unguided, known)
    # Where a line fits, larger is farther.
    assert np.polyfit(guided[np.isfinite(known)], known[np.isfinite(known)], 1)[0] > 0
    # Without guidance it is what the pipeline itself makes of the same noise.
    noise = torch.randn((1, 4, 22, 32), generator=torch.Generator().manual_seed(0))
    own = pipeline(
        torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255, num_inference_steps=8,
        latents=noise, processing_resolution=W,
    ).prediction[0, ..., 0]  # fmt: skip
    assert unguided == pytest.approx(own, abs=2e-4)


def test_nothing_known_is_no_guidance(pipeline, frame):
    nothing = np.full((H, W), np.nan, np.float32)
    alone = complete(pipeline, rate=0.0)(frame, nothing)
    assert np.array_equal(complete(pipeline)(frame, nothing), alone)


def test_a_frame_begins_where_the_one_before_ended(pipeline, frame, known, monkeypatch):
    calls, forward = [], pipeline.unet.forward
    monkeypatch.setattr(
        pipeline.unet, "forward", lambda *a, **k: (calls.append(float(a[1])), forward(*a, **k))[1]
    )
    run = complete(pipeline, renewed=0.25)
    first, second = run(frame, known), run(frame, known)
    # The last two of eight steps.
    assert calls == [*calls[:8], *calls[6:8]] and calls[0] > calls[6] > calls[7]
    assert np.array_equal(complete(pipeline)(frame, known), first)
    elsewhere = complete(pipeline, seed=1)(frame, known)
    assert np.abs(second - first).mean() < 0.5 * np.abs(elsewhere - first).mean()


@pytest.mark.parametrize("prediction", ["epsilon", "sample"])
def test_other_ways_of_denoising_are_steered_as_well(pipeline, frame, known, prediction):
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, prediction_type=prediction, rescale_betas_zero_snr=False
    )
    unguided = complete(pipeline, rate=0.0)(frame, known)
    assert off(complete(pipeline)(frame, known), known) < off(unguided, known)


def test_disparity_is_steered_by_disparity(pipeline, frame, known):
    pipeline.register_to_config(prediction_type="disparity")
    run = complete(pipeline)
    assert run.gives == "disparity"
    found = run(frame, known)[np.isfinite(known)]
    assert np.polyfit(found, 1 / known[np.isfinite(known)], 1)[0] > 0


@pytest.fixture(scope="module")
def scene(frame):
    camera = Camera.look_at(
        position=(0, -0.7, 0.5), target=(0, 0, 0), vertical_fov_deg=50, width=W, height=H
    )
    down = np.minimum(camera.rays[..., 2], -1e-3)
    background = np.minimum(-camera.T_world_cam[2, 3] / down, 1.6).astype(np.float32)
    masks, hand = np.zeros((T, 1, H, W), bool), np.zeros((T, H, W), bool)
    masks[:, 0, 20:32, 24:36] = True
    hand[1:, 5:15, 50:] = True
    depth = np.where(masks[0, 0], 0.5, background).astype(np.float32)
    view = SceneView(
        camera=camera, names=("box",), first_frame=frame, background_frame=None,
        labels=masks[0, 0].astype(np.uint8), depth_m=depth, background_depth_m=background,
    )  # fmt: skip
    tracks = Tracks(
        masks=masks, hand=hand, confidence=np.ones((T, 1), np.float32),
        lost=np.zeros((T, 1), bool), poses=np.full((T, 1, 6), np.nan, np.float32),
    )  # fmt: skip
    return view, Video(frames=np.repeat(frame[None], T, 0), fps=8.0), tracks


def test_all_is_known_of_the_first_frame_but_what_hands_hide(scene):
    view, _, tracks = scene
    assert np.array_equal(known_depth(view, tracks, 0), view.depth_m)
    later = known_depth(view, tracks, 1)
    assert np.isnan(later[tracks.masks[1, 0] | tracks.hand[1]]).all()
    assert np.isfinite(later).mean() > 0.5


def test_a_saved_pipeline_is_loaded_and_the_background_put_back(folder, scene, monkeypatch):
    view, video, tracks = scene
    monkeypatch.setattr("lucibot.providers.depth.alignment.WORST", 10.0)
    config = MarigoldDepth(model=str(folder), steps=2, device="cpu", low_memory=True)

    depth = config.create().estimate(None, view, video, tracks, np.arange(T), seed=3)
    assert depth.shape == (T, H, W) and depth.dtype == np.float32
    for t in range(T):
        beside = ~tracks.masks[t, 0] & ~tracks.hand[t]
        assert np.array_equal(depth[t][beside], view.background_depth_m[beside])
        assert np.isnan(depth[t][tracks.hand[t]]).all()
        assert np.isfinite(depth[t][tracks.masks[t, 0]]).all()


def test_random_weights_are_told(folder, scene, monkeypatch):
    view, video, tracks = scene
    monkeypatch.setattr("lucibot.providers.depth.guidance.LATENT_RATE", 0.0)
    monkeypatch.setattr("lucibot.providers.depth.alignment.WORST", 0.02)
    config = MarigoldDepth(model=str(folder), steps=2, device="cpu")
    with pytest.raises(RunFailed, match="is the checkpoint a trained one"):
        config.create().estimate(None, view, video, tracks, np.arange(T), seed=0)


def test_a_damaged_pipeline_is_told(folder, scene, tmp_path):
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    save_file(dict(list(weights.items())[1:]), file, metadata={"format": "pt"})
    view, video, tracks = scene
    with pytest.raises(UserError, match=r"--perceive\.depth\.model .*cannot be loaded"):
        MarigoldDepth(model=str(broken), device="cpu").create().estimate(
            None, view, video, tracks, np.arange(T), seed=0
        )
    with pytest.raises(UserError, match=r"no checkpoint, for there is neither"):
        MarigoldDepth(model=str(folder / "unet"), device="cpu").create()
