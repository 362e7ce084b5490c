"""Twins of real photos: how well they fit, and what becomes of their clips.

The clips are the user's own and in no repository: `recipes.toml` says for each which files it needs and
the one command that makes its twin. A clip that is not there is left out, with a line that says so.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import tomllib
from pathlib import Path

from lucibot.core.errors import LuciBotError, UserError, unknown_name
from lucibot.task import load_task
from lucibot.twin import command as twin
from lucibot.twin.look import compare

RECIPES = Path(__file__).with_name("recipes.toml")


def main(argv: list[str]) -> int:
    p = argparse.ArgumentParser(
        prog="lucibot bench twins", description=__doc__.partition("\n\n")[0]
    )
    p.add_argument("clips", type=Path, help="the folder with the photos and clips")
    p.add_argument("--names", nargs="*", help="which twins (default: all that are there)")
    p.add_argument("--out", type=Path, default=Path("twins"), help="where task folders are written")
    p.add_argument("--run", action="store_true", help="run each with its clip as well")
    p.add_argument("--force", action="store_true",
                   help="take the clip whatever the verifier says of it")  # fmt: skip
    p.add_argument("--json", type=Path, help="write what was measured to this file")
    a = p.parse_args(argv)
    recipes = tomllib.loads(RECIPES.read_text())
    for name in a.names or ():
        if name not in recipes:
            raise unknown_name("twin", name, recipes)
    if not a.clips.is_dir():
        raise UserError(f"{a.clips}: no such folder of clips")
    measured = {}
    for name, recipe in recipes.items():
        if a.names and name not in a.names:
            continue
        missing = [recipe[k] for k in ("photo", "video") if not (a.clips / recipe[k]).is_file()]
        if missing:
            print(f"{name}: left out, {missing[0]} is not in {a.clips}")
            continue
        measured[name] = _one(name, recipe, a)
    if a.json:
        a.json.write_text(json.dumps(measured, indent=1) + "\n")
    return 0 if all(m.get("success", True) for m in measured.values()) else 1


def flags_of(recipe: dict, clips: Path) -> list[str]:
    """The flags of a recipe, {clips} filled in."""
    return [word.replace("{clips}", str(clips)) for word in shlex.split(recipe["flags"])]


def _one(name: str, recipe: dict, a: argparse.Namespace) -> dict:
    folder = a.out / name
    if folder.exists():
        if not (folder / "twin.toml").is_file():
            raise UserError(f"{folder} is no twin; choose another --out")
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    more = []
    if "toml" in recipe:
        path = a.out / f"{name}.toml"
        path.write_text(recipe["toml"])
        more = ["--toml", str(path)]
    flags = flags_of(recipe, a.clips)
    twin.command([str(a.clips / recipe["photo"]), "--out", str(folder), *flags, *more])
    overlaps, _ = compare(load_task(folder))
    measured: dict = {"iou": {k: round(v, 3) for k, v in overlaps.items()}}
    if a.run:
        measured |= _run(folder, a.clips / recipe["video"], a)
    for thing, value in measured["iou"].items():
        print(f"twins.{name}.{thing} {value:.3f}")
    if a.run:
        print(f"twins.{name} {measured['verdict']}")
    return measured


def _run(folder: Path, video: Path, a: argparse.Namespace) -> dict:
    """Its clip through every stage."""
    import lucibot

    settings = {"select.force-video": "0"} if a.force else {}
    try:
        done = lucibot.run(folder, video=video, settings=settings, out=a.out / "runs").result()
    except LuciBotError as e:
        return {"success": False, "score": 0.0, "verdict": f"no result ({e})"}
    return {"success": done.success, "score": done.score, "verdict": done.verdict,
            "metrics": done.metrics, "rollouts": done.rollouts}  # fmt: skip
