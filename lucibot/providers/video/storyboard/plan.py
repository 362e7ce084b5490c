"""The plan of one candidate: who is where in every frame.

A plan is the storyboard's imagination with one seed's jitter in time, pose and size. Nothing in it
is simulated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, Slerp

from lucibot.core.euler import euler_xyz_deg_to_matrix
from lucibot.core.joint import Joint
from lucibot.providers.video.storyboard.morph import MorphPath
from lucibot.providers.video.storyboard.schema import (
    CutSpec,
    HandSpec,
    PieceKey,
    StoryboardSpec,
    TrackSpec,
)
from lucibot.task import Task


@dataclass(frozen=True, kw_only=True)
class HandPath:
    spec: HandSpec
    size: float
    T_world_hand: np.ndarray
    """(T, 4, 4)"""
    openness: np.ndarray
    """(T,) in [0, 1]."""
    present: np.ndarray
    """(T,) bool: may be in the picture."""
    holds: np.ndarray
    """(T,) bool"""


@dataclass(frozen=True, kw_only=True)
class CutPath:
    spec: CutSpec
    normal: np.ndarray
    """(3,) unit, in the cut object's frame."""
    point: np.ndarray
    """(3,) [m] on the plane, in the cut object's frame."""
    keys: dict[str, np.ndarray]
    """Piece name -> (T, 7): along, out, up [m], turn, tilt [deg], bulge [m], sag."""
    begins: int
    """First frame with pieces."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is drawn, frame by frame."""

    times_s: np.ndarray
    """(T,)"""
    names: tuple[str, ...]
    T_world_object: np.ndarray
    """(T, N, 4, 4)"""
    scale: np.ndarray
    """(T, N)"""
    hands: list[HandPath]
    cuts: list[CutPath]
    morphs: list[MorphPath]
    fault: str = ""
    extra: dict = field(default_factory=dict)
    """What the fault adds: a new object, a drift of the picture."""

    def __len__(self) -> int:
        return len(self.times_s)

    def with_(self, **changes) -> Plan:
        return replace(self, **changes)


def make_plan(
    task: Task, spec: StoryboardSpec, rng: np.random.Generator, *, miss: bool = False
) -> Plan:
    """One candidate's plan; `miss` makes it stop short of the goal."""
    warp = _time_warp(spec, rng)
    times = np.arange(0.0, warp(spec.duration_s), 1.0 / task.spec.camera.fps)
    names = tuple(o.name for o in task.objects)
    rest = {o.name: o.T_world_object for o in task.objects}
    groups = {
        g: (rng.normal(size=3) * j.position_m, rng.normal(size=3) * j.rotation_deg)
        for g, j in sorted(spec.jitter.items())
    }
    values = {g: rng.normal() * j.joint for g, j in sorted(spec.jitter.items()) if j.joint}
    missing, missing_values = dict(groups), dict(values)
    if miss and spec.miss.group:
        shift, turn = groups.get(spec.miss.group, (np.zeros(3), np.zeros(3)))
        missing[spec.miss.group] = (shift + np.array(spec.miss.offset_m), turn)
        missing_values[spec.miss.group] = values.get(spec.miss.group, 0.0) + spec.miss.joint

    poses = np.tile(np.stack([rest[n] for n in names]), (len(times), 1, 1, 1))
    moved = {}
    for track in spec.track:
        joint = task.object(track.object).articulation
        if joint is None:
            own = missing if track.object == spec.miss.object else groups
            moved[track.object] = _Track(track, rest, own, warp)
        else:
            moved[track.object] = _JointTrack(track, joint, missing_values, warp)
        poses[:, names.index(track.object)] = moved[track.object](times)

    scale = np.ones((len(times), len(names)))
    for i, name in enumerate(names):
        if task.objects[i].joint is not None:
            continue  # It would leave what it hangs on.
        # A video model lets things grow or shrink while they are handled.
        gone = np.linalg.norm(poses[:, i, :3, 3] - rest[name][:3, 3], axis=-1) > 0.005
        if gone.any():
            first = int(np.argmax(gone))
            ramp = np.clip((np.arange(len(times)) - first) / task.spec.camera.fps, 0, 1)
            scale[:, i] += rng.normal() * spec.size_jitter * ramp * ramp * (3 - 2 * ramp)

    hands = [_hand(h, poses[:, names.index(h.holds)], times, warp, rng, groups) for h in spec.hand]
    cuts = []
    for c in spec.cut:
        inverse = np.linalg.inv(rest[c.object])
        tool = inverse @ moved[c.tool](np.array([warp(c.plane_at_s)]))[0]
        keys = {
            piece: _curves(keys, times, warp, parts=spec.miss.parts or not miss)
            for piece, keys in c.pieces.items()
        }
        cuts.append(CutPath(
            spec=c, normal=tool[:3, :3] @ np.array(c.tool_normal), point=tool[:3, 3], keys=keys,
            begins=int(np.searchsorted(times, warp(c.begins_s))),
        ))  # fmt: skip
    sizes = {
        name: rng.normal() * spec.size_jitter
        for name in dict.fromkeys(m.object for m in spec.morph)
    }
    stops = warp(spec.miss.stops_s) if miss and spec.miss.stops_s is not None else None
    morphs = [
        MorphPath(task, m, times, warp, groups, size=sizes[m.object], stops_s=stops)
        for m in spec.morph
    ]
    return Plan(
        times_s=times, names=names, T_world_object=poses, scale=scale, hands=hands, cuts=cuts,
        morphs=morphs, fault="goal_not_reached" if miss else "",
    )  # fmt: skip


