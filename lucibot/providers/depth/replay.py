"""Depth that was estimated before, kept with the run that did it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lucibot.core.arrays import read_npz
from lucibot.core.errors import UserError
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.depth.config import ReplayDepth
from lucibot.task import Task

FLAG = "--perceive.depth.file"


def write_depth(path: Path, video: Video, depth_m: np.ndarray, background_m: np.ndarray) -> None:
    """Keep depth (T, H, W) float32 [m] of all frames of a video, to the bit: where it is the known
    background's (H, W), once."""
    same = depth_m == background_m
    np.savez_compressed(
        path, shape=np.array(depth_m.shape), background_m=background_m, same=np.packbits(same),
        values_m=depth_m[~same], video=np.array(video.sha256()),
    )  # fmt: skip


def read_depth(path: Path) -> np.ndarray:
    """What `write_depth` has kept, (T, H, W) float32 [m], NaN where unknown.

    Raises:
        FileNotFoundError: there is none.
        UserError: it is damaged, or is none.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[np.ndarray, str | None]:
    """Depth, and the `Video.sha256` of what it was estimated of, where that was kept."""

    def none(why: str) -> UserError:
        return UserError(f"{path}: no depth that a run has kept ({why})")

    with read_npz(path, none) as z:
        shape = tuple(int(n) for n in z["shape"])
        same = np.unpackbits(z["same"], count=int(np.prod(shape))).astype(bool).reshape(shape)
        depth_m = np.broadcast_to(z["background_m"], shape).astype(np.float32)
        depth_m[~same] = z["values_m"]
        return depth_m, str(z["video"]) if "video" in z else None


class DepthByReplay:
    rests_on_poses = False
    batch = 0

    def __init__(self, config: ReplayDepth):
        """
        Raises:
            UserError: the file is missing, or is none.
        """
        self.config = config
        try:
            self._depth_m, self._video = _read(config.file)
        except FileNotFoundError:
            raise UserError(
                f"{FLAG} {config.file}: no such file; runs whose depth is measured leave one in "
                "40_perceive"
            ) from None
        except UserError as e:
            raise UserError(f"{FLAG} {e}") from None

    def estimate(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, frames: np.ndarray, *,
        seed: int, progress: Progress = silent,
    ) -> np.ndarray:  # fmt: skip
        """See `DepthModel`.

        Raises:
            UserError: it is of another video.
        """
        wanted = (len(video), *view.background_depth_m.shape)
        if self._depth_m.shape != wanted:
            raise UserError(
                f"{FLAG} {self.config.file}: it is of another video, {self._depth_m.shape} in place of "
                f"{wanted} (frames, height, width)"
            )
        if self._video not in (None, video.sha256()):
            raise UserError(f"{FLAG} {self.config.file}: it is of another video of the same size")
        return self._depth_m[frames]
