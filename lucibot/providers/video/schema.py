"""The schema of `storyboard.toml`: an imagination told by key poses and key meshes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lucibot.core.errors import UserError
from lucibot.task import Task
from lucibot.task.files import read_toml

Vec3 = tuple[float, float, float]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Key(_Spec):
    at_s: float = Field(ge=0)
    frame: str = "rest"
    """`rest`: an offset from the object's own initial pose, along world axes; `world`; or the name
    of an object, for a pose in that object's initial frame."""
    position_m: Vec3 = (0.0, 0.0, 0.0)
    rotation_deg: Vec3 = (0.0, 0.0, 0.0)
    joint: float | None = None
    """Instead of a pose, for an object on a joint: its value [deg or m]."""
    group: str = ""
    """Keys of one group share their jitter; keys without a group have none."""


class TrackSpec(_Spec):
    object: str
    key: list[Key]


class JitterSpec(_Spec):
    """Standard deviations of one group's jitter."""

    position_m: Vec3 = (0.0, 0.0, 0.0)
    rotation_deg: Vec3 = (0.0, 0.0, 0.0)
    joint: float = 0.0
    """[deg or m]."""


class HandKey(_Spec):
    at_s: float = Field(ge=0)
    offset_m: Vec3 = (0.0, 0.0, 0.0)
    """Of the grip from where it took hold [m, world]."""
    group: str = ""
    """Keys of one group share their jitter, here the shift alone."""


class HandSpec(_Spec):
    holds: str
    side: Literal["right", "left"] = "right"
    grip_position_m: Vec3
    """Centre of the gripped stretch, in the object's frame."""
    grip_x: Vec3
    """Direction of the hand frame's x (along the gripped cylinder), in the object's frame."""
    grip_z: Vec3
    """Direction of the back of the hand, in the object's frame."""
    grip_radius_m: float
    slant: float = 0.8
    elbow_m: Vec3
    """Where the forearm points to [m, world]."""
    forearm_m: float = 0.50
    """How long it is; where the camera is far away it must reach out of the picture."""
    enters_from_m: Vec3
    """Offset [m, world] of the hand outside the picture from its grasp; it leaves that way too."""
    hover_m: Vec3 = (0.0, 0.0, 0.05)
    key: list[HandKey] = []
    """Its way with a deformable, which has no pose that it could follow."""
    enter_s: float
    grasp_s: float
    release_s: float
    leave_s: float


class PieceKey(_Spec):
    at_s: float
    along_m: float = 0.0
    out_m: float = 0.0
    """Away from the cut."""
    up_m: float = 0.0
    turn_deg: float = 0.0
    """About the vertical, opening the far end of the blade for positive values."""
    tilt_deg: float = 0.0
    """About the cut's direction, opening the top for positive values."""
    bulge_m: float = 0.0
    sag: float = 0.0
    """Share of the height that is lost."""


class CutSpec(_Spec):
    object: str
    tool: str
    tool_normal: Vec3 = (0.0, 1.0, 0.0)
    """Normal of the cutting plane in the tool's frame; the plane holds the tool's origin."""
    plane_at_s: float
    """When the tool's pose defines the plane."""
    begins_s: float
    """From here on the pieces are drawn instead of the whole."""
    notch_m: float = 0.004
    """Width of the notch that opens where the tool has passed."""
    pieces: dict[Literal["plus", "minus"], list[PieceKey]]


class MorphKey(_Spec):
    at_s: float = Field(ge=0)
    mesh: int = Field(0, ge=0)
    """Which of the file's meshes."""
    frame: str = "rest"
    """What the vertices are relative to: `rest`, the object's own initial pose; `world`; or the
    name of a rigid object, with which they then ride."""
    position_m: Vec3 = (0.0, 0.0, 0.0)
    rotation_deg: Vec3 = (0.0, 0.0, 0.0)
    """Where the mesh is put in that frame."""
    scale: float = Field(1.0, ge=0)
    """About the mesh's origin, before it is put there; 0 draws nothing."""
    group: str = ""
    """Keys of one group share their jitter, along the frame's axes and about the mesh's middle."""


class MorphSpec(_Spec):
    """A deformable object, or one part of it, told by key meshes."""

    object: str
    part: str = ""
    """Its name, different for all morphs; the object's by default."""
    meshes: str
    """An .npz file of key meshes in the task folder, see `lucibot.providers.video.morph`."""
    key: list[MorphKey] = Field(min_length=1)
    """Before the first key the part is not there; after the last it stays as it is. The object's
    own mesh is drawn until the first of its parts is there."""
    until_s: float | None = None
    """From here on the part is gone."""


class MissSpec(_Spec):
    """How the goal is missed, for the fault of that name."""

    object: str = ""
    """Whose keys of `group` get another offset."""
    group: str = ""
    offset_m: Vec3 = (0.0, 0.0, 0.0)
    """World axes."""
    joint: float = 0.0
    """The offset of keys of `group` that give a joint's value [deg or m]."""
    parts: bool = False
    """Whether pieces still part."""
    stops_s: float | None = None
    """From here on no morph changes any more, none appears or vanishes; riding ones still ride."""

    @model_validator(mode="after")
    def _something(self):
        if not self.object and self.stops_s is None:
            raise ValueError("needs object, group and offset_m, or stops_s, or both")
        return self


class StoryboardSpec(_Spec):
    duration_s: float
    time_jitter: float = 0.08
    """Standard deviation of the logarithm of each stretch between two events."""
    size_jitter: float = 0.02
    jitter: dict[str, JitterSpec] = {}
    track: list[TrackSpec] = []
    hand: list[HandSpec] = []
    cut: list[CutSpec] = []
    morph: list[MorphSpec] = []
    slides: list[str] = []
    """What may move by itself in the fault of that kind; by default all that no hand holds. What
    lies in a vessel cannot leave it alone."""
    miss: MissSpec


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
    try:
        spec = StoryboardSpec.model_validate(read_toml(task.path(path.name)))
    except ValidationError as e:
        first = e.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    named = [t.object for t in spec.track] + [h.holds for h in spec.hand]
    named += [n for c in spec.cut for n in (c.object, c.tool)]
    named += (
        spec.slides + [spec.miss.object] * bool(spec.miss.object) + [m.object for m in spec.morph]
    )
    keys = [k for told in (*spec.track, *spec.morph) for k in told.key]
    named += [k.frame for k in keys if k.frame not in ("rest", "world")]
    for name in named:
        task.object(name)
    for track in spec.track:
        wanted = task.object(track.object).joint is not None
        if any((k.joint is not None) != wanted for k in track.key):
            raise UserError(
                f"{path}: {track.object!r} is {'' if wanted else 'not '}on a joint, so its keys give "
                + ("joint, not a pose" if wanted else "a pose, not joint")
            )
    parts = [m.part or m.object for m in spec.morph]
    if len(set(parts)) < len(parts):
        raise UserError(f"{path}: every morph needs a name of its own in part")
    return spec
