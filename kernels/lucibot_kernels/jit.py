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
    """For kernels: compiled at the first call and kept on disk, until any of these files changes."""
    return stamped(numba.njit(cache=True, **_OPTIONS)(kernel), _DIGEST)


def stamped(dispatcher, digest: str):
    """A function that numba keeps on disk, kept only for as long as `digest` is the same.

    Numba by itself looks at the function's own file only, not at what is inlined from others.
    """
    cache = dispatcher._cache._cache_file
    cache._source_stamp = (cache._source_stamp, digest)
    return dispatcher


def digest_of(folder: Path) -> str:
    """Of all Python files in a folder."""
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(folder.glob("*.py")))).hexdigest()


_DIGEST = digest_of(Path(__file__).parent)
