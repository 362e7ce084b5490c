"""Intake: any video file, whatever made it, becomes a clip on a task's grid, and what was done to
it is said.

The clip starts with the first picture that shows the scene as it is, has the task camera's size
and frame rate, and lies on the scene to the pixel as far as both can be compared. What cannot be
brought there is refused with its cause. Nothing here is random.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from lucibot.core.camera import Camera
from lucibot.core.config import Config
from lucibot.core.errors import UserError
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.schema import Finite, Positive
from lucibot.core.video import Video
from lucibot.task import Task
from lucibot.vision.fades import find_fades
from lucibot.vision.footage import Facts, Footage
from lucibot.vision.mirrored import turning_point
from lucibot.vision.placement import layout
from lucibot.vision.start import Head, Refused, Start, brought_onto, find_start, lies, read_head


@dataclass(frozen=True, kw_only=True)
class IntakeConfig(Config):
    """What a file may be like."""

    least_similarity: Annotated[Finite, Field(ge=-1, le=1)] = 0.55
    """Least similarity in [-1, 1] of each object's surroundings in the first picture to the scene's:
    other scenes stay below 0.55 in at least one object, mostly far below; the same scene in another
    style and crop gives 0.6 and more."""
    shortest_s: Positive = 0.5
    """A shorter clip shows nothing being done."""
    longest_s: Positive = 30.0
    """What comes later is left off: a clip is held in memory by the stages that read it."""
    lead_s: float = 2.0
    """How long a fade, a black or a strange picture may last before the scene is seen."""
    shift_free: float = 0.0015
    """Mean displacement of the picture's corners that is left as it is [picture widths]."""
    shift_most: float = 0.06
    """Up to here a certain displacement is taken out; a larger one is refused."""


@dataclass(frozen=True, kw_only=True)
class IntakeReport:
    """What was found in a file and done to it."""

    file: str
    codec: str
    stored: tuple[int, int]
    pixel_format: str
    matrix: str
    full_range: bool
    rotation_deg: int
    mirrored: bool
    pixel_aspect: float
    source_fps: float
    """Mean pictures a second."""
    variable_rate: bool
    source_frames: int
    """Pictures decoded; not all of a file whose end was left off."""
    source_s: float
    """How far the file was decoded [s]."""
    start_s: float
    """Time in the file of the clip's first picture [s]."""
    end_s: float
    """Time in the file at which the clip ends [s]."""
    frames: int
    """Pictures of the clip, at the task's frame rate."""
    crop: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the upright picture that was used [pixels]."""
    bars: tuple[int, int, int, int]
    """Black bars taken off: left, top, right, bottom [pixels of the upright picture]."""
    valid: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the grid that the file's picture covers [pixels]: the rest is bars, or the
    border's pixels repeated."""
    similarity: float
    """Of the object that looks least like the scene's, in the clip's first picture, in [-1, 1]."""
    registered: bool
    """Whether scene and first picture agree on where the scene lies."""
    registration: dict[str, float]
    """`agreeing` of `patches`, their correlation `alike`, `shift_x_px`, `shift_y_px` (the scene lies
    so far to the right and down), `scale`, `turn_deg` (clockwise), `displacement_px` (mean of the
    corners), on the camera's grid, before any correction."""
    corrected: bool
    """Whether that was taken out."""
    fades_s: tuple[tuple[float, float, float], ...]
    """Fades in the middle: from when until when in the file [s], and the least contrast, as a share
    of what it usually is."""
    fades_out_s: float | None
    """Time in the file from which it fades out, where the clip ends [s]; None if it does not."""
    flicker: float
    """How much brightness changes from picture to picture and back, as a share; 0 if it does not."""
    done: tuple[str, ...]
    """What was done, a sentence each."""
    warnings: tuple[str, ...]
    """What may spoil the result, a sentence each."""

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Fades:
    """See `IntakeReport`."""

    between_s: tuple[tuple[float, float, float], ...]
    out_s: float | None
    flicker: float


