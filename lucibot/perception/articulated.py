"""Values of joints from masks (and depth): the pose optimization on a curve of poses.

"Given a foreground object at timestep t, we optimize for the pose that best aligns with its depth
map and 2D segmentation mask" (paper, section 3.3). On a joint one number is left to find, so all of
its range is drawn once, every frame is compared with every drawing, and the cheapest way through
the table is taken: no start is needed, and no local minimum is in the way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lucibot.core.geometry import pose_np
from lucibot.core.joint import Joint
from lucibot.perception.draw import DrawMesh, draw_depth
from lucibot.perception.grid import visible_iou
from lucibot.perception.problem import Problem
from lucibot.perception.trajectory import Trajectory

STEP_PX = 1.0
"""How far the object's fastest point moves in the picture from one drawn value to the next."""
MOST_VALUES = 240
MOVE_COST = 4e-4
"""Cost (in IoU) of a change by one drawn value: less than a real motion gains, more than noise."""
DEPTH_SHARE = 0.1
"""What a depth that is three standard deviations off costs, in IoU."""


@dataclass(frozen=True, kw_only=True)
class Drawings:
    """The object at S values over its joint's range."""

    values: np.ndarray
    """(S,) [rad or m], increasing."""
    depth_m: np.ndarray
    """(S, H, W) float32, inf where it is not seen: not there, or hidden by the static scene."""


def fit_joints(
    problem: Problem, state: dict[int, Trajectory], drawings: dict[int, Drawings]
) -> dict[int, Trajectory]:
    """`state` with the trajectories of all objects on joints fitted to the masks."""
    out = dict(state)
    for i, drawn in drawings.items():
        mesh, joint = problem.meshes[i], problem.task.objects[i].articulation
        values = cheapest_path(drawn.values, frame_costs(problem, out, i, drawn))
        out[i] = Trajectory.from_poses(pose_np(joint.poses(values)), mesh.anchor_m)
    return out


def draw_joints(problem: Problem) -> dict[int, Drawings]:
    """By index of the object on a joint."""
    return {
        i: _draw_range(problem, problem.meshes[i], o.articulation)
        for i, o in enumerate(problem.task.objects) if o.joint is not None
    }  # fmt: skip


def _draw_range(problem: Problem, mesh: DrawMesh, joint: Joint) -> Drawings:
    camera = problem.grid.camera
    coarse = np.linspace(joint.lower, joint.upper, 65)
    world = np.einsum(
        "sij,vj->svi", joint.poses(coarse)[:, :3, :3], mesh.vertices_m + mesh.anchor_m
    )
    world += joint.poses(coarse)[:, None, :3, 3]
    uv, _ = camera.project(world)
    # Values are spaced evenly in the picture, not on the joint.
    moved = np.linalg.norm(np.diff(uv, axis=0), axis=-1).max(1)
    along = np.concatenate([[0.0], np.cumsum(np.maximum(moved, 1e-6))])
    count = int(np.clip(np.ceil(along[-1] / STEP_PX) + 1, 16, MOST_VALUES))
    values = np.interp(np.linspace(0, along[-1], count), along, coarse)
    # The initial pose is one of them exactly.
    values[np.abs(values).argmin()] = 0.0
    at = Trajectory.from_poses(pose_np(joint.poses(values)), mesh.anchor_m)
    depth = draw_depth(mesh, at.T_world_object, camera)
    problem.hide(depth)
    return Drawings(values=values, depth_m=depth)


def frame_costs(
    problem: Problem, state: dict[int, Trajectory], i: int, drawn: Drawings
) -> np.ndarray:
    """(T, S): how badly each drawing explains each frame's mask and depth; 0 throughout where the
    object is not seen."""
    S, frames = len(drawn.values), np.flatnonzero(problem.usable[:, i])
    cost = np.zeros((len(problem.grid), S))
    y, x = _swept(problem, i, drawn)
    depth = np.ascontiguousarray(drawn.depth_m[:, y, x])
    for t in frames:
        label = np.repeat(problem.grid.label[t : t + 1, y, x], S, 0)
        others = problem.draw(state, np.array([t]))[:, :, y, x]
        others = np.repeat(others, S, 1)
        iou, _ = visible_iou(depth, label, i + 1, others, problem.margins_m)
        cost[t] = 1 - iou
        if problem.depth_m is not None:
            cost[t] += _depth_cost(problem, depth, label[0] == i + 1, problem.depth_m[t, y, x])
    return cost


def _swept(problem: Problem, i: int, drawn: Drawings) -> tuple[slice, slice]:
    """Rows and columns that the object covers at any value or in any frame."""
    ever = np.isfinite(drawn.depth_m).any(0) | problem.grid.masks(i).any(0)
    rows, columns = np.flatnonzero(ever.any(1)), np.flatnonzero(ever.any(0))
    if len(rows) == 0:
        return slice(0, 1), slice(0, 1)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _depth_cost(problem: Problem, depth: np.ndarray, mask: np.ndarray, measured: np.ndarray):
    """(S,) from the mean difference between drawn (S, h, w) and measured (h, w) depth."""
    both = np.isfinite(depth) & (mask & (measured > 0))
    off = np.where(both, np.abs(np.where(both, depth, 0) - measured), 0).sum((1, 2))
    off /= np.maximum(both.sum((1, 2)), 1)
    return DEPTH_SHARE * np.minimum(off / (3 * problem.config.depth_sigma_m), 1)


def cheapest_path(values: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """(T,) values through the table (T, S) of costs, from 0 on, that change no more than it pays;
    read between the table's values by a parabola."""
    T, S = cost.shape
    start = int(np.abs(values).argmin())
    total = np.full(S, np.inf)
    total[start] = 0.0
    back = np.zeros((T, S), int)
    change = MOVE_COST * np.abs(np.subtract.outer(np.arange(S), np.arange(S)))
    for t in range(1, T):
        through = total[:, None] + change
        back[t] = through.argmin(0)
        total = through.min(0) + cost[t]
    path = np.zeros(T, int)
    path[-1] = int(total.argmin())
    for t in range(T - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    out = values[path].astype(float)
    # Frames of one stay are read together: they show the same value.
    for a, b in _stays(path):
        k = path[a]
        if 0 < k < S - 1 and k != start:
            before, here, after = cost[a:b, k - 1 : k + 2].sum(0)
            bend = before - 2 * here + after
            off = 0.5 * (before - after) / bend if bend > 1e-9 else 0.0
            off = float(np.clip(off, -0.5, 0.5))
            out[a:b] += off * (values[k + 1] - values[k] if off > 0 else values[k] - values[k - 1])
    return out


def _stays(path: np.ndarray) -> list[tuple[int, int]]:
    """Half-open intervals of equal values."""
    edges = np.flatnonzero(np.diff(path)) + 1
    bounds = [0, *edges.tolist(), len(path)]
    return list(pairwise(bounds))
