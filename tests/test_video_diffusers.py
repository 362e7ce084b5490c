"""Videos by open weights: the real pipelines with tiny random weights, saved to a folder and loaded back
as a user's checkpoint is."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from lucibot.core.errors import UserError
from lucibot.core.prompt import Prompt
from lucibot.core.video import read_video
from lucibot.providers import checkpoints
from lucibot.providers.video import DiffusersVideo
from lucibot.providers.video.base import VideoRequest
from lucibot.providers.video.diffusers import FAMILIES
from lucibot.providers.video.jobs import Jobs
from lucibot.services import Services

pytest.importorskip("diffusers", reason="pip install 'lucibot[models]'")
pytest.importorskip("transformers", reason="pip install 'lucibot[models]'")
pytest.importorskip("ftfy", reason="pip install 'lucibot[models]'")


def tokenizer(cls):
    """Letters as tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    letters = "▁abcdefghijklmnopqrstuvwxyz.,"
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -3.0) for c in letters)]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return cls(
        tokenizer_object=made, extra_ids=0, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def t5(kind: str):
    import transformers as t

    config = getattr(t, f"{kind}Config")(
        vocab_size=64, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    return getattr(t, f"{kind}EncoderModel")(config)


def wan(folder: Path, **changes) -> None:
    import diffusers as d
    from transformers import T5TokenizerFast

    told = {
        "z": 48, "channels": 48, "expand": True, "residual": True, "pipeline": d.WanPipeline, **changes
    }  # fmt: skip
    z = told["z"]
    space = (
        {"in_channels": 12, "out_channels": 12, "is_residual": True, "patch_size": 2,
         "scale_factor_spatial": 16} if told["residual"] else {}
    )  # fmt: skip
    vae = d.AutoencoderKLWan(
        base_dim=3, z_dim=z, latents_mean=[0.0] * z, latents_std=[1.0] * z, dim_mult=[1, 1, 1, 1],
        num_res_blocks=1, temperal_downsample=[False, True, True], **space,
    )  # fmt: skip
    transformer = d.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, out_channels=z,
        in_channels=told["channels"], text_dim=32, freq_dim=16, ffn_dim=32, num_layers=1,
        cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
    )  # fmt: skip
    scheduler = d.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    told["pipeline"](
        tokenizer=tokenizer(T5TokenizerFast), text_encoder=t5("UMT5"), vae=vae, scheduler=scheduler,
        transformer=transformer, expand_timesteps=told["expand"],
    ).save_pretrained(folder)  # fmt: skip


def wan_older(folder: Path) -> None:
    """As Wan 2.2 I2V-A14B: the first frame and its mask beside the noise."""
    import diffusers as d

    wan(folder, z=16, channels=36, expand=False, residual=False, pipeline=d.WanImageToVideoPipeline)


def cogvideox(folder: Path) -> None:
    import diffusers as d
    from transformers import T5TokenizerFast

    kinds = ("CogVideoXDownBlock3D",) * 4, ("CogVideoXUpBlock3D",) * 4
    vae = d.AutoencoderKLCogVideoX(
        down_block_types=kinds[0], up_block_types=kinds[1], block_out_channels=(8, 8, 8, 8),
        latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4,
    )  # fmt: skip
    transformer = d.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=8, out_channels=4, time_embed_dim=2,
        text_embed_dim=32, num_layers=1, sample_width=8, sample_height=6, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=226, use_rotary_positional_embeddings=True,
    )  # fmt: skip
    d.CogVideoXImageToVideoPipeline(
        tokenizer=tokenizer(T5TokenizerFast), text_encoder=t5("T5"), vae=vae, transformer=transformer,
        scheduler=d.CogVideoXDDIMScheduler(),
    ).save_pretrained(folder)  # fmt: skip


