"""A skin-coloured hand and forearm made by script: signed distances of capsules, smoothly joined.

Hand frame: the origin is the centre of the gripped cylinder, x runs along the cylinder, z points to
the back of the hand (the palm lies on the cylinder's +z side), the fingers leave the knuckles
towards +y and curl around the cylinder. A left hand has its thumb at +x; a right hand is its mirror
image. All lengths are metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FINGERS = (
    # Offset along x as a multiple of the spacing, phalanx lengths [m], radius at root and tip [m].
    (1.5, (0.041, 0.025, 0.020), (0.0092, 0.0072)),
    (0.5, (0.045, 0.028, 0.021), (0.0096, 0.0075)),
    (-0.5, (0.042, 0.026, 0.021), (0.0092, 0.0072)),
    (-1.5, (0.034, 0.020, 0.019), (0.0082, 0.0064)),
)
SPACING_M = 0.0205
PALM_REACH_M = 0.026
"""From the palm's touching point to the knuckles."""
METACARPAL_M = 0.082
FOREARM_M = 0.50
WRIST_BLEND_M = 0.035


@dataclass(frozen=True, kw_only=True)
class HandMesh:
    """A hand in its own frame [m]; the forearm can be bent at the wrist by `posed`."""

    vertices: np.ndarray
    """(V, 3) float64."""
    faces: np.ndarray
    """(F, 3) int64."""
    forearm_weight: np.ndarray
    """(V,) in [0, 1]: 1 where a vertex follows the forearm, 0 where it follows the hand."""
    tint: np.ndarray
    """(V, 3) multiplies the skin colour: pinker finger tips and knuckles, pale nails."""
    wrist: np.ndarray
    """(3,)"""
    forearm: np.ndarray
    """(3,) unit vector from the wrist to the elbow."""
    tips: np.ndarray
    """(5, 3) finger tips, thumb first."""

    def posed(self, T_world_hand: np.ndarray, elbow_m: np.ndarray) -> np.ndarray:
        """Vertices (V, 3) [m, world] with the forearm turned at the wrist towards `elbow_m`."""
        R, t = T_world_hand[:3, :3], T_world_hand[:3, 3]
        wanted = R.T @ (np.asarray(elbow_m, float) - (R @ self.wrist + t))
        bend = rotation_between(self.forearm, wanted)
        turned = (self.vertices - self.wrist) @ bend.T + self.wrist
        w = self.forearm_weight[:, None]
        return ((1 - w) * self.vertices + w * turned) @ R.T + t


def rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, 3) smallest rotation that takes direction `a` to direction `b`."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    v, c = np.cross(a, b), float(a @ b)
    if c < -0.9999:
        other = np.cross(a, [1.0, 0, 0] if abs(a[0]) < 0.9 else [0, 1.0, 0])
        other /= np.linalg.norm(other)
        return 2 * np.outer(other, other) - np.eye(3)
    K = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + K + K @ K / (1 + c)


def make_hand(
    *, grip_radius_m: float, openness: float = 0.0, right: bool = True, size: float = 1.0,
    slant: float = 0.8, forearm_m: float = FOREARM_M, cell_m: float = 0.0035,
) -> HandMesh:  # fmt: skip
    """A hand around a cylinder.

    Args:
        grip_radius_m: radius of the cylinder that the closed hand holds.
        openness: 0 closed on the cylinder, 1 fingers stretched.
        size: scale of the whole hand.
        slant: how far the wrist lies towards -x (away from the thumb's side) instead of -y, as a
            tangent: a handle crosses the palm slantwise.
        forearm_m: length of what is drawn of the arm; it ends bluntly, outside the picture.
        cell_m: grid spacing of the marching cubes.
    """
    from skimage.measure import marching_cubes

    parts, tips, wrist, arm = _skeleton(grip_radius_m / size, openness, slant, forearm_m)
    ends = np.concatenate([np.stack([p[0], p[1]]) for group in parts for p in group])
    low, high = ends.min(0) - 0.045, ends.max(0) + 0.045
    counts = np.ceil((high - low) / cell_m).astype(int) + 1
    grid = np.stack(
        np.meshgrid(*(low[i] + cell_m * np.arange(counts[i]) for i in range(3)), indexing="ij"), -1
    ).astype(np.float32)
    distance = _distance(grid, parts, cell_m)
    vertices, faces, _, _ = marching_cubes(distance, 0.0, spacing=(cell_m,) * 3)
    vertices = vertices + low
    along = (vertices - wrist) @ arm
    s = np.clip((along + WRIST_BLEND_M) / (2 * WRIST_BLEND_M), 0, 1)
    weight = s * s * (3 - 2 * s)
    tint = _tint(vertices, tips)
    flip = np.array([-1.0 if right else 1.0, 1.0, 1.0]) * size
    return HandMesh(
        vertices=vertices * flip, faces=faces[:, ::-1] if right else faces.astype(np.int64),
        forearm_weight=weight, tint=tint, wrist=wrist * flip, forearm=arm * np.sign(flip),
        tips=tips * flip,
    )  # fmt: skip


