"""Whether a hand alone has room on the whole of its way.

Asked of thousands of grasps before a joint is solved for: a corner of its hull that is in something stands
for all of it. What is left is looked at exactly, with the arm, by `lucibot.robot.collision`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from lucibot.robot.collision import TOUCH_M, CollisionWorld, matrix_of, pieces_of
from lucibot.robot.holds import Hold
from lucibot.task import ObjectSpec, Task


class HandRoom:
    """Room on the way of one hold.

    Args:
        hold: T stations, and where other things are at each.
        world: of the arm with empty fingers.
        opening_m: all that the gripper has.
    """

    def __init__(self, task: Task, hold: Hold, world: CollisionWorld, opening_m: float):
        self._hold, self._opening_m = hold, opening_m
        # Fingers move on straight lines.
        self._shut, self._opened = world.hand(0.0), world.hand(opening_m)
        self._pieces: list[tuple[str, np.ndarray, np.ndarray]] = []
        """Of each convex piece, whose it is, the planes (F, 4) of its sides and where it is at each station
        (T, 4, 4)."""
        self.met: Counter[str] = Counter()
        """How many hands were in what."""
        for thing in (*task.spec.background, *task.objects):
            if isinstance(thing, ObjectSpec) and (
                not thing.is_rigid or thing.name == hold.actuator
            ):
                continue
            places = [
                matrix_of(poses[thing.name][:3], poses[thing.name][3:])
                if thing.name in poses
                else thing.T_world_object
                for poses in hold.others
            ]
            for piece in pieces_of(task, thing):
                hull = piece.convex_hull
                offsets = -(hull.face_normals * hull.triangles[:, 0]).sum(1)
                planes = np.unique(np.column_stack([hull.face_normals, offsets]).round(9), axis=0)
                self._pieces.append((thing.name, planes, np.linalg.inv(np.stack(places))))
        self._pieces.sort(key=lambda p: len(p[1]))

    def clear(self, frames: np.ndarray, width_m: float) -> np.ndarray:
        """(N,) whether no corner of a hand that has closed is in anything at any station.

        Args:
            frames: (N, 4, 4) of the TCP in the frame of what is held.
            width_m: between the fingers.
        """
        room = np.ones(len(frames), bool)
        corners = self._shut + width_m / self._opening_m * (self._opened - self._shut)
        last = len(self._hold.steps) - 1
        for t in dict.fromkeys((0, last, last // 2, *range(last))):
            left = np.flatnonzero(room)
            if not len(left):
                break
            T = self._hold.frames[t] @ frames[left]
            room[left] = ~self._inside(corners @ T.transpose(0, 2, 1), t)
        return room

    def _inside(self, points: np.ndarray, t: int) -> np.ndarray:
        """(N,) whether any of (N, K, 4) points [m, world] is in anything at a station."""
        found = np.zeros(len(points), bool)
        for name, planes, T_piece_world in self._pieces:
            left = np.flatnonzero(~found)
            depth = points[left] @ (planes @ T_piece_world[t]).T
            found[left] = (depth.max(-1, initial=-np.inf) < -TOUCH_M).any(-1)
            self.met[name] += int(found[left].sum())
        return found
