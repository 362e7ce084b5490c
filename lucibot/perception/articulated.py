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
from lucibot.perception.problem import Problem
from lucibot.vision.draw import Windows
from lucibot.vision.grid import visible_iou
from lucibot.vision.trajectory import Trajectory

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
    depths: Windows
    """(S,), inf where it is not seen: not there, or hidden by the static scene."""


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
        i: _draw_range(problem, i, o.articulation)
        for i, o in enumerate(problem.task.objects) if o.joint is not None
    }  # fmt: skip


def _draw_range(problem: Problem, i: int, joint: Joint) -> Drawings:
    camera, mesh = problem.grid.camera, problem.meshes[i]
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
    return Drawings(values=values, depths=problem.draw_one(i, at))


def frame_costs(
    problem: Problem, state: dict[int, Trajectory], i: int, drawn: Drawings
) -> np.ndarray:
    """(T, S): how badly each drawing explains each frame's mask and depth; 0 throughout where the
    object is not seen."""
    S, frames = len(drawn.values), np.flatnonzero(problem.usable[:, i])
    cost = np.zeros((len(problem.grid), S))
    others = problem.draw(state, frames)
    for k, t in enumerate(frames):
        iou, _ = visible_iou(
            drawn.depths, problem.grid, np.full(S, t), i, others[:, np.full(S, k)],
            problem.margins_m,
        )  # fmt: skip
        cost[t] = 1 - iou
        if problem.depth_m is not None:
            cost[t] += _depth_cost(problem, i, drawn.depths, t)
    return cost


def _depth_cost(problem: Problem, i: int, depths: Windows, t: int) -> np.ndarray:
    """(S,) from the mean difference between drawn and measured depth in frame t."""
    off = np.zeros(len(depths))
    for s in range(len(depths)):
        depth, where = depths.part(s)
        measured = problem.depth_m[t][where]
        both = np.isfinite(depth) & (problem.grid.label[t][where] == i + 1) & (measured > 0)
        if both.any():
            off[s] = np.abs(depth[both] - measured[both]).mean()
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
