"""What a video file holds, as it is meant to be seen: upright, in square pixels, at its own times.

Any container and codec that PyAV decodes. Pictures come one by one, so that a long file costs no
more memory than a short one, and are converted only where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.errors import UserError

HDR = {16: "PQ", 18: "HLG"}
"""Transfer functions (ITU-T H.273) whose pictures are not made for a common screen."""
SKETCH = (64, 48)
"""Width and height of a sketch [pixels]."""
RE_ENCODE = "re-encode it as H.264 mp4"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a file."""

    time_s: float
    """When it comes on [s], from the first picture on."""
    read: Callable[[], np.ndarray]
    """Gives it: (h, w, 3) uint8 RGB, upright, in square pixels."""
    sketch: Callable[[], np.ndarray]
    """Gives its brightness as it is stored and tiny, `SKETCH` wide and high: (h, w) uint8."""


@dataclass(kw_only=True)
class Facts:
    """What is known of a file; what only decoding tells is filled in meanwhile."""

    codec: str
    stored: tuple[int, int]
    """Width and height of the stored pictures [pixels]."""
    pixel_format: str
    rate: float
    """Mean pictures a second."""
    stated_s: float | None
    """How long it lasts by its own account."""
    stated_frames: int
    """How many pictures it holds by its own account; 0 if it says nothing."""
    passed_over: int = 0
    """Cover pictures and further streams that were not taken."""
    rotation_deg: int = 0
    """Quarter turns that the container asks for [counter-clockwise]."""
    mirrored: bool = False
    pixel_aspect: float = 1.0
    """Width over height of a stored pixel."""
    full_range: bool = False
    matrix: str = "BT.601"
    """How colours are stored. An untagged file is taken as FFmpeg, and so most models, write it."""
    hdr: str = ""
    transparent: bool = False
    interlaced: bool = False
    decoded: int = 0
    """Pictures decoded so far."""
    until_s: float = 0.0
    """Where the last decoded picture ends [s]."""
    damage: str = ""
    """What ended decoding early."""


