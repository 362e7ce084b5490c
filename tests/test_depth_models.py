"""Depth models: what they say up to scale and shift is put in metres by what is known."""

from __future__ import annotations

import weakref

import cv2
import numpy as np
import pytest
import torch
from transformers import (
    BeitConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    DPTImageProcessorPil,
    GLPNConfig,
    GLPNForDepthEstimation,
    GLPNImageProcessorPil,
    ZoeDepthConfig,
    ZoeDepthForDepthEstimation,
    ZoeDepthImageProcessorPil,
)

from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.depth import MonocularDepth
from lucibot.providers.depth.alignment import Aligner, fit_affine, known_background
from lucibot.providers.depth.monocular import Network
from lucibot.twin.depth_models import TransformersDepth

W, H, T = 96, 72, 5


class Scene:
    """A ball that rolls over a table, and a hand that comes in from the right; its true depth."""

    def __init__(self, camera: Camera):
        # Down to the table, or to a wall behind it.
        down = np.minimum(camera.rays[..., 2], -1e-3)
        self.background = np.minimum(-camera.T_world_cam[2, 3] / down, 1.6).astype(np.float32)
        self.depth, masks, hand = [], np.zeros((T, 1, H, W), bool), np.zeros((T, H, W), bool)
        for t in range(T):
            cv2.circle(disc := np.zeros((H, W), np.uint8), (20 + 9 * t, 44), 11, 1, -1)
            masks[t, 0] = disc > 0
            if t:
                hand[t, 20:40, 70 - 2 * t :] = True
            true = np.where(masks[t, 0], 0.55 - 0.02 * t, self.background)
            self.depth.append(np.where(hand[t], 0.4, true).astype(np.float32))
        masks &= ~hand[:, None]
        self.view = SceneView(
            camera=camera, names=("ball",), first_frame=np.zeros((H, W, 3), np.uint8),
            background_frame=None, labels=masks[0, 0].astype(np.uint8), depth_m=self.depth[0],
            background_depth_m=self.background,
        )  # fmt: skip
        self.tracks = Tracks(
            masks=masks, hand=hand, confidence=np.ones((T, 1), np.float32),
            lost=np.zeros((T, 1), bool), poses=np.full((T, 1, 6), np.nan, np.float32),
        )  # fmt: skip

    def estimate(self, t: int, gives: str, rng) -> np.ndarray:
        """As a network has it: a scale and a shift of the frame's own, some noise, and much that is
        wrong."""
        true = 1 / self.depth[t] if gives == "disparity" else self.depth[t]
        out = true * rng.uniform(2, 9) + rng.uniform(-3, 3)
        out += 0.003 * np.ptp(out) * rng.standard_normal(out.shape)
        wrong = rng.random(out.shape) < 0.25
        out[wrong] = rng.uniform(out.min(), out.max(), int(wrong.sum()))
        return out.astype(np.float32)


@pytest.fixture(scope="module")
def scene():
    return Scene(look((0, -0.7, 0.5)))


def look(position) -> Camera:
    return Camera.look_at(
        position=position, target=(0, 0, 0), vertical_fov_deg=50, width=W, height=H
    )


@pytest.mark.parametrize("gives", ["depth", "disparity"])
def test_scale_and_shift_of_each_frame_are_found_among_outliers(scene, gives):
    rng = np.random.default_rng(0)
    align = Aligner(scene.view, scene.tracks, gives, "model")
    align.first(scene.estimate(0, gives, rng))
    for t in range(T):
        off = np.abs(align(scene.estimate(t, gives, rng), t) - scene.depth[t]) / scene.depth[t]
        assert np.median(off[scene.tracks.masks[t, 0]]) < 0.01
        assert np.median(off[~scene.tracks.masks[t, 0]]) < 0.01


def test_lines_are_fitted_exactly_where_there_is_no_noise():
    rng = np.random.default_rng(1)
    x = rng.uniform(-4, 9, 800)
    y = -0.03 * x + 1.5
    y[:300] = rng.uniform(-5, 5, 300)
    assert fit_affine(x, y, np.ones(800), rng) == pytest.approx((-0.03, 1.5), abs=1e-6)
    assert fit_affine(np.full(50, 2.0), np.full(50, 0.7), np.ones(50), rng) == (0.0, 0.7)


