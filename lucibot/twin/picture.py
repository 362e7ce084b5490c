"""The photo that a twin is made of, and what it tells of its camera."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.arrays import read_npy
from lucibot.core.errors import UserError
from lucibot.twin.request import number
from lucibot.vision.footage import Footage

VIDEOS = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".gif")
FILM_HEIGHT_MM, FILM_DIAGONAL_MM = 24.0, 43.27
"""Of the 36 x 24 mm film that EXIF's equivalent focal length speaks of."""

FOV_BOUNDS_DEG = 5, 150
"""Of a vertical field of view that is given."""
MOST_PX = 1e6


@dataclass(frozen=True, kw_only=True)
class Lens:
    """What is known of a camera beside its picture."""

    vertical_fov_deg: float
    principal_point: tuple[float, float] = (0.5, 0.5)
    """As shares of width and height."""
    source: str
    """Where it comes from, for the report."""


def read_picture(path: Path) -> np.ndarray:
    """A photo, or a video's first frame: (H, W, 3) uint8 RGB, upright as EXIF or the container says, of
    even size.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such photo or video")
    if path.suffix.lower() in VIDEOS:
        # Upright, in square pixels and its own colours, as intake reads it.
        picture = next(iter(Footage(path))).read()
    else:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            raise UserError(f"{path} is no picture that can be read; save it as PNG or JPEG")
        picture = bgr[..., ::-1]
    h, w = (n - n % 2 for n in picture.shape[:2])
    return np.ascontiguousarray(picture[:h, :w])


def exif_lens(path: Path) -> Lens | None:
    """The field of view by the equivalent focal length that a phone or a camera wrote into its photo;
    None where it wrote none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            exif, (w, h) = image.getexif(), image.size
            told = exif.get_ifd(0x8769)
            turned = exif.get(0x0112, 1) in (5, 6, 7, 8)
    except (UnidentifiedImageError, OSError):
        return None
    focal_mm = float(told.get(0xA405, 0) or 0)
    if focal_mm <= 0:
        return None
    if turned:
        w, h = h, w
    # The equivalent is by the diagonal, whatever the shape of the picture.
    tangent = 0.5 * FILM_DIAGONAL_MM / focal_mm * h / float(np.hypot(w, h))
    fov = float(np.rad2deg(2 * np.arctan(tangent)))
    return Lens(vertical_fov_deg=fov, source=f"EXIF, {focal_mm:g} mm equivalent")


def read_lens(path: Path, shape: tuple[int, int]) -> Lens:
    """Intrinsics from a JSON or TOML file with fx, fy, cx, cy [pixels], width and height, or with
    vertical_fov_deg.

    Args:
        shape: (H, W) of the photo; a file of another size is scaled to it.

    Raises:
        UserError: it cannot be read, a number is missing or none, or pixels are not square.
    """
    try:
        text = Path(path).read_text()
        told = json.loads(text) if Path(path).suffix.lower() == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as e:
        raise UserError(f"{path} cannot be read as intrinsics: {e}") from None
    told = told if isinstance(told, dict) else {}
    if "vertical_fov_deg" in told:
        fov = number(f"{path}: vertical_fov_deg", told["vertical_fov_deg"], *FOV_BOUNDS_DEG)
        return Lens(vertical_fov_deg=fov, source=str(path))
    told = {"width": shape[1], "height": shape[0], **told}
    if not {"fx", "fy", "cx", "cy"} <= told.keys():
        raise UserError(
            f"{path}: intrinsics are fx, fy, cx, cy, width and height in pixels, or vertical_fov_deg"
        )
    fx, fy, w, h = (
        number(f"{path}: {k}", told[k], 1, MOST_PX) for k in ("fx", "fy", "width", "height")
    )
    cx, cy = (number(f"{path}: {k}", told[k], -MOST_PX, MOST_PX) for k in ("cx", "cy"))
    if abs(fx / fy - 1) > 0.02:
        raise UserError(f"{path}: fx and fy differ by more than 2%, and pixels are taken as square")
    if abs(w / h / (shape[1] / shape[0]) - 1) > 0.01:
        raise UserError(
            f"{path}: intrinsics of {w:g}x{h:g} pixels do not fit a photo of {shape[1]}x{shape[0]}"
        )
    fov = float(np.rad2deg(2 * np.arctan(0.5 * h / fy)))
    return Lens(
        vertical_fov_deg=number(f"{path}: the field of view by fy", fov, *FOV_BOUNDS_DEG),
        principal_point=(cx / w, cy / h), source=str(path),
    )  # fmt: skip


def read_depth(path: Path, shape: tuple[int, int], unit_m: float) -> np.ndarray:
    """A depth map at the photo's size: (H, W) float64, NaN where it knows nothing.

    Args:
        path: a PNG or TIFF with one channel, or an npy file.
        unit_m: what 1 stands for [m]: 0.001 for millimetres.

    Raises:
        UserError: it cannot be read, or has another shape than the photo.
    """
    path = Path(path)
    if path.suffix == ".npy":
        try:
            raw = read_npy(path)
        except OSError as e:
            raise UserError(f"--depth {path} cannot be read: {e.strerror}") from None
    else:
        raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.ndim != 2:
        raise UserError(f"--depth {path} is no depth map: one channel is wanted, not a picture")
    h, w = raw.shape
    if abs(w / h / (shape[1] / shape[0]) - 1) > 0.02:
        raise UserError(f"--depth {path} has {w}x{h} pixels, another shape than the photo's")
    depth = raw.astype(float) * unit_m
    depth[(raw == 0) | ~np.isfinite(depth)] = np.nan
    return cv2.resize(depth, shape[::-1], interpolation=cv2.INTER_NEAREST)
