"""Files of arrays that others have written, or that have lain on a disk since."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lucibot.core.errors import LuciBotError, UserError


@contextmanager
def read_npz(
    path: Path,
    wrong: Callable[[str], LuciBotError] | None = None,
    names: Collection[str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of an npz file, for a block that makes something of them.

    Args:
        wrong: the error, of what is wrong with the file, in a few words; if not given a `UserError` that
            names it.
        names: of the arrays that are read, where the rest is somebody else's; all if not given.

    Raises:
        FileNotFoundError: there is none.
        LuciBotError: it is no npz, it is damaged, or what the block looks for is not in it.
    """
    wrong = wrong or (lambda why: UserError(f"{path} is damaged or of another version ({why})"))
    with _one_line(wrong), np.load(path) as z:
        arrays = {n: z[n] for n in z.files if names is None or n in names}
    try:
        yield arrays
    except KeyError as e:
        raise wrong(f"no array {e}") from None
    except (IndexError, TypeError, ValueError) as e:
        raise wrong(_why(e)) from None


def read_npy(path: Path, wrong: Callable[[str], LuciBotError] | None = None) -> np.ndarray:
    """The numbers in an npy file.

    Args:
        wrong: as for `read_npz`.

    Raises:
        FileNotFoundError: there is none.
        LuciBotError: it is no npy file, it is damaged, or it holds no real numbers.
    """
    wrong = wrong or (lambda why: UserError(f"{path} is no npy file of numbers ({why})"))
    with _one_line(wrong):
        found = np.load(path, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise wrong("it is an npz file")
    if not np.issubdtype(found.dtype, np.floating) and not np.issubdtype(found.dtype, np.integer):
        raise wrong(f"it holds {found.dtype}")
    return found


@contextmanager
def _one_line(wrong: Callable[[str], LuciBotError]) -> Iterator[None]:
    """What goes wrong as a file is read becomes the error `wrong`, but that there is no file, or no memory."""
    try:
        yield
    except (FileNotFoundError, MemoryError):
        raise
    except Exception as e:  # Of zipfile, zlib and numpy, of many kinds: any byte may be another.
        raise wrong(_why(e)) from None


def _why(e: Exception) -> str:
    return " ".join(str(e).split())[:200] or type(e).__name__
