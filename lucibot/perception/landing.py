"""Where an object that was let go has come to rest, and on what.

The picture fixes the object across the viewing ray, gravity along it. Every support that could
carry it is tried: the static scene, and each other object near it in the picture. Each try fits one
pose to several frames of the rest at once, under the condition that it has landed there; the one
that explains the masks best, with the least change of size, is taken.
"""

from __future__ import annotations

import itertools

import numpy as np

from lucibot.core.camera import PLUMB
from lucibot.core.heights import height_map
from lucibot.perception.problem import Pin, Problem, add_pin, clamp, frame_terms
from lucibot.vision.draw import DrawMesh
from lucibot.vision.grid import visible_iou
from lucibot.vision.support import (
    CELL_M,
    landing_height,
    settle,
    stand_upright,
    standing_directions,
    world_vertices,
)
from lucibot.vision.trajectory import Trajectory, rotvec_between

UPRIGHT_WITHIN_DEG = 25.0
"""An estimate that stands this nearly is taken to stand."""
EXTEND_S = 0.5
"""How long before the hand lets go an object may already stand."""
SLIDE_M = 0.025
"""The farthest that an object slides to the middle of what it is put in."""

OVERLAP_M = 0.005
"""Overlap with another object that an estimate is forgiven."""


def fit_rests(
    problem: Problem,
    state: dict[int, Trajectory],
    rests: dict[int, list[tuple[int, int]]],
    touched: np.ndarray,
) -> dict[int, list[Pin]]:
    """Pins for every rest of every object.

    Whoever carries another must lie there before it: objects that rest at the same time are placed
    in every order, each on the static scene or on one placed before it (or never moved), and the
    order that explains the picture best wins.

    Args:
        rests: half-open intervals of rest after motion, by object index.
        touched: (T, N) bool, see `lucibot.vision.rest`.
    """
    pins: dict[int, list[Pin]] = {i: [] for i in problem.meshes}
    for group in _simultaneous(rests):
        moving = {i for i, _ in group}
        still = [j for j in problem.meshes if j not in moving]
        best_cost, best = np.inf, None
        for order in itertools.permutations(group) if len(group) <= 3 else [tuple(group)]:
            now, total, placed, chosen = dict(state), 0.0, list(still), {}
            for i, interval in order:
                cost, pin = _fit_rest(problem, now, i, interval, touched[:, i], placed)
                total += cost
                chosen[i] = pin
                now[i] = now[i].with_frames(pin.frames, pin.target)
                placed.append(i)
            if total < best_cost:
                best_cost, best = total, chosen
        for i, pin in best.items():
            kept = _as_far_as_it_fits(problem, state, i, pin)
            if kept is not None:
                pins[i].append(kept)
    return pins


def _as_far_as_it_fits(problem: Problem, state: dict[int, Trajectory], i: int, pin: Pin,
                       worse: float = 0.03, hopeless: float = 0.15) -> Pin | None:  # fmt: skip
    """The pin, begun earlier (while a hand is still there) as long as it explains the masks nearly
    as well as the free estimate; None where it never does: then the object leans in a way that is
    not known here, and the free estimate is better."""
    a, b = int(pin.frames[0]), int(pin.frames[-1]) + 1
    earliest = max(0, a - round(EXTEND_S * problem.fps))
    frames = np.arange(earliest, b)
    free = problem.draw(state, frames)
    resting = problem.draw_one(i, pin.target[:1])[np.zeros(len(frames), int)]
    loose, _ = visible_iou(free[i], problem.grid, frames, i, free, problem.margins_m)
    tied, _ = visible_iou(resting, problem.grid, frames, i, free, problem.margins_m)
    seen = problem.usable[frames, i]
    core = seen & (frames >= a)
    if core.any() and np.median((loose - tied)[core]) > hopeless:
        return None
    start = a
    while start > earliest and (loose - tied)[start - 1 - earliest] < worse:
        start -= 1
    return Pin(frames=np.arange(start, b), target=pin.target[np.zeros(b - start, int)])


