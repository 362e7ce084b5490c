"""How perception's kernels are compiled (numba) and shared out among the cores."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
from lucibot_kernels.jit import digest_of, stamped

inlined = numba.njit(forceinline=True, error_model="numpy", _nrt=False)
"""For what kernels call for one picture, point or pixel. Nothing is allocated in it, so references are not
counted: to count them for each array that it is given would cost more than most of it."""


def compiled(kernel: Callable) -> Callable:
    """For kernels `kernel(first, end, ...)` that work on items `first` to `end` of a batch: a function
    of the number of items and the rest, which shares them out among the cores.

    Compiled at the first call and kept on disk, until any file of this folder changes. Threads share
    the work, for numba takes three times as long to compile its own parallel loops.
    """
    part = stamped(numba.njit(cache=True, nogil=True, error_model="numpy")(kernel), _DIGEST)

    @wraps(kernel)
    def whole(count: int, *arguments) -> None:
        parts = min(count, numba.get_num_threads())
        if parts < 2:
            part(0, count, *arguments)
            return
        ends = np.linspace(0, count, parts + 1).astype(int).tolist()
        calls = [_threads().submit(part, first, end, *arguments) for first, end in pairwise(ends)]
        for call in calls:
            call.result()

    return whole


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(numba.config.NUMBA_NUM_THREADS, thread_name_prefix="perception")


_DIGEST = digest_of(Path(__file__).parent)