def take_in(
    path: Path,
    task: Task,
    view: SceneView,
    config: IntakeConfig | None = None,
    *,
    progress: Progress = silent,
) -> tuple[Video, IntakeReport]:
    """Read a file and fit it to the task's camera and the scene's picture.

    Raises:
        UserError: it is missing, no video, cannot be decoded, is too short, or does not start with
            the scene; the message names the cause. `Refused` where there is a picture to show.
    """
    config = config or IntakeConfig()
    camera = task.camera
    footage = Footage(path)
    progress(f"reading {footage.path.name}", 0.0)
    head = read_head(footage, config)
    _refuse_short(footage, config)
    start = find_start(footage, head, task, view, config)
    video, turn_s, fades, left_off = _clip(footage, start, head, task, config, progress)
    ended = start.time_s + video.duration_s
    done, warnings = _say(footage.facts, start, head, task, left_off)
    warnings += _said_of(fades)
    if turn_s is not None:
        warnings.append(
            f"it runs backwards from {turn_s:.2f} s on, the way that it came: the clip ends there"
        )
    elif left_off and fades.out_s is None:
        warnings.append(
            f"it goes on after {config.longest_s:g} s; what comes later is left off (raise "
            "--intake.longest-s)"
        )
    if video.duration_s < config.shortest_s:
        why = "; ".join(warnings) or "nothing more of it shows the scene"
        raise Refused(
            f"{path}: only {video.duration_s:.2f} s can be used, at least {config.shortest_s:g} s "
            f"are needed ({why})", video.frames[0],
        )  # fmt: skip
    r, facts = start.registration, footage.facts
    report = IntakeReport(
        file=footage.path.name, codec=facts.codec, stored=facts.stored,
        pixel_format=facts.pixel_format, matrix=facts.matrix, full_range=facts.full_range,
        rotation_deg=facts.rotation_deg, mirrored=facts.mirrored, pixel_aspect=facts.pixel_aspect,
        source_fps=facts.rate, variable_rate=_varies(head.gaps_s), source_frames=facts.decoded,
        source_s=facts.until_s, start_s=start.time_s, end_s=ended, frames=len(video),
        crop=start.placement.crop, bars=start.placement.bars, valid=_valid(start, camera),
        similarity=min(start.similarity.values()), registered=r.certain,
        registration={
            "agreeing": r.agreeing, "patches": r.patches, "alike": r.alike,
            "shift_x_px": r.shift_px[0], "shift_y_px": r.shift_px[1], "scale": r.scale,
            "turn_deg": r.turn_deg, "displacement_px": r.displacement_px,
        },
        corrected=start.T is not None, fades_s=fades.between_s, fades_out_s=fades.out_s,
        flicker=fades.flicker, done=tuple(done), warnings=tuple(warnings),
    )  # fmt: skip
    progress(f"{footage.path.name}: {len(video)} frames", 1.0)
    return video, report


def _refuse_short(footage: Footage, config: IntakeConfig) -> None:
    facts = footage.facts
    if facts.until_s >= config.shortest_s:
        return
    if facts.damage:
        raise UserError(
            f"{footage.path} is damaged after {facts.until_s:.2f} s ({facts.damage}); a task needs "
            f"at least {config.shortest_s:g} s: fetch it again"
        )
    if facts.decoded == 1:
        raise UserError(f"{footage.path} is one picture, no video; give a video file")
    raise UserError(
        f"{footage.path} lasts {facts.until_s:.2f} s; a task needs at least {config.shortest_s:g} s"
    )


def _clip(footage, start: Start, head: Head, task: Task, config: IntakeConfig, progress):
    """Decode from the start on, each picture at the time at which it is shown.

    Returns:
        the video; the time in the file at which it turns and runs backwards, where the video ends
        then [s], or None; its fades; whether the file goes on where it was left off.
    """
    camera, fps = task.camera, task.spec.camera.fps
    # In the middle between two times of the faster rate nothing hangs on how times are rounded, and
    # the first picture stays the first.
    usual = float(np.median(head.gaps_s)) if head.gaps_s else 1 / fps
    early = 0.5 * min(1 / fps, usual)
    most = max(round(config.longest_s * fps), 1)
    stated = footage.facts.stated_s
    room = most if stated is None else min(most, int(np.ceil(stated * fps)) + 2)
    frames = np.empty((room, camera.height, camera.width, 3), np.uint8)
    count, shown, left_off = 0, None, False
    times_s, sketches = [], []

    def show(until_s: float) -> None:
        """Fill in every moment before `until_s` with the picture that is shown."""
        nonlocal count, frames
        image = None
        while count < most and start.time_s + count / fps + early < until_s:
            if image is None:
                image = start.placement.apply(shown.read(), camera)
                image = image if start.T is None else brought_onto(image, start.T)
            if count == len(frames):
                frames = np.concatenate([frames, np.empty_like(frames[: most - count])])
            frames[count] = image
            count += 1

    for picture in footage:
        if picture.time_s < start.time_s - 1e-6:
            continue
        if shown is not None:
            show(picture.time_s)
            if count == most:
                left_off = True
                break
            progress(f"frame {count}", min(count / room, 1.0))
        shown = picture
        times_s.append(picture.time_s)
        sketches.append(picture.sketch())
    if shown is not None and not left_off:
        show(footage.facts.until_s)
    sketches = np.stack(sketches)
    found = find_fades(sketches)
    fades = _Fades(
        between_s=tuple((times_s[a], times_s[b], least) for a, b, least in found.between),
        out_s=None if found.out is None else times_s[found.out], flicker=found.flicker,
    )  # fmt: skip
    turn = turning_point(sketches[: found.out], 1 / usual)
    turn_s = None if turn is None else times_s[turn]
    if turn_s is not None:
        count = min(count, max(int((turn_s - start.time_s) * fps) + 1, 1))
    elif fades.out_s is not None:
        whole = np.arange(count) / fps + start.time_s + early < fades.out_s
        count = max(int(whole.sum()), 1)
    return Video(frames=frames[:count], fps=fps), turn_s, fades, left_off