def hunyuan(folder: Path) -> None:
    """HunyuanVideo 1.5; its size follows the picture, in steps of its own."""
    import diffusers as d
    import transformers as t
    from tokenizers import Tokenizer, models, pre_tokenizers

    end = "<|endoftext|>"
    letters = {c: i for i, c in enumerate((*sorted(pre_tokenizers.ByteLevel.alphabet()), end))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = t.Qwen2TokenizerFast(
        tokenizer_object=made, unk_token=end, pad_token=end, eos_token=end,
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )  # fmt: skip
    rope = {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}
    text = t.Qwen2_5_VLTextModel(
        t.Qwen2_5_VLTextConfig(
            vocab_size=300, hidden_size=16, intermediate_size=16, num_hidden_layers=3,
            num_attention_heads=2, num_key_value_heads=2, rope_scaling=rope,
        )
    )  # fmt: skip
    glyphs = t.T5EncoderModel(
        t.T5Config(vocab_size=400, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )
    vae = d.AutoencoderKLHunyuanVideo15(
        latent_channels=4, block_out_channels=(16, 16), layers_per_block=1,
        spatial_compression_ratio=4, temporal_compression_ratio=2, downsample_match_channel=False,
        upsample_match_channel=False,
    )  # fmt: skip
    transformer = d.HunyuanVideo15Transformer3DModel(
        in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=1,
        num_refiner_layers=1, mlp_ratio=2.0, text_embed_dim=16, text_embed_2_dim=32,
        image_embed_dim=12, rope_axes_dim=(2, 2, 4), target_size=32,
    )  # fmt: skip
    sees = t.SiglipVisionModel(
        t.SiglipVisionConfig(
            hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            image_size=378, patch_size=14,
        )
    )  # fmt: skip
    d.HunyuanVideo15ImageToVideoPipeline(
        text_encoder=text, tokenizer=words, transformer=transformer, vae=vae,
        scheduler=d.FlowMatchEulerDiscreteScheduler(shift=7.0), text_encoder_2=glyphs,
        tokenizer_2=t.ByT5Tokenizer(), guider=d.ClassifierFreeGuidance(guidance_scale=6.0),
        image_encoder=sees,
        feature_extractor=t.SiglipImageProcessorPil(size={"height": 378, "width": 378}),
    ).save_pretrained(folder)  # fmt: skip


def ltx2(folder: Path) -> None:
    """LTX-2, with its sound."""
    import diffusers as d
    import transformers as t
    from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    text = t.Gemma3ForConditionalGeneration(
        t.Gemma3Config(
            text_config={**small, "vocab_size": 64, "num_key_value_heads": 2, "head_dim": 8},
            vision_config={**small, "image_size": 28, "patch_size": 14}, mm_tokens_per_image=4,
        )
    )  # fmt: skip
    vae = d.AutoencoderKLLTX2Video(
        latent_channels=4, block_out_channels=(8, 16, 32, 64), layers_per_block=(1,) * 5,
        decoder_block_out_channels=(8, 16, 32), decoder_layers_per_block=(1,) * 4,
        spatial_compression_ratio=32, temporal_compression_ratio=8,
    )  # fmt: skip
    sound = d.AutoencoderKLLTX2Audio(
        base_channels=8, ch_mult=(1, 1), num_res_blocks=1, latent_channels=2, mel_bins=16, resolution=32
    )  # fmt: skip
    transformer = d.LTX2VideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, audio_in_channels=8, audio_out_channels=8, audio_num_attention_heads=2,
        audio_attention_head_dim=4, audio_cross_attention_dim=8, num_layers=1, caption_channels=16,
        rope_double_precision=False,
    )  # fmt: skip
    one = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1,
           "num_learnable_registers": None}  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=16, text_proj_in_factor=2, rope_double_precision=False,
        **{f"{kind}_connector_{n}": v for kind in ("video", "audio") for n, v in one.items()},
    )  # fmt: skip
    vocoder = LTX2Vocoder(
        in_channels=32, hidden_channels=8, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
        resnet_kernel_sizes=[3], resnet_dilations=[[1, 3]],
    )  # fmt: skip
    d.LTX2ImageToVideoPipeline(
        scheduler=d.FlowMatchEulerDiscreteScheduler(), vae=vae, audio_vae=sound, text_encoder=text,
        tokenizer=tokenizer(t.T5TokenizerFast), connectors=connectors, transformer=transformer,
        vocoder=vocoder,
    ).save_pretrained(folder)  # fmt: skip


SMALL = {"device": "cpu", "steps": 2, "width": 64, "height": 32}


def request(tmp_path: Path, index: int = 0) -> VideoRequest:
    tmp_path.mkdir(exist_ok=True)
    frame = tmp_path / "frame.png"
    cv2.imwrite(str(frame), np.full((48, 64, 3), (40, 90, 200), np.uint8))
    return VideoRequest(
        task=SimpleNamespace(name="t"), view=None, scene="s", first_frame=frame,
        first_frame_sha256="0" * 64, prompt=Prompt(text="do it", negative="blur"), seed=3, index=index,
    )  # fmt: skip


def make(tmp_path: Path, folder: Path, count: int = 1, said: list | None = None, **settings):
    model = DiffusersVideo(model=str(folder), **{**SMALL, **settings}).create()
    jobs = Jobs(
        tmp_path / "candidates", model, Services(tmp_path / "services"), note=print,
        progress=lambda text, done=None: said.append(text) if said is not None else None,
    )  # fmt: skip
    return model, jobs.make([request(tmp_path, i) for i in range(count)])


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wan") / "wan"
    wan(folder)
    return folder


