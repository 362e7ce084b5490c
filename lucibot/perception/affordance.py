"""Where hands hold the actuators, and where their finger tips are (paper, section 3.4, affordance).

The area that a hand holds is read when it takes hold, in the frames in which the object still lies
where it lay or was put: its pose is known best then. From then on it goes with the object, so that
where the tips are seen later tells what an outline cannot, such as a bottle's turn about its axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy.spatial import cKDTree

from lucibot.core.camera import Camera
from lucibot.core.geometry import matrix_np
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.objective.supervision import TIPS, Affordance, Supervision
from lucibot.perception.config import AffordanceConfig
from lucibot.perception.grasp import Grasp
from lucibot.providers.hand.base import Hand
from lucibot.task import ObjectSpec, Task
from lucibot.vision.draw import DrawMesh, draw_depth
from lucibot.vision.spans import runs

NORMAL_SAMPLES = 4000
"""Points of a surface from which the normals of an area are taken over."""


def read_affordance(
    task: Task,
    view: SceneView,
    tracks: Tracks,
    hands: list[list[Hand]],
    held: np.ndarray,
    grasps: dict[str, list[Grasp]],
    keyframes: np.ndarray,
    fps: float,
    config: AffordanceConfig,
    *,
    size: tuple[int, int],
    seed: int,
) -> Affordance:
    """What the video's hands hold, and where.

    Args:
        tracks: with the refined poses of rigid objects.
        hands: those of each of the T frames, in pixels of the tracks' masks; others than
            `frames_read` are not looked at.
        held: (T, A) bool.
        grasps: the holds of each deformable actuator.
        keyframes: (K,) frames.
        size: (width, height) of the observation grid, on which tips are told.
        seed: of the choice among more points than are kept.
    """
    actuators, rng = task.actuators, np.random.default_rng(seed)
    out = Affordance.none(
        len(keyframes), len(actuators), points=config.points, hand_m=config.hand_m
    )
    height, width = tracks.masks.shape[2:]
    camera = view.camera.resized(width, height)
    look = max(1, round(config.look_s * fps))
    for a, obj in enumerate(actuators):
        surface = _surface(task, tracks, grasps, camera, obj)
        holds = runs(held[:, a])
        taken = [range(begin, min(begin + look, end)) for begin, end in holds]
        areas = [surface.area(h, hands, frames, config.area_m) for h, frames in enumerate(taken)]
        sides = [surface.sides(hands, frames, config.area_m) for frames in taken]
        _store(out, a, areas, _normals(task, obj, camera), rng)
        for k, t in enumerate(keyframes.tolist()):
            began = [h for h, (begin, _) in enumerate(holds) if begin <= t]
            out.hold[k, a] = began[-1] if began else -1
            if held[t, a]:
                # What one hand hands over to the other is no longer where the first one took it.
                same = [h for h in hands[t] if _may_be(h, sides[began[-1]] if began else set())]
                at = surface.tips(same, t, config.area_m)
                out.tips_m[k, a] = at
                uv, _ = camera.resized(*size).project(at)
                out.tips_px[k, a] = uv
    return out


def frames_read(
    held: np.ndarray, keyframes: np.ndarray, fps: float, config: AffordanceConfig
) -> np.ndarray:
    """The frames, ascending, in which `read_affordance` looks at hands: at the beginning of each hold
    and at the keyframes at which something is held.

    Args:
        held: (T, A) bool.
        keyframes: (K,) frames.
    """
    look = max(1, round(config.look_s * fps))
    taken = [np.arange(begin, min(begin + look, end)) for one in held.T for begin, end in runs(one)]
    return np.unique(np.concatenate([*taken, keyframes[held[keyframes].any(1)]]).astype(int))


def grasps_at(
    task: Task, supervision: Supervision, k: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By actuator that is held at keyframe k: the area (P, 3) [m, world] of that hold at the
    estimated pose, and the tips (5, 3) [m, world] that are seen on it."""
    out, told = {}, supervision.affordance
    for a, obj in enumerate(task.actuators):
        if not supervision.held[k, a]:
            continue
        points, pose = (
            told.area(a, int(told.hold[k, a]))[0].astype(float),
            supervision.waypoints[k, a],
        )
        if obj.is_rigid:
            T = matrix_np(pose)
            points = points @ T[:3, :3].T + T[:3, 3]
        elif len(points):
            # The waypoint of a deformable is where its grasped place is.
            points = points @ obj.T_world_object[:3, :3].T
            points = points - points.mean(0) + pose[:3]
        out[obj.name] = points, told.tips_m[k, a]
    return out


