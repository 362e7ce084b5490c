"""6D poses of two objects over 120 frames: all frames at once against the same, frame by frame.

Frame by frame twice: with as many rounds a frame, and with as few as suffice when each frame starts
from the one before (`follower`), which is no smoothing and sees nothing of what comes later.
"""

from __future__ import annotations

import numpy as np

from lucibot.benchmark import Bench
from lucibot.core.geometry import pose_np
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.perception.config import PoseConfig
from lucibot.perception.poses import follow_poses, refine_poses
from lucibot.task import Task, load_task
from lucibot.vision.draw import DrawMesh, draw_depth, fit_camera
from lucibot.vision.trajectory import Trajectory

TASK, FRAMES, FPS = "stack_cups", 120, 30.0


def measure(bench: Bench) -> None:
    if bench.device != "cpu":
        bench.skip("gpu", "poses are fitted on the CPU")
        return
    task = load_task(TASK)
    poses = paths(task)
    view, tracks = drawn(task, poses)
    config = PoseConfig()
    found = {}

    def batched() -> None:
        found["batched"] = refine_poses(task, view, tracks, FPS, config).poses

    def one_by_one() -> None:
        rounds = config.coarse_rounds + 2 + config.fine_rounds
        found["frame_by_frame"] = follow_poses(task, view, tracks, FPS, config, rounds).poses

    def follower() -> None:
        found["follower"] = follow_poses(task, view, tracks, FPS, config).poses

    times = bench.race({
        "batched": batched, "frame_by_frame": one_by_one, "follower": follower,
    })  # fmt: skip
    for name, p in found.items():
        off = np.linalg.norm(p[..., :3] - poses[..., :3], axis=-1)
        bench.value(f"{name}.median_error", 1e3 * np.median(off), unit="mm")
    bench.ratio("frame_by_frame_over_batched", times["frame_by_frame"], times["batched"],
                target="at least 10")  # fmt: skip
    bench.ratio("follower_over_batched", times["follower"], times["batched"])


def paths(task: Task) -> np.ndarray:
    """(T, N, 6): both cups are lifted, turned and put down beside, one after the other."""
    t = np.linspace(0, 1, FRAMES)
    out = np.stack([np.repeat(pose_np(o.T_world_object)[None], FRAMES, 0) for o in task.objects], 1)
    for i in range(out.shape[1]):
        x = np.clip((t - 0.1 - 0.4 * i) / 0.4, 0, 1)
        x = x * x * (3 - 2 * x)
        out[:, i, :3] += x[:, None] * (0.04, 0.06, 0.0) + np.sin(np.pi * x)[:, None] * (0, 0, 0.1)
        out[:, i, 3] += 0.3 * np.sin(np.pi * x)
    return out


def drawn(task: Task, poses: np.ndarray) -> tuple[SceneView, Tracks]:
    """What a perfect tracker would say of it, but for poses that err by a centimetre."""
    camera = fit_camera(task.camera, 400)
    depths = []
    for i, o in enumerate(task.objects):
        mesh = DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
        at = Trajectory.from_poses(poses[:, i], mesh.anchor_m)
        depths.append(draw_depth(mesh, at.T_world_object, camera))
    depth = np.stack(depths, 1)
    nearest = depth.argmin(1)
    shown = np.isfinite(depth).any(1)
    masks = np.stack([shown & (nearest == i) for i in range(depth.shape[1])], 1)
    background = table_depth(camera)
    blank = np.full((camera.height, camera.width, 3), 128, np.uint8)
    view = SceneView(
        camera=camera, names=tuple(o.name for o in task.objects), first_frame=blank,
        background_frame=blank, labels=np.where(shown[0], nearest[0] + 1, 0).astype(np.uint8),
        depth_m=np.minimum(depth[0].min(0), background), background_depth_m=background,
    )  # fmt: skip
    frames, count = poses.shape[:2]
    noise = np.random.default_rng(0).normal(size=poses.shape) * ([0.01] * 3 + [0.03] * 3)
    tracks = Tracks(
        masks=masks, hand=np.zeros(masks[:, 0].shape, bool),
        confidence=np.ones((frames, count), np.float32), lost=np.zeros((frames, count), bool),
        poses=(poses + noise).astype(np.float32),
    )  # fmt: skip
    return view, tracks


def table_depth(camera) -> np.ndarray:
    """(H, W) float32 [m]: the plane z = 0."""
    eye, rays = camera.T_world_cam[:3, 3], camera.rays
    down = np.minimum(rays[..., 2], -1e-6)
    return np.minimum(-eye[2] / down, 10.0).astype(np.float32)
