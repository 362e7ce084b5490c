"""The pose problem: what every round of the estimation draws, compares and adds up."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from lucibot.core.geometry import pose_np
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.perception.config import PoseConfig
from lucibot.task import Task
from lucibot.vision.contour import KNOWN_MARGIN_M, MOVING_MARGIN_M, edge_offsets, outlines
from lucibot.vision.draw import DrawMesh, Windows, draw_windows
from lucibot.vision.grid import Grid, visible_iou
from lucibot.vision.jit import compiled
from lucibot.vision.support import HeightMap, static_tops
from lucibot.vision.trajectory import (
    Smoothness,
    Trajectory,
    normal_equations,
    rotvec_between,
    solve,
)

BEHIND_M = 0.006
"""What lies less than this behind the static scene is seen all the same: surfaces that touch."""


@dataclass
class Pin:
    """A known pose of some frames, with standard deviations [m, rad, log size]."""

    frames: np.ndarray
    target: Trajectory
    sigma: tuple[float, float, float] = (1e-4, 1e-3, 5e-3)


@dataclass
class Problem:
    """Everything that the rounds share."""

    task: Task
    grid: Grid
    config: PoseConfig
    fps: float
    meshes: dict[int, DrawMesh]
    """By object index; deformables are not in it."""
    initial: dict[int, Trajectory]
    """(1,) known first poses."""
    usable: np.ndarray
    """(T, N) bool."""
    tops: HeightMap
    background_m: np.ndarray
    """(H, W) known depth of the static scene."""
    depth_m: np.ndarray | None = None
    """(T, H, W) measured depth on the grid, where a depth model measures objects."""
    carried: dict[int, Windows] = field(default_factory=dict)
    """(1,) deformables' first depth, carried to the pixels around them."""
    log_sizes: dict[int, np.ndarray] = field(default_factory=dict)
    """(T,) logarithm of the size about which an object's drifts; 0 for those that are not in it."""

    @property
    def margins_m(self) -> np.ndarray:
        """(N, 2), see `MOVING_MARGIN_M`."""
        count = len(self.task.objects)
        return np.array(
            [MOVING_MARGIN_M if i in self.meshes else KNOWN_MARGIN_M for i in range(count)]
        )

    @property
    def smoothness(self) -> Smoothness:
        c, dt = self.config, 1 / self.fps
        return Smoothness(
            acceleration_m=c.acceleration_m_s2 * dt**2,
            acceleration_rad=c.acceleration_rad_s2 * dt**2,
            velocity_m=1.0, velocity_rad=0.5, scale_step=c.scale_step, scale=c.scale_sigma,
        )  # fmt: skip

    def draw(self, state: dict[int, Trajectory], frames: np.ndarray) -> Windows:
        """Depth (N, B) of every object, each drawn alone, at some frames."""
        return self.draw_at({i: t[frames] for i, t in state.items()}, len(frames))

    def draw_at(self, state: dict[int, Trajectory], count: int) -> Windows:
        """Depth (N, B) of every object at the B = `count` poses of `state`; a deformable's is
        carried over from the first moment."""
        out = []
        for i in range(len(self.task.objects)):
            if i in self.meshes:
                out.append(self.draw_one(i, state[i]))
            else:
                out.append(self.carried[i][np.zeros(count, int)])
        return Windows.stack(out)

    def draw_one(self, i: int, trajectory: Trajectory) -> Windows:
        """Depth (B,) of object i at the poses of `trajectory`, without what the static scene hides.
        Only what hangs on a joint is known so well against the scene that this can be said."""
        hung = self.task.objects[i].joint is not None
        far = self.background_m + np.float32(BEHIND_M) if hung else None
        return draw_windows(self.meshes[i], trajectory.T_world_object, self.grid.camera, far)


def make_problem(task: Task, view: SceneView, tracks: Tracks, fps: float, config: PoseConfig,
                 depth_m: np.ndarray | None = None) -> Problem:  # fmt: skip
    grid = Grid.from_tracks(view, tracks, config.width)
    meshes, initial, carried = {}, {}, {}
    for i, o in enumerate(task.objects):
        if not o.is_rigid:
            carried[i] = Windows.whole(grid.depth_around(i)[None])
            continue
        meshes[i] = DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
        initial[i] = Trajectory.from_poses(pose_np(o.T_world_object)[None], meshes[i].anchor_m)
    size = (grid.camera.width, grid.camera.height)
    background = cv2.resize(view.background_depth_m, size, interpolation=cv2.INTER_NEAREST)
    return Problem(
        task=task, grid=grid, config=config, fps=fps, meshes=meshes, initial=initial,
        usable=~tracks.lost & (grid.area_px >= 12), tops=static_tops(task), depth_m=depth_m,
        carried=carried, background_m=background,
    )  # fmt: skip


