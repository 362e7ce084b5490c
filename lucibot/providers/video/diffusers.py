"""Videos by open weights on a GPU of one's own, through diffusers' image-to-video pipelines."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from lucibot.core.config import Config
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.needs import Needs, ensure_packages
from lucibot.core.progress import Progress
from lucibot.core.schema import Count, Positive
from lucibot.core.video import Video, write_video
from lucibot.providers.checkpoints import (
    Checkpoint,
    Device,
    DType,
    quiet,
    release,
    torch_device,
    torch_dtype,
    within_memory,
)
from lucibot.providers.video.base import Immediate, Job, VideoRequest, chosen_settings
from lucibot.services import Services
from lucibot.store.configs import CHECKPOINT, NO_EFFECT

FLAG = "--video.model"
CRF = 12
"""Quality of the file that is written: little is lost on what was drawn."""
LOWER = ("--video.offload model (or layers), --video.vae-tiling yes, or fewer --video.frames and "
         "smaller --video.width and --video.height need less")  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What models of one pipeline were trained for: what is not set follows it."""

    pipeline: str
    """The class in diffusers."""
    kinds: tuple[str, ...]
    """The classes that their checkpoints name."""
    example: str
    """One of them on the hub."""
    pixels: int
    """Width times height."""
    frames: int
    fps: float
    steps: int
    guidance: float
    every: int
    """Frames come in so many, and one more."""
    grid: int
    """Width and height are multiples of this [pixels]."""


WAN = "WanImageToVideoPipeline"
FAMILIES = (
    Family(WAN, (WAN, "WanPipeline"), "Wan-AI/Wan2.2-TI2V-5B-Diffusers", 1280 * 704, 121, 24.0, 50,
           5.0, 4, 32),
    Family("LTX2ImageToVideoPipeline", ("LTX2ImageToVideoPipeline", "LTX2Pipeline"),
           "Lightricks/LTX-2", 768 * 512, 121, 24.0, 30, 3.0, 8, 32),
    Family("HunyuanVideo15ImageToVideoPipeline", ("HunyuanVideo15ImageToVideoPipeline",),
           "hunyuanvideo-community/HunyuanVideo-1.5-480p_i2v", 848 * 480, 121, 24.0, 50,
           6.0, 4, 16),
    Family("CogVideoXImageToVideoPipeline", ("CogVideoXImageToVideoPipeline",),
           "zai-org/CogVideoX-5b-I2V", 720 * 480, 49, 8.0, 50, 6.0, 4, 16),
)  # fmt: skip
WAN_OLDER = Family(WAN, (), "Wan-AI/Wan2.2-I2V-A14B-Diffusers", 832 * 480, 81, 16.0, 40, 3.5, 4, 16)
"""Wan's models that take the first frame beside the noise; the 5B model takes it as its first."""


@dataclass(frozen=True, kw_only=True)
class DiffusersVideo(Config):
    """Makes videos here, by a model of diffusers: Wan 2.2, LTX-2, HunyuanVideo 1.5 or CogVideoX."""

    NEEDS = Needs(
        packages=("diffusers", "transformers", "accelerate", "ftfy", "sentencepiece"),
        extra="models", weights=("Wan-AI/Wan2.2-TI2V-5B-Diffusers",), gpu_gib=24,
        note="Wan 2.2 is Apache-2.0; the other models need other weights, less or more memory, and have "
        "licences of their own with limits: read them",
    )  # fmt: skip

    kind: Literal["diffusers"] = "diffusers"
    model: str = field(default="Wan-AI/Wan2.2-TI2V-5B-Diffusers", metadata=CHECKPOINT)
    """A checkpoint's folder, or its name on the Hugging Face hub, fetched before."""
    candidates: Annotated[Count, Field(le=64)] = 4
    """Videos to make, one after another."""
    frames: Count | None = None
    """Frames of a video; what the model was trained for if not given."""
    fps: Positive | None = None
    """Frames a second; the model's own if not given."""
    width: Annotated[Count, Field(le=4096)] | None = None
    """Pixels across; with the height, what the model was trained for in the camera's proportions if not
    given."""
    height: Annotated[Count, Field(le=4096)] | None = None
    """Pixels down."""
    steps: Annotated[Count, Field(le=1000)] | None = None
    """Steps in which noise becomes a video; the model's usual number if not given."""
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    """How closely the prompt is followed; the model's usual value if not given."""
    device: Device = "auto"
    """Where it runs: "auto" wants a GPU; "cpu" takes hours for a model of a useful size."""
    dtype: DType = "auto"
    """What it computes with; "auto": bfloat16 on a GPU, float32 on a CPU."""
    offload: Literal["none", "model", "layers"] = field(default="none", metadata=NO_EFFECT)
    """What lies in main memory until it is needed: nothing, each part of the model (somewhat slower), or
    each layer (much slower, and a few GiB of GPU memory do)."""
    vae_tiling: bool = False
    """Draw the frames tile by tile: needs less memory, and may leave seams."""

    def create(self, services: Services | None = None) -> DiffusersModel:
        ensure_packages(DiffusersVideo, "--video diffusers")
        return DiffusersModel(self)


