"""Pictures of what perception believes: masks tinted, outlines, axes and words over the frames."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.geometry import matrix_np

COLOURS = (
    (66, 133, 244), (251, 140, 0), (0, 172, 120), (171, 71, 188), (0, 172, 193), (158, 157, 36),
)  # fmt: skip
HAND_COLOUR = (255, 82, 110)
AXIS_COLOURS = ((235, 60, 50), (60, 190, 60), (50, 100, 240))


def draw_overlays(
    camera: Camera,
    frames: np.ndarray,
    masks: np.ndarray,
    *,
    hand: np.ndarray | None = None,
    poses: np.ndarray | None = None,
    outlines: np.ndarray | None = None,
    axis_m: float = 0.05,
    captions: Sequence[str] = (),
    tint: float = 0.35,
) -> np.ndarray:
    """Frames with masks tinted, hands tinted, pose axes (x red, y green, z blue) and captions.

    Args:
        camera: the task's camera; rescaled to the frames.
        frames: (F, H, W, 3) uint8.
        masks: (F, N, h, w) bool, resized to the frames.
        hand: (F, h, w) bool.
        poses: (F, N, 6) object pose vectors; NaN draws no axes.
        outlines: (F, N, h, w) bool silhouettes whose outline is drawn, such as those of the poses.
        captions: one text a frame.

    Returns:
        (F, H, W, 3) uint8.
    """
    out = np.array(frames, copy=True)
    height, width = out.shape[1:3]
    view = camera.resized(width, height)
    thick = max(1, round(width / 400))
    for k, image in enumerate(out):
        layers = [(masks[k, i], COLOURS[i % len(COLOURS)]) for i in range(masks.shape[1])]
        if hand is not None:
            layers.append((hand[k], HAND_COLOUR))
        for layer, colour in layers:
            on = _resize(layer, (width, height))
            image[on] = ((1 - tint) * image[on] + tint * np.array(colour)).astype(np.uint8)
            _outline(image, on, colour, thick)
        if outlines is not None:
            for i in range(outlines.shape[1]):
                _outline(image, _resize(outlines[k, i], (width, height)), (255, 255, 255), 1)
        if poses is not None:
            for pose in poses[k]:
                if np.isfinite(pose).all():
                    _axes(image, view, pose, axis_m, thick + 1)
        if k < len(captions):
            _caption(image, captions[k])
    return out


def _resize(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if mask.shape == size[::-1]:
        return mask
    return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def _outline(image: np.ndarray, mask: np.ndarray, colour, thick: int) -> None:
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, found, -1, colour, thick, cv2.LINE_AA)


def _axes(image: np.ndarray, camera: Camera, pose: np.ndarray, length_m: float, thick: int) -> None:
    T = matrix_np(pose)
    tips = T[:3, 3] + length_m * np.concatenate([np.zeros((1, 3)), T[:3, :3].T])
    uv, z = camera.project(tips)
    if (z < 1e-3).any() or np.abs(uv).max() > 1e5:
        return
    uv = np.round(uv - 0.5).astype(int)
    for tip, colour in zip(uv[1:], AXIS_COLOURS, strict=True):
        cv2.line(image, tuple(map(int, uv[0])), tuple(map(int, tip)), colour, thick, cv2.LINE_AA)


def _caption(image: np.ndarray, text: str) -> None:
    size = image.shape[1] / 900
    at = (round(10 * size), round(28 * size))
    for colour, thick in (((20, 20, 20), 4), ((255, 255, 255), 1)):
        cv2.putText(
            image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.8 * size, colour,
            max(1, round(thick * size)), cv2.LINE_AA,
        )  # fmt: skip
