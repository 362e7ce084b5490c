"""Weights of local models: found, looked at and loaded by one way that all families share.

A checkpoint is a folder, as `save_pretrained` writes it, or a name on the Hugging Face hub that has
been fetched before: a run fetches nothing by itself. `Checkpoint.find` is for `create()`: it looks at
the folder without loading a weight, so that a mistake shows before anything long begins.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from lucibot.core.errors import UserError

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda"]
"""Where a model runs; "auto": on the GPU where there is one."""
DType = Literal["auto", "float32", "float16", "bfloat16"]
"""What it computes with; "auto": bfloat16 on a GPU, float32 on a CPU."""

MARGIN = 1.2
"""Memory that a model needs to run, as a multiple of its weights, at least."""
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")

Model = TypeVar("Model")


def torch_device(device: str, flag: str) -> torch.device:
    """
    Args:
        flag: the setting, for the message.

    Raises:
        UserError: a GPU is asked for where there is none.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        why = "is built for CPUs" if torch.version.cuda is None else "sees none"
        raise UserError(f"{flag} {device}: there is no GPU here (torch {why}); use {flag} cpu")
    return torch.device(device)


def torch_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """What to compute with on a device; see `DType`."""
    import torch

    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    return getattr(torch, dtype)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model's folder, looked at and not loaded yet."""

    folder: Path
    kind: str
    """Of a transformers model its `model_type`, of a diffusers pipeline its class."""
    flag: str
    """The setting that names it, for messages."""

    @classmethod
    def find(cls, name: str, *, flag: str, kinds: Sequence[str], example: str = "") -> Checkpoint:
        """
        Args:
            name: a folder, or a name on the hub.
            flag: the setting that holds it: "--perceive.depth.model".
            kinds: what it may be; nothing: whatever it is.
            example: a name that is of a right kind, for messages.

        Raises:
            UserError: there is no such folder; the hub's model was not fetched; it holds no
                weights; it is of another kind.
        """
        hint = f", such as {example}" if example and example != name else ""
        folder = _folder(name, flag, hint)
        kind = _kind(folder)
        if kind is None:
            raise UserError(
                f"{flag} {name}: no checkpoint, for there is neither a config.json nor a "
                f"model_index.json in it; give what `save_pretrained` has written, or a name on the "
                f"hub{hint}"
            )
        if kinds and kind not in kinds:
            raise UserError(
                f"{flag} {name}: a checkpoint of the wrong kind, {kind}; expected "
                f"{' or '.join(kinds)}{hint}"
            )
        if not any(True for _ in _weight_files(folder)):
            raise UserError(
                f"{flag} {name}: its folder holds no weights; fetch it again: `hf download {name}`"
            )
        return cls(folder=folder, kind=kind, flag=flag)

    def setting(self, file: str) -> dict[str, Any]:
        """A json file of the checkpoint; empty where it has none."""
        path = self.folder / file
        return json.loads(path.read_text()) if path.is_file() else {}

    def image_processor(self) -> Any:
        """What makes of pictures what a transformers model takes; without torchvision.

        Raises:
            UserError: the checkpoint says nothing of it.
        """
        from transformers import AutoImageProcessor

        try:
            with quiet():
                return AutoImageProcessor.from_pretrained(
                    self.folder, local_files_only=True, backend="pil"
                )
        except (OSError, ValueError, ImportError) as e:
            raise UserError(
                f"{self.flag} {self.folder}: its preprocessor_config.json is missing or not one that "
                f"is read here ({_first_line(e)}); fetch the checkpoint again, whole"
            ) from e

    def tokenizer(self) -> Any:
        """What makes of texts what a transformers model takes.

        Raises:
            UserError: the checkpoint has none.
        """
        from transformers import AutoTokenizer

        try:
            with quiet():
                return AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except Exception as e:  # As with weights, a damaged file may end in anything.
            raise UserError(
                f"{self.flag} {self.folder}: its tokenizer is missing or damaged ({_first_line(e)}); fetch "
                "the checkpoint again, whole"
            ) from e

    def ensure_memory(self, device: torch.device, dtype: torch.dtype) -> None:
        """
        Raises:
            UserError: the weights do not fit into the device's free memory.
        """
        needed = MARGIN * _weight_bytes(self.folder, _BYTES[str(dtype).rpartition(".")[2]])
        free = free_bytes(device)
        if needed > free:
            other = (
                f"{self.flag.rpartition('.')[0]}.device cpu, or " if device.type != "cpu" else ""
            )
            raise UserError(
                f"{self.flag}: too little memory, the model needs {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB are free on {device}; {other}a smaller model, or end other "
                "programs"
            )

    def load(self, cls: type[Model], *, device: torch.device, dtype: torch.dtype, **more) -> Model:
        """The model or pipeline, ready for inference; nothing is fetched.

        Args:
            cls: of transformers or diffusers, with `from_pretrained`.
            more: passed on to that.

        Raises:
            UserError: weights are missing, damaged or of other shapes; too little memory.
        """
        self.ensure_memory(device, dtype)
        of_transformers = cls.__module__.startswith("transformers")
        told = {"dtype": dtype}
        if of_transformers:
            told["output_loading_info"] = True
        try:
            with quiet():
                model = cls.from_pretrained(self.folder, local_files_only=True, **told, **more)
            if of_transformers:
                model, found = model
                absent = sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"]))
                if absent:
                    raise ValueError(f"{len(absent)} weights are missing, {absent[0]} the first")
            with within_memory(self.flag, device):
                model = model.to(device)
        except UserError:
            raise
        except Exception as e:  # What a damaged file makes of the libraries' code may be anything.
            raise UserError(
                f"{self.flag} {self.folder}: the checkpoint cannot be loaded ({_first_line(e)}); fetch "
                "it again, or give another"
            ) from e
        if hasattr(model, "eval"):
            model.eval()
        return model


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


