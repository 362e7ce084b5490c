"""The schema of `storyboard.toml`: an imagination told by key poses and key meshes."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from lucibot.core.errors import UserError, unknown_name
from lucibot.core.schema import (
    Degrees,
    Direction,
    Distance,
    FileName,
    Flag,
    Fraction,
    Index,
    Length,
    Metres,
    Name,
    NonNegative,
    Number,
    Position,
    Rotation,
    Seconds,
    Spec,
    Spread,
    increasing,
    parse,
)
from lucibot.task import Task
from lucibot.task.files import read_toml
from lucibot.task.references import Names, ObjectName, ensure_named

LEAST_FRAMES = 8
MOST_BYTES = 4 * 2**30
"""Of a video's pixels: they are in memory at once."""
Frame = Annotated[Name, Names("object", besides=("rest", "world"))]
Turn = Annotated[Degrees, Field(ge=0)]
"""A standard deviation [deg]."""


class Key(Spec):
    at_s: Seconds
    frame: Frame = "rest"
    """`rest`: an offset from the object's own initial pose, along world axes; `world`; or the name
    of an object, for a pose in that object's initial frame."""
    position_m: Position = (0.0, 0.0, 0.0)
    rotation_deg: Rotation = (0.0, 0.0, 0.0)
    joint: Number | None = None
    """Instead of a pose, for an object on a joint: its value [deg or m]."""
    group: Name | None = None
    """Keys of one group share their jitter; keys without a group have none."""


class TrackSpec(Spec):
    object: ObjectName
    key: list[Key] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self):
        increasing((k.at_s for k in self.key), "keys")
        return self


class JitterSpec(Spec):
    """Standard deviations of one group's jitter."""

    position_m: Spread = (0.0, 0.0, 0.0)
    rotation_deg: tuple[Turn, Turn, Turn] = (0.0, 0.0, 0.0)
    joint: NonNegative = 0.0
    """[deg or m]."""


class HandKey(Spec):
    at_s: Seconds
    offset_m: Position = (0.0, 0.0, 0.0)
    """Of the grip from where it took hold [m, world]."""
    group: Name | None = None
    """Keys of one group share their jitter, here the shift alone."""


class HandSpec(Spec):
    holds: ObjectName
    side: Literal["right", "left"] = "right"
    grip_position_m: Position
    """Centre of the gripped stretch, in the object's frame."""
    grip_x: Direction
    """Direction of the hand frame's x (along the gripped cylinder), in the object's frame."""
    grip_z: Direction
    """Direction of the back of the hand, in the object's frame."""
    grip_radius_m: Length = Field(le=1)
    slant: Number = Field(0.8, ge=-10, le=10)
    elbow_m: Position
    """Where the forearm points to [m, world]."""
    forearm_m: Length = Field(0.50, le=10)
    """How long it is; where the camera is far away it must reach out of the picture."""
    enters_from_m: Position
    """Offset [m, world] of the hand outside the picture from its grasp; it leaves that way too."""
    hover_m: Position = (0.0, 0.0, 0.05)
    key: list[HandKey] = Field(default_factory=list)
    """Its way with a deformable, which has no pose that it could follow."""
    enter_s: Seconds
    grasp_s: Seconds
    release_s: Seconds
    leave_s: Seconds

    @model_validator(mode="after")
    def _possible(self):
        increasing(
            (self.enter_s, self.grasp_s, self.release_s, self.leave_s),
            "enter_s, grasp_s, release_s and leave_s",
        )
        increasing((k.at_s for k in self.key), "keys")
        if len(self.key) == 1:
            raise ValueError("a hand's way needs two keys at least")
        if np.linalg.norm(np.cross(self.grip_x, self.grip_z)) < 1e-6:
            raise ValueError("grip_x and grip_z must not be along one line")
        return self


class PieceKey(Spec):
    at_s: Seconds
    along_m: Metres = 0.0
    out_m: Metres = 0.0
    """Away from the cut."""
    up_m: Metres = 0.0
    turn_deg: Degrees = 0.0
    """About the vertical, opening the far end of the blade for positive values."""
    tilt_deg: Degrees = 0.0
    """About the cut's direction, opening the top for positive values."""
    bulge_m: Metres = 0.0
    sag: Fraction = 0.0
    """Share of the height that is lost."""


class CutSpec(Spec):
    object: ObjectName
    tool: ObjectName
    tool_normal: Direction = (0.0, 1.0, 0.0)
    """Normal of the cutting plane in the tool's frame; the plane holds the tool's origin."""
    plane_at_s: Seconds
    """When the tool's pose defines the plane."""
    begins_s: Seconds
    """From here on the pieces are drawn instead of the whole."""
    notch_m: Distance = 0.004
    """Width of the notch that opens where the tool has passed."""
    pieces: dict[Literal["plus", "minus"], list[PieceKey]]

    @model_validator(mode="after")
    def _two_pieces(self):
        for side in ("plus", "minus"):
            if not self.pieces.get(side):
                raise ValueError(f"pieces.{side} needs a key at least")
            increasing((k.at_s for k in self.pieces[side]), f"keys of pieces.{side}")
        return self