def frame_terms(problem: Problem, i: int, trajectory: Trajectory, depths: Windows,
                frames: np.ndarray, reach_px: float):  # fmt: skip
    """Normal equations (B, 7, 7), (B, 7) and outline costs (B,) of object i in some frames.

    Args:
        trajectory: (B,) of object i, as it is drawn in `depths`.
        depths: (N, B).
        frames: (B,) the frames to compare with.
    """
    c, camera = problem.config, problem.grid.camera
    points, normals, z, weight = outlines(depths[i], c.outline_points)
    offset, weight = edge_offsets(
        points, normals, z, weight, depths, problem.grid.label, frames, i + 1, problem.margins_m,
        reach_px,
    )  # fmt: skip
    return normal_equations(
        trajectory, camera, points, normals, z, offset, weight * c.mask_weight, c.mask_sigma_px
    )


def add_depth(H: np.ndarray, g: np.ndarray, problem: Problem, i: int, drawn: Windows,
              frames: np.ndarray) -> None:  # fmt: skip
    """Moves object i, drawn (B,) at some frames, along the view to its measured depth."""
    ahead, sigma = problem.grid.camera.T_world_cam[:3, 2], problem.config.depth_sigma_m
    for b, t in enumerate(frames):
        depth, where = drawn.part(b)
        label, measured = problem.grid.label[t][where], problem.depth_m[t][where]
        both = np.isfinite(depth) & (label == i + 1) & (measured > 0)
        if both.sum() >= 12:
            off = float(np.median(measured[both] - depth[both]))
            w = 1 / (sigma**2 * (1 + (off / sigma) ** 2))
            H[b, :3, :3] += w * np.outer(ahead, ahead)
            g[b, :3] += w * off * ahead


def add_pin(H: np.ndarray, g: np.ndarray, trajectory: Trajectory, pin: Pin) -> None:
    """Ties the frames of `pin` to its target."""
    now = trajectory[pin.frames]
    residual = np.concatenate(
        [
            pin.target.position_m - now.position_m,
            rotvec_between(now.rotation, pin.target.rotation),
            (pin.target.log_scale - now.log_scale)[:, None],
        ],
        axis=1,
    )
    w = 1 / np.repeat(np.square(pin.sigma), (3, 3, 1))
    d = np.arange(7)
    H[pin.frames[:, None], d, d] += w
    g[pin.frames] += w * residual