@contextmanager
def within_memory(flag: str, device: torch.device, advice: str = "") -> Iterator[None]:
    """Work of a model: afterwards what it took on a GPU is given back, and running out of memory is
    the user's to mend.

    Args:
        advice: what makes it need less.

    Raises:
        UserError: there is not enough memory.
    """
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as e:
        said = str(e).lower()
        out = isinstance(e, torch.OutOfMemoryError | MemoryError)
        if not out and "not enough memory" not in said and "out of memory" not in said:
            raise
        group = flag.rpartition(".")[0]
        advice = advice or (f"{group}.device cpu, or a smaller model: {flag} NAME"
                            if device.type == "cuda" else f"a smaller model: {flag} NAME")  # fmt: skip
        raise UserError(f"{flag}: the model ran out of memory on {device}; {advice}") from e
    finally:
        release(device)


def release(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


def _folder(name: str, flag: str, hint: str) -> Path:
    if not name:
        raise UserError(f"{flag}: give a checkpoint's folder, or its name on the hub{hint}")
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise UserError(f"{flag} {name}: that is a file; give the checkpoint's folder")
    if name.startswith(("/", ".", "~")) or name.count("/") != 1:
        raise UserError(f"{flag} {name}: no such folder; give one, or a name on the hub{hint}")
    return _fetched(name, flag, hint)


def fetched_file(name: str, file: str, *, flag: str) -> Path:
    """A file of a model of the hub, which was fetched before.

    Raises:
        UserError: it was not, or has no such file.
    """
    path = _fetched(name, flag, "") / file
    if not path.is_file():
        raise UserError(
            f"{flag} {name}: {file} is not among what was fetched of it: `hf download {name} {file}`"
        )
    return path


def _fetched(name: str, flag: str, hint: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except HFValidationError:
        raise UserError(f"{flag} {name}: neither a folder nor a name on the hub{hint}") from None
    except LocalEntryNotFoundError:
        raise UserError(
            f"{flag} {name}: neither a folder nor fetched to this machine, and a run fetches nothing "
            f"by itself: `hf download {name}`, or give the folder of a checkpoint{hint}"
        ) from None


def _kind(folder: Path) -> str | None:
    for file, key in (("model_index.json", "_class_name"), ("config.json", "model_type")):
        try:
            found = json.loads((folder / file).read_text()).get(key)
        except (FileNotFoundError, ValueError, AttributeError):
            continue
        if isinstance(found, str):
            return found
    return None


def _weight_files(folder: Path) -> Iterator[Path]:
    for pattern in _WEIGHTS:
        yield from folder.rglob(pattern)


def _weight_bytes(folder: Path, each: int) -> int:
    """Memory for all weights at `each` bytes a number; those in other formats than safetensors as
    large as their files. Where there are both, the safetensors count."""
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        return sum(p.stat().st_size for p in _weight_files(folder))
    halves = [p for p in files if ".fp16." in p.name]
    files = [p for p in files if p not in halves] or halves
    return sum(_numbers(p) for p in files) * each


def _numbers(path: Path) -> int:
    """How many numbers a safetensors file holds, by its header."""
    try:
        with open(path, "rb") as f:
            size = int.from_bytes(f.read(8), "little")
            if size > path.stat().st_size:
                return 0
            header = json.loads(f.read(size))
    except (OSError, ValueError):
        return 0
    return sum(math.prod(e["shape"]) for name, e in header.items() if name != "__metadata__")


def _first_line(e: BaseException) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(e).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars and warnings: what is wrong is raised."""
    restore = []
    for module in ("transformers", "diffusers"):
        if find_spec(module) is None:
            continue
        log = import_module(f"{module}.utils.logging")
        level = log.get_verbosity()
        log.set_verbosity_error()
        log.disable_progress_bar()
        restore.append((log, level))
    try:
        yield
    finally:
        for log, level in restore:
            log.set_verbosity(level)
            log.enable_progress_bar()
