"""Tracking of an object on a joint: its poses form a curve, so one number a frame is looked for.

Gains and edges are those of `rigid`; what the background hides (a drawer's back in its chest) is
simply not seen. A curve is searched by a grid of values, first coarsely, then finely.
"""

from __future__ import annotations

import numpy as np

from lucibot.core.joint import Joint
from lucibot.providers.tracker.mesh import Mesh
from lucibot.providers.tracker.rigid import Pose, RigidTrack, halved, halved_edge

_REACH_PX = 12.0
"""How far from the prediction values are tried [work pixels of the fastest point]."""
_COARSE, _FINE = 41, 9
"""Values tried on the coarse grid, and in each of the two refinements."""


class JointTrack(RigidTrack):
    """The state of one object on a joint from frame to frame."""

    def __init__(self, mesh: Mesh, joint: Joint, T_cam_world: np.ndarray, K, far, settings):
        """The first value, 0, is exact; see `RigidTrack`."""
        self.joint, self._T_cam_world, self.value = joint, T_cam_world, 0.0
        first = T_cam_world @ joint.T_world_object
        super().__init__(mesh, first, K, far, settings, np.random.default_rng(0))

    def draw(self, pose: Pose, K=None, size=None):
        part, depth = super().draw(pose, K, size)
        if K is None:
            hidden = 1 / depth < self._far[1]
            part[hidden], depth[hidden] = -1, np.inf
        return part, depth

    def predict(self, flow: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """(3,) what optical flow suggests: the shift in the picture [work px] and the change of
        value, which alone the search uses."""
        ys, xs = np.nonzero(visible & np.isfinite(self.depth))
        if len(xs) < 12:
            return np.zeros(3)
        step = max(len(xs) // 400, 1)
        ys, xs = ys[::step], xs[::step]
        seen = flow[ys, xs]
        fx, fy, cx, cy = self.K
        z = self.depth[ys, xs]
        points = np.stack([(xs + 0.5 - cx) / fx * z, (ys + 0.5 - cy) / fy * z, z], -1)
        J = self._picture_speed(points)
        # The fastest points tell most; the median forgives flow that belongs to the hand.
        size = (J**2).sum(-1)
        fast = size > 0.3 * size.max()
        change = float(np.median((J[fast] * seen[fast]).sum(-1) / size[fast]))
        return np.array([*np.median(J * change, axis=0), change])

    def search(self, gain, edge, guess, others=()) -> tuple[Pose, float]:
        """See `RigidTrack.search`; `others` say nothing about a joint."""
        low, high = self.joint.lower, self.joint.upper
        unit = 1.0 / self._fastest_px()
        centre = float(np.clip(self.value + guess[2], low, high))
        reach = unit * (_REACH_PX * (1 + min(self.lost_for, 6)) + 0.5 * abs(guess[2]) / unit)
        grids = {1: (gain, edge), 2: (halved(gain), halved_edge(edge))}
        tries = np.append(np.linspace(centre - reach, centre + reach, _COARSE), self.value)
        spacing = 2 * reach / (_COARSE - 1)
        best, score = centre, -np.inf
        for stride, count in ((2, None), (1, _FINE), (1, _FINE)):
            if count is not None:
                tries = best + spacing * np.linspace(-1.5, 1.5, count)
                spacing *= 3.0 / (count - 1)
            tries = np.clip(tries, low, high)
            values = self._values(tries, centre, reach, grids[stride], stride)
            best, score = float(tries[values.argmax()]), float(values.max())
        self._found = best
        return self._pose(best), score

    def hold_value(self, gain, edge) -> float:
        return float(
            self._values(np.array([self.value]), self.value, 1.0, (gain, edge), 1)[0]
        )  # fmt: skip

    def accept(self, pose: Pose | None) -> None:
        if pose is not None:
            moved_px = abs(self._found - self.value) * self._fastest_px()
            self.value, self.pose = self._found, pose
        self.still = self.still + 1 if pose is None or moved_px < 0.15 else 0
        self.resting = self.still >= 5
        self.part, self.depth = self.draw(self.pose)

    def _values(self, tries: np.ndarray, centre: float, reach: float, grid, stride) -> np.ndarray:
        """(S,) scores of joint values (S,), pulled towards `centre`."""
        A, t = self._affine(self._placed(tries))
        area, rim = self.mesh.score(A, t, self.K / stride, *grid, self._far[stride], far_hides=True)
        pull = 0.5 * ((tries - centre) / reach) ** 2
        return area * stride**2 + rim * stride - self.settings.prior_weight * pull

    def _placed(self, values: np.ndarray):
        """Rotations (S, 3, 3), centres (S, 3) [m, camera] and size ratios (S,)."""
        T = self._T_cam_world @ self.joint.poses(values)
        R = T[..., :3, :3]
        return R, R @ self.middle + T[..., :3, 3], np.ones(len(values))

    def _pose(self, value: float) -> Pose:
        R, centre, _ = self._placed(np.array([value]))
        return Pose(R[0], centre[0])

    def _picture_speed(self, points: np.ndarray) -> np.ndarray:
        """(n, 2) work pixels that points (n, 3) [m, camera] move for each unit of the value."""
        R, t = self._T_cam_world[:3, :3], self._T_cam_world[:3, 3]
        axis = R @ self.joint.world_axis
        if self.joint.is_hinge:
            v = np.cross(axis, points - (R @ self.joint.world_origin_m + t))
        else:
            v = np.broadcast_to(axis, points.shape)
        fx, fy = self.K[:2]
        x, y, z = points.T
        return np.stack([fx * (v[:, 0] - x / z * v[:, 2]) / z,
                         fy * (v[:, 1] - y / z * v[:, 2]) / z], -1)  # fmt: skip

    def _fastest_px(self) -> float:
        """Work pixels that the mesh's fastest point moves for each unit of the value."""
        points = self.mesh.verts[:: max(1, len(self.mesh.verts) // 300)] - self.middle
        points = points @ self.pose.R.T + self.pose.centre
        return float(np.linalg.norm(self._picture_speed(points), axis=1).max())
