"""What the video's hands say about the actuators' poses (paper, section 3.4, affordance).

An outline does not tell how a bottle is turned about its axis, nor where along the line of sight it
is. The fingers on it do: the area that a hand took goes with the object, and has to be where the
finger tips are seen later. And a pose is only worth something if a hand, or a gripper, has room there.

Both terms are metres, unweighted, 0 where the video says nothing; see `lucibot.objective.losses`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
import trimesh
from lucibot_kernels import HandSpace, tip_distance
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from torch import Tensor

from lucibot.objective.supervision import Supervision
from lucibot.task import ObjectSpec, Task

DEPTH_SHARE = 0.3
"""A tip's distance along the line of sight counts by this: one picture tells it less well."""
CELL_M = 0.01
"""Of the grid on which the distance to what stands still is kept."""
AROUND_M = 0.5
"""The grid reaches so far around the objects; what is farther away is as near as its border."""
OBSTACLE_POINTS = 1500
"""Points that stand for a target."""


class Posed(Protocol):
    """Where things are at K moments of B environments, P = K B, those of the first moment first."""

    position: Mapping[str, Tensor]
    """(P, 3) [m, world] of each rigid body."""
    quaternion: Mapping[str, Tensor]
    """(P, 4) wxyz."""
    particles: Mapping[str, Tensor]
    """(N, P, 3) [m, world] of each particle object."""


class Solids(NamedTuple):
    """The distance to what stands still, on a grid."""

    distance_m: np.ndarray
    """(X, Y, Z) float32, negative inside."""
    low_m: np.ndarray
    """(3,) the grid's first point [world]."""
    cell_m: float


