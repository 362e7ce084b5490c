"""Where two fingers can hold a mesh: antipodal pairs near the affordance (paper, section 3.4).

A grasp is a frame in the mesh's own frame: y from one contact to the other, z the way in which the hand
comes, the origin half-way between the contacts or a little before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trimesh

from lucibot.robot.arm import GripperSpec

NEAR_M = 0.02
"""Contacts lie so near to where finger tips were seen, if any do."""
WIDENED_M = (0.04, 0.08, np.inf)
"""Else so near, one after the other."""
FRICTION = 0.5
"""Of the fingers: a contact holds whose normal is at most atan(FRICTION) off the line between the two."""
APPROACHES = 16
"""Ways to come, evenly about the line between the contacts."""
ASLANT = 5
"""Lines aslant in the friction cone that are tried from each contact, beside the normal."""
MOST_PAIRS = 600
"""Pairs of contacts that are looked at where a way is to be followed."""
TIP_M = 0.007
"""Contacts may lie so much nearer to the fingers' ends: what lies on a table is taken with the tips."""
PINCH_M = 0.010
"""What yields is pinched so much nearer to the fingers' ends: it may lie flat on a table."""
TILTS_RAD, TURNS = (0.25, 0.5, 0.75), 8
"""How far aslant it is pinched, to so many sides, and ways to be turned."""
CLEARANCE_M = 0.002
"""What an open finger keeps from the mesh."""
SAMPLED = 4000
"""Points of the mesh that stand for it where the hand is asked for room."""


@dataclass(frozen=True, kw_only=True)
class Grasps:
    """G of them, the best first."""

    frames: np.ndarray
    """(G, 4, 4) of the TCP in the mesh's frame."""
    width_m: np.ndarray
    """(G,) between the contacts."""
    quality: np.ndarray
    """(G,) in [0, 1]: 1 where both normals lie on the line between the contacts."""
    off_m: np.ndarray
    """(G,) from the middle of the contacts to where the hand's is; 0 where no tip was seen."""
    within_m: float
    """How near to the seen finger tips contacts were taken."""

    def __len__(self) -> int:
        return len(self.frames)


def sample_grasps(
    mesh: trimesh.Trimesh,
    area_m: np.ndarray,
    gripper: GripperSpec,
    *,
    count: int = 64,
    seed: int = 0,
    clear: Callable[[np.ndarray, float], np.ndarray] | None = None,
) -> Grasps:
    """Antipodal grasps of a closed mesh.

    Args:
        area_m: (M, 3) where finger tips were seen, in the mesh's frame; may be empty.
        count: how many at most, spread over contacts and ways to come.
        clear: which of (N, 4, 4) hands in the mesh's frame, so far open [m], have room on the whole of their
            way. Where none near the tips has, it is looked for farther away; where none anywhere has,
            there is no grasp.
    """
    rng = np.random.default_rng(seed)
    points, face = trimesh.sample.sample_surface(mesh, 3000, seed=seed)
    normals = mesh.face_normals[face]
    away = _distance(points, area_m) if len(area_m) else np.zeros(len(points))
    middle = area_m.mean(0) if len(area_m) else None
    for within in (NEAR_M, *WIDENED_M) if len(area_m) else (np.inf,):
        near = np.flatnonzero(away <= within)
        near = rng.permutation(near)[:400]
        a, b, quality = _pairs(mesh, points[near], normals[near], gripper.opening_m, rng)
        found = _frames(mesh, a, b, quality, middle, gripper, count, within, seed, clear)
        if len(found):
            return found
    return found


