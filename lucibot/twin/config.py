"""Settings of `lucibot twin`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from lucibot.core.config import Config
from lucibot.core.errors import RunFailed
from lucibot.core.schema import Positive
from lucibot.providers.programs import ensure_place_holders, run_program
from lucibot.twin.depth_models import DepthModelConfig
from lucibot.twin.plate import InpainterConfig, OpenCvInpainter
from lucibot.twin.segment import GrabCutSegmenter, PhotoSegmenterConfig


class Modeller(Protocol):
    def model(self, picture: np.ndarray, mask: np.ndarray) -> Any:
        """A closed `trimesh.Trimesh`, z up, of what a mask (H, W) bool shows in a photo."""
        ...


@dataclass(frozen=True, kw_only=True)
class CommandModeller(Config):
    """Any program that makes a mesh of a picture (image-to-3D); for things with `--shape NAME=model`."""

    kind: Literal["command"] = "command"
    command: str = ""
    """What is run, with the place holders {photo}, {mask} (PNGs) and {mesh} (the GLB, PLY or OBJ to write;
    z up)."""
    timeout_s: Positive = 1800.0

    def create(self) -> Modeller:
        return ModelByCommand(self)


class ModelByCommand:
    FLAG = "--modeller.command"

    def __init__(self, config: CommandModeller):
        """
        Raises:
            UserError: the command lacks a place holder.
        """
        ensure_place_holders(
            self.FLAG, config.command, ("photo", "mask", "mesh"),
            "it is given a {photo} and the {mask} of a thing in it, and writes its {mesh}",
        )  # fmt: skip
        self.config = config

    def model(self, picture: np.ndarray, mask: np.ndarray) -> Any:
        """See `Modeller`.

        Raises:
            UserError: the program cannot be started.
            RunFailed: it failed, or what it wrote is no closed mesh.
        """
        import cv2
        import trimesh

        with tempfile.TemporaryDirectory(prefix="lucibot_twin_") as scratch:
            at = {"photo": "photo.png", "mask": "mask.png", "mesh": "mesh.glb"}
            told = {k: Path(scratch) / v for k, v in at.items()}
            cv2.imwrite(str(told["photo"]), picture[..., ::-1])
            cv2.imwrite(str(told["mask"]), mask.astype(np.uint8) * 255)
            run_program(
                self.FLAG, "the shape's program", self.config.command, told, self.config.timeout_s
            )
            try:
                mesh = trimesh.load(told["mesh"], force="mesh")
            except Exception as e:  # Its parsers raise whatever a broken file makes of their code.
                raise RunFailed(f"{self.FLAG}: it wrote no mesh that can be read ({e})") from None
        mesh.merge_vertices()
        if not mesh.is_watertight:
            raise RunFailed(f"{self.FLAG}: its mesh is not closed")
        return mesh


@dataclass(frozen=True, kw_only=True)
class TwinConfig(Config):
    """What a twin is made with."""

    segmenter: PhotoSegmenterConfig = field(default_factory=GrabCutSegmenter)
    inpainter: InpainterConfig = field(default_factory=OpenCvInpainter)
    modeller: CommandModeller | None = None
    depth_model: DepthModelConfig | None = None
