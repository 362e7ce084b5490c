"""Nothing after `imagine` reads anything but pixels and the scene."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lucibot.config import PRESETS, RunConfig, SceneConfig
from lucibot.pipeline import StageConsole, run_stages, stage_folder, start_run
from lucibot.providers.renderer.raster import RasterRenderer
from lucibot.task import load_task


class Forgetful(StageConsole):
    """Deletes the storyboard and what it planted as soon as the videos are drawn."""

    def __init__(self, storyboard: Path, run: Path):
        self.storyboard, self.run = storyboard, run

    def done(self, stage, seconds, skipped):
        if stage.name == "imagine":
            self.storyboard.unlink()
            for planted in list(self.run.glob("20_imagine/**/planted")):
                shutil.rmtree(planted)


def small() -> RunConfig:
    quick = PRESETS["quick"]
    search = dataclasses.replace(quick.optimize.search, population=2, generations=1)
    return dataclasses.replace(
        quick, scene=SceneConfig(renderer=RasterRenderer()),
        optimize=dataclasses.replace(quick.optimize, search=search, workers=1),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["open_drawer", "cut_dough"])
def test_without_storyboard_and_planted_truth_the_same_bits(name, tmp_path):
    found = []
    for forget in (False, True):
        folder = tmp_path / str(forget) / name
        shutil.copytree(load_task(name).folder, folder)
        task = load_task(str(folder))
        run = start_run(task, small(), seed=100, out=tmp_path / str(forget) / "runs")
        console = Forgetful(folder / "storyboard.toml", run.path) if forget else StageConsole()
        run_stages(run, task, small(), seed=100, console=console)
        found.append(run)
    for stage, file in (("select", "verdicts.json"), ("optimize", "search.json")):
        first, second = (json.loads((stage_folder(r, stage) / file).read_text()) for r in found)
        for told in (first, second):
            told.pop("seconds", None)  # How long it took is no part of what was found.
        assert first == second, file
    for stage, file in (
        ("perceive", "supervision.npz"),
        ("optimize", "trajectory.npz"),
        ("execute", "final_state.npz"),
    ):
        with (
            np.load(stage_folder(found[0], stage) / file) as a,
            np.load(stage_folder(found[1], stage) / file) as b,
        ):
            assert a.files == b.files
            for key in a.files:
                np.testing.assert_array_equal(a[key], b[key], err_msg=f"{file}: {key}")