def _may_be(hand: Hand, sides: set[str]) -> bool:
    return not sides or hand.side == "unknown" or hand.side in sides


def _store(out: Affordance, a: int, areas: list[np.ndarray], normals_at, rng) -> None:
    """Actuator a's points (P, 3) of each hold, as many of each as there is room for."""
    count = out.points.shape[1]
    room = np.full(len(areas), count // max(1, len([x for x in areas if len(x)])))
    at = 0
    for h, points in enumerate(areas):
        if len(points) > room[h]:
            points = points[np.sort(rng.choice(len(points), room[h], replace=False))]
        if len(points) == 0:
            continue
        rows = slice(at, at + len(points))
        out.points[a, rows], out.normals[a, rows] = points, normals_at(points)
        out.point_hold[a, rows] = h
        at += len(points)


@dataclass(frozen=True)
class _Seen:
    """The pixels (P,) that a posed object covers in a frame."""

    camera: Camera
    vu: np.ndarray
    """(P, 2) rows and columns."""
    depth_m: np.ndarray
    """(P,)."""

    @property
    def surface_m(self) -> np.ndarray:
        """(P, 3) [world]."""
        v, u = self.vu.T
        return self.camera.T_world_cam[:3, 3] + self.camera.rays[v, u] * self.depth_m[:, None]

    def under(self, tip: np.ndarray, area_m: float) -> int | None:
        """The pixel at which a tip (2,) meets the object.

        Tips a little beside the silhouette (behind its edge, or misread by some pixels) are moved to
        its nearest pixel; tips farther than twice the area are on something else.
        """
        if not np.isfinite(tip).all():
            return None
        apart = np.linalg.norm(self.vu[:, ::-1] + 0.5 - tip, axis=1)
        at = int(apart.argmin())
        return at if apart[at] * self.depth_m[at] / self.camera.fx <= 2 * area_m else None

    def depth_about(self, at: int) -> float:
        """A rim or a hole beside a pixel must not decide: the middle of what is around."""
        return float(np.median(self.depth_m[np.abs(self.vu - self.vu[at]).max(1) <= 2]))


class _Rigid:
    """The surface of a posed mesh under finger tips."""

    def __init__(self, task: Task, obj: ObjectSpec, tracks: Tracks, camera: Camera):
        self._mesh = DrawMesh.from_trimesh(task.mesh(obj), obj.T_world_object)
        self._camera = camera
        i = task.label(obj.name) - 1
        self._poses = tracks.poses[:, i]
        self._usable = ~tracks.lost[:, i] & np.isfinite(self._poses).all(1)

    def area(self, hold: int, hands, frames: range, area_m: float) -> np.ndarray:
        """Points (P, 3) [m] of the object's frame, within `area_m` of where tips meet it."""
        found = [np.zeros((0, 3))]
        for t in frames:
            seen = self._seen(t)
            tips = [tip for hand in hands[t] for tip in hand.tips_px] if seen else []
            at = [under for tip in tips if (under := seen.under(tip, area_m)) is not None]
            if at:
                surface, T = seen.surface_m, matrix_np(self._poses[t])
                near = cKDTree(surface[at]).query(surface)[0] < area_m
                found.append((surface[near] - T[:3, 3]) @ T[:3, :3])
        return np.concatenate(found)

    def sides(self, hands, frames: range, area_m: float) -> set[str]:
        """Which of the two hands have tips on it, where that is known."""
        out = set()
        for t in frames:
            seen = self._seen(t) if any(h.side != "unknown" for h in hands[t]) else None
            for hand in hands[t] if seen else []:
                if any(seen.under(tip, area_m) is not None for tip in hand.tips_px):
                    out.add(hand.side)
        return out - {"unknown"}

    def tips(self, hands: list[Hand], t: int, area_m: float) -> np.ndarray:
        """(5, 3) [m, world] tips of the hand that has most of them on the object, as far away as
        the surface under them; NaN where none is."""
        best, seen = np.full((TIPS, 3), np.nan), self._seen(t)
        for hand in hands if seen else []:
            at = np.full((TIPS, 3), np.nan)
            for n, tip in enumerate(hand.tips_px):
                under = seen.under(tip, area_m)
                if under is not None:
                    at[n] = _on_ray(self._camera, tip, seen.depth_about(under))
            if np.isfinite(at).sum() > np.isfinite(best).sum():
                best = at
        return best

    def _seen(self, t: int) -> _Seen | None:
        if not self._usable[t]:
            return None
        T = matrix_np(self._poses[t])
        T[:3, 3] += T[:3, :3] @ self._mesh.anchor_m
        picture = draw_depth(self._mesh, T[None], self._camera)[0].astype(float)
        covered = np.isfinite(picture)
        return (
            _Seen(self._camera, np.argwhere(covered), picture[covered]) if covered.any() else None
        )


class _Soft:
    """A deformable: the place that each hold takes, and the tips about it."""

    def __init__(self, task: Task, obj: ObjectSpec, grasps: list[Grasp], camera: Camera):
        self._grasps, self._camera = grasps, camera

    def area(self, hold: int, hands, frames: range, area_m: float) -> np.ndarray:
        found = [g.points for g in self._grasps if g.hold == hold]
        return found[0] if found else np.zeros((0, 3))

    def sides(self, hands, frames: range, area_m: float) -> set[str]:
        return set()

    def tips(self, hands: list[Hand], t: int, area_m: float) -> np.ndarray:
        """(5, 3) [m, world] tips of the hand that has most of them about the grasped place, as far
        away as it is; NaN where none is."""
        best = np.full((TIPS, 3), np.nan)
        now = [g for g in self._grasps if g.begin <= t < g.end]
        for hand in hands if now else []:
            uv, depth = self._camera.project(now[0].path[t - now[0].begin, :3])
            # The fingers of a fist lie around what it holds.
            near = np.linalg.norm(hand.tips_px - uv, axis=1) * depth / self._camera.fx <= 4 * area_m
            at = np.full((TIPS, 3), np.nan)
            for n in np.flatnonzero(near):
                at[n] = _on_ray(self._camera, hand.tips_px[n], float(depth))
            if np.isfinite(at).sum() > np.isfinite(best).sum():
                best = at
        return best


def _surface(task, tracks, grasps, camera, obj) -> _Rigid | _Soft:
    if obj.is_rigid:
        return _Rigid(task, obj, tracks, camera)
    return _Soft(task, obj, grasps.get(obj.name, []), camera)


def _on_ray(camera: Camera, pixel: np.ndarray, depth_m: float) -> np.ndarray:
    """(3,) [m, world]."""
    ray = np.array([(pixel[0] - camera.cx) / camera.fx, (pixel[1] - camera.cy) / camera.fy, 1.0])
    return camera.T_world_cam[:3, 3] + camera.T_world_cam[:3, :3] @ (ray * depth_m)


def _normals(task: Task, obj: ObjectSpec, camera: Camera):
    """What gives outward normals (P, 3) at points (P, 3), both of the object's frame: those of the
    nearest sample of its surface. Of the two faces of a thin wall the one that the camera sees at
    first is meant, where there is a choice."""
    mesh = task.mesh(obj)
    samples, face = trimesh.sample.sample_surface(mesh, NORMAL_SAMPLES, seed=0)
    samples, normals = np.asarray(samples), np.asarray(mesh.face_normals)[face]
    T = obj.T_world_object
    eye = (camera.T_world_cam[:3, 3] - T[:3, 3]) @ T[:3, :3]
    sees = ((eye - samples) * normals).sum(1) > 0
    if sees.any():
        samples, normals = samples[sees], normals[sees]
    tree = cKDTree(samples)
    return lambda points: normals[tree.query(points)[1]]
