"""Region-based tracking of one rigid object whose mesh and first pose are known.

The pose that is looked for is the one whose drawn parts (say, a cup's outside and its inside) fall
on pixels of their colours and leave none of them uncovered. It is found by the cross-entropy method
around a prediction from optical flow: the gain is not smooth and has many flat directions, which a
handful of samples handles better than a gradient does.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lucibot.providers.tracker.mesh import Mesh

_REACH = (1.0, 1.0, 1.0, 2.0, 4.0)
_N = 7  # Degrees of freedom of a change of pose, see `_moved`.


def rotation(rotvec: np.ndarray) -> np.ndarray:
    """(S, 3) rotation vectors [rad] to (S, 3, 3) matrices (Rodrigues)."""
    angle = np.linalg.norm(rotvec, axis=-1)[:, None, None]
    axis = rotvec / np.maximum(angle[..., 0], 1e-12)
    x, y, z = axis.T
    o = np.zeros_like(x)
    K = np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], 1)
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * (K @ K)


@dataclass(frozen=True)
class Pose:
    """Object to camera: rotation (3, 3), centre of the mesh (3,) [m, camera], and size ratio."""

    R: np.ndarray
    centre: np.ndarray
    scale: float = 1.0


class RigidTrack:
    """The state of one rigid object from frame to frame."""

    def __init__(self, mesh: Mesh, T_cam_object: np.ndarray, K: np.ndarray, far, settings, rng):
        """`K` (4,) and `far` (H, W), the background's inverse depth [1/m], belong to the work grid;
        the first pose is exact."""
        self.mesh, self.K, self.settings, self._rng = mesh, K, settings, rng
        self.size, self._far = far.shape, {1: far, 2: far[::2, ::2]}
        lo, hi = mesh.verts.min(0), mesh.verts.max(0)
        self.middle = (lo + hi) / 2.0
        R = T_cam_object[:3, :3]
        self.pose = Pose(R, R @ self.middle + T_cam_object[:3, 3])
        # Rotations are searched about the principal axes, wider where they move the outline less:
        # a knife's roll hardly shows, its pitch does at once.
        centred = mesh.verts - mesh.verts.mean(0)
        self._axes = np.linalg.svd(centred, full_matrices=False)[2].T
        along = (centred @ self._axes) ** 2
        radius = np.sqrt(along.sum(1).mean() - along.mean(0))
        self._spread_rad = settings.spread_rad * np.minimum(radius.max() / radius, 5.0)
        self.velocity = np.zeros(_N)
        self.resting = True
        self.still = 0
        self.lost_for = 0
        self.part, self.depth = self.draw(self.pose)

    # -- geometry -------------------------------------------------------------------------------

    def _affine(self, poses: list[Pose] | tuple[np.ndarray, np.ndarray, np.ndarray]):
        R, centre, scale = poses
        A = R * scale[:, None, None]
        return A, centre - A @ self.middle

    def draw(self, pose: Pose, K=None, size=None):
        """(H, W) part and depth [m] of a pose on the work grid, or on another one."""
        A, t = self._affine((pose.R[None], pose.centre[None], np.array([pose.scale])))
        return self.mesh.draw(A[0], t[0], self.K if K is None else K, *(size or self.size))

    def T_cam_object(self) -> np.ndarray:
        """(4, 4) of the present pose about the mesh's centre; the size ratio is left out."""
        T = np.eye(4)
        T[:3, :3] = self.pose.R
        T[:3, 3] = self.pose.centre - self.pose.R @ self.middle
        return T

    def _moved(self, base: Pose, d: np.ndarray):
        """Poses after changes `d` (S, 7): shift [px], log depth, rotation [rad] about the centre
        and the mesh's principal axes, log size."""
        fx, fy, cx, cy = self.K
        x, y, z = base.centre
        u, v = fx * x / z + cx + d[:, 0], fy * y / z + cy + d[:, 1]
        zs = z * np.exp(d[:, 2])
        centre = np.stack([(u - cx) / fx * zs, (v - cy) / fy * zs, zs], -1)
        return base.R @ rotation(d[:, 3:6] @ self._axes.T), centre, base.scale * np.exp(d[:, 6])

    def _one(self, base: Pose, d: np.ndarray) -> Pose:
        R, c, s = self._moved(base, d[None])
        # Products of many rotations drift away from orthogonality.
        U, _, Vt = np.linalg.svd(R[0])
        return Pose(U @ Vt, c[0], float(s[0]))

    # -- search ---------------------------------------------------------------------------------

    def predict(self, flow: np.ndarray, visible: np.ndarray) -> np.ndarray:
        """The (7,) change that optical flow suggests: shift, in-plane turn and approach.

        Args:
            flow: (H, W, 2) from the last frame to this one [work pixels].
            visible: (H, W) bool, the object's pixels in the last frame.
        """
        d = np.zeros(_N)
        ys, xs = np.nonzero(visible)
        if len(xs) < 12:
            return 0.5 * self.velocity
        step = max(len(xs) // 250, 1)
        src = np.stack([xs, ys], -1)[::step].astype(np.float32)
        vec = flow[ys[::step], xs[::step]]
        d[:2] = np.median(vec, axis=0)
        if len(src) >= 20 and np.abs(d[:2]).max() > 0.3:
            M, inside = cv2.estimateAffinePartial2D(
                src, src + vec, method=cv2.RANSAC, ransacReprojThreshold=1.0, maxIters=200
            )
            if M is not None and inside.mean() > 0.5:
                fx, fy, cx, cy = self.K
                c = np.array([fx * self.pose.centre[0] / self.pose.centre[2] + cx - 0.5,
                              fy * self.pose.centre[1] / self.pose.centre[2] + cy - 0.5])  # fmt: skip
                d[:2] = M[:, :2] @ c + M[:, 2] - c
                turn = np.clip(np.arctan2(M[1, 0], M[0, 0]), -0.2, 0.2)
                d[3:6] = self._axes.T @ self.pose.R.T @ [0, 0, turn]
                d[2] = -np.clip(0.5 * np.log(np.hypot(M[0, 0], M[1, 0])), -0.03, 0.03)
        return d

    def search(
        self, gain: np.ndarray, edge: np.ndarray, guess: np.ndarray, others=()
    ) -> tuple[Pose, float]:
        """The best pose around `guess` (7,), and its score.

        Args:
            gain: (parts, H, W) float32 log-likelihood gained by drawing a part on a pixel.
            edge: (H, W) float32, gained by an outline on a pixel.
            others: further (7,) changes worth a try.
        """
        s = self.settings
        loose = 1.0 + min(self.lost_for, 6) * 0.7
        shift = s.spread_px + 0.35 * float(np.abs(guess[:2]).max())
        spread = loose * np.array(
            [shift, shift, s.spread_depth, *self._spread_rad, s.spread_size]
        )  # fmt: skip
        prior = np.array([4 * shift, 4 * shift, 2 * s.spread_depth, *(1.5 * self._spread_rad),
                          s.spread_size]) * loose  # fmt: skip
        base = self.pose
        grids = {1: (gain, edge), 2: (halved(gain), halved_edge(edge))}
        mean, std = guess.copy(), spread.copy()
        starts = [np.zeros(_N), guess, self.velocity, 0.5 * (guess + self.velocity), *others]
        pool_d, pool_f = np.zeros((0, _N)), np.zeros(0)
        switch = s.rounds // 2
        for r in range(s.rounds):
            if r == switch and len(pool_d):
                # Elites of the coarse grid are judged again on the fine one.
                pool_d = pool_d[np.argsort(-pool_f)[: s.elite]]
                pool_f = self._value(base, pool_d, grids, guess, prior, 1)
            # Some samples reach far: the best pose may lie beyond a valley.
            reach = self._rng.choice(_REACH, size=(s.samples, 1)) if r <= switch else 1.0
            d = mean + reach * std * self._rng.standard_normal((s.samples, _N))
            self._anchor(base, mean, d[: s.samples // 2])
            if r == 0 or r == switch:
                d = np.concatenate([np.array(starts), d])
            f = self._value(base, d, grids, guess, prior, 2 if r < switch else 1)
            pool_d, pool_f = np.concatenate([pool_d, d]), np.concatenate([pool_f, f])
            best = np.argsort(-pool_f)[: s.elite]
            pool_d, pool_f = pool_d[best], pool_f[best]
            mean = 0.8 * pool_d.mean(0) + 0.2 * mean if r < s.rounds - 1 else pool_d.mean(0)
            std = 0.7 * pool_d.std(0) + 0.3 * std * 0.6 + 1e-5
        middle = self._value(base, mean[None], grids, guess, prior, 1)[0]
        if middle >= pool_f[0]:
            d, f = mean, float(middle)
        else:
            d, f = pool_d[0], float(pool_f[0])
        self._step = d
        return self._one(base, d), f

    def _anchor(self, base: Pose, mean: np.ndarray, d: np.ndarray) -> None:
        """Change the shifts of samples `d` (S, 7) so that one point of the mesh stays on its pixel.

        One end of a long object is often fixed by the picture while the other is not; changes of
        depth and rotation about the centre would move both.
        """
        fx, fy = self.K[:2]
        R, centre, scale = self._moved(base, mean[None])
        points = self.mesh.verts[self._rng.integers(len(self.mesh.verts), size=len(d))]
        points = scale[0] * (points - self.middle)
        anchor = centre[0] + points @ R[0].T
        turn = rotation((d[:, 3:6] - mean[3:6]) @ self._axes.T)
        turned = np.einsum("sij,sj->si", R[0] @ turn, points) * np.exp(d[:, 6:] - mean[6])
        c = anchor * np.exp(d[:, 2] - mean[2])[:, None] - turned
        x, y, z = base.centre
        # A long object that turns towards the camera may not come to lie behind it.
        c[:, 2] = np.maximum(c[:, 2], 0.2 * z)
        # A quarter of the spread is left to the shift itself.
        d[:, 0] = fx * (c[:, 0] / c[:, 2] - x / z) + 0.25 * (d[:, 0] - mean[0])
        d[:, 1] = fy * (c[:, 1] / c[:, 2] - y / z) + 0.25 * (d[:, 1] - mean[1])
        d[:, 2] = np.log(c[:, 2] / z)

    def _value(self, base, d, grids, guess, prior, stride) -> np.ndarray:
        A, t = self._affine(self._moved(base, d))
        area, rim = self.mesh.score(A, t, self.K / stride, *grids[stride], self._far[stride])
        pull = 0.5 * (((d - guess) / prior) ** 2).sum(-1)
        # Sizes stay near the known one over the whole video, too.
        size = np.log(base.scale) + d[:, 6]
        pull += 0.5 * (size / 0.1) ** 2
        return area * stride**2 + rim * stride - self.settings.prior_weight * pull

    def hold_value(self, gain: np.ndarray, edge: np.ndarray) -> float:
        """The score of the present pose."""
        zero = np.zeros((1, _N))
        return float(self._value(self.pose, zero, {1: (gain, edge)}, zero[0], np.ones(_N), 1)[0])

    def accept(self, pose: Pose | None) -> None:
        """Move to `pose`, or stay where it is (None)."""
        if pose is None:
            self.velocity = np.zeros(_N)
            self.still += 1
        else:
            self.velocity = np.concatenate(
                [0.6 * self._step[:2], [0.0], 0.6 * self._step[3:6], [0.0]]
            )
            self.still = self.still + 1 if np.abs(self._step[:2]).max() < 0.15 else 0
            self.pose = pose
        self.resting = self.still >= 5
        self.part, self.depth = self.draw(self.pose)


def halved(gain: np.ndarray) -> np.ndarray:
    """(P, H, W) averaged over 2 x 2 pixels."""
    _, H, W = gain.shape
    return np.stack([
        cv2.resize(g, (W // 2, H // 2), interpolation=cv2.INTER_AREA) for g in gain
    ])  # fmt: skip


def halved_edge(edge: np.ndarray) -> np.ndarray:
    """(H, W) the largest of 2 x 2 pixels: thin lines must not fade."""
    H, W = (n // 2 * 2 for n in edge.shape)
    e = edge[:H, :W]
    return np.maximum(
        np.maximum(e[::2, ::2], e[1::2, ::2]), np.maximum(e[::2, 1::2], e[1::2, 1::2])
    )
