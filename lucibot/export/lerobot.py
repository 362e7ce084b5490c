"""A dataset in LeRobot's format, version 3.0, written by its description: many runs, one dataset.

meta/info.json  meta/stats.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
data/chunk-000/file-000.parquet              a row a frame, a row group an episode
videos/<camera>/chunk-000/file-000.mp4       one file an episode, so that each begins at 0 s
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from lucibot.core.errors import UserError
from lucibot.export.episode import Episode
from lucibot.store.run import write_json

VERSION = "v3.0"
CAMERA = "observation.images.camera"
FILES_A_CHUNK, DATA_MB, VIDEO_MB = 1000, 100, 200
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
LOOKED_AT = 60
"""Pictures an episode from which the statistics of pixels are made, at a quarter of their size."""


def write(episodes: Iterable[Episode], out: Path) -> int:
    """Write a dataset into an empty folder; returns how many frames it has.

    Raises:
        UserError: pyarrow is missing, or the episodes do not fit together.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "a LeRobot dataset needs the package pyarrow: pip install 'lucibot[export]'"
        ) from None
    made = _Dataset()
    for episode in episodes:
        made.add(episode, out)
    (out / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(made.episodes(), out / "meta" / "episodes" / "chunk-000" / "file-000.parquet")
    pq.write_table(_tasks(list(made.tasks)), out / "meta" / "tasks.parquet")
    write_json(out / "meta" / "stats.json", made.statistics())
    write_json(out / "meta" / "info.json", made.info())
    return made.frames


@dataclass
class _First:
    """What the first episode settles for all."""

    run: Path
    fps: int
    picture: tuple[int, int]
    columns: dict[str, tuple[str, ...]]
    robot: str


class _Dataset:
    def __init__(self) -> None:
        self.first: _First | None = None
        self.tasks: dict[str, int] = {}
        self.frames = 0
        self._rows: list[dict[str, Any]] = []
        self._values: dict[str, list[np.ndarray]] = {}
        self._pixels: list[np.ndarray] = []

    def add(self, e: Episode, out: Path) -> None:
        import pyarrow.parquet as pq

        columns = {"observation.state": e.state_names, "action": e.state_names}
        if e.environment_names:
            columns["observation.environment_state"] = e.environment_names
        h, w = (s - s % 2 for s in e.pictures.shape[1:3])
        here = _First(e.run, e.fps, (h, w), columns, e.robot)
        self.first = self.first or here
        _fits(self.first, here)
        index, task = len(self._rows), self.tasks.setdefault(e.instruction, len(self.tasks))
        n = len(e.state)
        told = {
            "observation.state": e.state, "action": e.action,
            **({"observation.environment_state": e.environment} if e.environment_names else {}),
            "next.done": np.arange(n) == n - 1,
            "next.success": (np.arange(n) == n - 1) & e.success,
            "timestamp": (np.arange(n) / e.fps).astype(np.float32),
            "frame_index": np.arange(n), "episode_index": np.full(n, index),
            "index": self.frames + np.arange(n), "task_index": np.full(n, task),
        }  # fmt: skip
        chunk, file = divmod(index, FILES_A_CHUNK)
        where = f"chunk-{chunk:03d}/file-{file:03d}"
        data = out / "data" / f"{where}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(_table(told), data)
        _write_film(out / "videos" / CAMERA / f"{where}.mp4", e.pictures[:, :h, :w], e.fps)
        pixels = e.pictures[np.unique(np.linspace(0, n - 1, min(n, LOOKED_AT)).astype(int))]
        pixels = pixels[:, ::4, ::4].reshape(-1, 3) / 255.0
        seen = _of_colours(pixels, n)
        self._rows.append({
            "episode_index": index, "tasks": [e.instruction], "length": n,
            "data/chunk_index": chunk, "data/file_index": file,
            "dataset_from_index": self.frames, "dataset_to_index": self.frames + n,
            f"videos/{CAMERA}/chunk_index": chunk, f"videos/{CAMERA}/file_index": file,
            f"videos/{CAMERA}/from_timestamp": 0.0, f"videos/{CAMERA}/to_timestamp": n / e.fps,
            **{
                f"stats/{name}/{k}": v.tolist()
                for name, found in ({k: _numbers(v) for k, v in told.items()} | {CAMERA: seen}).items()
                for k, v in found.items()
            },
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
        })  # fmt: skip
        self._pixels.append(pixels)
        for name, values in told.items():
            self._values.setdefault(name, []).append(values)
        self.frames += n

    def episodes(self):
        import pyarrow as pa

        return pa.Table.from_pylist(self._rows)

    def statistics(self) -> dict[str, Any]:
        found = {n: _numbers(np.concatenate(v)) for n, v in self._values.items()}
        found[CAMERA] = _of_colours(np.concatenate(self._pixels), self.frames)
        return {n: {k: v.tolist() for k, v in s.items()} for n, s in found.items()}

    def info(self) -> dict[str, Any]:
        first = self.first
        assert first is not None
        h, w = first.picture
        single = {
            "next.done": "bool", "next.success": "bool", "timestamp": "float32",
            **dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64"),
        }  # fmt: skip
        features: dict[str, Any] = {
            name: {"dtype": "float32", "shape": [len(names)], "names": list(names)}
            for name, names in first.columns.items()
        }
        features[CAMERA] = {
            "dtype": "video", "shape": [h, w, 3], "names": ["height", "width", "channels"],
            "info": {
                "video.height": h, "video.width": w, "video.codec": "h264",
                "video.pix_fmt": "yuv420p", "video.fps": first.fps, "video.channels": 3,
                "video.is_depth_map": False, "has_audio": False,
            },
        }  # fmt: skip
        features |= {n: {"dtype": t, "shape": [1], "names": None} for n, t in single.items()}
        return {
            "codebase_version": VERSION, "robot_type": first.robot, "fps": first.fps,
            "total_episodes": len(self._rows), "total_frames": self.frames,
            "total_tasks": len(self.tasks), "chunks_size": FILES_A_CHUNK,
            "data_files_size_in_mb": DATA_MB, "video_files_size_in_mb": VIDEO_MB,
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "splits": {"train": f"0:{len(self._rows)}"}, "features": features,
        }  # fmt: skip


def _fits(first: _First, other: _First) -> None:
    for what, a, b in (
        ("columns", first.columns, other.columns),
        ("frames a second", first.fps, other.fps),
        ("height and width of pictures", first.picture, other.picture),
    ):
        if a != b:
            raise UserError(
                f"{first.run} and {other.run} do not fit into one dataset: they have other {what} "
                f"({_short(a)} and {_short(b)}); export them apart"
            )


def _short(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return "; ".join(
        f"{n}: {', '.join(dict.fromkeys(k.partition('.')[0] for k in v))}" for n, v in value.items()
    )


def _table(told: dict[str, np.ndarray]):
    import pyarrow as pa

    columns = {}
    for name, values in told.items():
        if values.ndim == 1:
            columns[name] = pa.array(values)
        else:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return pa.table(columns)


def _tasks(tasks: list[str]):
    """The table that pandas reads with the tasks as its index."""
    import pyarrow as pa

    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": tasks})
    numbers = {"pandas_type": "int64", "numpy_type": "int64", "metadata": None}
    words = {"pandas_type": "unicode", "numpy_type": "object", "metadata": None}
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [
            {"name": None, "field_name": None, **words, "metadata": {"encoding": "UTF-8"}}
        ],
        "columns": [
            {"name": "task_index", "field_name": "task_index", **numbers},
            {"name": "task", "field_name": "task", **words},
        ],
        "pandas_version": "2.2.0",
    }
    return table.replace_schema_metadata({b"pandas": json.dumps(pandas).encode()})


def _numbers(values: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics over the first axis, in float64, a list also where there is one number a frame."""
    x = values.astype(np.float64)
    x = x[:, None] if x.ndim == 1 else x
    quantiles = np.quantile(x, list(QUANTILES.values()), axis=0)
    return {
        "min": x.min(0), "max": x.max(0), "mean": x.mean(0), "std": x.std(0),
        "count": np.array([len(x)]), **dict(zip(QUANTILES, quantiles, strict=True)),
    }  # fmt: skip


def _of_colours(pixels: np.ndarray, pictures: int) -> dict[str, np.ndarray]:
    """Of pixels (M, 3) in [0, 1], shaped as readers want them, (3, 1, 1); counted are the pictures."""
    found = _numbers(pixels)
    del found["count"]
    return {k: v.reshape(3, 1, 1) for k, v in found.items()} | {"count": np.array([pictures])}


def _write_film(path: Path, frames: np.ndarray, fps: int) -> None:
    """H.264 with a key picture every other one, so that any frame is quickly found; time stamps are frame
    counts over the rate, exactly."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, fps)
        stream.options = {"crf": "18", "g": "2", "bf": "0", "preset": "veryfast"}
        for i, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