class DiffusersModel(Immediate):
    """Holds the model from its first video until `close`."""

    kind = "diffusers"
    fitted = False
    given = False

    def __init__(self, config: DiffusersVideo):
        """
        Raises:
            UserError: no such checkpoint, one of another kind, or no GPU.
        """
        self.config = config
        kinds = [k for f in FAMILIES for k in f.kinds]
        self._checkpoint = Checkpoint.find(
            config.model, flag=FLAG, kinds=kinds, example=FAMILIES[0].example
        )
        self._device = torch_device(config.device, "--video.device")
        if config.device == "auto" and self._device.type != "cuda":
            raise UserError(
                f"{FLAG} {config.model} needs a GPU, and there is none here; --video.device cpu runs it "
                "on the CPU all the same, which takes hours"
            )
        self._dtype = torch_dtype(config.dtype, self._device)
        self.family = _family(self._checkpoint, config.model)
        self._lock, self._held = threading.Lock(), None

    def identity(self, request: VideoRequest) -> dict[str, Any]:
        # A folder of weights counts by its content.
        settings = chosen_settings(self.config, but=("candidates", "device"))
        return {"model": self.config.model, **settings, **request.told()}

    def fetch(self, job: Job, folder: Path, progress: Progress) -> Path:
        with self._lock:
            if self._held is None:
                progress(f"loading {self.config.model}", 0.0)
                self._held = self._loaded()
            frames = self._made(job.request, progress)
        path = folder / "video.mp4"
        write_video(path, Video(frames=frames, fps=self.config.fps or self.family.fps), crf=CRF)
        return path

    def close(self) -> None:
        """Give the model's memory back."""
        self._held = None
        release(self._device)

    def _loaded(self) -> Any:
        import torch

        with quiet():
            import diffusers

            cls = getattr(diffusers, self.family.pipeline)
        c, more = self.config, {}
        if self.family.pipeline == WAN:
            # Its decoder was trained, and is to be run, with whole numbers.
            more["vae"] = _part(diffusers.AutoencoderKLWan, self._checkpoint, "vae", torch.float32)
        where = torch.device("cpu") if c.offload != "none" else self._device
        try:
            self._checkpoint.ensure_memory(where, self._dtype)
        except UserError as e:
            less = "; --video.offload model needs less" if where.type == "cuda" else ""
            raise UserError(f"{e}{less}") from None
        pipeline = self._checkpoint.load(cls, device=where, dtype=self._dtype, **more)
        if self._device.type == "cuda" and c.offload == "model":
            pipeline.enable_model_cpu_offload(device=self._device)
        if self._device.type == "cuda" and c.offload == "layers":
            pipeline.enable_sequential_cpu_offload(device=self._device)
        if c.vae_tiling:
            pipeline.vae.enable_tiling()
        if self.family.pipeline == "HunyuanVideo15ImageToVideoPipeline":
            pipeline.guider = pipeline.guider.new(guidance_scale=self._guidance)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    @property
    def _guidance(self) -> float:
        return self.family.guidance if self.config.guidance is None else self.config.guidance

    def _made(self, request: VideoRequest, progress: Progress) -> np.ndarray:
        """(T, H, W, 3) uint8"""
        import torch
        from PIL import Image

        c, family = self.config, self.family
        picture = cv2.imread(str(request.first_frame))[..., ::-1]
        width, height = self.size(picture.shape[1], picture.shape[0])
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        steps = c.steps or family.steps

        def stepped(pipeline: Any, step: int, time: Any, tensors: dict) -> dict:
            progress(f"step {step + 1} of {steps}", (step + 1) / (steps + 1))
            return {}

        asked = {
            "image": Image.fromarray(small), "prompt": request.prompt.text,
            "negative_prompt": request.prompt.negative, "num_frames": self.frames,
            "num_inference_steps": steps, "output_type": "np",
            "generator": torch.Generator("cpu").manual_seed(request.own_seed),
        }  # fmt: skip
        if family.pipeline != "HunyuanVideo15ImageToVideoPipeline":  # It goes by the picture.
            asked |= {"width": width, "height": height, "guidance_scale": self._guidance,
                      "callback_on_step_end": stepped}  # fmt: skip
        if family.pipeline == "LTX2ImageToVideoPipeline":
            asked["frame_rate"] = c.fps or family.fps
        progress(f"{steps} steps of {self.frames} frames of {width}x{height}", 0.0)
        try:
            with within_memory(FLAG, self._device, LOWER):
                made = np.asarray(self._held(**asked).frames[0])
        except (ValueError, IndexError, KeyError) as e:
            raise UserError(
                f"{FLAG} {c.model}: the model does not take these settings ({_first_line(e)})"
            ) from e
        if not np.isfinite(made).all():
            raise RunFailed(
                f"{c.model} gave values that are no numbers; another --video.dtype may help"
            )
        return np.clip(np.round(made * 255), 0, 255).astype(np.uint8)

    @property
    def frames(self) -> int:
        """As many as are asked for, or a few less where the model wants that."""
        wanted, every = self.config.frames or self.family.frames, self.family.every
        return max((wanted - 1) // every, 1) * every + 1

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the videos for a picture of such a size."""
        c, grid = self.config, self.family.grid
        scale = math.sqrt(self.family.pixels / (width * height))
        if c.width and not c.height:
            scale = c.width / width
        if c.height and not c.width:
            scale = c.height / height
        wanted = (c.width or width * scale, c.height or height * scale)
        across, down = (max(round(w / grid), 1) * grid for w in wanted)
        return across, down


def _family(checkpoint: Checkpoint, name: str) -> Family:
    """
    Raises:
        UserError: it makes videos from words alone.
    """
    family = next(f for f in FAMILIES if checkpoint.kind in f.kinds)
    if family.pipeline != WAN or checkpoint.setting("model_index.json").get("expand_timesteps"):
        return family
    parts = [checkpoint.setting(f"{p}/config.json") for p in ("transformer", "transformer_2")]
    latents = checkpoint.setting("vae/config.json").get("z_dim", 16)
    if any(p.get("in_channels", latents) > latents for p in parts if p):
        return WAN_OLDER
    raise UserError(
        f"{FLAG} {name}: this Wan model makes videos from words alone; expected one that takes a first "
        f"frame, such as {family.example}"
    )


def _part(cls: Any, checkpoint: Checkpoint, name: str, dtype: Any) -> Any:
    """One part of a pipeline, with another type of numbers than the rest.

    Raises:
        UserError: it cannot be loaded.
    """
    try:
        return cls.from_pretrained(
            checkpoint.folder, subfolder=name, dtype=dtype, local_files_only=True
        )
    except Exception as e:  # What a damaged file makes of the libraries' code may be anything.
        raise UserError(
            f"{checkpoint.flag} {checkpoint.folder}: its {name} cannot be loaded ({_first_line(e)}); "
            "fetch it again, or give another"
        ) from e


def _first_line(e: BaseException) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(e).__name__