def test_a_flat_background_leaves_the_scale_to_the_first_frames_objects():
    scene = Scene(look((0, -1e-3, 0.8)))
    assert np.ptp(scene.background) < 1e-3
    for gives in ("depth", "disparity"):
        align = Aligner(scene.view, scene.tracks, gives, "model")
        shown = [(1 / d if gives == "disparity" else d) * 3.0 + 2.0 for d in scene.depth]
        align.first(shown[0])
        for t in range(T):
            ball = scene.tracks.masks[t, 0]
            assert align(shown[t], t)[ball] == pytest.approx(scene.depth[t][ball], rel=0.02)


def test_a_frame_without_background_is_put_in_metres_as_the_one_before(scene):
    hand = scene.tracks.hand.copy()
    hand[2] = True
    tracks = Tracks(**{**vars(scene.tracks), "hand": hand})
    align = Aligner(scene.view, tracks, "depth", "model")
    shown = [2 * d + 1 for d in scene.depth]
    with pytest.raises(RunFailed, match="too little background is seen in frame 3"):
        align(shown[2], 2)
    align.first(shown[0])
    align(shown[1], 1)
    assert align(shown[2], 2) == pytest.approx(scene.depth[2], rel=1e-4)


@pytest.mark.parametrize("kind", ["noise", "upside down", "constant"])
def test_an_estimate_that_is_none_is_told(scene, kind):
    true = scene.depth[1]
    shown = {"noise": np.random.default_rng(0).random((H, W)), "upside down": -true,
             "constant": np.ones((H, W))}[kind]  # fmt: skip
    with pytest.raises(RunFailed, match="nothing to do with the known depth") as e:
        Aligner(scene.view, scene.tracks, "depth", "--perceive.depth x")(shown, 1)
    assert "--perceive.depth fill" in str(e.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("depth_anything")
    torch.manual_seed(0)
    backbone = dict(
        model_type="dinov2", hidden_size=8, num_hidden_layers=4, num_attention_heads=1, image_size=28,
        patch_size=14, out_indices=[1, 2, 3, 4], reshape_hidden_states=False, mlp_ratio=1,
        apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=8, neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8, head_hidden_size=4,
    )  # fmt: skip
    DepthAnythingForDepthEstimation(config).save_pretrained(path)
    size = {"height": 56, "width": 56}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(
        path
    )
    return path


def estimate(scene, folder, frames, **more):
    rng = np.random.default_rng(0)
    video = Video(frames=rng.integers(0, 255, (T, H, W, 3), np.uint8), fps=8.0)
    model = MonocularDepth(model=str(folder), device="cpu", **more).create()
    return model, model.estimate(None, scene.view, video, scene.tracks, np.array(frames), seed=0)


def test_a_saved_network_is_loaded_and_random_weights_are_told(scene, folder):
    with pytest.raises(RunFailed, match="is the checkpoint a trained one"):
        estimate(scene, folder, [0, 1])


def test_the_known_background_is_put_back_after_a_network(scene, folder, monkeypatch):
    ask, seen, loaded = Network._ask, [], set()

    def answers(self, model, frame, size):
        own = ask(self, model, frame, size)
        loaded.add(weakref.ref(model))
        assert own.shape == (H, W) and np.isfinite(own).all()
        seen.append(own)
        t = 0 if len(seen) == 1 else order[len(seen) - 2]
        return 4 / scene.depth[t] + 1 + own - own.mean()

    order = [1, 3]
    monkeypatch.setattr(Network, "_ask", answers)
    model, depth = estimate(scene, folder, order)
    assert model.network.gives == "disparity" and not model.rests_on_poses
    assert [ref() for ref in loaded] == [None]  # One, and it is gone.
    assert depth.shape == (2, H, W) and depth.dtype == np.float32
    assert not np.array_equal(seen[0], seen[1])
    for d, t in zip(depth, order, strict=True):
        ball, hand = scene.tracks.masks[t, 0], scene.tracks.hand[t]
        assert np.array_equal(d[~ball & ~hand], scene.background[~ball & ~hand])
        assert np.isnan(d[hand]).all()
        assert d[ball] == pytest.approx(scene.depth[t][ball], rel=0.05)
        assert (d[ball] <= scene.background[ball]).all()


SMALL = dict(neck_hidden_sizes=[4, 4, 8, 8], fusion_hidden_size=8)
DPT = DPTConfig(
    hidden_size=8, num_hidden_layers=4, num_attention_heads=1, intermediate_size=8, image_size=64,
    patch_size=16, backbone_out_indices=[0, 1, 2, 3], is_hybrid=False, **SMALL,
)  # fmt: skip
GLPN = GLPNConfig(
    hidden_sizes=[8] * 4, depths=[1] * 4, num_attention_heads=[1] * 4, mlp_ratios=[1] * 4,
    decoder_hidden_size=8,
)  # fmt: skip
ZOE = ZoeDepthConfig(
    backbone_config=BeitConfig(
        image_size=64, num_hidden_layers=4, hidden_size=16, num_attention_heads=2,
        intermediate_size=16, patch_size=16, out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False, use_relative_position_bias=True,
    ),
    bottleneck_features=8, num_relative_features=8, num_patch_transformer_layers=1,
    patch_transformer_hidden_size=8, patch_transformer_intermediate_size=8, bin_embedding_dim=8,
    patch_transformer_num_attention_heads=1, add_projection=False, **SMALL,
)  # fmt: skip
SQUARE = {"size": {"height": 64, "width": 64}}


@pytest.mark.parametrize(
    ("model", "config", "processor", "gives"),
    [(DPTForDepthEstimation, DPT, DPTImageProcessorPil(**SQUARE), "disparity"),
     (GLPNForDepthEstimation, GLPN, GLPNImageProcessorPil(), "depth"),
     (ZoeDepthForDepthEstimation, ZOE,
      ZoeDepthImageProcessorPil(keep_aspect_ratio=False, **SQUARE), "depth")],
    ids=["dpt", "glpn", "zoedepth"],
)  # fmt: skip
def test_other_kinds_of_networks_are_asked(tmp_path, model, config, processor, gives):
    torch.manual_seed(0)
    model(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    member = MonocularDepth(model=str(tmp_path), device="cpu").create()
    assert member.network.gives == gives
    network = member.network
    loaded = network.checkpoint.load(model, device=network.device, dtype=network.dtype)
    frame = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    found = member.network._ask(loaded, frame, (H, W))
    assert found.shape == (H, W) and np.isfinite(found).all()


def test_a_photo_for_a_twin_is_measured_by_the_same_network(folder):
    photo = np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8)
    depth = TransformersDepth(model=str(folder), device="cpu").create().estimate(photo)
    assert depth.shape == (50, 70) and np.isfinite(depth).all() and np.ptp(depth) > 0
    with pytest.raises(UserError, match=r"^--depth-model\.model \./nowhere"):
        TransformersDepth(model="./nowhere", device="cpu").create()


def test_background_is_what_is_beside_objects_and_hands(scene):
    known = known_background(scene.view, scene.tracks, 2)
    grown = cv2.dilate(scene.tracks.masks[2, 0].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert known.any() and not (known & (grown | scene.tracks.hand[2])).any()


def test_mistakes_show_when_it_is_made(folder, tmp_path):
    flag = r"--perceive\.depth\.model"
    config = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                              num_attention_heads=1, image_size=8, patch_size=4)  # fmt: skip
    CLIPVisionModel(config).save_pretrained(tmp_path / "clip")
    with pytest.raises(
        UserError, match=f"{flag} .*wrong kind, clip_vision_model; expected depth_any"
    ):
        MonocularDepth(model=str(tmp_path / "clip")).create()
    with pytest.raises(UserError, match=f"{flag} nobody/nothing: .*hf download nobody/nothing"):
        MonocularDepth(model="nobody/nothing").create()
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in ("config.json", "model.safetensors"):
        (bare / file).write_bytes((folder / file).read_bytes())
    with pytest.raises(UserError, match=r"preprocessor_config\.json is missing"):
        MonocularDepth(model=str(bare)).create()
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"--perceive\.depth\.device cuda: there is no GPU"):
            MonocularDepth(model=str(folder), device="cuda").create()
