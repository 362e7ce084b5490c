"""How the kernels for a CPU core are compiled (numba).

Nothing is allocated in a kernel, so references are not counted: to count them for each array that
an inlined function is given would cost more than most of these functions. Memory that a kernel
needs is handed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numba

_OPTIONS = {
    # No more freedom than changes the last bit; what is not a number stays so.
    "fastmath": {"contract", "arcp", "nsz"},
    "error_model": "numpy",
    "_nrt": False,
}

inlined = numba.njit(forceinline=True, **_OPTIONS)
"""For functions that kernels call for each particle, node or body."""


def compiled(kernel: Callable) -> Callable:
    """For kernels: compiled at the first call and kept on disk, until any of these files changes.

    Numba by itself looks at the kernel's own file only, not at what is inlined from others.
    """
    dispatcher = numba.njit(cache=True, **_OPTIONS)(kernel)
    cache = dispatcher._cache._cache_file
    cache._source_stamp = (cache._source_stamp, _DIGEST)
    return dispatcher


_DIGEST = hashlib.sha256(
    b"".join(f.read_bytes() for f in sorted(Path(__file__).parent.glob("*.py")))
).hexdigest()
