"""SAM 2 by its authors' package, `sam2`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from lucibot.core.errors import UserError
from lucibot.providers.checkpoints import (
    MARGIN,
    fetched_file,
    free_bytes,
    torch_device,
    torch_dtype,
    within_memory,
)
from lucibot.providers.tracker.config import Sam2Segmenter
from lucibot.providers.tracker.prompts import Prompt

FLAG = "--perceive.tracker.segmenter"
INSTALL = "pip install git+https://github.com/facebookresearch/sam2, or ask transformers instead: " \
          f"{FLAG}.library transformers"  # fmt: skip
CONFIGS = {
    f"sam{v}_hiera_{name}": f"configs/sam{v}/sam{v}_hiera_{short}.yaml"
    for v in ("2", "2.1")
    for name, short in (("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l"))
}
"""The package's config of each published checkpoint."""


class ByPackage:
    """See `Follower` of `lucibot.providers.tracker.sam2`."""

    def __init__(self, config: Sam2Segmenter):
        """
        Raises:
            UserError: see `SegmentBySam2`.
        """
        self.config = config
        if find_spec("sam2") is None:
            raise UserError(f"{FLAG}.library sam2 needs the package sam2: {INSTALL}")
        self.device = torch_device(config.device, f"{FLAG}.device")
        self.dtype = torch_dtype(config.dtype, self.device)
        self.weights = weights_file(config.model)
        self.architecture = config.architecture or CONFIGS.get(self.weights.stem, "")
        if not self.architecture:
            raise UserError(
                f"{FLAG}.model {config.model}: say which of the package's configs it is of: "
                f"{FLAG}.architecture configs/sam2.1/sam2.1_hiera_l.yaml"
            )
        needed, free = MARGIN * self.weights.stat().st_size, free_bytes(self.device)
        if needed > free:
            raise UserError(
                f"{FLAG}.model: too little memory, the model needs {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB are free on {self.device}; take a smaller one"
            )

    def follow(
        self, frames: np.ndarray, prompts: list[Prompt]
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `Follower`."""
        import torch

        reduced = self.dtype != torch.float32
        with (
            within_memory(f"{FLAG}.model", self.device),
            torch.inference_mode(),
            _without_bars(),
        ):
            model = self._load()
            with torch.autocast(self.device.type, dtype=self.dtype, enabled=reduced):
                state = _begin(model, frames)
                for i, prompt in enumerate(prompts):
                    self._tell(model, state, i, prompt)
                steps = model.propagate_in_video(state, start_frame_idx=0)
                while True:
                    step = next(steps, None)
                    if step is None:
                        break
                    t, _, logits = step
                    yield logits[:, 0].float().cpu().numpy(), _scores(state, t)
                    _forget(state, t, model)
            del model, state, steps, step

    def _load(self):
        from sam2.build_sam import build_sam2_video_predictor

        try:
            return build_sam2_video_predictor(
                self.architecture, str(self.weights), device=str(self.device)
            )
        except Exception as e:  # hydra, pickle and the package raise whatever they like.
            said = next(iter(str(e).splitlines()), "") or "its weights do not fit the config"
            raise UserError(
                f"{FLAG}.model {self.weights}: it cannot be loaded as {self.architecture} ({said[:200]})"
            ) from e

    def _tell(self, model, state, i: int, prompt: Prompt) -> None:
        if self.config.prompt == "masks":
            model.add_new_mask(state, frame_idx=0, obj_id=i, mask=prompt.mask)
        else:
            model.add_new_points_or_box(
                state, frame_idx=0, obj_id=i, points=prompt.points_px,
                labels=prompt.inside.astype(np.int32),
            )  # fmt: skip


def weights_file(name: str) -> Path:
    """The weights of a model that is a file of them or a name on the hub.

    Raises:
        UserError: it is neither, or was not fetched.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path.resolve()
    if path.is_dir():
        raise UserError(
            f"{FLAG}.model {name}: a folder is for transformers ({FLAG}.library transformers); the package "
            "sam2 takes a .pt file or a name on the hub"
        )
    stem = name.rpartition("/")[2].replace("-", "_")
    return fetched_file(name, f"{stem}.pt", flag=f"{FLAG}.model")


class _Frames(Sequence):
    """Frames (T, H, W, 3) uint8 as the package loads them, each made when it is asked for."""

    def __init__(self, frames: np.ndarray, side: int):
        self._frames, self._side = frames, side

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, t):
        import torch
        from PIL import Image

        small = Image.fromarray(self._frames[t]).resize((self._side, self._side))
        rgb = torch.from_numpy(np.array(small) / 255.0).permute(2, 0, 1)
        mean = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
        std = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
        return ((rgb - mean) / std).float()


def _begin(model, frames: np.ndarray) -> dict:
    """The package's state for a video that it need not hold in memory as a whole: it is begun with the
    first frame, in a folder as it reads them, and then given the others one by one."""
    with tempfile.TemporaryDirectory(prefix="lucibot_sam2_") as folder:
        # Its name has to end so; without loss, as the reader goes by the contents.
        coded = cv2.imencode(".png", frames[0][..., ::-1])[1]
        (Path(folder) / "00000.jpg").write_bytes(coded.tobytes())
        state = model.init_state(folder)
    state["images"] = _Frames(frames, model.image_size)
    state["num_frames"] = len(frames)
    return state


def _scores(state: dict, t: int) -> np.ndarray:
    """(N,) logits of the objects being seen in frame t."""
    out = []
    for outputs in state["output_dict_per_obj"].values():
        found = outputs["cond_frame_outputs"].get(t) or outputs["non_cond_frame_outputs"][t]
        out.append(float(found["object_score_logits"].reshape(-1)[0]))
    return np.array(out, np.float32)


def _forget(state: dict, t: int, model) -> None:
    """Drop memories that are older than any that the model reads."""
    old = t + 1 - max(model.num_maskmem, model.max_obj_ptrs_in_encoder)
    for outputs in state["output_dict_per_obj"].values():
        outputs["non_cond_frame_outputs"].pop(old, None)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without the package's own progress bars."""
    from sam2 import sam2_video_predictor
    from sam2.utils import misc

    bars = [(m, m.tqdm) for m in (sam2_video_predictor, misc)]
    for module, _ in bars:
        module.tqdm = lambda steps, **_: steps
    try:
        yield
    finally:
        for module, bar in bars:
            module.tqdm = bar
