"""How perception's kernels are compiled (numba): in parallel over pictures, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numba
from lucibot_kernels.jit import digest_of, stamped

inlined = numba.njit(error_model="numpy")
"""For what kernels call for one picture, point or pixel."""


def compiled(kernel: Callable) -> Callable:
    """For kernels: their `prange` is shared out among the cores. Compiled at the first call and
    kept on disk, until any file of this folder changes."""
    return stamped(numba.njit(cache=True, parallel=True, error_model="numpy")(kernel), _DIGEST)


_DIGEST = digest_of(Path(__file__).parent)
