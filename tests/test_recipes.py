"""Recipes of the documentation do what they say: their code is taken out of it and run."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.video import Video
from lucibot.providers.verifier import PixelVerifier
from lucibot.providers.verifier.base import Verdict
from lucibot.services import Services
from lucibot.settings import configured
from lucibot.store.configs import from_dict, to_dict
from lucibot.task import load_task

EXTENDING = Path(__file__).parents[1] / "docs" / "extending.md"
PROGRAM = """
import json, sys
video, task, verdict = sys.argv[1:4]
assert open(video, "rb").read(12)[4:8] == b"ftyp"
told = json.load(open(task))
assert told["actuators"] == ["knife"] and told["targets"] == ["dough"] and told["instruction"]
json.dump(SAID, open(verdict, "w"))
"""
SAID = {"match": 6, "motion": 2.5, "goal": 5, "new_object": False, "reasons": ["it leaps"]}


def recipe(heading: str, folder: Path):
    """The module that the first block of code below a heading is."""
    part = EXTENDING.read_text().partition(f"\n## {heading}\n")[2]
    path = folder / "mine.py"
    path.write_text(re.search(r"```python\n(.*?)```", part, re.DOTALL)[1])
    spec = spec_from_file_location("recipe_of_the_documentation", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_judge_that_is_a_program(tmp_path, monkeypatch):
    module = recipe("A new judge", tmp_path)
    measured = Verdict(match=2, motion=1, goal=2, new_object=False, reasons=("no",))
    judge = type("Judge", (), {"judge": lambda self, task, view, video: measured})
    monkeypatch.setattr(PixelVerifier, "create", lambda self, services=None: judge())
    task = load_task("cut_dough")
    video = Video(frames=np.zeros((4, 48, 64, 3), np.uint8), fps=10.0)

    def judged(said: object, end: str = "") -> Verdict:
        program = tmp_path / "judge.py"
        program.write_text(PROGRAM.replace("SAID", repr(said)) + end)
        command = f"{sys.executable} {program} {{video}} {{task}} {{verdict}}"
        config = configured(module.MineVerifier(command="x"), {"command": command})
        assert from_dict(module.MineVerifier, json.loads(json.dumps(to_dict(config)))) == config
        return config.create(Services(tmp_path / "services")).judge(task, None, video)

    verdict = judged(SAID)
    assert verdict.total == 13.5 and verdict.usable and verdict.reasons == ("it leaps",)
    assert verdict.by == "mine" and verdict.disputed
    with pytest.raises(UserError, match="the judge's verdict: match: "):
        judged({**SAID, "match": 7})
    with pytest.raises(RunFailed, match=r"the judge .* ended with status 1: ValueError: no"):
        judged(SAID, "raise ValueError('no')")
    with pytest.raises(
        UserError, match=r"--select.verifier.command needs the place holder \{task\}"
    ):
        module.MineVerifier(command="x {video}").create(Services(tmp_path / "services"))
