"""What has finished in a run directory: the folders that the stages left, for whoever reads a run."""

from __future__ import annotations

from pathlib import Path

from lucibot.core.errors import UserError, resume_hint
from lucibot.store.rollout import Rollout
from lucibot.store.run import RunDirectory, StageFolder


def stage_folder(run: RunDirectory, name: str) -> Path:
    """The finished folder of a stage that was made or kept last.

    Raises:
        UserError: the stage has not finished, or what it made is damaged.
    """
    done = _finished_folders(run, name)
    if not done:
        raise UserError(f"{run.path}: stage {name!r} has not finished; {resume_hint(run.path)}")
    return _whole(run, max(done, key=StageFolder.last_used))


def stages_finished(run: RunDirectory) -> list[str]:
    """The stages that have a finished folder, whatever their settings were."""
    names = (p.name[3:] for p in sorted(run.path.glob("[0-9][0-9]_*")))
    return [n for n in names if _finished_folders(run, n)]


def replays(run: RunDirectory) -> list[Path]:
    """Every finished folder of the stage "execute" that a run directory holds, the newest last: of a run that
    was resumed with other settings there are several.

    Raises:
        UserError: there is none, or one is damaged.
    """
    done = sorted(_finished_folders(run, "execute"), key=StageFolder.last_used)
    if not done:
        raise UserError(f"{run.path}: no replay has finished; {resume_hint(run.path)}")
    return [_whole(run, f) for f in done]


def made_from(run: RunDirectory, folder: Path, name: str) -> Path:
    """The folder of stage `name` whose artefacts a finished stage folder was made from.

    Raises:
        UserError: they are no longer there, or damaged.
    """
    wanted = StageFolder(folder, folder.name).manifest()["inputs"][name]
    for made in _finished_folders(run, name):
        if made.digest() == wanted:
            return _whole(run, made)
    raise UserError(f"{folder} was made from another {name!r} stage; {resume_hint(run.path)}")


def replay_of(run: RunDirectory, execute: Path) -> Rollout:
    """The replay that lies in a finished folder of the stage "execute".

    Raises:
        UserError: it is of another version.
    """
    try:
        return Rollout.load(execute / "rollout.npz")
    except (FileNotFoundError, UserError):
        raise UserError(
            f"{run.path}: its replay was kept by another version; "
            f"{resume_hint(run.path, '--from execute')} makes it anew"
        ) from None


def _whole(run: RunDirectory, folder: StageFolder) -> Path:
    if damaged := folder.damaged():
        raise UserError(
            f"{folder.path / damaged[0]} is missing or damaged; {resume_hint(run.path)} "
            "makes it anew"
        )
    return folder.path


def _finished_folders(run: RunDirectory, name: str) -> list[StageFolder]:
    folders = [
        StageFolder(p, p.name) for p in sorted(run.path.glob(f"[0-9][0-9]_{name}/*")) if p.is_dir()
    ]
    return [f for f in folders if f.finished()]
