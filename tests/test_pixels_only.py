"""Nothing after `imagine` reads anything but pixels and the scene."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import lucibot
from lucibot.config import PRESETS, RunConfig, SceneConfig, SelectConfig
from lucibot.core.progress import silent
from lucibot.pipeline import STAGES, Context, StageConsole, run_stages
from lucibot.providers.renderer.raster import RasterRenderer
from lucibot.providers.video import StoryboardVideo
from lucibot.record import start_run
from lucibot.services import Services
from lucibot.store.finished import stage_folder
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


def test_perception_reads_the_same_bits_without_storyboard_planted_truth_and_seed(
    small_task, tmp_path
):
    """Drawn once; then judged and read twice, the second time with nothing but the pictures left."""
    folder = tmp_path / "tasks" / "open_drawer"
    task = small_task("open_drawer", folder, width=240, height=180, fps=6)
    config = dataclasses.replace(
        small(), video=StoryboardVideo(candidates=1, faulty=0), select=SelectConfig(force_video=0)
    )
    run = start_run(task, config, seed=100, out=tmp_path / "runs")
    run_stages(run, task, config, seed=100, until="imagine")
    given = {name: stage_folder(run, name) for name in ("scene", "imagine")}

    def read(where: Path, seed: int) -> dict[str, Path]:
        inputs = dict(given)
        for stage in (s for s in STAGES if s.name in ("select", "perceive")):
            inputs[stage.name] = where / stage.name
            inputs[stage.name].mkdir(parents=True)
            stage.run(Context(
                task=load_task(str(folder)), config=getattr(config, stage.config), seed=seed,
                folder=inputs[stage.name], inputs={n: inputs[n] for n in stage.needs}, run=run,
                progress=silent, note=lambda message: None, services=Services(where / "services"),
            ))  # fmt: skip
        return inputs

    first = read(tmp_path / "first", seed=100)
    (folder / "storyboard.toml").unlink()
    planted = sorted(given["imagine"].rglob("planted"))
    assert planted
    for each in planted:
        shutil.rmtree(each)
    second = read(tmp_path / "second", seed=7)
    verdicts = [
        json.loads((found["select"] / "verdicts.json").read_text()) for found in (first, second)
    ]
    assert verdicts[0] == verdicts[1]
    for file in ("supervision.npz", "tracks.npz"):
        with np.load(first["perceive"] / file) as a, np.load(second["perceive"] / file) as b:
            assert a.files == b.files
            for key in a.files:
                np.testing.assert_array_equal(a[key], b[key], err_msg=f"{file}: {key}")


def test_the_storyboards_file_is_named_where_it_is_read_and_nowhere_else():
    """What the import contracts cannot see: a file that is opened by its name."""
    package = Path(lucibot.__file__).parent
    named = {
        str(p.relative_to(package))
        for p in package.rglob("*.py")
        if re.search(r"""["'](\S*/)?storyboard\.toml["']""", p.read_text())
    }
    assert named == {
        "providers/video/storyboard/schema.py", "checks/sound.py", "task/digests.py",
        "chain/derive.py",  # Copies it into the folder of a chain's next step.
    }  # fmt: skip


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
