"""Depth maps of a photo by programs and models: the depth model family of twins."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np

from lucibot.core.config import Config
from lucibot.core.schema import Positive
from lucibot.providers.checkpoints import Device
from lucibot.providers.depth.config import MonocularDepth
from lucibot.providers.depth.monocular import Network
from lucibot.providers.programs import ensure_place_holders, run_program
from lucibot.twin.picture import read_depth


class DepthModel(Protocol):
    def estimate(self, picture: np.ndarray) -> np.ndarray:
        """Depth (H, W) of a photo (H, W, 3) uint8 RGB, NaN where unknown: metres, or relative (larger
        is nearer, up to a factor and an offset), as the config's `unit` says."""
        ...


@dataclass(frozen=True, kw_only=True)
class CommandDepth(Config):
    """Any program."""

    kind: Literal["command"] = "command"
    command: str = ""
    """What is run, with the place holders {photo} (a PNG) and {depth} (the npy to write, (H, W))."""
    unit: Literal["relative", "metres"] = "relative"
    """What it writes; relative: larger is nearer."""
    timeout_s: Positive = 600.0

    def create(self) -> DepthModel:
        return ByCommand(self)


@dataclass(frozen=True, kw_only=True)
class TransformersDepth(Config):
    """A network of transformers' depth estimation. Nobody has run it here with trained weights."""

    kind: Literal["transformers"] = "transformers"
    model: str = "depth-anything/Depth-Anything-V2-Small-hf"
    """A checkpoint's folder, or its name on the Hugging Face hub, fetched before."""
    unit: Literal["relative", "metres"] = "relative"
    """What it gives; relative: larger is nearer."""
    device: Device = "auto"

    def create(self) -> DepthModel:
        return ByTransformers(self)


DepthModelConfig = CommandDepth | TransformersDepth


class ByCommand:
    FLAG = "--depth-model.command"

    def __init__(self, config: CommandDepth):
        """
        Raises:
            UserError: the command lacks a place holder.
        """
        ensure_place_holders(
            self.FLAG, config.command, ("photo", "depth"),
            "it is given a {photo}, and writes its {depth}",
        )  # fmt: skip
        self.config = config

    def estimate(self, picture: np.ndarray) -> np.ndarray:
        """See `DepthModel`.

        Raises:
            UserError: the program cannot be started, or wrote no depth map.
            RunFailed: it failed, or took too long.
        """
        with tempfile.TemporaryDirectory(prefix="lucibot_twin_") as scratch:
            photo, out = Path(scratch) / "photo.png", Path(scratch) / "depth.npy"
            cv2.imwrite(str(photo), picture[..., ::-1])
            run_program(
                self.FLAG,
                "the depth model",
                self.config.command,
                {"photo": photo, "depth": out},
                self.config.timeout_s,
            )
            return read_depth(out, picture.shape[:2], 1.0)


class ByTransformers:
    def __init__(self, config: TransformersDepth):
        """
        Raises:
            UserError: see `lucibot.providers.depth.monocular.Network`.
        """
        told = MonocularDepth(model=config.model, device=config.device)
        self._network = Network(told, flag="--depth-model")

    def estimate(self, picture: np.ndarray) -> np.ndarray:
        """See `DepthModel`.

        Raises:
            UserError: the checkpoint cannot be loaded; it runs out of memory.
        """
        with self._network.loaded() as ask:
            return ask(picture, picture.shape[:2]).astype(float)
