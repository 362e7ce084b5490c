"""Models in a user's own checkout: DepthLab and WiLoR, played by small ones of the same surface."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from lucibot.config import PerceiveConfig, RunConfig
from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.needs import needs_of
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.estimate import announce, estimate
from lucibot.providers.depth import DepthLabDepth
from lucibot.providers.depth.depthlab import WEIGHTS
from lucibot.providers.hand import WilorHand
from lucibot.providers.hand.wilor import FILES
from lucibot.providers.hand.wilor_driver import projected
from lucibot.providers.tracker import ComposedTracker, ReplayTracker, Sam2Segmenter
from lucibot.record import start_run
from lucibot.task import load_task

W, H, T = 96, 72, 3

# What it makes of a frame: what is known, and half a metre where nothing is; larger by a half, so
# that it has to be brought in line.
DEPTHLAB = """
import argparse, os
import numpy as np
from PIL import Image
p = argparse.ArgumentParser()
for name in ("output_dir", "denoise_steps", "processing_res", "normalize_scale", "strength", "seed",
             "pretrained_model_name_or_path", "image_encoder_path", "denoising_unet_path",
             "mapping_path", "reference_unet_path"):
    p.add_argument("--" + name, required=True)
for name in ("input_image_paths", "known_depth_paths", "masks_paths"):
    p.add_argument("--" + name, nargs="+")
a = p.parse_args()
assert os.path.exists(a.denoising_unet_path) and int(a.denoise_steps) == 7
os.makedirs(os.path.join(a.output_dir, "depth_npy"))
for image, known, mask in zip(a.input_image_paths, a.known_depth_paths, a.masks_paths, strict=True):
    d, m = np.load(known), np.load(mask)
    assert Image.open(image).size == d.shape[::-1] and set(np.unique(m)) <= {0, 1} and m.any()
    assert (d[m == 0] > 0).all()
    out = 1.5 * np.where(m > 0.5, 0.5, d)
    name = os.path.splitext(os.path.basename(image))[0] + "_pred.npy"
    np.save(os.path.join(a.output_dir, "depth_npy", name), out)
"""


@pytest.fixture
def depthlab(tmp_path):
    for path in WEIGHTS.values():
        file = tmp_path / "lab" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "lab" / "infer.py").write_text(DEPTHLAB)
    return tmp_path / "lab"


@pytest.fixture(scope="module")
def scene():
    camera = Camera.look_at(
        position=(0, -0.7, 0.5), target=(0, 0, 0), vertical_fov_deg=50, width=W, height=H
    )
    down = np.minimum(camera.rays[..., 2], -1e-3)
    background = np.minimum(-camera.T_world_cam[2, 3] / down, 1.6).astype(np.float32)
    masks, hand = np.zeros((T, 1, H, W), bool), np.zeros((T, H, W), bool)
    masks[:, 0, 40:60, 30:60] = True
    hand[1:, 5:15, 80:] = True
    view = SceneView(
        camera=camera, names=("box",), first_frame=np.zeros((H, W, 3), np.uint8),
        background_frame=None, labels=masks[0, 0].astype(np.uint8),
        depth_m=np.where(masks[0, 0], 0.5, background).astype(np.float32),
        background_depth_m=background,
    )  # fmt: skip
    tracks = Tracks(
        masks=masks, hand=hand, confidence=np.ones((T, 1), np.float32),
        lost=np.zeros((T, 1), bool), poses=np.full((T, 1, 6), np.nan, np.float32),
    )  # fmt: skip
    return view, Video(frames=np.zeros((T, H, W, 3), np.uint8), fps=8.0), tracks


def by_depthlab(checkout, **more) -> DepthLabDepth:
    return DepthLabDepth(checkout=str(checkout), python=sys.executable, steps=7, **more)


def test_depthlab_fills_in_what_is_not_known(depthlab, scene, monkeypatch):
    monkeypatch.setattr("lucibot.providers.depth.depthlab.AT_ONCE", 2)
    view, video, tracks = scene
    depth = by_depthlab(depthlab).create().estimate(
        None, view, video, tracks, np.array([0, 1, 2]), seed=5
    )  # fmt: skip
    for t in range(T):
        box, hand = tracks.masks[t, 0], tracks.hand[t]
        assert depth[t][box] == pytest.approx(0.5, abs=1e-3)
        assert np.array_equal(depth[t][~box & ~hand], view.background_depth_m[~box & ~hand])
        assert np.isnan(depth[t][hand]).all()


@pytest.mark.parametrize(
    ("body", "said"),
    [("raise SystemExit('CUDA is needed')", "ended with status 1: CUDA is needed"),
     ("", "wrote no 00000_pred.npy"),
     (DEPTHLAB.replace("out = 1.5", "out = np.zeros((2, 3)); _ = 1.5"), "has shape"),
     (DEPTHLAB.replace("out = 1.5 *", "out = -"), "nothing to do with the known depth")],
)  # fmt: skip
def test_a_depthlab_that_fails_is_one_clear_line(depthlab, scene, body, said):
    (depthlab / "infer.py").write_text(body)
    view, video, tracks = scene
    with pytest.raises(RunFailed, match=said) as e:
        by_depthlab(depthlab).create().estimate(None, view, video, tracks, np.arange(T), seed=5)
    assert "\n" not in str(e.value)


def test_a_depthlab_that_is_not_whole(depthlab, tmp_path):
    with pytest.raises(
        UserError, match=r"--perceive\.depth\.checkout: give the folder .*git clone"
    ):
        DepthLabDepth().create()
    with pytest.raises(UserError, match=r"--perceive\.depth\.python: give the Python"):
        DepthLabDepth(checkout=str(depthlab)).create()
    with pytest.raises(UserError, match=r"--perceive\.depth\.python .*nowhere"):
        DepthLabDepth(checkout=str(depthlab), python="/nowhere/python").create()
    (depthlab / WEIGHTS["mapping_path"]).unlink()
    with pytest.raises(UserError, match=r"mapping_layer\.pth is missing in it; git clone"):
        by_depthlab(depthlab).create()


# WiLoR's public surface: `load_wilor`, `ViTDetDataset`, `recursive_to`, and the detector's boxes. It
# sees a hand at the middle of a bright spot, a right one in the left half of the picture.
WILOR = {
    "ultralytics/__init__.py": """
