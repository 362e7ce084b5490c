"""Whether something goes around upright things that stand still, seen in the picture.

A relation that a person would name at once, and that neither masks nor clouds show: a torn band
lies nearly where a whole one does. A video and a rollout are asked alike: by a mask of what is seen
of the thing, parts of which upright things may hide, on a grid of the same width. What they hide, or
could hide, is taken to be there.

A loop around a post crosses it in front, goes past it on both sides and is hidden behind it. So seen
from the point of the post's middle line just above the crossing, the loop and the post above that
point enclose it: no way leads out between them. A strand that only passes in front leaves such a way
on both sides, and so does a loop that is torn where it can be seen.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.task import BackgroundSpec, ObjectSpec, Task
from lucibot.vision.draw import fit_camera
from lucibot.vision.grid import resize_mask
from lucibot.vision.standing import middle_line, outline, upright_things

WIDTH = 320
"""Width [px] of the grid on which a picture is asked."""
GAP_PX = 1
"""A mask is grown by this: it has seams at the rim of what stands before it, and particles stand
apart."""
_SQUARE = np.ones((2 * GAP_PX + 1,) * 2, np.uint8)
RISE = 0.8
"""Seen from above, a loop rises on its way around a post, by the sine of the angle of view for each
pixel to the side; the post hides what rises by at least this share of it."""
LEAST_PX = 20
"""Less than this of a thing is not enough to tell what it does."""


def around_pairs(task: Task) -> tuple[tuple[str, str], ...]:
    """(target, thing) of each target that hangs together and each upright thing, in task order."""
    things = upright_things(task)
    loops = [t.name for t in task.targets if t.material.kind not in ("sand", "liquid")]
    return tuple((target, thing) for target in loops for thing in things)


class Posts:
    """Upright things of a task as a camera sees them.

    Args:
        things: their names, of the background or of objects at their initial pose.
    """

    def __init__(self, task: Task, camera: Camera, things: Collection[str]):
        self.camera = fit_camera(camera, WIDTH)
        self._posts = {name: _Post.of(task, task.solid(name), self.camera) for name in things}

    def goes_around(self, mask: np.ndarray, thing: str) -> bool:
        """What is seen of something, `mask` (h, w) on any grid of the camera's view, goes around a
        thing."""
        mask = resize_mask(mask, (self.camera.width, self.camera.height))
        if mask.sum() < LEAST_PX:
            return False
        mask = cv2.dilate(mask.astype(np.uint8), _SQUARE) > 0
        # Behind other things the loop may go on unseen.
        others = [post.outline for name, post in self._posts.items() if name != thing]
        closed = np.any([mask, *others], axis=0)
        post = self._posts[thing]
        return any(_encloses(closed | post.hidden_above(at), at) for at in post.crossings(mask))


@dataclass(frozen=True, kw_only=True)
class _Post:
    """One upright thing in the picture."""

    outline: np.ndarray
    """(H, W) bool."""
    line: np.ndarray
    """(N, 2) int: pixels of its middle line, upwards. It begins at the picture's border, below the
    thing, for the near side of a loop is seen lower than the thing's foot."""
    foot: int
    """From this pixel of the line on it is the thing's own."""
    level: np.ndarray
    """(2,) the direction of what is level across the line of sight."""
    rise: float
    """What of a loop may be hidden rises by at least so much for each pixel to the side."""

    @classmethod
    def of(cls, task: Task, thing: ObjectSpec | BackgroundSpec, camera: Camera) -> _Post:
        middles = middle_line(task, thing)
        middles = middles[np.isfinite(middles).all(1)]
        uv = camera.project(middles)[0]
        sight = middles[0] - camera.T_world_cam[:3, 3]
        level = np.cross(sight, (0.0, 0.0, 1.0))
        if np.linalg.norm(level) < 1e-3 * np.linalg.norm(sight):
            # Seen from straight above it is a point, and hides nothing of a loop.
            return cls(
                outline=np.zeros((camera.height, camera.width), bool), foot=0,
                line=np.floor(uv[:1]).astype(int), level=np.array([1.0, 0.0]), rise=0.0,
            )  # fmt: skip
        down = uv[0] - uv[-1]
        below = uv[0] + down * ((camera.width + camera.height) / np.linalg.norm(down))
        pixels = _pixels(np.concatenate([below[None], uv]))
        inside = ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(1)
        side = camera.project(middles[0] + 0.01 * level / np.linalg.norm(level))[0] - uv[0]
        return cls(
            outline=outline(task, thing, camera), line=pixels[inside],
            foot=int(inside[: len(_pixels(np.stack([below, uv[0]]))) - 1].sum()),
            level=side / np.linalg.norm(side),
            rise=RISE * abs(sight[2]) / np.linalg.norm(sight),
        )  # fmt: skip

    def crossings(self, mask: np.ndarray) -> np.ndarray:
        """(C, 2) the line's pixels where it has just left a mask (H, W) upwards and, before it meets
        it again, runs along the thing."""
        on = mask[self.line[:, 1], self.line[:, 0]]
        if len(on) == 1:
            return self.line[~on]
        left = np.flatnonzero(on[:-1] & ~on[1:]) + 1
        ends = [int(np.argmax(np.append(on[k:], True))) + k for k in left]
        return self.line[[k for k, end in zip(left, ends, strict=True) if end > self.foot]]

    def hidden_above(self, at: np.ndarray) -> np.ndarray:
        """(H, W) bool: what the thing hides of a loop that passes in front of it just below a
        pixel."""
        rows, columns = np.indices(self.outline.shape)
        u, v = columns - at[0], rows - at[1]
        across = np.abs(u * self.level[0] + v * self.level[1])
        along = u * self.level[1] - v * self.level[0]
        return self.outline & (along > 0.5 + self.rise * across)


def _encloses(wall: np.ndarray, at: np.ndarray) -> bool:
    """No way leads from a pixel to the picture's border without crossing `wall` (H, W)."""
    open_ = np.pad(~wall, 1, constant_values=True).astype(np.uint8)
    _, region = cv2.connectedComponents(open_, connectivity=4)
    return region[at[1] + 1, at[0] + 1] != region[0, 0]


def _pixels(points: np.ndarray) -> np.ndarray:
    """(N, 2) int: the pixels of a polyline (P, 2), in order."""
    steps = [
        np.linspace(a, b, max(2, int(np.ceil(2 * np.abs(b - a).max()))))
        for a, b in pairwise(points)
    ]
    every = np.floor(np.concatenate(steps)).astype(int)
    return every[np.append(True, (np.diff(every, axis=0) != 0).any(1))]