def _simultaneous(rests: dict[int, list[tuple[int, int]]]) -> list[list]:
    """Rests (object, interval) grouped so that those of a group overlap in time; an object occurs
    once in a group."""
    everything = sorted(((i, r) for i, rs in rests.items() for r in rs), key=lambda x: x[1][0])
    groups: list[list] = []
    for i, (a, b) in everything:
        for group in groups:
            if all(k != i and a < d and c < b for k, (c, d) in group):
                group.append((i, (a, b)))
                break
        else:
            groups.append([(i, (a, b))])
    return groups


def _fit_rest(problem: Problem, state: dict[int, Trajectory], i: int, interval: tuple[int, int],
              touched: np.ndarray, placed: list[int], frames: int = 5):  # fmt: skip
    """Cost, and a pin of object i over `interval`, on the static scene or on one of `placed`."""
    a, b = interval
    every = np.arange(a, b)
    chosen = every[~touched[a:b] & problem.usable[a:b, i]]
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(frames, len(chosen))).round().astype(int)]
    middle = _median(state[i][chosen])
    # Things are often put back as they lay: that start is free of whatever the track went through,
    # such as a knife that was lost in a hand and found again the wrong way round.
    starts = [middle, problem.initial[i]]
    tries = [_fit(problem, state, i, chosen, start, None, placed) for start in starts]
    for j in placed:
        if _near(problem, i, j, chosen):
            tries.append(_fit(problem, state, i, chosen, middle, j, placed))
    cost, pose = min(tries, key=lambda t: t[0])
    return cost, Pin(frames=every, target=pose[np.zeros(b - a, int)])


def _fit(problem: Problem, state: dict[int, Trajectory], i: int, frames: np.ndarray,
         start: Trajectory, support: int | None, placed: list[int], rounds: int = 14):  # fmt: skip
    """Cost and (1,) pose of object i resting on object `support`, or on the static scene, clear of
    all that is `placed`."""
    mesh, now = problem.meshes[i], start
    directions = standing_directions(mesh, problem.initial[i].rotation[0])
    other_state = {j: t[frames] for j, t in state.items()}
    same = np.zeros(len(frames), int)
    others = problem.draw_at(other_state, len(frames))
    if support is not None:
        under_it = _median(other_state[support])
        now = _slide_to(problem, now, under_it.position_m[0, :2])
        top = _top(problem.meshes[support], under_it)
    cost = np.inf
    for k in range(rounds):
        depths = others.exchanged(i, problem.draw_one(i, now)[same])
        reach = 14.0 if k < rounds // 2 else 6.0
        H, g, each = frame_terms(problem, i, now[same], depths, frames, reach)
        size_cost = (now.log_scale[0] / problem.config.scale_sigma) ** 2
        cost = float(each.mean()) * problem.config.mask_weight + size_cost
        H, g = H.mean(0, keepdims=True), g.mean(0, keepdims=True)
        H[0, 6, 6] += 1 / problem.config.scale_sigma**2
        g[0, 6] -= now.log_scale[0] / problem.config.scale_sigma**2
        target, sigma = _landed(problem, mesh, now, directions, None if support is None else top)
        add_pin(H, g, now, Pin(frames=np.array([0]), target=target, sigma=(1, sigma[1], 1e3)))
        d = np.arange(3)
        w = 1 / np.square(sigma[0])
        H[0, d, d] += w
        g[0, :3] += w * (target.position_m - now.position_m)[0]
        now = now.moved(clamp(np.linalg.solve(H[0] + 1e-9 * np.eye(7), g[0])[None]))
    final, _ = _landed(problem, mesh, now, directions, None if support is None else top)
    return cost + _overlap(problem, mesh, final, {j: other_state[j] for j in placed}), final


