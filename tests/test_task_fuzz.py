"""Mutated task files: whatever stands in one, loading and checking it ends well or in a `UserError`.

python tests/test_task_fuzz.py 300        tries so many of each shipped task
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lucibot.checks import ensure_sound
from lucibot.core.errors import UserError
from lucibot.task import load_task, task_names
from lucibot.task.files import read_toml

ODD = [
    float("nan"), float("inf"), -float("inf"), 0, 0.0, -1, -1e-9, 1e-9, 1, 2, 0.5, 1e9, 1e300, 10**25,
    True, False, "", " ", "two", "..", "../x", "/etc/passwd", "a/b", "<script>", "[/b]", "\u00e9\u4e2d",
    "\U0001f916", "\u202e", "a\nb", "x" * 5000, [], {}, [[]], [0], [0, 0, 0], [1, 2, 3, 4],
    [float("nan")] * 3, {"a": 1}, [{}], "rest", "world", "rigid", "liquid", "sand",
]  # fmt: skip
FILES = ("task.toml", "storyboard.toml")


def places(value: Any, way: tuple = ()) -> list[tuple]:
    """The ways to everything in a nested value, but itself."""
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    else:
        return []
    return [p for k, v in inner for p in ((*way, k), *places(v, (*way, k)))]


def mutated(told: dict, rng: random.Random) -> dict:
    """One to three changes: a value taken away, doubled, renamed, exchanged, or made odd."""
    told = copy.deepcopy(told)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        ways = places(told)
        if not ways:
            break
        *way, last = rng.choice(ways)
        holder = told
        for k in way:
            holder = holder[k]
        kind = rng.choice(("drop", "odd", "odd", "odd", "scale", "swap", "rename", "double"))
        if kind == "drop":
            del holder[last]
        elif kind == "odd":
            holder[last] = copy.deepcopy(rng.choice(ODD))
        elif kind == "scale" and isinstance(holder[last], int | float):
            holder[last] = holder[last] * rng.choice((-1, 0.1, 10, 1000, 1e-6))
        elif kind == "swap":
            *other, k = rng.choice(ways)
            value = told
            for step in (*other, k):
                value = value[step] if not _missing(value, step) else None
            if value is not None:
                holder[last] = copy.deepcopy(value)
        elif kind == "rename" and isinstance(holder, dict):
            holder[str(last)[:-1] + rng.choice("xyz_ <")] = holder.pop(last)
        elif kind == "double" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
    return told


def _missing(value: Any, step: Any) -> bool:
    try:
        value[step]
    except (KeyError, IndexError, TypeError):
        return True
    return False


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def written(told: dict) -> str:
    return "\n".join(f"{toml(str(k))} = {toml(v)}" for k, v in told.items())


def fuzz(name: str, tries: int, seed: int, folder: Path) -> dict[str, int]:
    """How many mutated folders were sound, and how many refused; anything else is raised."""
    shutil.copytree(load_task(name).folder, folder)
    told = {f: read_toml(folder / f) for f in FILES}
    rng, found = random.Random(f"{name} {seed}"), {"sound": 0, "refused": 0}
    for i in range(tries):
        for f in FILES:
            (folder / f).write_text(written(told[f]))
        file = FILES[rng.random() < 0.4]
        text = written(mutated(told[file], rng))
        if rng.random() < 0.05:
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(('"', "[", "\x00", "\ufeff", "=", "\\")) + text[at + 1 :]
        (folder / file).write_text(text)
        try:
            ensure_sound(load_task(folder), storyboard=True)
            found["sound"] += 1
        except UserError as e:
            assert "\n" not in str(e), f"{name} {seed}, try {i}: {e}"
            found["refused"] += 1
        except Exception as e:
            raise AssertionError(f"{name} {seed}, try {i}: {type(e).__name__}: {e}\n{text}") from e
    return found


@pytest.mark.parametrize("name", ["cut_dough", "hammer_peg", "pour_liquid"])
def test_only_user_errors_come_out_of_mutated_files(name, tmp_path):
    found = fuzz(name, tries=60, seed=0, folder=tmp_path / name)
    assert found["refused"] > 20


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for task in os.environ.get("TASKS", " ".join(task_names())).split():
            for s in range(int(os.environ.get("SEEDS", "1"))):
                try:
                    found = fuzz(task, int(sys.argv[1]), s, Path(scratch) / f"{task}_{s}" / task)
                    print(task, s, found, flush=True)
                except AssertionError as e:
                    print(str(e)[:3000], flush=True)
                    import traceback

                    traceback.print_exception(e.__cause__)
