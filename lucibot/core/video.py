"""Reading and writing videos with PyAV. Frames are (T, H, W, 3) uint8 RGB."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from lucibot.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Video:
    """Frames (T, H, W, 3) uint8 RGB at a constant rate [1/s]."""

    frames: np.ndarray
    fps: float
    unseen: np.ndarray | None = None
    """(T, H, W) bool: pixels that the video says nothing of, such as bars; None where it has none."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def duration_s(self) -> float:
        return len(self.frames) / self.fps

    def sha256(self) -> str:
        """Of its frames: what was read from a video is told from what was read from another."""
        return hashlib.sha256(np.ascontiguousarray(self.frames)).hexdigest()


def read_video(path: Path) -> Video:
    """Decode one of our own files: the first video stream, at a constant rate, as it is stored.
    What others have made goes through `lucibot.vision.intake`.

    Raises:
        UserError: the file is missing, cannot be decoded, or has no video stream.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise UserError(f"no such video: {path}")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} has no video stream; give a file with pictures in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = stream.average_rate or stream.guessed_rate
            size = (stream.codec_context.height, stream.codec_context.width, 3)
            # As many as the file says it holds: a list and an array of it would be twice the memory.
            frames, count = np.empty((stream.frames, *size), np.uint8), 0
            for frame in container.decode(stream):
                if count == len(frames):
                    frames = np.concatenate([frames, np.empty((max(count, 16), *size), np.uint8)])
                frames[count] = frame.to_ndarray(format="rgb24")
                count += 1
    except av.error.FFmpegError as e:
        raise UserError(f"{path} cannot be decoded ({e}); re-encode it as H.264 mp4") from e
    if not count or not rate:
        raise UserError(f"{path} holds no frames; re-encode it as H.264 mp4")
    return Video(frames=frames[:count], fps=float(rate))


def why_no_video(path: Path) -> str | None:
    """Why a file is none that can be read as a video: empty, cut off, or of another kind; None if it
    can. Frames are counted by their packets, and the first is decoded."""
    import av

    path = Path(path)
    if not path.is_file() or not path.stat().st_size:
        return "it is empty"
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                return "it has no video stream"
            stream = container.streams.video[0]
            if next(container.decode(stream), None) is None:
                return "it holds no frames"
            container.seek(0)
            found = sum(p.size > 0 and not p.is_corrupt for p in container.demux(stream))
            if found < max(stream.frames, 2):
                return f"it breaks off after {found} of {max(stream.frames, 2)} frames"
    except av.error.FFmpegError as e:
        return f"{_beginning(path)}; {e.strerror or e}"
    return None


def _beginning(path: Path) -> str:
    with open(path, "rb") as f:
        start = " ".join(f.read(2000).decode("utf-8", "replace").split())
    return f"it is {start!r}" if start.isprintable() else "it is cut off or damaged"


def write_video(path: Path, video: Video, *, crf: int = 18) -> None:
    """Encode as H.264 yuv420p, atomically. Odd sizes are cropped by one pixel."""
    import av

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    h, w = (s - s % 2 for s in video.frames.shape[1:3])
    with av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(video.fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = w, h, "yuv420p"
        # One thread and no macroblock tree, whose fast code reads memory that nobody wrote: so the
        # same frames give the same bytes.
        stream.options = {
            "crf": str(crf), "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0",
        }  # fmt: skip
        for rgb in video.frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[:h, :w]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    part.replace(path)


LARGE_BYTES, END_BYTES = 1 << 26, 1 << 20


def sha256_file(path: Path) -> str:
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            h.update(chunk)
    return h.hexdigest()


def sha256_of(path: Path) -> str:
    """Of a file, or of all files of a folder, by their names and contents: of large ones, such as a
    model's weights, their size and their ends."""
    path = Path(path)
    if not path.is_dir():
        return sha256_file(path)
    h = hashlib.sha256()
    for p in sorted(path.rglob("*")):
        if p.is_file():
            h.update(f"{p.relative_to(path).as_posix()} {_sha256_in_folder(p)}\n".encode())
    return h.hexdigest()


def _sha256_in_folder(path: Path) -> str:
    size = path.stat().st_size
    if size <= LARGE_BYTES:
        return sha256_file(path)
    h = hashlib.sha256(str(size).encode())
    with open(path, "rb") as f:
        for at in (0, size - END_BYTES):
            f.seek(at)
            h.update(f.read(END_BYTES))
    return h.hexdigest()
