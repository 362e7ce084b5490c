"""A trajectory that was found, for a scene whose objects begin elsewhere.

A waypoint is taken to be where it is for the sake of what its actuator touches: what the video's contacts name
at that keyframe, while it approaches what it touches next, and afterwards what it touched last. With that
object it is displaced, rigidly. What touches nothing acts on what stands still. Nothing here knows how success
is told.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from lucibot.core.geometry import matrix_np, pose_np
from lucibot.objective.supervision import Supervision
from lucibot.task import Task


def displacements(
    task: Task, supervision: Supervision, displaced: dict[str, np.ndarray],
    moved: list[tuple[str, ...]],
) -> np.ndarray:  # fmt: skip
    """(K, A, 4, 4): how each waypoint is displaced.

    Args:
        displaced: (4, 4) by object, how it begins elsewhere.
        moved: groups of what begins elsewhere as one.
    """
    K, A = supervision.held.shape
    partners = _partners(supervision, moved)
    jointed = [o.joint is not None for o in task.actuators]
    now = dict(displaced)  # As far as hands have already put it elsewhere.
    C = np.zeros((K, A, 4, 4))
    for k in range(K):
        for a, name in enumerate(supervision.actuators):
            if not supervision.held[k, a]:
                if k and supervision.held[k - 1, a]:
                    now[name] = C[k - 1, a]
                C[k, a] = now[name]
            elif jointed[a]:
                C[k, a] = displaced[name]
            else:
                partner = _acts_on(partners, supervision.held, k, a)
                C[k, a] = np.eye(4) if partner is None else now[partner]
    return C


def corrected(
    task: Task, waypoints: np.ndarray, C: np.ndarray, displaced: dict[str, np.ndarray]
) -> np.ndarray:
    """(K, A, 6) float32 waypoints, displaced by `C` (K, A, 4, 4). Of a deformable actuator they are turns since
    it was taken, so its own is taken back."""
    T = C @ matrix_np(waypoints)
    for a, obj in enumerate(task.actuators):
        if not obj.is_rigid:
            T[:, a, :3, :3] = T[:, a, :3, :3] @ displaced[obj.name][:3, :3].T
    return pose_np(T).astype(np.float32)


def common(C: np.ndarray, held: np.ndarray) -> np.ndarray | None:
    """(4, 4) by which all waypoints that are held are displaced; None where they differ."""
    used = C[held]
    if not len(used) or not np.allclose(used, used[0], atol=1e-9):
        return None
    return used[0]


def displaced_supervision(
    task: Task, supervision: Supervision, C: np.ndarray, displaced: dict[str, np.ndarray]
) -> Supervision:
    """What the video asks for, in a scene where all that acts and is acted on is displaced by `C` (4, 4): a
    camera that is displaced likewise sees of it what the video's has seen."""

    def moved(points: np.ndarray) -> np.ndarray:
        return (points @ C[:3, :3].T + C[:3, 3]).astype(points.dtype)

    camera = dataclasses.replace(supervision.camera, T_world_cam=C @ supervision.camera.T_world_cam)
    own = np.stack([displaced[o.name] for o in task.actuators])
    return dataclasses.replace(
        supervision, camera=camera,
        waypoints=corrected(task, supervision.waypoints, own[None], displaced),
        actuator_clouds=moved(supervision.actuator_clouds),
        target_cloud=moved(supervision.target_cloud), part_clouds=moved(supervision.part_clouds),
        affordance=dataclasses.replace(
            supervision.affordance, tips_m=moved(supervision.affordance.tips_m)
        ),
    )  # fmt: skip


def _partners(
    supervision: Supervision, moved: list[tuple[str, ...]]
) -> list[list[tuple[str, np.ndarray]]]:
    """Of each actuator: what it may touch, and (K,) at which keyframes it does. What it is displaced with as
    one is no such thing: a bottle always touches what is in it."""
    as_one = {n: group for group in moved for n in group}
    found = []
    for name in supervision.actuators:
        mine = []
        for q, pair in enumerate(supervision.contact_pairs):
            other = pair[1 - pair.index(name)] if name in pair else None
            if other is not None and not (name in as_one and other in as_one[name]):
                mine.append((other, supervision.contact[:, q]))
        found.append(mine)
    return found


def _acts_on(partners: list, held: np.ndarray, k: int, a: int) -> str | None:
    """For the sake of what an actuator is where it is at keyframe k of a hold."""
    first, last = k, k
    while first and held[first - 1, a]:
        first -= 1
    while last + 1 < len(held) and held[last + 1, a]:
        last += 1
    for at in (*range(k, last + 1), *range(k - 1, first - 1, -1)):
        for other, touching in partners[a]:
            if touching[at]:
                return other
    return None
