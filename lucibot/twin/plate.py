"""The photo without what moves: the inpainter family."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import cv2
import numpy as np
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import RunFailed
from lucibot.core.schema import Fraction, Positive
from lucibot.providers.programs import ensure_place_holders, run_program


class Inpainter(Protocol):
    def fill(self, picture: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """A photo (H, W, 3) uint8 RGB with its holes (H, W) bool filled in."""
        ...


@dataclass(frozen=True, kw_only=True)
class OpenCvInpainter(Config):
    """Goes on with what lies around a hole (Telea's method)."""

    kind: Literal["opencv"] = "opencv"
    radius: Annotated[Fraction, Field(gt=0)] = 0.006
    """How far around a pixel is looked [share of the picture's width]."""

    def create(self) -> Inpainter:
        return ByOpenCv(self)


@dataclass(frozen=True, kw_only=True)
class CommandInpainter(Config):
    """Any program."""

    kind: Literal["command"] = "command"
    command: str = ""
    """What is run, with the place holders {photo}, {holes} (PNGs, white where to fill) and {filled}
    (the PNG to write)."""
    timeout_s: Positive = 600.0

    def create(self) -> Inpainter:
        return InpaintByCommand(self)


InpainterConfig = OpenCvInpainter | CommandInpainter


class ByOpenCv:
    def __init__(self, config: OpenCvInpainter):
        self.config = config

    def fill(self, picture: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """See `Inpainter`."""
        radius = max(2.0, self.config.radius * picture.shape[1])
        filled = cv2.inpaint(picture, holes.astype(np.uint8), radius, cv2.INPAINT_TELEA)
        return np.where(holes[..., None], filled, picture)


class InpaintByCommand:
    FLAG = "--inpainter.command"

    def __init__(self, config: CommandInpainter):
        """
        Raises:
            UserError: the command lacks a place holder.
        """
        ensure_place_holders(
            self.FLAG, config.command, ("photo", "holes", "filled"),
            "it is given a {photo} and its {holes}, and writes it {filled}",
        )  # fmt: skip
        self.config = config

    def fill(self, picture: np.ndarray, holes: np.ndarray) -> np.ndarray:
        """See `Inpainter`.

        Raises:
            UserError: the program cannot be started.
            RunFailed: it failed, or wrote no picture of the photo's size.
        """
        with tempfile.TemporaryDirectory(prefix="lucibot_twin_") as scratch:
            told = {n: Path(scratch) / f"{n}.png" for n in ("photo", "holes", "filled")}
            cv2.imwrite(str(told["photo"]), picture[..., ::-1])
            cv2.imwrite(str(told["holes"]), holes.astype(np.uint8) * 255)
            run_program(
                self.FLAG,
                "the program that fills in",
                self.config.command,
                told,
                self.config.timeout_s,
            )
            filled = cv2.imread(str(told["filled"]), cv2.IMREAD_COLOR)
        if filled is None or filled.shape != picture.shape:
            raise RunFailed(f"{self.FLAG}: it wrote no picture of the photo's size")
        return filled[..., ::-1].copy()


def holes(masks: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the masks, and a margin for their shadows and blurred edges."""
    out = np.zeros(shape, np.uint8)
    for mask in masks:
        size = max(5, round(0.12 * np.sqrt(mask.sum())) | 1)
        out |= cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8))
    return out > 0