import numpy as np, torch
class Boxes:
    def __init__(self, rows):
        rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
        self.xyxy, self.conf, self.cls = rows[:, :4], rows[:, 4], rows[:, 5]
class YOLO:
    def __init__(self, path): assert open(path) is not None
    def to(self, device): return self
    def __call__(self, frame, conf, verbose):
        rows = []
        for half, right in ((slice(0, 48), 1), (slice(48, 96), 0)):
            v, u = np.nonzero(frame[:, half, 1] > 128)
            if len(u):
                u = u + half.start
                rows.append([u.min(), v.min(), u.max() + 1, v.max() + 1, 0.9 - 0.3 * right, right])
        class Result: boxes = Boxes([r for r in rows if r[4] >= conf])
        return [Result]
""",
    "wilor/__init__.py": "",
    "wilor/utils/__init__.py": "def recursive_to(batch, device): return batch",
    "wilor/datasets/__init__.py": "",
    "wilor/datasets/vitdet_dataset.py": """
import numpy as np, torch
class ViTDetDataset(torch.utils.data.Dataset):
    def __init__(self, settings, frame, boxes, right, rescale_factor=2.5):
        self.frame, self.boxes, self.right, self.by = frame, boxes, right, rescale_factor
    def __len__(self): return len(self.boxes)
    def __getitem__(self, i):
        b = self.boxes[i]
        return {"img": np.zeros((3, 8, 8), np.float32), "box_center": (b[2:] + b[:2]) / 2,
                "box_size": self.by * (b[2:] - b[:2]).max(), "right": np.float32(self.right[i]),
                "img_size": 1.0 * np.array(self.frame.shape[1::-1])}
""",
    "wilor/models/__init__.py": """
from types import SimpleNamespace as Space
import torch
class Model:
    def to(self, device): return self
    def eval(self): return self
    def __call__(self, batch):
        n = len(batch["right"])
        joints = torch.zeros(n, 21, 3)
        joints[:, :, 0] = torch.arange(21) * 0.004  # To the right, as a right hand is seen.
        return {"pred_keypoints_3d": joints, "pred_cam": torch.tensor([[1.0, 0.0, 0.0]] * n)}
def load_wilor(checkpoint_path, cfg_path):
    assert open(checkpoint_path) is not None and open(cfg_path) is not None
    settings = Space(EXTRA=Space(FOCAL_LENGTH=5000), MODEL=Space(IMAGE_SIZE=256))
    return Model(), settings