def _landed(problem: Problem, mesh: DrawMesh, now: Trajectory, directions: np.ndarray, top):
    """Where the object would come to rest from `now`, and how strictly each part is meant.

    Landing is a matter of the mesh at its own size: the apparent size is the video's whim.
    """
    R = stand_upright(now.rotation[0], directions, within_deg=UPRIGHT_WITHIN_DEG)
    turned = now.rotation if R is None else R[None]
    plain = Trajectory(position_m=now.position_m, rotation=turned, log_scale=np.zeros(1))
    vertices = world_vertices(mesh, plain)
    position = now.position_m.copy()
    if top is None:
        raise_m = float((problem.tops.at(vertices[:, :2]) - vertices[:, 2]).max())
        if not np.isfinite(raise_m):
            raise_m = 0.0
        position[0, 2] += raise_m
        sigma_position = np.array([1.0, 1.0, 2e-4])
    else:
        under = height_map(vertices, mesh.faces, CELL_M, top=False)
        shift, raise_m = settle(under, top, reach_m=SLIDE_M)
        if not np.isfinite(raise_m):
            raise_m = 0.0
        position[0, :2] += shift
        position[0, 2] += raise_m
        # It never hangs lower than the static scene allows.
        lifted = vertices + np.append(shift, raise_m)
        floor = float((problem.tops.at(lifted[:, :2]) - lifted[:, 2]).max())
        position[0, 2] += max(0.0, floor)
        slid = np.linalg.norm(shift) > 2 * CELL_M
        sigma_position = np.array([1e-3, 1e-3, 3e-4]) if slid else np.array([1e-2, 1e-2, 3e-4])
    target = Trajectory(position_m=position, rotation=turned, log_scale=now.log_scale)
    return target, (sigma_position, 0.01 if R is not None else 1e3)


def _overlap(problem: Problem, mesh: DrawMesh, pose: Trajectory, others: dict) -> float:
    """Cost of standing inside another object: how far it would have to be raised to clear it."""
    vertices = world_vertices(mesh, pose)
    under = height_map(vertices, mesh.faces, CELL_M, top=False)
    cost = 0.0
    for j, trajectory in others.items():
        clear = landing_height(under, _top(problem.meshes[j], _median(trajectory)))
        cost += (max(0.0, clear - OVERLAP_M) / OVERLAP_M) ** 2
    return cost


def _top(mesh: DrawMesh, pose: Trajectory):
    plain = Trajectory(position_m=pose.position_m, rotation=pose.rotation, log_scale=np.zeros(1))
    return height_map(world_vertices(mesh, plain), mesh.faces, CELL_M, top=True)


def _slide_to(problem: Problem, pose: Trajectory, xy: np.ndarray) -> Trajectory:
    """Moved along the viewing ray to where it passes nearest to the vertical through `xy`; seen from
    above it stays, for it passes all verticals alike."""
    eye = problem.grid.camera.T_world_cam[:3, 3]
    ray = pose.position_m[0] - eye
    if np.linalg.norm(ray[:2]) < PLUMB * np.linalg.norm(ray):
        return pose
    along = float(np.dot(xy - eye[:2], ray[:2]) / np.dot(ray[:2], ray[:2]))
    return Trajectory(
        position_m=(eye + ray * along)[None], rotation=pose.rotation, log_scale=pose.log_scale
    )


def _median(pose: Trajectory) -> Trajectory:
    """(1,) the frame whose pose is nearest to all others."""
    spread = np.linalg.norm(pose.position_m - np.median(pose.position_m, 0), axis=1)
    turn = np.linalg.norm(rotvec_between(pose.rotation, pose.rotation[[len(pose) // 2]]), axis=1)
    return pose[[int(np.argmin(spread + 0.05 * turn))]]


def _near(problem: Problem, i: int, j: int, frames: np.ndarray) -> bool:
    """Whether two objects touch or overlap in the picture in most of the frames."""
    close = 0
    for t in frames:
        boxes = []
        for k in (i, j):
            rows = np.flatnonzero((problem.grid.label[t] == k + 1).any(1))
            cols = np.flatnonzero((problem.grid.label[t] == k + 1).any(0))
            if len(rows) == 0:
                break
            boxes.append((cols[0], rows[0], cols[-1], rows[-1]))
        if len(boxes) == 2:
            (a0, b0, a1, b1), (c0, d0, c1, d1) = boxes
            close += a0 <= c1 + 4 and c0 <= a1 + 4 and b0 <= d1 + 4 and d0 <= b1 + 4
    return 2 * close > len(frames)
