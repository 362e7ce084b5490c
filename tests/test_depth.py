"""Depth is the coordinate along the optical axis, in every fallback too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lucibot.core.camera import Camera
from lucibot.core.geometry import pose_np
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.perception.depth import KeptDepth
from lucibot.providers.depth import FillDepth
from lucibot.providers.depth.fill import _inset, block_depth
from lucibot.task import load_task

W, H = 160, 120


def plane_depth(camera: Camera) -> np.ndarray:
    """(H, W) depth [m] of the ground z = 0."""
    return (-camera.T_world_cam[2, 3] / camera.rays[..., 2]).astype(np.float32)


def test_a_mask_without_its_object_is_as_deep_as_the_object_and_not_as_far():
    """The pose is out of the picture, 40 degrees beside the optical axis."""
    task = load_task("stack_cups")
    camera = task.camera.resized(W, H)
    ground = np.full((H, W), 3.0, np.float32)
    blank = np.zeros((H, W, 3), np.uint8)
    view = SceneView(
        camera=camera, names=tuple(o.name for o in task.objects), first_frame=blank,
        background_frame=blank, labels=np.zeros((H, W), np.uint8), depth_m=ground,
        background_depth_m=ground,
    )  # fmt: skip
    z = 0.7
    T = task.objects[0].T_world_object
    T[:3, 3] = (camera.T_world_cam @ [z * np.tan(np.deg2rad(40)), 0, z, 1])[:3]
    masks = np.zeros((1, 2, H, W), bool)
    masks[0, 0, 40:60, 100:120] = True
    tracks = Tracks(
        masks=masks, hand=np.zeros((1, H, W), bool), confidence=np.ones((1, 2), np.float32),
        lost=np.zeros((1, 2), bool),
        poses=np.stack([pose_np(T), np.full(6, np.nan)])[None].astype(np.float32),
    )  # fmt: skip
    video = Video(frames=blank[None], fps=10.0)
    depth = FillDepth().create().estimate(task, view, video, tracks, np.array([0]), seed=0)[0]
    # The ray to it is 0.91 m long; its anchor is a few centimetres beside its origin.
    assert depth[masks[0, 0]] == pytest.approx(z, abs=0.05)


@pytest.mark.parametrize("rows", [(10, 30), (85, 110)])
def test_an_inset_is_measured_over_ground_also_far_from_the_optical_axis(rows):
    camera = Camera.look_at(
        position=(0, -0.6, 0.5), target=(0, 0, 0), vertical_fov_deg=60, width=W, height=H
    )
    ground, first = plane_depth(camera), np.zeros((H, W), bool)
    first[rows[0] : rows[1], 60:100] = True
    # A high wall, the foot of which one sees 3 cm behind its front.
    wall = block_depth(camera, first, ground, np.zeros_like(first), 10.0, 0.03)
    blank = np.zeros((H, W, 3), np.uint8)
    view = SceneView(
        camera=camera, names=("wall",), first_frame=blank, background_frame=blank,
        labels=first.astype(np.uint8), depth_m=np.where(first, wall, ground),
        background_depth_m=ground,
    )  # fmt: skip
    assert _inset(view, first) == pytest.approx(0.03, abs=1e-4)
    assert _inset(replace(view, labels=np.zeros_like(view.labels)), ~(first | True)) == 0.0


class CountingDepth:
    """A model that remembers which frames it was asked of."""

    rests_on_poses = False
    batch = 16

    def __init__(self):
        self.asked: list[int] = []

    def estimate(self, task, view, video, tracks, frames, *, seed, progress):
        self.asked += frames.tolist()
        return np.stack([np.full((2, 3), t + 100 * seed, np.float32) for t in frames])


def test_depth_of_a_frame_is_estimated_once():
    model = CountingDepth()
    depth_of = KeptDepth(model, None, None, None, None, seed=2)
    assert depth_of(np.array([4, 1, 4]))[:, 0, 0].tolist() == [204, 201, 204]
    assert depth_of(np.arange(40))[:, 0, 0].tolist() == [200 + t for t in range(40)]
    assert sorted(model.asked) == list(range(40))
