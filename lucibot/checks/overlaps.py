"""Whether two things are at one place when a simulation starts: it would throw them apart."""

from __future__ import annotations

import numpy as np

from lucibot.core.errors import UserError
from lucibot.task import BackgroundSpec, ObjectSpec, Task

DEEPEST_M = 0.002
"""What stands on something may be that deep in it."""
SAMPLES = 400
"""Points on a surface, besides its vertices."""
NEAR = 20_000
"""Points of the other's surface, to which depth is measured."""
TRIED = 200
"""Points that are tried at most, of those in the other's box."""


def overlaps(task: Task) -> str:
    """No object is in another, or in what is solid in the background.

    What hangs on a joint is exempt from its parent, or from the background: hinges and rails lie
    in each other; so are particles that a simulation has left. A background that is not closed has no inside.

    Raises:
        UserError: two are deeper in each other than `DEEPEST_M`.
    """
    things = [*task.objects, *[b for b in task.spec.background if b.solid]]
    shapes = {t.name: _placed(task, t) for t in things}
    tried = 0
    for i, a in enumerate(task.objects):
        for b in things[i + 1 :]:
            if _joined(a, b) or _simulated(a) or _simulated(b):
                continue
            tried += 1
            depth = max(
                _depth(shapes[a.name], shapes[b.name]), _depth(shapes[b.name], shapes[a.name])
            )
            if depth > DEEPEST_M:
                raise UserError(
                    f"{a.name!r} and {b.name!r} are {1000 * depth:.0f} mm deep in each other at "
                    "first: move one of them"
                )
    return f"nothing stands in anything else ({tried} pairs)"


def _placed(task: Task, thing: ObjectSpec | BackgroundSpec):
    mesh = task.mesh(thing).copy()
    mesh.apply_transform(thing.T_world_object)
    return mesh


def _joined(a: ObjectSpec, b: ObjectSpec | BackgroundSpec) -> bool:
    if isinstance(b, BackgroundSpec):
        return a.joint is not None and a.joint.parent is None
    return any(x.joint is not None and x.joint.parent == y.name for x, y in ((a, b), (b, a)))


def _simulated(thing: ObjectSpec | BackgroundSpec) -> bool:
    """Particles that are given one by one are where a simulation has left them, pressed on what
    carries them by as much as its grid allows."""
    return isinstance(thing, ObjectSpec) and getattr(thing.material, "cloud", None) is not None


def _depth(a, b) -> float:
    """How deep [m] the surface of mesh `a` is in mesh `b`, at most; 0: not at all."""
    import trimesh
    from scipy.spatial import cKDTree

    low, high = b.bounds[0] + DEEPEST_M, b.bounds[1] - DEEPEST_M
    if not b.is_watertight or ((a.bounds[1] < low) | (a.bounds[0] > high)).any():
        return 0.0
    points = np.concatenate([a.vertices, trimesh.sample.sample_surface(a, SAMPLES, seed=0)[0]])
    points = points[((points > low) & (points < high)).all(1)]
    points = points[np.linspace(0, len(points) - 1, min(len(points), TRIED)).astype(int)]
    inside = points[winding_numbers(points, b.triangles) > 0.5]
    if not len(inside):
        return 0.0
    surface = np.concatenate([b.vertices, trimesh.sample.sample_surface(b, NEAR, seed=0)[0]])
    return float(cKDTree(surface).query(inside)[0].max())


def winding_numbers(points_m: np.ndarray, triangles_m: np.ndarray) -> np.ndarray:
    """(P,) how often closed triangles (F, 3, 3) go around each point (P, 3): 1 inside, 0 outside.

    The sum of the triangles' solid angles (Van Oosterom and Strackee), over 4 pi.
    """
    out = np.zeros(len(points_m))
    step = max(1, 2_000_000 // max(len(triangles_m), 1))
    for at in range(0, len(points_m), step):
        a, b, c = np.moveaxis(triangles_m - points_m[at : at + step, None, None], 2, 0)
        la, lb, lc = (np.linalg.norm(v, axis=-1) for v in (a, b, c))
        top = np.einsum("pfk,pfk->pf", a, np.cross(b, c))
        ab, bc, ca = (np.einsum("pfk,pfk->pf", u, v) for u, v in ((a, b), (b, c), (c, a)))
        under = la * lb * lc + ab * lc + bc * la + ca * lb
        out[at : at + step] = np.arctan2(top, under).sum(1) / (2 * np.pi)
    return out