class MorphKey(Spec):
    at_s: Seconds
    mesh: Index = 0
    """Which of the file's meshes."""
    frame: Frame = "rest"
    """What the vertices are relative to: `rest`, the object's own initial pose; `world`; or the
    name of a rigid object, with which they then ride."""
    position_m: Position = (0.0, 0.0, 0.0)
    rotation_deg: Rotation = (0.0, 0.0, 0.0)
    """Where the mesh is put in that frame."""
    scale: NonNegative = Field(1.0, le=1000)
    """About the mesh's origin, before it is put there; 0 draws nothing."""
    group: Name | None = None
    """Keys of one group share their jitter, along the frame's axes and about the mesh's middle."""


class MorphSpec(Spec):
    """A deformable object, or one part of it, told by key meshes."""

    object: ObjectName
    part: Name | None = None
    """Its name, different for all morphs; the object's by default."""
    meshes: FileName
    """An .npz file of key meshes in the task folder, see `lucibot.providers.video.storyboard.morph`."""
    key: list[MorphKey] = Field(min_length=1)
    """Before the first key the part is not there; after the last it stays as it is. The object's
    own mesh is drawn until the first of its parts is there."""
    until_s: Seconds | None = None
    """From here on the part is gone."""

    @model_validator(mode="after")
    def _in_order(self):
        increasing((k.at_s for k in self.key), "keys")
        return self


class MissSpec(Spec):
    """How the goal is missed, for the fault of that name."""

    object: ObjectName | None = None
    """Whose keys of `group` get another offset."""
    group: Name | None = None
    offset_m: Position = (0.0, 0.0, 0.0)
    """World axes."""
    joint: Number = 0.0
    """The offset of keys of `group` that give a joint's value [deg or m]."""
    parts: Flag = False
    """Whether pieces still part."""
    stops_s: Seconds | None = None
    """From here on no morph changes any more, none appears or vanishes; riding ones still ride."""

    @model_validator(mode="after")
    def _something(self):
        if not self.object and self.stops_s is None:
            raise ValueError("needs object, group and offset_m, or stops_s, or both")
        return self


class StoryboardSpec(Spec):
    duration_s: Seconds = Field(ge=0.5, le=120)
    time_jitter: NonNegative = Field(0.08, le=1)
    """Standard deviation of the logarithm of each stretch between two events."""
    size_jitter: NonNegative = Field(0.02, le=0.3)
    jitter: dict[Name, JitterSpec] = Field(default_factory=dict)
    track: list[TrackSpec] = Field(default_factory=list)
    hand: list[HandSpec] = Field(default_factory=list)
    cut: list[CutSpec] = Field(default_factory=list)
    morph: list[MorphSpec] = Field(default_factory=list)
    slides: list[ObjectName] = Field(default_factory=list)
    """What may move by itself in the fault of that kind; by default all that no hand holds. What
    lies in a vessel cannot leave it alone."""
    miss: MissSpec

    @model_validator(mode="after")
    def _consistent(self):
        for kind, names in {
            "[[track]]": [t.object for t in self.track],
            "[[cut]]": [c.object for c in self.cut],
            "[[morph]], by part,": [m.part or m.object for m in self.morph],
        }.items():
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{twice[0]!r} has more than one {kind} of its own")
        keys = [k for told in (*self.track, *self.hand, *self.morph) for k in told.key]
        for group in [k.group for k in keys] + [self.miss.group]:
            if group is not None and group not in self.jitter:
                raise ValueError(str(unknown_name("group of keys (a [jitter.NAME])", group,
                                                  self.jitter)))  # fmt: skip
        missed = {(t.object, k.group) for t in self.track for k in t.key if k.group is not None}
        if self.miss.object is not None and (self.miss.object, self.miss.group) not in missed:
            raise ValueError(
                f"miss: no key of {self.miss.object!r}'s [[track]] is of group {self.miss.group!r}, so "
                "nothing would be missed"
            )
        moved = {t.object for t in self.track}
        for cut in self.cut:
            if cut.tool not in moved:
                raise ValueError(f"the cut's tool {cut.tool!r} has no [[track]]")
        told = [k for t in (*self.track, *self.morph) for k in t.key]
        told += [k for c in self.cut for keys in c.pieces.values() for k in keys]
        late = [k.at_s for k in told if k.at_s > self.duration_s + 1e-9]
        if late:
            raise ValueError(f"a key at {late[0]:g} s comes after duration_s = {self.duration_s:g}")
        return self


def load_storyboard(task: Task) -> StoryboardSpec:
    """The task's storyboard.

    Raises:
        UserError: it is missing or does not follow the schema.
    """
    path = task.folder / "storyboard.toml"
    if not path.is_file():
        raise UserError(
            f"task {task.name!r} has no storyboard.toml, so the storyboard cannot draw it; "
            "write one or give a video file with --video"
        )
    spec = parse(StoryboardSpec, read_toml(task.path(path.name)), str(path))
    ensure_named(task, spec, str(path))
    for track in spec.track:
        wanted = task.object(track.object).joint is not None
        if any((k.joint is not None) != wanted for k in track.key):
            raise UserError(
                f"{path}: {track.object!r} is {'' if wanted else 'not '}on a joint, so its keys give "
                + ("joint, not a pose" if wanted else "a pose, not joint")
            )
    camera = task.spec.camera
    frames = spec.duration_s * camera.fps
    if not LEAST_FRAMES <= frames <= MOST_BYTES / (3 * camera.width * camera.height):
        raise UserError(
            f"{path}: duration_s = {spec.duration_s:g} makes {frames:.0f} frames at the camera's rate "
            f"and size; a video has {LEAST_FRAMES} at least and {MOST_BYTES / 2**30:g} GiB at most"
        )
    return spec