def add_floor(
    H, g, problem: Problem, i: int, trajectory: Trajectory, sigma_m: float = 5e-4
) -> None:
    """Nothing goes below the table or the board: frames whose lowest point does are raised."""
    vertices = problem.meshes[i].vertices_m
    vertices = np.ascontiguousarray(vertices[:: max(1, len(vertices) // 400)])
    arm, gap = lowest_points(vertices, trajectory.T_world_object, problem.tops)
    J = np.zeros((len(gap), 7))
    J[:, 2] = 1
    J[:, 3], J[:, 4], J[:, 6] = arm[:, 1], -arm[:, 0], arm[:, 2]
    w = (gap < 0) / sigma_m**2
    H += w[:, None, None] * J[:, :, None] * J[:, None, :]
    # At most a centimetre a round, so that a wrong start is not thrown across the scene.
    g += (w * np.clip(-gap, 0, 0.01))[:, None] * J


def lowest_points(
    vertices: np.ndarray, T: np.ndarray, tops: HeightMap
) -> tuple[np.ndarray, np.ndarray]:
    """Of vertices (V, 3) at poses (B, 4, 4) the one that is the lowest over the tops below it: its
    place against the anchor (B, 3) [m] in the world's axes, and its height over them (B,) [m]."""
    arm, gap = np.zeros((len(T), 3)), np.full(len(T), np.inf)
    _lowest_points(len(T), vertices, T, tops.lower_xy_m, tops.cell_m, tops.z, arm, gap)
    return arm, gap


@compiled
def _lowest_points(first, end, vertices, T, lower_xy_m, cell_m, tops, arm, gap):
    for b in range(first, end):
        for k in range(len(vertices)):
            p, q, r = vertices[k, 0], vertices[k, 1], vertices[k, 2]
            x = T[b, 0, 0] * p + T[b, 0, 1] * q + T[b, 0, 2] * r
            y = T[b, 1, 0] * p + T[b, 1, 1] * q + T[b, 1, 2] * r
            z = T[b, 2, 0] * p + T[b, 2, 1] * q + T[b, 2, 2] * r
            i = int(np.floor((x + T[b, 0, 3] - lower_xy_m[0]) / cell_m))
            j = int(np.floor((y + T[b, 1, 3] - lower_xy_m[1]) / cell_m))
            if i < 0 or j < 0 or i >= tops.shape[0] or j >= tops.shape[1]:
                continue
            over = z + T[b, 2, 3] - tops[i, j]
            if over < gap[b]:
                gap[b] = over
                arm[b, 0], arm[b, 1], arm[b, 2] = x, y, z


def sizes_between(frames: int, pins: list[Pin]) -> np.ndarray:
    """(T,) logarithm of the size: as pinned, from one pin to the next on a straight line, and after the
    last as there. A generated object that has grown in a hand does not shrink back in it, and where it
    lies at last its support tells size from depth."""
    at = np.concatenate([p.frames for p in pins])
    known = np.concatenate([p.target.log_scale for p in pins])
    order = np.argsort(at)
    return np.interp(np.arange(frames), at[order], known[order])


def pinned(trajectory: Trajectory, pins: list[Pin]) -> Trajectory:
    """A trajectory that keeps to its pins exactly."""
    for pin in pins:
        trajectory = trajectory.with_frames(pin.frames, pin.target)
    return trajectory


def joint_round(problem: Problem, state: dict[int, Trajectory], pins: dict[int, list[Pin]],
                reach_px: float) -> dict[int, Trajectory]:  # fmt: skip
    """One Gauss-Newton round over all frames of all objects that move freely."""
    frames = len(problem.grid)
    loose = [i for i in state if problem.task.objects[i].joint is None]
    H = {i: np.zeros((frames, 7, 7)) for i in loose}
    g = {i: np.zeros((frames, 7)) for i in loose}
    # Where a pose is known there is nothing to learn from the picture.
    free = {i: problem.usable[:, i].copy() for i in loose}
    for i in loose:
        for pin in pins.get(i, []):
            free[i][pin.frames] = False
    seen = np.any([*free.values(), np.zeros(frames, bool)], axis=0)
    drawn = np.flatnonzero(seen)
    known = {i: pinned(t, pins.get(i, [])) for i, t in state.items()}
    depths = problem.draw(known, drawn)
    for i in loose:
        rows = np.flatnonzero(free[i])
        own = depths[:, np.searchsorted(drawn, rows)]
        of_frames = frame_terms(problem, i, state[i][rows], own, rows, reach_px)[:2]
        if problem.depth_m is not None:
            add_depth(*of_frames, problem, i, own[i], rows)
        H[i][rows], g[i][rows] = of_frames
    out = dict(state)
    for i in loose:
        trajectory = state[i]
        for pin in pins.get(i, []):
            add_pin(H[i], g[i], trajectory, pin)
        add_floor(H[i], g[i], problem, i, trajectory)
        step = solve(trajectory, H[i], g[i], problem.smoothness, problem.log_sizes.get(i, 0.0))
        out[i] = trajectory.moved(clamp(step))
    return out


def clamp(step: np.ndarray) -> np.ndarray:
    """Steps (..., 7) of at most 3 cm, 0.25 rad and 5%: beyond that the outline is another one."""
    out = step.copy()
    for part, most in ((slice(0, 3), 0.03), (slice(3, 6), 0.25), (slice(6, 7), 0.05)):
        norm = np.linalg.norm(out[..., part], axis=-1, keepdims=True)
        out[..., part] *= np.minimum(1, most / np.maximum(norm, 1e-12))
    return out


def fits(problem: Problem, state: dict[int, Trajectory]) -> tuple[np.ndarray, np.ndarray]:
    """IoU (T, N) over pixels that can be judged, and their share (T, N); 0 for deformables."""
    shape = (len(problem.grid), len(problem.task.objects))
    iou, seen = np.zeros(shape), np.zeros(shape)
    every = np.arange(shape[0])
    depths = problem.draw(state, every)
    for i in state:
        iou[:, i], seen[:, i] = visible_iou(
            depths[i], problem.grid, every, i, depths, problem.margins_m
        )
    return iou, seen
