"""A candidate's clip as it is to be read: the camera at rest, in the light of its first frame, and
which of its pixels show anything at all.

The clip's file stays as it came. What is to be done with its pictures is found once and kept beside
it, and whoever looks at the clip reads it through `read_clip`: who judges it and who perceives see the
same. Beyond what the file shows (bars, what a camera that moved lost) the border goes on, so that
whatever comes in over it comes in over the picture's; `Video.unseen` says where.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video, read_video
from lucibot.vision.steady import FREE, MOST, follow_camera, taken_out
from lucibot.vision.tone import fit_tones, in_light

KNOWN = 0.8
"""Least share of the frames in which the camera's place is known for its motion to be taken out."""
SEAM = 0.02
"""How far from an object the background counts as such [picture widths]."""
NOTABLE = 8.0
"""A change of light that is worth a word [of 255]."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class ClipReport:
    """What was found of a clip's camera and light."""

    camera_drift: float
    """Largest mean displacement of the picture's corners since the first frame [picture widths]."""
    camera_known: float
    """Share of the frames in which most of the background that is seen agrees on it."""
    camera_taken_out: bool
    light_change: float
    """Largest change of a tone since the first frame, all over the background [of 255]."""
    done: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What is done to each of T frames when they are read."""

    valid_px: Box
    """x0, y0, x1, y1 that the file shows."""
    camera: np.ndarray | None
    """(T, 2, 3) maps a steady picture's pixels to those of each frame; None: it stands still."""
    curves: np.ndarray | None
    """(T, 3, 256) uint8: channel's value -> value in the first frame's light; None: the same."""

    def applied(self, video: Video) -> Video:
        """The video as it is to be read."""
        count, h, w = video.frames.shape[:3]
        x0, y0, x1, y1 = self.valid_px
        whole = self.valid_px == (0, 0, w, h)
        if whole and self.camera is None and self.curves is None:
            return video
        frames, unseen = np.empty_like(video.frames), None
        outside = np.ones((h, w), np.uint8)
        outside[y0:y1, x0:x1] = 0
        if not whole or self.camera is not None:
            unseen = np.broadcast_to(outside > 0, (count, h, w))
        if self.camera is not None:
            unseen = unseen.copy()
        for t, frame in enumerate(video.frames):
            if not whole:
                frame = cv2.copyMakeBorder(
                    frame[y0:y1, x0:x1], y0, h - y1, x0, w - x1, cv2.BORDER_REPLICATE
                )
            if self.camera is not None:
                A = self.camera[t]
                frame = taken_out(frame, A)
                unseen[t] = cv2.warpAffine(
                    outside, A, (w, h), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_CONSTANT, borderValue=1,
                ) > 0  # fmt: skip
            frames[t] = frame if self.curves is None else in_light(frame, self.curves[t])
        return Video(frames=frames, fps=video.fps, unseen=unseen)

    def save(self, path: Path) -> None:
        told = {"valid_px": np.array(self.valid_px)}
        told |= {n: v for n in ("camera", "curves") if (v := getattr(self, n)) is not None}
        np.savez_compressed(path, **told)

    @classmethod
    def load(cls, path: Path) -> Reading:
        """
        Raises:
            UserError: the file is damaged.
        """

        def damaged(why: str) -> UserError:
            return UserError(f"{path} is damaged ({why}); make the candidates anew")

        with read_npz(path, damaged) as told:
            return cls(
                valid_px=tuple(int(v) for v in told["valid_px"]), camera=told.get("camera"),
                curves=told.get("curves"),
            )  # fmt: skip


def reading_of(clip: Path) -> Path:
    """Where the reading of a clip's file is kept."""
    return clip.with_suffix(".npz")


def read_clip(path: Path) -> Video:
    """A candidate's clip as it is to be read.

    Raises:
        UserError: it is missing or damaged.
    """
    video, reading = read_video(path), reading_of(Path(path))
    if not reading.is_file():
        return video
    return Reading.load(reading).applied(video)


def seen_background(video: Video, view: SceneView) -> np.ndarray:
    """(H, W) bool: where a clip on the scene's grid shows the background at first, and anything at
    all."""
    h, w = video.frames.shape[1:3]
    labels = cv2.resize(view.labels, (w, h), interpolation=cv2.INTER_NEAREST)
    seam = 2 * max(round(SEAM * w), 1) + 1
    background = cv2.dilate((labels > 0).astype(np.uint8), np.ones((seam, seam))) == 0
    return background if video.unseen is None else background & ~video.unseen[0]


def study(video: Video, view: SceneView, valid_px: Box | None = None) -> tuple[Reading, ClipReport]:
    """How a clip on the scene's grid is to be read.

    Args:
        valid_px: the box that the file shows; all of it if not given.
    """
    h, w = video.frames.shape[1:3]
    x0, y0, x1, y1 = box = valid_px or (0, 0, w, h)
    background = seen_background(video, view)
    inside = np.zeros((h, w), bool)
    inside[y0:y1, x0:x1] = True
    background &= inside
    motion = follow_camera(video.frames, background)
    known, drift = float(motion.known.mean()), motion.largest
    moves = drift > FREE
    out = moves and known >= KNOWN and drift <= MOST
    reading = Reading(valid_px=box, camera=motion.A if out else None, curves=None)
    frames = reading.applied(video).frames if out else video.frames
    tones = fit_tones(frames, background)
    changed = tones.change > 0
    if changed:
        curves = np.clip(np.rint(tones.curves), 0, 255).astype(np.uint8)
        reading = Reading(valid_px=box, camera=reading.camera, curves=curves)
    done, warnings = [], []
    if out:
        done.append(
            f"the camera moves: the background drifts by up to {drift:.1%} of the width; this is "
            "taken out frame by frame"
        )
    elif moves:
        why = f"at most {MOST:.0%} are" if drift > MOST else f"known in {known:.0%} of the frames"
        warnings.append(
            f"the camera moves: the background drifts by {drift:.1%} of the width, which is not "
            f"taken out ({why})"
        )
    elif known < KNOWN:
        warnings.append(
            f"whether the camera stands still is not seen in {1 - known:.0%} of the frames: most of "
            "the background agrees on no place of the picture"
        )
    if tones.change >= NOTABLE:
        done.append(
            f"exposure and colours change by up to {tones.change:.0f} of 255 after the first frame; "
            "this is taken out where it is the same all over the picture"
        )
    report = ClipReport(
        camera_drift=drift, camera_known=known, camera_taken_out=out, light_change=tones.change,
        done=tuple(done), warnings=tuple(warnings),
    )  # fmt: skip
    return reading, report