def _time_warp(spec: StoryboardSpec, rng: np.random.Generator):
    """A monotone map from storyboard to video time: each stretch is a bit longer or shorter."""
    events = {0.0, spec.duration_s}
    events |= {k.at_s for t in spec.track for k in t.key}
    events |= {k.at_s for h in spec.hand for k in h.key}
    events |= {t for h in spec.hand for t in (h.enter_s, h.grasp_s, h.release_s, h.leave_s)}
    # Neighbours closer than a tenth of a second belong to one event and are stretched alike.
    first, *later = sorted(events)
    kept = [first]
    for t in later:
        if t - kept[-1] > 0.1:
            kept.append(t)
    # The last is the end of time: beyond it no two moments would differ.
    kept[-1] = later[-1]
    events = np.array(kept)
    stretches = np.diff(events) * np.exp(rng.normal(size=len(events) - 1) * spec.time_jitter)
    warped = np.concatenate([[0.0], np.cumsum(stretches)])
    return lambda t: float(np.interp(t, events, warped))


class _Track:
    """Positions by monotone cubics, rotations by eased slerp between the keys."""

    def __init__(self, spec: TrackSpec, rest: dict, groups: dict, warp):
        keys = sorted(spec.key, key=lambda k: k.at_s)
        self.times = np.array([warp(k.at_s) for k in keys])
        Ts = []
        for k in keys:
            T = euler_xyz_deg_to_matrix(k.position_m, k.rotation_deg)
            own = rest[spec.object]
            if k.frame == "rest":
                T[:3, 3] += own[:3, 3]
                T[:3, :3] = T[:3, :3] @ own[:3, :3]
            elif k.frame != "world":
                T = rest[k.frame] @ T
            if k.group:
                shift, turn = groups.get(k.group, (np.zeros(3), np.zeros(3)))
                T[:3, 3] += shift
                T[:3, :3] = euler_xyz_deg_to_matrix((0, 0, 0), turn)[:3, :3] @ T[:3, :3]
            Ts.append(T)
        Ts = np.stack(Ts)
        self.single = Ts[0] if len(keys) == 1 else None
        if self.single is None:
            self.position = PchipInterpolator(self.times, Ts[:, :3, 3])
            self.rotation = Slerp(self.times, Rotation.from_matrix(Ts[:, :3, :3]))

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """(n,) times [s] to (n, 4, 4)."""
        out = np.tile(np.eye(4), (len(t), 1, 1))
        if self.single is not None:
            out[:] = self.single
            return out
        t = np.clip(t, self.times[0], self.times[-1])
        out[:, :3, 3] = self.position(t)
        out[:, :3, :3] = self.rotation(_eased(t, self.times)).as_matrix()
        return out