def _skeleton(radius: float, openness: float, slant: float, forearm_m: float):
    """Groups of tapered capsules (a, b, radius_a, radius_b), finger tips, wrist, arm direction."""
    back = np.array([-slant, -1.0, 0.0])
    back /= np.linalg.norm(back)
    groups, tips = [], []
    knuckles = []
    palm_z = radius + 0.0125
    for offset, lengths, (r0, r1) in FINGERS:
        rho = radius + 0.5 * (r0 + r1)
        # Knuckles follow an arc: the middle finger's stands out.
        reach = PALM_REACH_M - 0.0035 * (offset - 0.4) ** 2
        p = np.array([offset * SPACING_M, reach, palm_z])
        knuckles.append(p.copy())
        # Phalanges tangent to the cylinder turn by the sum of their half angles at each joint.
        half = [np.arctan(length / 2 / rho) for length in lengths]
        turns = [np.arctan(reach / rho) + half[0], half[0] + half[1], half[1] + half[2]]
        angle, capsules = 0.0, []
        radii = np.linspace(r0, r1, 4)
        for k, (length, turn) in enumerate(zip(lengths, turns, strict=True)):
            angle -= turn * (1 - openness) + openness * (0.18 if k else 0.1)
            q = p + length * np.array([0.0, np.cos(angle), np.sin(angle)])
            capsules.append((p, q, radii[k], radii[k + 1]))
            p = q
        groups.append(capsules)
        tips.append(p)
    centre = np.mean(knuckles, axis=0)
    wrist = centre + back * METACARPAL_M + np.array([0, 0, 0.006])
    across = np.array([1.0, -slant, 0.0]) / np.hypot(1, slant)
    palm = [
        (k, wrist + across * 0.011 * np.sign(k[0]) * min(abs(k[0]) / 0.03, 1), 0.0115, 0.0165)
        for k in knuckles
    ]
    palm += [(a, b, 0.0112, 0.0112) for a, b in pairwise(knuckles)]
    # The thumb starts beside the wrist and closes on the cylinder's -y side.
    root = wrist + across * 0.024 - back * 0.018 + np.array([0, 0, -0.006])
    rho = radius + 0.0095
    lengths = np.array([0.040, 0.032, 0.026])
    start = np.array([1.9 * SPACING_M, min(-0.55 * rho, -0.012) - 0.004, 0.0])
    start[2] = np.sqrt(max(rho**2 - min(start[1] ** 2, 0.8 * rho**2), 0.0))
    closed, angle = [start], np.arctan2(start[2], start[1])
    for length in lengths[1:]:
        # On the circle of the grip a chord of this length takes this angle; x creeps outwards.
        angle += 2 * np.arcsin(min(0.92 * length / 2 / rho, 0.9))
        x = closed[-1][0] + 0.25 * length
        closed.append(np.array([x, rho * np.cos(angle), rho * np.sin(angle)]))
    aim = np.array([0.62, 0.55, -0.42])
    stretched = [root + aim / np.linalg.norm(aim) * s for s in np.cumsum(lengths)]
    chain = [root] + [
        (1 - openness) * c + openness * o for c, o in zip(closed, stretched, strict=True)
    ]
    thumb_radii = (0.0145, 0.0115, 0.0102, 0.0085)
    groups.append([(chain[k], chain[k + 1], thumb_radii[k], thumb_radii[k + 1]) for k in range(3)])
    arm = back + np.array([0, 0, 0.15])
    arm /= np.linalg.norm(arm)
    along, thick = np.linspace(0, forearm_m, 7), np.array([23, 28, 32, 35, 37, 38.5, 40]) * 1e-3
    forearm = [
        (wrist + arm * along[k], wrist + arm * along[k + 1], thick[k], thick[k + 1])
        for k in range(len(along) - 1)
    ]
    return [*groups, palm, forearm], np.stack([chain[-1], *tips]), wrist, arm


def _distance(grid: np.ndarray, parts: list, cell_m: float) -> np.ndarray:
    """Signed distance on a grid (X, Y, Z, 3): fingers stay apart, all of them join the palm."""
    *fingers, palm, forearm = parts
    origin, shape = grid[0, 0, 0], np.array(grid.shape[:3])

    def union(capsules: list, k: float) -> np.ndarray:
        d = np.full(grid.shape[:3], 0.2, np.float32)
        for a, b, ra, rb in capsules:
            # Far from a capsule its distance changes nothing, so only its neighbourhood is touched.
            reach = max(ra, rb) + 0.022
            low = np.clip(((np.minimum(a, b) - reach - origin) / cell_m).astype(int), 0, shape)
            high = np.clip(((np.maximum(a, b) + reach - origin) / cell_m).astype(int) + 2, 0, shape)
            near = tuple(slice(i, j) for i, j in zip(low, high, strict=True))
            d[near] = _smooth_min(d[near], _capsule(grid[near], a, b, ra, rb), k)
        return d

    hand = union(palm, 0.008)
    digits = np.full(grid.shape[:3], 0.2, np.float32)
    for capsules in fingers:
        digits = _smooth_min(digits, union(capsules, 0.003), 0.0012)
    hand = _smooth_min(hand, digits, 0.009)
    return _smooth_min(hand, union(forearm, 0.002), 0.020)


def _capsule(p: np.ndarray, a: np.ndarray, b: np.ndarray, ra: float, rb: float) -> np.ndarray:
    ab = (b - a).astype(np.float32)
    from_a = p - a.astype(np.float32)
    t = np.clip((from_a @ ab) / max(float(ab @ ab), 1e-12), 0, 1)
    gap = from_a - t[..., None] * ab
    return np.sqrt(np.einsum("...i,...i->...", gap, gap)) - (ra + (rb - ra) * t)


def _smooth_min(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """The polynomial smooth minimum with blending width `k` [m]."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def _tint(vertices: np.ndarray, tips: np.ndarray) -> np.ndarray:
    """(V, 3) multipliers of the skin colour."""
    nearest = np.linalg.norm(vertices[:, None] - tips[None], axis=-1).min(1)
    pink = np.exp(-((nearest / 0.018) ** 2))[:, None]
    mottle = 0.015 * np.sin(vertices @ np.array([310.0, 170.0, 230.0]))[:, None]
    mottle = mottle + 0.010 * np.sin(vertices @ np.array([-90.0, 410.0, 120.0]))[:, None]
    return (1 + mottle) * (1 - pink * np.array([[0.0, 0.10, 0.08]]))
