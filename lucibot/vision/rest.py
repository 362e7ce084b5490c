"""When objects are touched, when they move, and when they lie still, seen in the picture.

Motion is measured in pixels of the working grid, not in metres: a resting cup whose estimate slides
along the viewing ray does not move in the picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.vision.draw import DrawMesh
from lucibot.vision.spans import drop_short, fill_gaps, runs
from lucibot.vision.trajectory import Trajectory


def touched_by_hand(
    masks: np.ndarray, hand: np.ndarray, lost: np.ndarray, *, margin_px: int
) -> np.ndarray:
    """(T, N) bool: the hand layer lies on or beside an object's visible mask.

    Args:
        masks: (T, N, H, W) bool.
        hand: (T, H, W) bool.
        lost: (T, N) bool; a lost object keeps the answer of the last frame it was seen in.
    """
    frames, count = masks.shape[:2]
    out = np.zeros((frames, count), bool)
    size = 2 * margin_px + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    for t in range(frames):
        if not hand[t].any():
            continue
        near = cv2.dilate(hand[t].astype(np.uint8), kernel) > 0
        # A handful of pixels may be noise on the outline; a touch is as long as the margin is wide.
        out[t] = (masks[t] & near).sum((1, 2)) >= 3 * margin_px
    for t in range(1, frames):
        out[t] = np.where(lost[t], out[t - 1] & hand[t].any(), out[t])
    return out


def picture_points(mesh: DrawMesh, trajectory: Trajectory, camera: Camera) -> np.ndarray:
    """(T, P, 2) pixel positions of some well-spread points of the object."""
    low, high = mesh.vertices_m.min(0), mesh.vertices_m.max(0)
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1).T
    T = trajectory.T_world_object
    world = np.einsum("tij,pj->tpi", T[:, :3, :3], corners) + T[:, None, :3, 3]
    return camera.project(world)[0]


def apart_px(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """(T,) how far (T, P, 2) points have moved against (P, 2), in pixels: the common shift.

    A symmetric object's spin about its axis moves corners but nothing that is seen, so the mean
    over the corners is compared, not each of them.
    """
    return np.linalg.norm((points - reference).mean(1), axis=-1)


def beside(masks: np.ndarray, *, margin_px: int) -> np.ndarray:
    """(T, N, N) bool: two objects' visible masks lie side by side, by the measure of
    `touched_by_hand`.

    Args:
        masks: (T, N, H, W) bool.
    """
    frames, count = masks.shape[:2]
    out = np.zeros((frames, count, count), bool)
    size = 2 * margin_px + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    for t in range(frames):
        for i in range(count):
            if masks[t, i].any():
                near = cv2.dilate(masks[t, i].astype(np.uint8), kernel) > 0
                out[t, i] = (masks[t] & near).sum((1, 2)) >= 3 * margin_px
    return out & ~np.eye(count, dtype=bool)


def first_motions(
    worse: np.ndarray, touched: np.ndarray, beside: np.ndarray, usable: np.ndarray
) -> np.ndarray:
    """(N,) int64, see `first_motion`, of objects that a hand moves or that move one another.

    An object is reached when a hand touches it, or when something that has left its place comes
    beside it: a tool pushes a block, which pushes another one. Of what has no pose (NaN in `worse`)
    nothing tells whether it has moved; it is taken to have, once it is reached.

    Args:
        worse, touched, usable: (T, N), see `first_motion`.
        beside: (T, N, N), see `beside`.
    """
    frames, count = touched.shape
    posed = np.isfinite(worse).all(0)
    out, reached = np.full(count, frames), touched
    for _ in range(count + 1):
        for i in range(count):
            if posed[i]:
                out[i] = first_motion(worse[:, i], reached[:, i], usable[:, i])
            else:
                out[i] = int(np.argmax(reached[:, i])) if reached[:, i].any() else frames
        moved = np.arange(frames)[:, None] >= out
        more = touched | (beside & moved[:, None]).any(2)
        if (more == reached).all():
            break
        reached = more
    return out


LEFT = 0.03
"""The first pose explains the masks worse by this (IoU): what has been reached has left its place."""
CLEARLY_LEFT = 0.2
"""The same of what nothing is seen to have reached: a hand may have been overlooked."""


def first_motion(worse: np.ndarray, reached: np.ndarray, usable: np.ndarray) -> int:
    """The first frame from which the object has left its first place; T if it never does.

    Args:
        worse: (T,) how much worse the first pose explains the masks than the free estimate (IoU).
            A free estimate may wander when a hand hides the object; the masks then still agree
            with the first pose.
        reached: (T,) bool; before it is reached, if it ever is, only what is clear counts.
        usable: (T,) bool, frames in which the object is seen.
    """
    begin = int(np.argmax(reached)) if reached.any() else 0
    early = np.arange(len(worse)) < begin
    found = runs(drop_short(fill_gaps((worse > CLEARLY_LEFT) & usable, 2), 3))
    if found and early[found[0][0]]:
        begin = 0
    else:
        found = runs(drop_short(fill_gaps((worse > LEFT) & usable & ~early, 2), 3))
    if not found:
        return len(worse)
    # The threshold is crossed after the motion began: back to where the two were as good.
    start = found[0][0]
    while start > max(begin, 1) and worse[start - 1] > 0.3 * LEFT:
        start -= 1
    return start


def rest_intervals(
    points: np.ndarray, moved_from: int, touched: np.ndarray, usable: np.ndarray, px: float,
    shortest: int,
) -> list[tuple[int, int]]:  # fmt: skip
    """Half-open intervals after `moved_from` in which the object lies still, let go by the hand."""
    frames = len(points)
    still = np.zeros(frames, bool)
    a = moved_from
    while a < frames:
        b = a + 1
        while b < frames and apart_px(points[b : b + 1], points[a:b].mean(0))[0] < px:
            b += 1
        if b - a >= shortest:
            still[a:b] = True
        a = b
    out = []
    for a, b in runs(still):
        # With a hand on it, it may be held in the air or tilted: only what is let go counts.
        free = [r for r in runs(~touched[a:b] & usable[a:b]) if r[1] - r[0] >= shortest]
        if free:
            out.append((a + free[0][0], a + free[-1][1]))
    return out
