"""AVDC: poses by dense optical flow and depth, frame to frame (Ko et al., 2023; paper, section 4.1).

Points on each actuator are known from the first frame's mask and depth. Dense flow (OpenCV's DIS) says
where they are in the next frame, and the rigid motion that most of them agree on, found by RANSAC,
carries the pose from frame to frame. Where the run has measured the video's depth
(`--perceive.depth`), both ends of each flow have a place and the motion is fitted to these, in three
dimensions; otherwise, as in the original, the first frame's depth alone is known and the motion is
fitted to the flow in the picture. Nothing corrects what adds up: that is the method. Masks of later
frames only tell which points a hand or another object hides.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.baselines.config import AvdcObjective
from lucibot.baselines.judge import Given
from lucibot.core.camera import Camera
from lucibot.core.geometry import pose_np
from lucibot.providers.depth.replay import read_depth
from lucibot.providers.tracker.replay import unpacked
from lucibot.store.verdicts import chosen_video
from lucibot.vision.clip import read_clip

MOST_POINTS = 1500
"""Points on an actuator that are followed."""
FEWEST = 8
"""With fewer points in sight an actuator is taken to stand still."""
ROUND_TRIP_PX = 1.5
"""Flow there and back again must end within so much of where it began."""
INLIER_PX = 1.5


def poses_by_flow(config: AvdcObjective, given: Given) -> np.ndarray:
    """Waypoints (K, A, 6) float32 at the supervision's keyframes.

    Raises:
        UserError: the task has an actuator that is not rigid.
    """
    config.ensure_suits(given.task)
    frames = read_clip(chosen_video(given.inputs["imagine"], given.inputs["select"])).frames
    with np.load(given.inputs["perceive"] / "tracks.npz") as z:
        masks = unpacked({n: z[n] for n in z.files}).masks
    measured = given.inputs["perceive"] / "depth.npz"
    depth = read_depth(measured) if measured.is_file() else None
    if depth is None:
        given.note(
            "no depth of the video was measured: poses follow from the first frame's and flow"
        )
    flows = _flows(frames, given)
    waypoints = np.zeros_like(given.supervision.waypoints, np.float32)
    for a, o in enumerate(given.task.actuators):
        index = given.task.label(o.name) - 1
        points = _first_points(given, o.name)
        motions = follow(
            points, flows, masks[:, index], given.view.camera, config, depth_m=depth, seed=given.seed
        )  # fmt: skip
        poses = pose_np(motions @ o.T_world_object)
        if o.articulation is not None:
            poses = pose_np(o.articulation.poses(o.articulation.values(poses)))
        waypoints[:, a] = poses[given.supervision.keyframes]
    return waypoints


def dense_flow() -> cv2.DISOpticalFlow:
    """DIS down to single pixels: at its usual half of the resolution what adds up is several times
    as much."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    return dis


def _flows(frames: np.ndarray, given: Given) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each pair of frames that follow one another: flow (H, W, 2) [pixels] there and back."""
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
    dis, found = dense_flow(), []
    for t in range(len(grey) - 1):
        given.progress("reading optical flow", t / len(grey))
        found.append((dis.calc(grey[t], grey[t + 1], None), dis.calc(grey[t + 1], grey[t], None)))
    return found


def _first_points(given: Given, name: str) -> np.ndarray:
    """(n, 3) [m, world] on an object as the first frame shows it, away from its outline."""
    view = given.view
    mask = cv2.erode(view.mask(name).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    points = view.camera.unproject(view.depth_m.astype(float))[
        mask if mask.any() else view.mask(name)
    ]
    if len(points) > MOST_POINTS:
        points = points[np.linspace(0, len(points) - 1, MOST_POINTS).astype(int)]
    return points


def follow(
    points_m: np.ndarray, flows: list[tuple[np.ndarray, np.ndarray]], masks: np.ndarray,
    camera: Camera, config: AvdcObjective, *, depth_m: np.ndarray | None = None, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Motions (T, 4, 4) of a rigid body since the first of T frames, in the world.

    Args:
        points_m: (n, 3) [m, world] on it in the first frame.
        flows: T - 1 pairs (H, W, 2) [pixels], from each frame to the next and back.
        masks: (T, h, w) bool where it is seen.
        camera: of any size.
        depth_m: (T, H', W') [m] where it was measured, NaN where unknown.
    """
    rng = np.random.default_rng([seed, 11])
    motions = np.tile(np.eye(4), (len(flows) + 1, 1, 1))
    if not len(flows) or len(points_m) < FEWEST:
        return motions
    h, w = flows[0][0].shape[:2]
    grid = camera.resized(w, h)
    for t, (there, back) in enumerate(flows):
        motions[t + 1] = motions[t]
        now = points_m @ motions[t][:3, :3].T + motions[t][:3, 3]
        px, _ = grid.project(now)
        seen = _value(masks[t].astype(np.float32), px, (w, h)) > 0.5
        moved = px + _value(there, px, (w, h))
        returned = moved + _value(back, moved, (w, h))
        seen &= np.linalg.norm(returned - px, axis=1) < ROUND_TRIP_PX
        if seen.sum() < FEWEST:
            continue
        if depth_m is None:
            step = _by_picture(now[seen], moved[seen], grid)
        else:
            step = _by_depth(px[seen], moved[seen], depth_m[t], depth_m[t + 1], grid, config, rng)
        if step is not None:
            motions[t + 1] = step @ motions[t]
    return motions