def test_wan_draws_candidates_that_differ_and_come_again(tmp_path, wan_folder):
    said: list[str] = []
    model, made = make(tmp_path, wan_folder, 2, said, frames=7)
    videos = [read_video(c.raw) for c in made]
    assert [v.frames.shape for v in videos] == [(5, 32, 64, 3)] * 2 and videos[0].fps == 24
    assert np.abs(videos[0].frames.astype(int) - videos[1].frames).mean() > 1
    assert any("step 2 of 2" in s for s in said) and sum("loading" in s for s in said) == 1
    held = weakref.ref(model._held.transformer)
    assert held() is not None
    model.close()
    assert held() is None  # Its memory is given back.
    # The same seed and the same weights are the same bits, in another run.
    _, (again, *_) = make(tmp_path / "other", wan_folder, frames=7)
    assert again.raw.read_bytes() == made[0].raw.read_bytes()
    _, (other, *_) = make(tmp_path / "other", wan_folder, frames=7, guidance=1.0)
    assert other.fingerprint != again.fingerprint


@pytest.mark.parametrize(
    ("build", "size", "frames", "fps"),
    [
        (wan_older, (32, 64), 5, 16),
        (cogvideox, (48, 64), 9, 8),
        pytest.param(ltx2, (64, 64), 9, 24, marks=pytest.mark.slow),
        pytest.param(hunyuan, (32, 32), 9, 24, marks=pytest.mark.slow),
    ],
)
def test_other_families_draw_too(tmp_path, build, size, frames, fps):
    build(tmp_path / "weights")
    h, w = size
    _, (made,) = make(tmp_path, tmp_path / "weights", frames=frames, width=w, height=h)
    video = read_video(made.raw)
    assert video.frames.shape == (frames, h, w, 3) and video.fps == fps


def test_sizes_follow_the_camera_and_frames_the_model(wan_folder):
    def made(**settings):
        return DiffusersVideo(model=str(wan_folder), device="cpu", **settings).create()

    assert made().size(640, 480) == (1088, 832) and made().frames == 121
    assert made(width=320).size(640, 480) == (320, 256)
    assert made(height=200, width=320).size(9, 9) == (320, 192)
    assert [made(frames=n).frames for n in (1, 5, 8, 9, 81)] == [5, 5, 5, 9, 81]


def test_what_cannot_be_run_is_one_line(tmp_path, wan_folder, monkeypatch):
    def refused(**settings) -> str:
        with pytest.raises(UserError) as told:
            make(tmp_path, **{"folder": wan_folder, **settings})
        assert "\n" not in str(told.value)
        return str(told.value)

    assert "hf download" in refused(folder="Wan-AI/Wan2.2-TI2V-5B-Diffusers")
    assert "no such folder" in refused(folder=tmp_path / "nowhere")
    if not torch.cuda.is_available():
        assert "needs a GPU, and there is none here; --video.device cpu" in refused(device="auto")
        assert "there is no GPU here" in refused(device="cuda")
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong/config.json").write_text(json.dumps({"model_type": "clip"}))
    assert "wrong kind, clip; expected Wan" in refused(folder=tmp_path / "wrong")
    wan(tmp_path / "words", z=16, channels=16, expand=False, residual=False)
    assert "videos from words alone" in refused(folder=tmp_path / "words")
    monkeypatch.setattr(checkpoints, "free_bytes", lambda device: 1000)
    assert "too little memory" in refused()
    monkeypatch.undo()
    weights = wan_folder / "transformer/diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:200])
    try:
        assert "cannot be loaded" in refused()
    finally:
        weights.write_bytes(whole)
    monkeypatch.setattr("lucibot.core.needs.version", lambda name: None)
    assert "pip install 'lucibot[models]'" in refused()


def test_running_out_of_memory_names_what_needs_less(tmp_path, wan_folder, monkeypatch):
    from diffusers import WanImageToVideoPipeline

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(WanImageToVideoPipeline, "__call__", full)
    with pytest.raises(UserError, match=r"ran out of memory on cpu; --video\.offload model"):
        make(tmp_path, wan_folder)


def test_every_family_is_a_pipeline_of_diffusers():
    import inspect

    import diffusers

    for family in FAMILIES:
        takes = inspect.signature(getattr(diffusers, family.pipeline).__call__).parameters
        told = {
            "image",
            "prompt",
            "negative_prompt",
            "num_frames",
            "num_inference_steps",
            "generator",
        }
        assert told <= set(takes)
        assert all(hasattr(diffusers, kind) for kind in family.kinds)
        assert (family.frames - 1) % family.every == 0