def _said_of(fades: _Fades) -> list[str]:
    """What fades and flickers, a sentence each."""
    out = [
        f"it fades from {a:.2f} to {b:.2f} s, to {least:.0%} of its contrast: what is done meanwhile "
        "is hardly seen"
        for a, b, least in fades.between_s
    ]
    if fades.out_s is not None:
        out.append(f"it fades out from {fades.out_s:.2f} s on: the clip ends there")
    if fades.flicker:
        out.append(
            f"it flickers: brightness changes by {fades.flicker:.0%} from picture to picture"
        )
    return out


def _varies(gaps_s: list[float]) -> bool:
    gaps = np.array(gaps_s)
    # Containers round times to a millisecond.
    return bool(len(gaps) > 1 and np.ptp(gaps) > max(0.1 * np.median(gaps), 0.0025))


def _valid(start: Start, camera: Camera) -> tuple[int, int, int, int]:
    """The largest upright box, around the middle, whose pixels all come from the file's picture."""
    valid = (~start.placement.empty(camera)).astype(np.uint8)
    if start.T is not None:
        valid = cv2.warpAffine(
            valid, start.T, valid.shape[::-1], flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        )
    x0, y0, x1, y1 = 0, 0, camera.width, camera.height
    while x0 < x1 and y0 < y1:
        inside = valid[y0:y1, x0:x1]
        missing = [(inside[:, 0] == 0).mean(), (inside[0] == 0).mean(),
                   (inside[:, -1] == 0).mean(), (inside[-1] == 0).mean()]  # fmt: skip
        side = int(np.argmax(missing))
        if missing[side] == 0:
            break
        x0, y0, x1, y1 = x0 + (side == 0), y0 + (side == 1), x1 - (side == 2), y1 - (side == 3)
    return x0, y0, x1, y1


def _say(facts: Facts, start: Start, head, task: Task, left_off: bool):
    """What was done, and what may spoil the result: two lists of sentences."""
    done, warnings = [], []
    camera, fps, r = task.camera, task.spec.camera.fps, start.registration
    if facts.passed_over:
        done.append(f"{facts.passed_over} other streams of pictures (a cover) are passed over")
    if facts.rotation_deg or facts.mirrored:
        turn = f"turned by {facts.rotation_deg} degrees counter-clockwise"
        done.append(f"{turn}{', mirrored' if facts.mirrored else ''}, as the container asks")
    if facts.pixel_aspect != 1:
        done.append(f"its pixels are {facts.pixel_aspect:.3f} times as wide as high: made square")
    if facts.transparent:
        warnings.append("its pictures have an alpha channel: they are laid on black")
    if facts.interlaced:
        warnings.append("it is interlaced: every second line of each picture is filled in")
    if facts.hdr:
        warnings.append(
            f"its colours are for an HDR screen ({facts.hdr}) and are not converted: export it as "
            "SDR (BT.709)"
        )
    done += layout(start.placement, head.size, camera)
    if start.time_s > 0:
        done.append(
            f"it starts at {start.time_s:.2f} s: what comes before is black, is faded in or shows "
            "something else"
        )
    if abs(facts.rate / fps - 1) > 1e-3 or _varies(head.gaps_s):
        varies = ", varying" if _varies(head.gaps_s) else ""
        done.append(f"resampled from {facts.rate:.4g}{varies} to {fps:g} frames/s")
    if not r.certain:
        warnings.append(
            "whether it lies on the scene's picture to the pixel could not be measured: "
            f"{r.agreeing} of {r.patches} patches agree on a place"
        )
    elif start.T is not None:
        done.append(f"the scene lies {lies(r)}: this is taken out")
    if facts.damage:
        stated = f" of {facts.stated_s:.2f}" if facts.stated_s else ""
        warnings.append(
            f"it is damaged: {facts.until_s:.2f}{stated} s can be decoded ({facts.damage})"
        )
    elif not left_off and facts.stated_frames and facts.decoded < 0.95 * facts.stated_frames and (
        facts.stated_s is not None and facts.until_s < 0.95 * facts.stated_s
    ):  # fmt: skip
        warnings.append(
            f"it is cut off or damaged: {facts.until_s:.2f} of {facts.stated_s:.2f} s can be decoded"
        )
    return done, warnings
