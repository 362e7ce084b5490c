"""6D poses of rigid objects from masks (and depth), over all frames at once (paper, section 3.3).

"Given a foreground object at timestep t, we optimize for the pose that best aligns with its depth
map and 2D segmentation mask." Here every frame's outline is drawn in one batch and compared with
its mask's edge, and one banded system moves all frames together: they are tied by smoothness, by
the known pose at the start, and by gravity where an object is left alone. What remains of a
generated object's drifting size goes into a nuisance size, not into depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from einops import rearrange
from scipy.spatial.transform import Rotation

from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.perception.articulated import draw_joints, fit_joints
from lucibot.perception.landing import fit_rests
from lucibot.perception.problem import (
    Pin,
    PoseConfig,
    Problem,
    add_floor,
    add_pin,
    clamp,
    fits,
    frame_terms,
    joint_round,
    make_problem,
    pinned,
    sizes_between,
)
from lucibot.task import Task
from lucibot.vision.grid import visible_iou
from lucibot.vision.rest import (
    CLEARLY_LEFT,
    beside,
    first_motions,
    picture_points,
    rest_intervals,
    touched_by_hand,
)
from lucibot.vision.spans import drop_short, fill_gaps
from lucibot.vision.trajectory import Trajectory, rotvec_between


@dataclass(frozen=True, kw_only=True)
class Poses:
    """Refined poses of N objects over T frames."""

    poses: np.ndarray
    """(T, N, 6) float32 object pose vectors; NaN for deformables."""
    scale: np.ndarray
    """(T, N) float32 apparent size against the mesh's."""
    confidence: np.ndarray
    """(T, N) float32 in [0, 1]."""
    lost: np.ndarray
    """(T, N) bool."""
    iou: np.ndarray
    """(T, N) float32 of the drawn silhouette with the mask over pixels that can be judged."""
    touched: np.ndarray
    """(T, N) bool: a hand lies on or beside the object."""
    moves_from: np.ndarray
    """(N,) int64: the frame in which the object leaves its first place; T if it never does. Of a
    deformable the frame in which it is first reached."""
    rests: tuple[tuple[tuple[int, int], ...], ...]
    """Half-open intervals, for each object, in which it lies still after having moved."""


def start_state(problem: Problem, tracks: Tracks) -> dict[int, Trajectory]:
    """The tracker's poses; gaps are bridged from the nearest frames that have one."""
    state = {}
    for i, mesh in problem.meshes.items():
        if problem.task.objects[i].joint is not None:
            state[i] = problem.initial[i][np.zeros(len(problem.grid), int)]
            continue
        poses = tracks.poses[:, i].astype(float)
        good = np.isfinite(poses).all(1) & problem.usable[:, i]
        known = problem.initial[i].poses(mesh.anchor_m)[0]
        if good.sum() < 2:
            state[i] = follow(problem, i)
            continue
        poses[0], good[0] = known, True
        index = np.arange(len(poses))
        at = index[good]
        before = at[np.clip(np.searchsorted(at, index, "right") - 1, 0, None)]
        after = at[np.clip(np.searchsorted(at, index, "left"), None, len(at) - 1)]
        share = np.where(after > before, (index - before) / np.maximum(after - before, 1), 0.0)
        position = poses[before, :3] * (1 - share[:, None]) + poses[after, :3] * share[:, None]
        Ra = Rotation.from_rotvec(poses[before, 3:])
        turn = (Rotation.from_rotvec(poses[after, 3:]) * Ra.inv()).as_rotvec()
        R = Rotation.from_rotvec(turn * share[:, None]) * Ra
        filled = np.concatenate([position, R.as_rotvec()], 1)
        state[i] = Trajectory.from_poses(filled, mesh.anchor_m)
    return state


def follow(problem: Problem, i: int, rounds: int = 4, reach_px: float = 10.0) -> Trajectory:
    """Frame after frame from the known first pose: the plain way, and a start where there is none.

    Each frame starts where the two before it point to, and is held there by the same smoothness.
    """
    frames, s = len(problem.grid), problem.smoothness
    resting = problem.draw_at(problem.initial, 1)
    done = [problem.initial[i]]
    for t in range(1, frames):
        guess = done[-1]
        if t > 1:
            step = np.zeros((1, 7))
            step[:, :3] = done[-1].position_m - done[-2].position_m
            step[:, 3:6] = rotvec_between(done[-2].rotation, done[-1].rotation)
            guess = guess.moved(0.7 * clamp(step))
        now = guess
        if problem.usable[t, i]:
            pin = Pin(
                frames=np.array([0]), target=guess,
                sigma=(3 * s.acceleration_m, 3 * s.acceleration_rad, s.scale_step),
            )  # fmt: skip
            for _ in range(rounds):
                depths = resting.exchanged(i, problem.draw_one(i, now))
                H, g, _ = frame_terms(problem, i, now, depths, np.array([t]), reach_px)
                add_pin(H, g, now, pin)
                add_floor(H, g, problem, i, now)
                now = now.moved(clamp(np.linalg.solve(H[0] + 1e-6 * np.eye(7), g[0])[None]))
        done.append(now)
    return Trajectory(
        position_m=np.concatenate([p.position_m for p in done]),
        rotation=np.concatenate([p.rotation for p in done]),
        log_scale=np.concatenate([p.log_scale for p in done]),
    )


