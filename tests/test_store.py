"""Run directories: what is skipped, what is run again, and configs that survive the disk."""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import pytest

import lucibot.pipeline as pipeline
from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import RunFailed, UserError
from lucibot.pipeline import Stage, run_stages
from lucibot.providers.video import FileVideo
from lucibot.record import open_run, reconfigure, start_run
from lucibot.store.configs import from_dict, to_dict
from lucibot.store.run import RunDirectory
from lucibot.task import load_task


class Toy(Stage):
    """Writes one file; counts how often it really ran."""

    ran: ClassVar[dict] = {}

    def run(self, ctx):
        Toy.ran[self.name] = Toy.ran.get(self.name, 0) + 1
        if self.name == "last" and Toy.ran.pop("fail", False):
            raise RunFailed("on purpose")
        (ctx.folder / "out.txt").write_text(f"{self.name} {ctx.seed} {sorted(ctx.inputs)}")


@pytest.fixture
def toy(monkeypatch, tmp_path):
    Toy.ran = {}
    stages = (
        Toy(number=1, name="first", version=1, needs=(), config="select", reads=("scene",)),
        Toy(
            number=2,
            name="last",
            version=1,
            needs=("first",),
            config="execute",
            reads=("scene",),
            seeded=True,
        ),
    )
    monkeypatch.setattr(pipeline, "STAGES", stages)
    task = load_task("cut_dough")
    return start_run(task, RunConfig(), seed=5, out=tmp_path), task


def test_finished_stages_are_skipped(toy):
    run, task = toy
    run_stages(run, task, RunConfig(), seed=5)
    run_stages(run, task, RunConfig(), seed=5)
    assert Toy.ran == {"first": 1, "last": 1}


def test_what_another_run_clears_while_it_is_taken_over_is_not(toy, monkeypatch):
    run, _ = toy
    mine, other = (run.stage(1, "first", fingerprint) for fingerprint in ("a", "b"))
    for at_once in (True, False):
        (other.path / "out.txt").write_text("made")
        other.finish(config=None, inputs={}, seconds=0.0, notes=[])
        if at_once:
            other.clear()
        else:
            # Between the look whether a file is there and the look into it.
            monkeypatch.setattr(Path, "is_file", lambda self: True)
            (other.path / "out.txt").unlink()
            assert other.damaged() == ["out.txt"]
        assert not mine.copy(other, source="b") and not (mine.finished() and not mine.damaged())


def test_what_rests_on_the_task_alone_is_taken_over_from_another_run(toy, monkeypatch, tmp_path):
    run, task = toy
    first, last = pipeline.STAGES
    monkeypatch.setattr(pipeline, "STAGES", (dataclasses.replace(first, shared=True), last))
    run_stages(run, task, RunConfig(), seed=5)
    other = start_run(task, RunConfig(), seed=6, out=tmp_path)
    run_stages(other, task, RunConfig(), seed=6)
    assert Toy.ran == {"first": 1, "last": 2}
    (manifest,) = other.path.glob("01_first/*/manifest.json")
    assert json.loads(manifest.read_text())["taken_over_from"] == run.path.name
    # Not what is damaged there.
    (next(run.path.glob("01_first/*")) / "out.txt").write_text("something else")
    (next(other.path.glob("01_first/*")) / "out.txt").unlink()
    third = start_run(task, RunConfig(), seed=7, out=tmp_path)
    run_stages(third, task, RunConfig(), seed=7)
    assert Toy.ran == {"first": 2, "last": 3}


def test_a_failed_stage_is_run_again_and_the_others_kept(toy):
    run, task = toy
    Toy.ran["fail"] = True
    with pytest.raises(RunFailed):
        run_stages(run, task, RunConfig(), seed=5)
    run_stages(run, task, RunConfig(), seed=5)
    assert Toy.ran == {"first": 1, "last": 2}


@pytest.mark.parametrize(
    ("change", "kept"), [("defaults", False), ("damage", True), ("manifest", True), ("both", False)]
)
def test_checkpoints_are_kept_but_not_those_of_other_defaults(toy, monkeypatch, change, kept):
    run, task = toy
    first, last = pipeline.STAGES
    last = dataclasses.replace(last, keep=("checkpoints",))
    monkeypatch.setattr(pipeline, "STAGES", (first, last))
    run_stages(run, task, RunConfig(), seed=5)
    (manifest,) = run.path.glob("02_last/*/manifest.json")
    checkpoint = manifest.with_name("checkpoints") / "one"
    checkpoint.parent.mkdir()
    checkpoint.write_text("")
    told = json.loads(manifest.read_text())
    if change in ("defaults", "both"):
        told["config"]["film_fps"] += 1
    if change in ("damage", "both"):
        manifest.with_name("out.txt").write_text("tampered")
    manifest.write_text("{" if change == "manifest" else json.dumps(told))
    run_stages(run, task, RunConfig(), seed=5)
    assert Toy.ran == {"first": 1, "last": 2} and checkpoint.exists() == kept


@pytest.mark.parametrize("damage", ["change", "remove", "manifest"])
def test_a_damaged_artefact_is_named_and_remade(toy, damage):
    run, task = toy
    run_stages(run, task, RunConfig(), seed=5)
    (out,) = run.path.glob("01_first/*/out.txt")
    if damage == "change":
        out.write_text("tampered")
    elif damage == "remove":
        out.unlink()
    else:
        out.with_name("manifest.json").write_text("{")

    class Console(pipeline.StageConsole):
        said: ClassVar[list] = []

        def say(self, message):
            self.said.append(message)

    run_stages(run, task, RunConfig(), seed=5, console=Console())
    assert Toy.ran["first"] == 2 and Toy.ran["last"] == 1  # The same contents came out.
    named = "manifest.json" if damage == "manifest" else "out.txt"
    assert named in Console.said[0] and "damaged" in Console.said[0]


def test_a_changed_config_makes_a_sibling(toy):
    run, task = toy
    run_stages(run, task, RunConfig(), seed=5)
    select = dataclasses.replace(RunConfig().select, force_video=1)
    changed = dataclasses.replace(RunConfig(), select=select)
    with reconfigure(run, task, changed, 5):
        run_stages(run, task, changed, seed=5)
    assert len(list(run.path.glob("01_first/*/manifest.json"))) == 2
    assert len(list(run.path.glob("02_last/*/manifest.json"))) == 1  # Same inputs, same seed.
    assert open_run(run.path)[2] == changed


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_configs_survive_json(preset, tmp_path):
    config = dataclasses.replace(
        PRESETS[preset], video=FileVideo(paths=(tmp_path / "a.mp4", tmp_path / "b.mp4"))
    )
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no run\.json"):
        RunDirectory.open(tmp_path)
