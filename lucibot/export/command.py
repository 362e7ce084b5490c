"""`lucibot export`: finished runs as a dataset or as trajectories."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from lucibot.core.errors import UserError
from lucibot.export import hdf5, lerobot, trajectory
from lucibot.export.episode import FPS, Episode, ensure_arm, read_episode
from lucibot.settings import Parser
from lucibot.store.collection import EPISODE, episodes_of
from lucibot.store.run import RunDirectory

FORMATS = ("lerobot", "hdf5", "trajectory")


def command(argv: list[str]) -> int:
    """`lucibot export`.

    Raises:
        UserError: no such run or format, a run that is not finished or did not succeed, runs that do not
            fit together, a folder that exists.
    """
    p = Parser(
        "lucibot export", "RUN... --format FORMAT --out DIR",
        "Write finished runs, and what `lucibot collect` has kept, as data: a LeRobot dataset (v3.0), HDF5 in "
        "robomimic's layout, or trajectories as JSON, CSV and ROS 2 messages in MCAP.",
    )  # fmt: skip
    p.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run directories and collections"
    )
    p.add_argument("--format", choices=FORMATS, metavar="|".join(FORMATS), help="what is written")
    p.add_argument("--out", type=Path, metavar="DIR", help="a new folder; with hdf5, a new file")
    p.add_argument("--fps", type=int, metavar="INT",
                   help=f"frames a second of a dataset (default: {FPS})")  # fmt: skip
    p.add_argument("--robot", action="store_true",
                   help="what the run's arm did, with its joints, instead of the replay without one")  # fmt: skip
    p.add_argument("--failed", action="store_true", help="take runs that did not succeed as well")
    a, _ = p.parse(argv)
    for name in ("format", "out"):
        if name not in a:
            raise UserError(f"--{name} is missing; `lucibot export --help` says what there is")
    if not 1 <= a.get("fps", FPS) <= 1000:
        raise UserError(f"--fps {a['fps']}: expected 1 to 1000")
    written = export(
        a["runs"], a["format"], a["out"], fps=a.get("fps", FPS), failed=a.get("failed", False),
        robot=a.get("robot", False),
    )  # fmt: skip
    print(written)
    return 0


def export(
    runs: list[Path], format: str, out: Path, *, fps: int = FPS, failed: bool = False,
    robot: bool = False,
) -> str:  # fmt: skip
    """Write runs as data; returns what was written, in a line. Nothing is left of what fails.

    Args:
        out: where to, a folder or (HDF5) a file that does not exist yet.
        fps: frames a second of a dataset.
        failed: take runs that did not succeed as well.
        robot: what the runs' arms did, instead of the replays without one.

    Raises:
        UserError: see `command`.
    """
    if out.exists():
        raise UserError(f"--out {out} exists; choose another name")
    runs = [r for run in runs for r in episodes_of(run) or [run]]
    given: set[Path] = set()
    for run in runs:
        if (place := run.resolve()) in given:
            raise UserError(f"{run} is given twice")
        given.add(place)
        if (run / EPISODE).is_file():
            continue  # Of a collection, which keeps what succeeds.
        result = RunDirectory.open(run).result()
        if robot:
            ensure_arm(run, result)
        if not (result.robot if robot else vars(result))["success"] and not failed:
            verdict = "with its arm" if robot else f"({result.verdict})"
            raise UserError(f"{run} did not succeed {verdict}; --failed takes it all the same")
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
        part.unlink(missing_ok=True)
        part.mkdir()
        part.rmdir()
    except OSError as e:
        raise UserError(f"--out {out}: cannot be written ({e.strerror}); choose another") from None
    try:
        episodes = _episodes(runs, fps, robot)
        if format == "hdf5":
            said = f"{hdf5.write(episodes, part)} frames"
        elif format == "lerobot":
            part.mkdir()
            said = f"{lerobot.write(episodes, part)} frames"
        else:
            part.mkdir()
            said = f"{sum(trajectory.write(e, part) for e in episodes)} steps"
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        part.unlink(missing_ok=True)
        raise
    of = "episode" if any((r / EPISODE).is_file() for r in runs) else "run"
    return f"{out}: {len(runs)} {of}{'s' if len(runs) > 1 else ''}, {said}"


def _episodes(runs: list[Path], fps: int, robot: bool) -> Iterator[Episode]:
    for run in runs:
        print(f"reading {run}", file=sys.stderr, flush=True)
        yield read_episode(run, fps=fps, robot=robot)