def _value(image: np.ndarray, px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image's values (n, ...) at pixel coordinates (n, 2) of a grid of `size`; 0 outside."""
    h, w = image.shape[:2]
    at = (px * [w / size[0], h / size[1]] - 0.5).astype(np.float32)
    found = cv2.remap(image, at[:, None], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return found[:, 0]


def _by_picture(now_m: np.ndarray, moved_px: np.ndarray, grid: Camera) -> np.ndarray | None:
    """The world motion (4, 4) that brings points (n, 3) to where the next frame shows them."""
    K = np.array([[grid.fx, 0, grid.cx], [0, grid.fy, grid.cy], [0, 0, 1]])
    T = grid.T_cam_world
    turn, shift = cv2.Rodrigues(T[:3, :3])[0], T[:3, 3].reshape(3, 1).copy()
    cv2.setRNGSeed(0)
    found, turn, shift, inliers = cv2.solvePnPRansac(
        now_m, moved_px, K, None, turn, shift, useExtrinsicGuess=True, iterationsCount=200,
        reprojectionError=INLIER_PX, flags=cv2.SOLVEPNP_ITERATIVE,
    )  # fmt: skip
    if not found or inliers is None or len(inliers) < FEWEST:
        return None
    T_cam_points = np.eye(4)
    T_cam_points[:3, :3], T_cam_points[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
    return grid.T_world_cam @ T_cam_points


def _by_depth(
    px: np.ndarray, moved_px: np.ndarray, depth_m: np.ndarray, next_m: np.ndarray, grid: Camera,
    config: AvdcObjective, rng: np.random.Generator,
) -> np.ndarray | None:  # fmt: skip
    """The same from where depth has both ends."""
    here, there = _lifted(px, depth_m, grid), _lifted(moved_px, next_m, grid)
    known = np.isfinite(here).all(1) & np.isfinite(there).all(1)
    return rigid_by_ransac(
        here[known], there[known], within_m=config.inlier_m, trials=config.trials, rng=rng
    )  # fmt: skip


def _lifted(px: np.ndarray, depth_m: np.ndarray, grid: Camera) -> np.ndarray:
    """(n, 3) [m, world] of pixels (n, 2); NaN where the depth next to them is not known."""
    h, w = depth_m.shape
    at = np.floor(px * [w / grid.width, h / grid.height]).astype(int)
    inside = ((at >= 0) & (at < [w, h])).all(1)
    u, v = np.clip(at, 0, [w - 1, h - 1]).T
    depth = np.where(inside, depth_m[v, u], np.nan)
    ray = np.stack(
        [(px[:, 0] - grid.cx) / grid.fx, (px[:, 1] - grid.cy) / grid.fy, np.ones(len(px))], 1
    )
    T = grid.T_world_cam
    return (ray * depth[:, None]) @ T[:3, :3].T + T[:3, 3]


def rigid_by_ransac(
    a: np.ndarray, b: np.ndarray, *, within_m: float, trials: int, rng: np.random.Generator
) -> np.ndarray | None:
    """The rigid motion (4, 4) that brings most of points (n, 3) to those of (n, 3); None where fewer than
    `FEWEST` agree on one."""
    if len(a) < FEWEST:
        return None
    best = np.zeros(len(a), bool)
    for _ in range(trials):
        some = rng.choice(len(a), 3, replace=False)
        T = _rigid(a[some], b[some])
        agree = np.linalg.norm(a @ T[:3, :3].T + T[:3, 3] - b, axis=1) < within_m
        if agree.sum() > best.sum():
            best = agree
    return _rigid(a[best], b[best]) if best.sum() >= FEWEST else None


def _rigid(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The least-squares motion (4, 4) of points (n, 3) onto (n, 3) (Kabsch)."""
    centre_a, centre_b = a.mean(0), b.mean(0)
    U, _, Vt = np.linalg.svd((b - centre_b).T @ (a - centre_a))
    T = np.eye(4)
    T[:3, :3] = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
    T[:3, 3] = centre_b - T[:3, :3] @ centre_a
    return T
