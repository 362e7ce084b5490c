"""What every stage after `scene` knows of the first moment: picture, depth, masks and camera."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.camera import Camera

_PICTURES = ("first_frame", "background_frame")


@dataclass(frozen=True, kw_only=True)
class SceneView:
    """The first frame of a scene (paper, section 3.2), aligned to the pixel."""

    camera: Camera
    names: tuple[str, ...]
    """Foreground objects; `names[i]` has label i + 1."""
    first_frame: np.ndarray
    """(H, W, 3) uint8 RGB, ray-traced or a photo."""
    background_frame: np.ndarray | None
    """(H, W, 3) uint8 RGB without the foreground objects; None where nobody has a picture of that."""
    labels: np.ndarray
    """(H, W) uint8: 0 background, i + 1 for `names[i]`."""
    depth_m: np.ndarray
    """(H, W) float32 [m], along the optical axis."""
    background_depth_m: np.ndarray
    """(H, W) float32 [m], without the foreground objects."""

    def mask(self, name: str) -> np.ndarray:
        """(H, W) bool, the visible pixels of one object."""
        return self.labels == self.names.index(name) + 1

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _PICTURES:
            if (picture := getattr(self, name)) is not None:
                cv2.imwrite(str(folder / f"{name}.png"), picture[..., ::-1])
        np.savez_compressed(
            folder / "geometry.npz", labels=self.labels, depth_m=self.depth_m,
            background_depth_m=self.background_depth_m,
        )  # fmt: skip
        meta = {"camera": self.camera.to_dict(), "names": list(self.names)}
        (folder / "view.json").write_text(json.dumps(meta, indent=1))

    @classmethod
    def load(cls, folder: Path) -> SceneView:
        meta = json.loads((folder / "view.json").read_text())
        with np.load(folder / "geometry.npz") as z:
            geometry = {k: z[k] for k in z.files}
        frames = {n: _read(folder / f"{n}.png") for n in _PICTURES}
        return cls(
            camera=Camera.from_dict(meta["camera"]),
            names=tuple(meta["names"]),
            **geometry,
            **frames,
        )


def _read(path: Path) -> np.ndarray | None:
    return cv2.imread(str(path))[..., ::-1].copy() if path.is_file() else None