""",
}


@pytest.fixture
def wilor(tmp_path):
    root = tmp_path / "wilor_checkout"
    for name, text in WILOR.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if not (root / name).exists():
            (root / name).touch()
    return root


def test_wilor_is_asked_in_its_own_checkout(wilor):
    frames = np.zeros((3, H, W, 3), np.uint8)
    frames[1, 20:40, 10:30] = frames[2, 20:40, 10:30] = frames[2, 30:50, 60:80] = 255
    member = WilorHand(checkout=str(wilor), python=sys.executable)
    found = member.create().detect(frames)
    assert [len(h) for h in found] == [0, 1, 2]
    (one,) = found[1]
    assert one.side == "right" and one.score == pytest.approx(0.6)
    assert one.keypoints_px.shape == (21, 2)
    # The wrist is at the middle of the box, the tips lie to the right of it.
    assert one.keypoints_px[0] == pytest.approx([20, 30], abs=1.5)
    assert (np.diff(one.keypoints_px[:, 0]) > 0).all()
    assert one.keypoints_m[20] == pytest.approx([0.08, 0, 0], abs=1e-6)
    sure, other = found[2]
    assert (sure.side, other.side) == ("left", "right")
    assert (np.diff(sure.keypoints_px[:, 0]) < 0).all() and sure.keypoints_m[20, 0] < 0
    alone = WilorHand(checkout=str(wilor), python=sys.executable, hands=1, least_score=0.8)
    assert [len(h) for h in alone.create().detect(frames)] == [0, 0, 1]


def test_joints_are_projected_by_the_whole_pictures_camera():
    camera, centre, size = np.array([0.9, 0.02, -0.01]), np.array([30.0, 50.0]), 40.0
    pixels = projected(np.zeros((21, 3)), camera, centre, size, np.array([96.0, 72.0]), 5000 / 256)
    # A shift of s in a box of size b at scale 1 is half a box wide at 1.
    half = size * camera[0] / 2
    assert pixels[0] == pytest.approx(centre + half * camera[1:], abs=1e-3)


def test_wilor_says_what_is_missing_and_under_what_it_may_be_used(wilor):
    assert "CC-BY-NC-ND" in needs_of(WilorHand).licence
    with pytest.raises(UserError, match=r"--perceive\.hand\.checkout: give the folder"):
        WilorHand().create()
    (wilor / "mano_data" / "MANO_RIGHT.pkl").unlink()
    with pytest.raises(UserError, match=r"MANO_RIGHT\.pkl is missing in it"):
        WilorHand(checkout=str(wilor), python=sys.executable).create()


def test_a_wilor_that_fails_is_one_clear_line(wilor):
    (wilor / "wilor/models/__init__.py").write_text("raise ImportError('no module named smplx')")
    member = WilorHand(checkout=str(wilor), python=sys.executable).create()
    with pytest.raises(RunFailed, match=r"WiLoR .* ended with status 1: .*no module named smplx"):
        member.detect(np.zeros((1, H, W, 3), np.uint8))


def config_with(**perceive) -> RunConfig:
    return RunConfig(perceive=PerceiveConfig(**perceive))


def test_what_a_model_lacks_is_told_before_a_run_begins(tmp_path, wilor):
    task, out = load_task("stack_cups"), tmp_path / "runs"
    for perceive, said in (
        ({"depth": DepthLabDepth(checkout="/nowhere")}, r"--perceive\.depth\.checkout /nowhere"),
        ({"hand": WilorHand(checkout=str(wilor), python="/nowhere")}, r"--perceive\.hand\.python"),
        ({"tracker": ComposedTracker(segmenter=Sam2Segmenter(model="./no", library="transformers"))},
         r"--perceive\.tracker\.segmenter\.model \./no"),
        ({"tracker": ReplayTracker(file=tmp_path / "no.npz")}, r"--perceive\.tracker\.file"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            start_run(task, config_with(**perceive), seed=0, out=out)
        assert not out.exists()


def test_licences_are_said_when_a_member_is_chosen(wilor):
    task, heard = load_task("stack_cups"), []
    announce(estimate(task, config_with()), heard.append)
    assert heard == []
    hand = WilorHand(checkout=str(wilor), python=sys.executable)
    announce(estimate(task, config_with(hand=hand, depth=DepthLabDepth())), heard.append)
    assert len(heard) == 2 and any("CC-BY-NC-ND" in line for line in heard)