MATRICES = {1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020"}
SPACES = {"BT.709": 1, "FCC": 4, "BT.601": 5, "SMPTE 240M": 7, "BT.2020": 9}
"""Colour matrices, and their numbers in the scaler."""


class Footage:
    """The pictures of one file. Each iteration decodes it anew and fills `facts` in.

    Raises:
        UserError: at making or at iterating: the file is missing, is no video, cannot be decoded.
    """

    def __init__(self, path: Path):
        self.path = path = Path(path)
        if path.is_dir():
            raise UserError(f"{path} is a folder; give a video file")
        if not path.exists():
            raise UserError(f"no such video: {path}")
        try:
            with open(path, "rb") as f:
                if not f.read(1):
                    raise UserError(f"{path} is empty (0 bytes)")
        except OSError as e:
            raise UserError(f"{path} cannot be read: {e.strerror}") from e
        self.facts: Facts
        for _ in self:
            return
        if self.facts.damage:
            raise UserError(
                f"{path} is damaged: its first picture cannot be decoded "
                f"({self.facts.damage}); {RE_ENCODE}"
            )
        raise UserError(f"{path} holds no pictures; {RE_ENCODE}")

    def __iter__(self) -> Iterator[Picture]:
        import av

        try:
            container = av.open(str(self.path))
        except (av.error.FFmpegError, ValueError) as e:
            cut = " or cut off before its index" if self.path.suffix in (".mp4", ".mov") else ""
            raise UserError(
                f"{self.path} cannot be decoded: it is no video, damaged{cut} ({_short(e)})"
            ) from e
        with container:
            stream, passed_over = _choose(container, self.path)
            # Threads a frame would tell damaged pictures otherwise from run to run.
            stream.thread_type = "SLICE"
            # A damaged picture is an error, instead of something made up from its neighbours.
            stream.codec_context.options = {"err_detect": "explode"}
            self.facts = facts = Facts(
                codec=stream.codec_context.name,
                stored=(stream.codec_context.width, stream.codec_context.height),
                pixel_format=stream.codec_context.pix_fmt or "",
                rate=float(stream.average_rate or stream.guessed_rate or 0),
                stated_s=_stated_s(container, stream), stated_frames=int(stream.frames or 0),
                passed_over=passed_over,
            )  # fmt: skip
            usual = 1 / facts.rate if facts.rate > 0 else 0.04
            start, time_s = None, -usual
            try:
                for frame in container.decode(stream):
                    if frame.is_corrupt:
                        facts.damage = "its data are damaged"
                        return
                    seen = time_s + usual if frame.time is None else float(frame.time)
                    start = seen if start is None else start
                    if facts.decoded == 0:
                        _look(facts, stream, frame)
                    # Time never runs back, whatever a file says.
                    time_s = max(seen - start, time_s + 1e-6) if facts.decoded else 0.0
                    lasts = float(frame.duration * frame.time_base) if frame.duration else usual
                    facts.decoded += 1
                    facts.until_s = time_s + lasts
                    facts.interlaced |= frame.interlaced_frame
                    yield Picture(
                        time_s=time_s, read=lambda f=frame: self._upright(f),
                        sketch=lambda f=frame: _sketch(f),
                    )  # fmt: skip
            except av.error.FFmpegError as e:
                facts.damage = _short(e)

    def _upright(self, frame) -> np.ndarray:
        """(h, w, 3) uint8 RGB of a decoded frame."""
        facts = self.facts
        image = frame.reformat(
            format="rgba" if facts.transparent else "rgb24",
            src_colorspace=SPACES[facts.matrix], src_color_range=2 if facts.full_range else 1,
        ).to_ndarray()  # fmt: skip
        if facts.transparent:
            # As players show it: on black.
            alpha = image[..., 3:].astype(np.uint16)
            image = ((image[..., :3] * alpha + 127) // 255).astype(np.uint8)
        if frame.interlaced_frame:
            # Two moments lie in one picture, line by line: the first one's lines make it up.
            h, w = image.shape[:2]
            image = cv2.resize(image[::2], (w, h), interpolation=cv2.INTER_LINEAR)
        if facts.pixel_aspect != 1:
            h, w = image.shape[:2]
            size = (round(w * facts.pixel_aspect), h)
            if facts.pixel_aspect < 1:
                size = (w, round(h / facts.pixel_aspect))
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        if facts.mirrored:
            image = image[:, ::-1]
        if facts.rotation_deg:
            image = np.rot90(image, facts.rotation_deg // 90)
        return np.ascontiguousarray(image)


def _choose(container, path: Path):
    """The stream that shows the video, and how many others of pictures there are."""
    streams = list(container.streams.video)
    if not streams:
        raise UserError(f"{path} has no video stream, only sound; give a file with pictures in it")
    # A cover is one picture beside the sound; the largest of what is left is the video.
    moving = [s for s in streams if "attached_pic" not in _disposition(s)]
    if not moving:
        raise UserError(f"{path} has no video stream, only a cover picture; give a video file")
    best = max(moving, key=lambda s: s.codec_context.width * s.codec_context.height)
    return best, len(streams) - 1


def _disposition(stream) -> tuple[str, ...]:
    return tuple(flag.name for flag in type(stream.disposition) if flag in stream.disposition)


def _sketch(frame) -> np.ndarray:
    width, height = SKETCH
    return frame.reformat(
        width=width, height=height, format="gray", interpolation="AREA"
    ).to_ndarray()


def _stated_s(container, stream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _look(facts: Facts, stream, frame) -> None:
    """Fill in what the first frame tells."""
    facts.stored = (frame.width, frame.height)
    facts.pixel_format = frame.format.name
    facts.transparent = any(c.is_alpha for c in frame.format.components)
    facts.full_range = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
    facts.matrix = MATRICES.get(int(frame.colorspace), "BT.601")
    facts.hdr = HDR.get(int(frame.color_trc), "")
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if aspect and aspect > 0:
        facts.pixel_aspect = float(aspect)
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            # Nine numbers, row by row; a picture's point (x, y) comes to (a x + c y, b x + d y).
            a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32)[:9] / 65536
            facts.mirrored = bool(a * d - b * c < 0)
            if facts.mirrored:
                a, b = -a, -b
            # Rows grow downwards: what turns x towards y turns clockwise.
            facts.rotation_deg = int(np.round(np.rad2deg(-np.arctan2(b, a)) / 90) * 90) % 360


def _short(error: Exception) -> str:
    """What FFmpeg says of an error, without where."""
    return str(getattr(error, "strerror", None) or error)