def unstick(problem: Problem, state: dict[int, Trajectory], seed: int) -> dict[int, Trajectory]:
    """Where the drawn outline got stuck beside the mask, searches around it by drawing samples.

    All stuck frames and all their samples are drawn in one batch a round (cross-entropy method on
    the IoU). A frame keeps its pose unless a sample is clearly better.
    """
    c, rng = problem.config, np.random.default_rng(seed)
    out = dict(state)
    iou, seen = fits(problem, state)
    for i in problem.meshes:
        if problem.task.objects[i].joint is not None:
            continue
        stuck = np.flatnonzero((iou[:, i] < 0.8) & (seen[:, i] > 0.2) & problem.usable[:, i])
        if len(stuck) == 0:
            continue
        for part in np.array_split(stuck, -(-len(stuck) // 8)):
            index = np.repeat(np.arange(len(part)), c.samples)
            depths = problem.draw(state, part)[:, index]
            centre, sigma = state[i][part], np.array([0.02] * 3 + [0.35] * 3 + [0.0])
            best, value = centre, iou[part, i].copy()
            spread = np.repeat(sigma[None], len(part), 0)
            for _ in range(4):
                noise = rng.normal(size=(len(part), c.samples, 7)) * spread[:, None]
                noise[:, 0] = 0
                tries = centre[index].moved(rearrange(noise, "t s c -> (t s) c"))
                score, _ = visible_iou(
                    problem.draw_one(i, tries), problem.grid, part[index], i, depths,
                    problem.margins_m,
                )  # fmt: skip
                score = rearrange(score, "(t s) -> t s", s=c.samples)
                elite = np.argsort(-score, 1)[:, : max(4, c.samples // 6)]
                chosen = np.take_along_axis(noise, elite[..., None], 1)
                spread = 0.5 * spread + 0.5 * chosen.std(1)
                top = score.argmax(1)
                rows = np.arange(len(part))
                better = score[rows, top] > value + 1e-9
                winner = tries[rows * c.samples + top]
                best = best.with_frames(np.flatnonzero(better), winner[np.flatnonzero(better)])
                value = np.maximum(value, score[rows, top])
                centre = centre.moved(chosen.mean(1))
            gain = np.flatnonzero(value > iou[part, i] + 0.03)
            out[i] = out[i].with_frames(part[gain], best[gain])
    return out


def refine_poses(
    task: Task,
    view: SceneView,
    tracks: Tracks,
    fps: float,
    config: PoseConfig,
    *,
    depth_m: np.ndarray | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Poses:
    """Poses of all rigid objects over all frames of a video at once.

    Args:
        fps: frame rate of the video [1/s]: says how far a hand carries things in a frame.
        depth_m: (T, H, W) measured depth on the pose grid (0 where unmeasured); None when the
            depth of objects is itself derived from their poses.
        seed: of the samples drawn where an outline got stuck.
    """
    problem = make_problem(task, view, tracks, fps, config, depth_m)
    frames, count = len(problem.grid), len(task.objects)
    drawings = draw_joints(problem)
    state = fit_joints(problem, start_state(problem, tracks), drawings)
    touched, together = _touched(problem, tracks)
    every = np.zeros(frames, int)
    tied, _ = fits(problem, {i: t[every] for i, t in problem.initial.items()})
    until = _nothing_happens_until(problem, touched, tied)
    # What moves later is looked at below.
    pins = {i: [_hold(problem, i, max(1, until))] for i in problem.meshes}
    coarse = config.coarse_rounds
    for k in range(coarse):
        progress("fitting outlines", 0.45 * k / coarse)
        reach = 12.0 if k < coarse // 2 else 8.0
        state = joint_round(problem, state, pins, reach)
    progress("searching where outlines got stuck", 0.45)
    state = unstick(problem, state, seed)
    for _ in range(2):
        state = joint_round(problem, state, pins, 8.0)

    rests: dict[int, list[tuple[int, int]]] = {i: [] for i in range(count)}
    progress("looking for what lies still", 0.6)
    worse = fits(problem, state)[0] - tied
    worse[:, [i for i in range(count) if i not in problem.meshes]] = np.nan
    moves_from = first_motions(worse, touched, together, problem.usable)
    for i, mesh in problem.meshes.items():
        points = picture_points(mesh, state[i], problem.grid.camera)
        usable = problem.usable[:, i]
        pins[i] = [_hold(problem, i, max(1, int(moves_from[i])))]
        # What rests on it looks for it here.
        state[i] = pinned(state[i], pins[i])
        shortest = max(3, round(config.rest_s * fps))
        rests[i] = rest_intervals(
            points, moves_from[i], touched[:, i], usable, config.still_px, shortest
        )
    hung = {i for i, o in enumerate(task.objects) if o.joint is not None}
    falling = {i: r for i, r in rests.items() if i not in hung}
    for i, landed in fit_rests(problem, state, falling, touched).items():
        pins[i] += landed
        problem.log_sizes[i] = sizes_between(frames, pins[i])
        state[i] = pinned(state[i], landed)
    fine = config.fine_rounds
    for k in range(fine):
        progress("fitting all frames under constraints", 0.65 + 0.3 * k / fine)
        reach = 8.0 if k < fine // 2 else 5.0
        state = joint_round(problem, state, pins, reach)
    # Pins are knowledge, not evidence: what the solver left of them is put back.
    for i in pins:
        for pin in pins[i]:
            kept = Trajectory(
                position_m=pin.target.position_m, rotation=pin.target.rotation,
                log_scale=state[i].log_scale[pin.frames],
            )  # fmt: skip
            state[i] = state[i].with_frames(pin.frames, kept)
    if len(drawings) < len(problem.meshes):
        # What moves freely, and what it hides, is known better now.
        state = fit_joints(problem, state, drawings)
    progress("checking the fit", 0.97)
    iou, seen = fits(problem, state)
    return _result(problem, state, iou, seen, touched, moves_from, rests)


def _touched(problem: Problem, tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """(T, N) bool, see `touched_by_hand`, and (T, N, N) bool, see `beside`; flickers of less than a
    tenth of a second are mended."""
    count = len(problem.task.objects)
    masks = np.stack([problem.grid.masks(i) for i in range(count)], 1)
    margin = max(1, round(problem.grid.camera.width / 200))
    steady = max(2, round(0.1 * problem.fps))

    def mended(flags: np.ndarray) -> np.ndarray:
        columns = flags.reshape(len(flags), -1).T
        columns = [drop_short(fill_gaps(c, steady), steady) for c in columns]
        return np.stack(columns, 1).reshape(flags.shape)

    touched = touched_by_hand(masks, problem.grid.hand, tracks.lost, margin_px=margin)
    return mended(touched), mended(beside(masks, margin_px=margin))


def _nothing_happens_until(problem: Problem, touched: np.ndarray, tied: np.ndarray) -> int:
    """The frame in which a hand first touches something, or something is first seen to have left
    its place for good (the first poses explain the masks by an IoU of `tied` (T, N)).

    Where neither ever is, 1: only the first frame is known."""
    left = (tied < np.median(tied[:3], axis=0) - CLEARLY_LEFT) & problem.usable
    left = np.stack([drop_short(fill_gaps(c, 2), 3) for c in left.T], 1)
    found = [int(np.argmax(f.any(1))) for f in (touched, left) if f.any()]
    return min(found, default=1)


def _hold(problem: Problem, i: int, frames: int) -> Pin:
    """Object i at its known first pose for the first `frames` frames."""
    index = np.zeros(frames, int)
    return Pin(frames=np.arange(frames), target=problem.initial[i][index])


def follow_poses(task: Task, view: SceneView, tracks: Tracks, fps: float, config: PoseConfig,
                 rounds: int = 4) -> Poses:  # fmt: skip
    """The plain way for comparison: frame after frame, no knowledge of rest or of later frames.

    Args:
        rounds: Gauss-Newton steps a frame.
    """
    problem = make_problem(task, view, tracks, fps, config)
    state = {i: follow(problem, i, rounds) for i in problem.meshes}
    iou, seen = fits(problem, state)
    count = len(task.objects)
    return _result(
        problem, state, iou, seen, np.zeros(problem.usable.shape, bool),
        np.full(count, len(problem.grid)), {i: [] for i in range(count)},
    )  # fmt: skip


def _result(problem, state, iou, seen, touched, moves_from, rests) -> Poses:
    frames, count = problem.usable.shape
    poses = np.full((frames, count, 6), np.nan, np.float32)
    scale = np.ones((frames, count), np.float32)
    for i, mesh in problem.meshes.items():
        poses[:, i] = state[i].poses(mesh.anchor_m)
        scale[:, i] = np.exp(state[i].log_scale)
    rigid = np.array([i in problem.meshes for i in range(count)])
    lost = ~problem.usable | (rigid & (iou < problem.config.lost_below_iou))
    # A good fit of a sliver says little: a fifth of the object must be seen for full confidence.
    confidence = np.where(rigid, np.clip(iou, 0, 1) * np.clip(seen / 0.2, 0, 1), 1.0)
    return Poses(
        poses=poses, scale=scale, confidence=np.where(lost, 0, confidence).astype(np.float32),
        lost=lost, iou=iou.astype(np.float32), touched=touched, moves_from=moves_from,
        rests=tuple(tuple(rests[i]) for i in range(count)),
    )  # fmt: skip
