"""The one place that starts Genesis, and small views into its memory."""

from __future__ import annotations

import os
import warnings
from typing import Any

from lucibot_kernels.runtime import quick_imports
from torch import Tensor

from lucibot.core.errors import UserError


def start_genesis(device: str = "cpu") -> Any:
    """Import and initialise Genesis once per process; later calls check that the device agrees.

    On the CPU it runs on one thread unless QD_NUM_THREADS says otherwise: one thread gives the same
    bits for any number of environments, and processes scale better than threads.
    """
    ensure_device(device)
    os.environ.setdefault("QD_NUM_THREADS", "1")
    # Quadrants says so of Genesis's own kernels; it concerns nobody who runs a task.
    warnings.filterwarnings("ignore", message="cannot create weak reference")
    with quick_imports():
        import genesis as gs

    if not gs._initialized:
        gs.init(
            backend=gs.cpu if device == "cpu" else gs.gpu,
            precision="32",
            logging_level="error",
            seed=0,
        )
    elif gs.device.type != device:
        raise UserError(f"this process already runs Genesis on {gs.device.type}, not on {device}")
    return gs


def ensure_device(device: str) -> None:
    """
    Raises:
        UserError: this machine has no such device.
    """
    if device not in {"cpu", "cuda"}:
        raise UserError(f"unknown device {device!r}; choose cpu or cuda")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("device cuda: this machine has no CUDA GPU that works; choose cpu")


def shut_down() -> None:
    """End Genesis in this process, which writes its compiled kernels to the cache."""
    import genesis as gs

    gs.destroy()


def view(field: Any) -> Tensor:
    """A Genesis field as a torch tensor that shares its memory, in the field's own axis order."""
    from genesis.utils.misc import qd_to_torch

    return qd_to_torch(field, copy=False)
