"""Where compiled code is kept between runs, also where the home folder cannot be written to."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def ensure_caches() -> None:
    """See to it that this process and its children can keep what they compile.

    Genesis, Quadrants, numba, Dr.Jit and matplotlib each have a folder below the home folder, and
    some of them fail late, or for a long time, where they cannot make it. Then a folder of this
    user's among the temporary ones stands for home.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    trouble = why_not_writable(cache) or why_not_writable(Path.home())
    if trouble is None:
        return
    home = Path(tempfile.gettempdir()) / f"lucibot_home_{os.getuid()}"
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        ours = home.stat().st_uid == os.getuid()
    except OSError:
        ours = False
    if not ours:
        # Somebody else's folder of that name: nothing that they wrote is to be run.
        home = Path(tempfile.mkdtemp(prefix="lucibot_home_"))
    os.environ["HOME"] = str(home)
    os.environ.pop("XDG_CACHE_HOME", None)
    print(f"lucibot: {trouble}; what is compiled is kept in {home}", file=sys.stderr)


def why_not_writable(folder: Path) -> str | None:
    """Why no file can be made in a folder (which is made, if need be); None if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as e:
        return f"{folder} cannot be written to ({e.strerror})"