class AffordanceTerms:
    """The terms of one task and one `Supervision` on one device.

    Args:
        rest: particles (N, 3) [m, world] of each deformable actuator as the scene begins.
    """

    def __init__(
        self, task: Task, supervision: Supervision, rest: Mapping[str, Tensor], device: str = "cpu"
    ):
        self._device = torch.device(device)
        self._keyframes = len(supervision.keyframes)
        self._eye = self._f32(supervision.camera.T_world_cam[:3, 3])
        self._areas, self._hands = [], []
        told = supervision.affordance
        solids = None
        for a, actuator in enumerate(task.actuators):
            holds, particle = told.holds(a), None
            if not actuator.is_rigid and holds:
                # What is held of a deformable is told by the particle in its middle, without a turn.
                holds, T = holds[:1], actuator.T_world_object
                area = told.area(a, holds[0])[0] @ T[:3, :3].T + T[:3, 3]
                away = (rest[actuator.name] - self._f32(area.mean(0))).norm(dim=1)
                particle = int(away.argmin())
                origin = rest[actuator.name][particle].cpu().numpy()
            body = _Body(actuator.name, particle)
            for hold in holds:
                points, normals = (x.astype(float) for x in told.area(a, hold))
                if particle is not None:
                    points, normals = (
                        points @ T[:3, :3].T + T[:3, 3] - origin,
                        normals @ T[:3, :3].T,
                    )
                now = told.hold[:, a] == hold
                seen = now & np.isfinite(told.tips_m[:, a]).all(-1).any(-1)
                if seen.any():
                    self._areas.append(
                        (body, self._f32(points), *self._at(told.tips_m[:, a], seen))
                    )
                held = np.flatnonzero(now & supervision.held[:, a])
                if len(held):
                    if solids is None:
                        solids = static_distance(task)
                        self._solids = (
                            self._f32(solids.distance_m), self._f32(solids.low_m), solids.cell_m
                        )  # fmt: skip
                    inside = task.mesh(actuator).vertices.mean(0) if particle is None else None
                    space = hand_space(points, normals, inside, told.hand_m, self._device)
                    self._hands.append((body, space, held.tolist()))
        self._obstacles = {
            o.name: self._f32(trimesh.sample.sample_surface(task.mesh(o), OBSTACLE_POINTS, seed=0)[0])
            if o.is_rigid else None
            for o in task.targets
        }  # fmt: skip

    def _f32(self, a) -> Tensor:
        return torch.as_tensor(np.asarray(a), dtype=torch.float32, device=self._device).contiguous()

    def _at(self, tips_m: np.ndarray, seen: np.ndarray) -> tuple[list[int], Tensor]:
        ks = np.flatnonzero(seen)
        return ks.tolist(), self._f32(tips_m[ks])

    def terms(self, posed: Posed) -> dict[str, Tensor]:
        """`affordance_reach` and `affordance_clearance`, (B,) each [m].

        Args:
            posed: the K keyframes.
        """
        return {
            "affordance_reach": self._reach(posed),
            "affordance_clearance": self._clearance(posed),
        }

    def _reach(self, posed: Posed) -> Tensor:
        """Mean distance of the posed grasp areas from where tips are seen, over all keyframes and
        actuators of which some are."""
        total, count = self._nothing(posed), 0
        for body, area, ks, tips in self._areas:
            position, quaternion = self._poses(body, posed, ks)
            counted = torch.ones(len(ks), len(area), dtype=torch.bool, device=self._device)
            found = tip_distance(
                area, counted, position, quaternion, tips, self._eye, depth_share=DEPTH_SHARE
            )
            # One by one: the order of a sum over an axis may depend on the batch's size.
            for value in found:
                total = total + value
            count += len(ks)
        return total / max(1, count)

    def _clearance(self, posed: Posed) -> Tensor:
        """How deep a hand on the grasp areas would be in what stands still and in targets, mean over
        the keyframes of all holds. A hand may turn about the areas' normal, but not during a hold."""
        total, count = self._nothing(posed), 0
        for body, space, ks in self._hands:
            position, quaternion = self._poses(body, posed, ks)
            p, q = position.flatten(0, 1), quaternion.flatten(0, 1)
            depth = space.depth_in_solids(p, q, *self._solids)
            for name, shape in self._obstacles.items():
                if name == body.name:
                    continue
                if shape is None:
                    cloud = self._of_keyframes(posed.particles[name].transpose(0, 1), ks)
                    thin = max(1, cloud.shape[1] // OBSTACLE_POINTS)
                    depth = depth + space.depth_of_points(p, q, cloud[:, ::thin].contiguous())
                else:
                    pose = (self._of_keyframes(x[name], ks).contiguous()
                            for x in (posed.position, posed.quaternion))  # fmt: skip
                    depth = depth + space.depth_of_points(p, q, shape, tuple(pose))
            over = torch.zeros_like(depth[: len(total)])
            for value in depth.view(len(ks), -1, space.turns):
                over = over + value
            total = total + over.amin(1)
            count += len(ks)
        return total / max(1, count)

    def _nothing(self, posed: Posed) -> Tensor:
        some = next(iter({**posed.position, **posed.particles}.values()))
        return torch.zeros(some.shape[-2] // self._keyframes, device=self._device)

    def _of_keyframes(self, x: Tensor, ks: list[int]) -> Tensor:
        """Of (K B, ...) the rows of some keyframes."""
        return x.unflatten(0, (self._keyframes, -1))[ks].flatten(0, 1)

    def _poses(self, body: _Body, posed: Posed, ks: list[int]) -> tuple[Tensor, Tensor]:
        """(k, B, 3) and (k, B, 4) at some keyframes."""
        if body.particle is None:
            found = posed.position[body.name], posed.quaternion[body.name]
        else:
            at = posed.particles[body.name][body.particle]
            found = at, torch.tensor([1.0, 0, 0, 0], device=self._device).expand(len(at), 4)
        return tuple(
            x.unflatten(0, (self._keyframes, -1))[ks].float().contiguous() for x in found
        )  # fmt: skip


class _Body(NamedTuple):
    """What an area goes with."""

    name: str
    particle: int | None
    """Of a deformable."""


def hand_space(
    points: np.ndarray, normals: np.ndarray, inside: np.ndarray | None, size_m, device
) -> HandSpace:
    """Where a hand stands that has come along the normals (P, 3) of an area (P, 3) [m].

    Fingers on opposite sides have no common normal; then the hand comes from where the area lies,
    seen from `inside` (3,) the body, or from above where nothing else is told.
    """
    outward = normals.mean(0)
    if np.linalg.norm(outward) < 0.2 and inside is not None:
        outward = points.mean(0) - inside
    if np.linalg.norm(outward) < 1e-6:
        outward = np.array([0.0, 0.0, 1.0])
    outward = outward / np.linalg.norm(outward)
    middle = points.mean(0)
    # On the area, not in it: an area that goes around has its middle in the body.
    middle = middle + outward * ((points - middle) @ outward).max()
    as_tensor = (torch.as_tensor(x, dtype=torch.float32, device=device) for x in (middle, outward))
    return HandSpace(*as_tensor, tuple(float(s) for s in size_m))


def static_distance(task: Task) -> Solids:
    """The distance to a task's solid background around its objects.

    Boxes exactly; of meshes the cells that their surface goes through, and what it encloses: a thin
    wall is as thick as a cell. A thin box under everything, such as a table, goes on downwards:
    below it nothing is free, so that a hand is the deeper in it the lower it is.
    """
    lowest_m = min(_lowest(task, o) for o in task.objects)
    places = np.array([o.position_m for o in task.objects])
    low = places.min(0) - [AROUND_M, AROUND_M, 0.15]
    sides = np.ceil((places.max(0) + AROUND_M - low) / CELL_M).astype(int) + 1
    axes = [low[d] + CELL_M * np.arange(sides[d]) for d in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)
    distance = np.full(tuple(sides), np.float32(AROUND_M))
    for body in task.spec.background:
        if not body.solid:
            continue
        T = body.T_world_object
        if body.size_m is not None:
            half, middle = np.array(body.size_m) / 2, T[:3, 3].copy()
            upright = T[2, 2] > 0.999
            if upright and middle[2] + half[2] <= lowest_m + CELL_M:
                middle[2], half[2] = middle[2] - AROUND_M, half[2] + AROUND_M
            local = (grid - middle.astype(np.float32)) @ T[:3, :3].astype(np.float32)
            beyond = np.abs(local) - half.astype(np.float32)
            outside = np.linalg.norm(np.maximum(beyond, 0), axis=-1)
            np.minimum(distance, outside + np.minimum(beyond.max(-1), 0), out=distance)
            continue
        mesh = task.mesh(body)
        mesh.apply_transform(T)
        count = int(np.clip(16 * mesh.area / CELL_M**2, 1000, 1_000_000))
        cells = np.round((trimesh.sample.sample_surface(mesh, count, seed=0)[0] - low) / CELL_M)
        cells = cells.astype(int)[((cells >= 0) & (cells < sides)).all(1)]
        taken = np.zeros(tuple(sides), bool)
        taken[tuple(cells.T)] = True
        if not taken.any():
            continue
        if mesh.is_watertight:
            taken = binary_fill_holes(taken)
        away = distance_transform_edt(~taken) - distance_transform_edt(taken)
        # From cell to cell, and the surface lies between them.
        away = CELL_M * (away - 0.5 * np.sign(away))
        np.minimum(distance, away.astype(np.float32), out=distance)
    return Solids(distance_m=distance, low_m=low, cell_m=CELL_M)


def _lowest(task: Task, obj: ObjectSpec) -> float:
    """Height [m, world] of an object's lowest point at first."""
    T = obj.T_world_object
    return float((task.mesh(obj).vertices @ T[2, :3]).min() + T[2, 3])