class _JointTrack:
    """The values of a joint by a monotone cubic between the keys, within the joint's limits."""

    def __init__(self, spec: TrackSpec, joint: Joint, jitter: dict[str, float], warp):
        keys = sorted(spec.key, key=lambda k: k.at_s)
        shown = np.array([k.joint + jitter.get(k.group, 0.0) for k in keys])
        values = np.clip(np.deg2rad(shown) if joint.is_hinge else shown, joint.lower, joint.upper)
        self.joint, self.values = joint, values
        self.times = np.array([warp(k.at_s) for k in keys])

    def __call__(self, t: np.ndarray) -> np.ndarray:
        """(n,) times [s] to (n, 4, 4)."""
        if len(self.times) == 1:
            return self.joint.poses(np.full(len(t), self.values[0]))
        curve = PchipInterpolator(self.times, self.values)
        return self.joint.poses(curve(np.clip(t, self.times[0], self.times[-1])))


def _eased(t: np.ndarray, keys: np.ndarray) -> np.ndarray:
    k = np.clip(np.searchsorted(keys, t, side="right") - 1, 0, len(keys) - 2)
    s = (t - keys[k]) / (keys[k + 1] - keys[k])
    return keys[k] + (keys[k + 1] - keys[k]) * np.clip(s * s * (3 - 2 * s), 0, 1)


def _curves(keys: list[PieceKey], times: np.ndarray, warp, *, parts: bool) -> np.ndarray:
    rows = np.array([
        [k.along_m, k.out_m, k.up_m, k.turn_deg, k.tilt_deg, k.bulge_m, k.sag] for k in keys
    ])  # fmt: skip
    if not parts:
        rows = np.zeros_like(rows)
    at = np.array([warp(k.at_s) for k in keys])
    if len(keys) == 1:
        return np.tile(rows[0], (len(times), 1))
    return PchipInterpolator(at, rows)(np.clip(times, at[0], at[-1]))


def _hand(spec: HandSpec, object_poses: np.ndarray, times, warp, rng, groups) -> HandPath:
    x = np.array(spec.grip_x) / np.linalg.norm(spec.grip_x)
    z = np.array(spec.grip_z) - x * (x @ np.array(spec.grip_z))
    z /= np.linalg.norm(z)
    T_object_hand = np.eye(4)
    T_object_hand[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    T_object_hand[:3, 3] = np.array(spec.grip_position_m) + x * rng.normal() * 0.003
    held = object_poses @ T_object_hand
    if spec.key:
        at = np.array([warp(k.at_s) for k in spec.key])
        shifts = [
            np.array(k.offset_m) + groups.get(k.group, (np.zeros(3),))[0] for k in spec.key
        ]  # fmt: skip
        way = PchipInterpolator(at, np.stack(shifts))
        held[:, :3, 3] += way(np.clip(times, at[0], at[-1]))
    enter, grasp, release, leave = (
        warp(t) for t in (spec.enter_s, spec.grasp_s, spec.release_s, spec.leave_s)
    )
    outside = np.array(spec.enters_from_m) + rng.normal(size=3) * 0.01
    hover = np.array(spec.hover_m)
    # The way in: from outside to a point above the grasp, then onto it; the way out is its mirror.
    path = PchipInterpolator([0.0, 0.72, 1.0], np.stack([outside, hover, np.zeros(3)]))
    T = held.copy()
    coming, going = times < grasp, times > release
    T[coming] = held[np.searchsorted(times, grasp)]
    T[going] = held[min(np.searchsorted(times, release), len(times) - 1)]
    nearness = np.ones(len(times))
    nearness[coming] = np.clip((times[coming] - enter) / (grasp - enter), 0, 1)
    nearness[going] = np.clip((leave - times[going]) / (leave - release), 0, 1)
    smooth = np.sin(0.5 * np.pi * nearness)
    T[:, :3, 3] += np.where((coming | going)[:, None], path(smooth), 0.0)
    openness = 0.55 * np.clip((1 - smooth) / 0.22, 0, 1)
    return HandPath(
        spec=spec, size=1 + rng.normal() * 0.04, T_world_hand=T, openness=openness,
        present=(times >= enter) & (times <= leave), holds=~coming & ~going,
    )  # fmt: skip