def _pairs(mesh, points, normals, opening_m, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contacts (P, 3) each that face each other, and how well: along the first one's normal, and along
    lines that lie aslant in its cone."""
    if not len(points):
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
    points, normals = np.tile(points, (1 + ASLANT, 1)), np.tile(normals, (1 + ASLANT, 1))
    aslant = rng.standard_normal(points.shape)
    aslant -= (aslant * normals).sum(1, keepdims=True) * normals
    aslant *= (
        FRICTION
        * np.sqrt(rng.random((len(points), 1)))
        / np.linalg.norm(aslant, axis=1, keepdims=True)
    )
    aslant[: len(points) // (1 + ASLANT)] = 0
    ways = -normals + aslant
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    far, hit, cos = _through(mesh, points, ways)
    width = np.linalg.norm(far - points, axis=1)
    fine = hit & (width <= opening_m) & (width > 5e-4)
    cone = 1 / np.hypot(1, FRICTION)
    # Both normals lie in the cone about the line between the contacts.
    cos = np.minimum(cos, -(ways * normals).sum(1))
    fine &= cos >= cone - 1e-9
    return points[fine], far[fine], (cos[fine] - cone) / (1 - cone)


def _through(mesh, points, ways) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where rays that start on the surface and go inwards come out: places (P, 3), whether they do,
    and the cosine between the way and the normal there."""
    inside = points + 1e-5 * ways
    hits, ray, triangle = mesh.ray.intersects_location(inside, ways, multiple_hits=True)
    far = np.full(points.shape, np.nan)
    found, cos = np.zeros(len(points), bool), np.zeros(len(points))
    depth = np.linalg.norm(hits - inside[ray], axis=1)
    for i in np.argsort(-depth, kind="stable"):  # The nearest is written last.
        far[ray[i]], found[ray[i]] = hits[i], True
        cos[ray[i]] = mesh.face_normals[triangle[i]] @ ways[ray[i]]
    return far, found, cos


def _frames(mesh, a, b, quality, middle, gripper, count, within, seed, clear) -> Grasps:
    """Hands on the pairs that find room, in an order that spreads over pairs."""
    cloud = np.concatenate([
        mesh.vertices, trimesh.sample.sample_surface(mesh, SAMPLED, seed=seed + 1)[0],
    ])  # fmt: skip
    width, centre = np.linalg.norm(b - a, axis=1), (a + b) / 2
    off = np.linalg.norm(centre - middle, axis=1) if middle is not None else np.zeros(len(a))
    rows: list[tuple[float, int, np.ndarray]] = []
    order = np.argsort(-(quality - off / 0.02), kind="stable")
    if clear is not None and len(order) > MOST_PAIRS:
        # Where few have room these are seldom the best of the pairs: all kinds are looked at.
        order = order[np.linspace(0, len(order) - 1, MOST_PAIRS).astype(int)]
    for i in order:
        if len(rows) >= 4 * count:
            break
        for back in (0.0, TIP_M):
            frames = _drawn_back(_about(a[i], b[i]), back)
            frames = frames[[_has_room(f, cloud, width[i], gripper) for f in frames]]
            if clear is not None and len(frames):
                frames = frames[clear(frames, width[i])]
            free = _spread(list(frames))
            score = quality[i] - off[i] / 0.02 - 0.25 * (back > 0)
            rows += [(score - 0.5 * k, i, f) for k, f in enumerate(free)]
    rows = sorted(rows, key=lambda r: -r[0])[:count]
    index = np.array([i for _, i, _ in rows], int)
    return Grasps(
        frames=np.stack([f for *_, f in rows]) if rows else np.zeros((0, 4, 4)),
        width_m=width[index], quality=quality[index], off_m=off[index], within_m=float(within),
    )  # fmt: skip


def _about(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Frames about the line from a to b, (APPROACHES, 4, 4)."""
    y = (b - a) / np.linalg.norm(b - a)
    other = np.eye(3)[np.argmin(np.abs(y))]
    u = np.cross(y, other)
    u /= np.linalg.norm(u)
    v = np.cross(y, u)
    angle = 2 * np.pi * np.arange(APPROACHES)[:, None] / APPROACHES
    T = np.tile(np.eye(4), (APPROACHES, 1, 1))
    T[:, :3, 2] = np.cos(angle) * u + np.sin(angle) * v
    # The cross product of y and z, as y and u and v are at right angles.
    T[:, :3, 0] = np.cos(angle) * v - np.sin(angle) * u
    T[:, :3, 1], T[:, :3, 3] = y, (a + b) / 2
    return T


def _drawn_back(T: np.ndarray, by_m: float) -> np.ndarray:
    drawn = T.copy()
    drawn[:, :3, 3] -= by_m * T[:, :3, 2]
    return drawn


def _spread(frames: list[np.ndarray]) -> list[np.ndarray]:
    """The same, those that follow one another far apart."""
    n = len(frames)
    order = sorted(range(n), key=lambda i: int(f"{i:08b}"[::-1], 2))
    return [frames[i] for i in order]


def _has_room(T: np.ndarray, cloud: np.ndarray, width_m: float, gripper: GripperSpec) -> bool:
    """Whether open fingers and palm are clear of the mesh; its points (N, 3) in its frame."""
    p = (cloud - T[:3, 3]) @ T[:3, :3]
    fw, ft, fl = gripper.finger_m
    pw, pt, pl = gripper.palm_m
    # Open as far as they go, each finger is so far from the middle; they reach a little beyond the contact.
    inner, beyond = gripper.opening_m / 2 - CLEARANCE_M, 0.3 * fw
    x, y, z = np.abs(p[:, 0]), np.abs(p[:, 1]), p[:, 2]
    finger = (x < fw / 2) & (y > inner) & (y < inner + ft) & (z > -fl) & (z < beyond)
    palm = (x < pw / 2) & (y < pt / 2) & (z > -fl - pl) & (z < -fl + CLEARANCE_M)
    return not (finger | palm).any()


def pinches(clear: Callable[[np.ndarray, float], np.ndarray], count: int = 64) -> Grasps:
    """Grasps of what yields, where it is grasped, in a frame that stands upright as it lies: from above and
    aslant, those with room on the whole of their way.

    Args:
        clear: as for `sample_grasps`.
    """
    from scipy.spatial.transform import Rotation

    side = 2 * np.pi * np.arange(TURNS) / TURNS
    # Half a turn about each of these axes makes a hand point down.
    upright = Rotation.from_rotvec(
        np.pi * np.stack([np.cos(side / 4), np.sin(side / 4), 0 * side], 1)
    )
    aslant = np.stack([np.cos(side), np.sin(side), 0 * side], 1)
    # Small tilts first, each to all sides.
    tilts = Rotation.from_rotvec(
        np.concatenate([np.zeros((1, 3)), *(t * aslant for t in TILTS_RAD)])
    )
    turned = [(tilt * hand).as_matrix() for tilt in tilts for hand in upright]
    frames = np.tile(np.eye(4), (len(turned), 1, 1))
    frames[:, :3, :3] = turned
    frames[:, :3, 3] = -PINCH_M * frames[:, :3, 2]
    frames = frames[clear(frames, 0.0)][:count]
    n = len(frames)
    return Grasps(frames=frames, width_m=np.zeros(n), quality=-frames[:, 2, 2], off_m=np.zeros(n),
                  within_m=0.0)  # fmt: skip


def _distance(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) from each point to the nearest of others."""
    from scipy.spatial import cKDTree

    return cKDTree(others).query(points)[0]
