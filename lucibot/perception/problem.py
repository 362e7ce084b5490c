"""The pose problem: what every round of the estimation draws, compares and adds up."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from lucibot.core.geometry import pose_np
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.perception.config import PoseConfig
from lucibot.perception.contour import KNOWN_MARGIN_M, MOVING_MARGIN_M, edge_offsets, outlines
from lucibot.perception.draw import DrawMesh, draw_depth
from lucibot.perception.grid import Grid, visible_iou
from lucibot.perception.support import HeightMap, static_tops
from lucibot.perception.trajectory import (
    Smoothness,
    Trajectory,
    normal_equations,
    rotvec_between,
    solve,
)
from lucibot.task import Task

CHUNK = 48
"""Frames drawn at once: bounds memory, large enough to keep the cores busy."""
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
    carried: dict[int, np.ndarray] = field(default_factory=dict)
    """Deformables' first depth, carried to the pixels around them."""

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

    def draw(self, state: dict[int, Trajectory], frames: np.ndarray) -> np.ndarray:
        """Depth (N, B, H, W) of every object, each drawn alone, at some frames."""
        return self.draw_at({i: t[frames] for i, t in state.items()}, self.grid.label[frames])

    def draw_at(self, state: dict[int, Trajectory], label: np.ndarray) -> np.ndarray:
        """Depth (N, B, H, W) of every object at the B poses of `state`; a deformable's is carried
        over from the first moment."""
        out = np.empty((len(self.task.objects), *label.shape), np.float32)
        for i in range(len(out)):
            if i in self.meshes:
                draw_depth(self.meshes[i], state[i].T_world_object, self.grid.camera, out[i])
                if self.task.objects[i].joint is not None:
                    self.hide(out[i])
            else:
                out[i] = self.carried[i]
        return out

    def hide(self, depth: np.ndarray) -> None:
        """Leaves out of (B, H, W) drawn depth what the static scene hides. Only what hangs on a
        joint is known so well against the scene that this can be said."""
        depth[depth > self.background_m + BEHIND_M] = np.inf


def make_problem(task: Task, view: SceneView, tracks: Tracks, fps: float, config: PoseConfig,
                 depth_m: np.ndarray | None = None) -> Problem:  # fmt: skip
    grid = Grid.from_tracks(view, tracks, config.width)
    meshes, initial, carried = {}, {}, {}
    for i, o in enumerate(task.objects):
        if not o.is_rigid:
            carried[i] = grid.carried_depth(i)
            continue
        meshes[i] = DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
        initial[i] = Trajectory.from_poses(pose_np(o.T_world_object)[None], meshes[i].anchor_m)
    size = (grid.camera.width, grid.camera.height)
    background = cv2.resize(view.background_depth_m, size, interpolation=cv2.INTER_NEAREST)
    area = np.stack([grid.masks(i).sum((1, 2)) for i in range(len(task.objects))], 1)
    return Problem(
        task=task, grid=grid, config=config, fps=fps, meshes=meshes, initial=initial,
        usable=~tracks.lost & (area >= 12), tops=static_tops(task), depth_m=depth_m,
        carried=carried, background_m=background,
    )  # fmt: skip


def frame_terms(problem: Problem, i: int, trajectory: Trajectory, depths: np.ndarray,
                label: np.ndarray, reach_px: float,
                measured: np.ndarray | None = None):  # fmt: skip
    """Normal equations (B, 7, 7), (B, 7) and outline costs (B,) of object i in some frames."""
    c, camera = problem.config, problem.grid.camera
    depth = depths[i]
    points, normals, z, weight = outlines(depth, c.outline_points)
    offset, weight = edge_offsets(
        points,
        normals,
        z,
        weight,
        np.isfinite(depth),
        label,
        i + 1,
        depths,
        problem.margins_m,
        reach_px,
    )
    H, g, cost = normal_equations(
        trajectory, camera, points, normals, z, offset, weight * c.mask_weight, c.mask_sigma_px
    )
    if measured is not None:
        ahead = camera.T_world_cam[:3, 2]
        for b in range(len(depth)):
            both = np.isfinite(depth[b]) & (label[b] == i + 1) & (measured[b] > 0)
            if both.sum() >= 12:
                off = float(np.median(measured[b][both] - depth[b][both]))
                w = 1 / (c.depth_sigma_m**2 * (1 + (off / c.depth_sigma_m) ** 2))
                H[b, :3, :3] += w * np.outer(ahead, ahead)
                g[b, :3] += w * off * ahead
    return H, g, cost


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
    vertices = vertices[:: max(1, len(vertices) // 400)]
    T = trajectory.T_world_object
    arm = vertices @ np.swapaxes(T[:, :3, :3], 1, 2)
    world = arm + T[:, None, :3, 3]
    gap = world[..., 2] - problem.tops.at(world[..., :2])
    lowest = gap.argmin(1)
    rows = np.arange(len(gap))
    depth = -gap[rows, lowest]
    below = depth > 0
    J = np.zeros((len(gap), 7))
    J[:, 2] = 1
    r = arm[rows, lowest]
    J[:, 3], J[:, 4], J[:, 6] = r[:, 1], -r[:, 0], r[:, 2]
    w = below / sigma_m**2
    H += w[:, None, None] * J[:, :, None] * J[:, None, :]
    # At most a centimetre a round, so that a wrong start is not thrown across the scene.
    g += (w * np.minimum(depth, 0.01))[:, None] * J


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
    for part in chunks(np.flatnonzero(seen)):
        label, depths = problem.grid.label[part], problem.draw(state, part)
        for i in loose:
            at = np.flatnonzero(free[i][part])
            if len(at) == 0:
                continue
            rows = part[at]
            # Most often all of them: then nothing is copied.
            whole = len(at) == len(part)
            measured = None if problem.depth_m is None else problem.depth_m[rows]
            H[i][rows], g[i][rows], _ = frame_terms(
                problem,
                i,
                state[i][rows],
                depths if whole else depths[:, at],
                label if whole else label[at],
                reach_px,
                measured,
            )
    out = dict(state)
    for i in loose:
        trajectory = state[i]
        for pin in pins.get(i, []):
            add_pin(H[i], g[i], trajectory, pin)
        add_floor(H[i], g[i], problem, i, trajectory)
        step = solve(trajectory, H[i], g[i], problem.smoothness)
        out[i] = trajectory.moved(clamp(step))
    return out


def chunks(frames: np.ndarray) -> list[np.ndarray]:
    """Frame indices in batches of at most CHUNK."""
    return [frames[a : a + CHUNK] for a in range(0, len(frames), CHUNK)]


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
    for part in chunks(np.arange(shape[0])):
        label, depths = problem.grid.label[part], problem.draw(state, part)
        for i in state:
            iou[part, i], seen[part, i] = visible_iou(
                depths[i], label, i + 1, depths, problem.margins_m
            )
    return iou, seen
