"""Settings out of bounds: one line that names the flag, exit status 2, and nothing is made."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from lucibot.cli import main
from lucibot.config import PRESETS, RunConfig
from lucibot.core.config import Config, WrongSetting
from lucibot.optimize.config import Evosax, SearchConfig
from lucibot.settings import settings
from lucibot.store.configs import classes


@pytest.fixture(autouse=True)
def nothing_runs(tmp_path, monkeypatch):
    """What is accepted by mistake is not run."""
    monkeypatch.chdir(tmp_path)

    def accepted(*_, **__):
        raise AssertionError("a run was started")

    monkeypatch.setattr("lucibot.commands.run_stages", accepted)


WRONG = [
    ("--seed", "-1"),
    ("--seed", "1e3"),
    ("--seed", "99999999999"),
    ("--optimize.device", "banana"),
    ("--optimize.workers", "-2"),
    ("--optimize.workers", "1000000"),
    ("--optimize.environments", "0"),
    ("--optimize.search.population", "0"),
    ("--optimize.search.population", "1"),
    ("--optimize.search.population", "-3"),
    ("--optimize.search.population", "2.5"),
    ("--optimize.search.generations", "-1"),
    ("--optimize.search.sigma-position-m", "nan"),
    ("--optimize.search.sigma-position-m", "inf"),
    ("--optimize.search.sigma-position-m", "0"),
    ("--optimize.search.sigma-depth-m", "-0.1"),
    ("--optimize.search.correlation", "1"),
    ("--optimize.objective.weights.contact", "-1"),
    ("--execute.film-fps", "0"),
    ("--execute.film-width", "1"),
    ("--video.candidates", "0"),
    ("--video.candidates", "-1"),
    ("--video.crf", "90"),
    ("--video.noise", "-1"),
    ("--scene.renderer.spp", "0"),
    ("--select.force-video", "-1"),
    ("--select.verifier.width", "0"),
    ("--select.verifier.drift-free", "0"),
    ("--select.verifier.drift-bad", "0.004"),
    ("--select.verifier.self-motion", "0"),
    ("--select.verifier.self-shift", "0"),
    ("--select.verifier.new-object-area", "0"),
    ("--select.verifier.new-object-contrast", "0"),
    ("--perceive.poses.width", "0"),
    ("--perceive.poses.mask-sigma-px", "0"),
    ("--perceive.keyframes.count", "0"),
    ("--perceive.affordance.area-m", "-1"),
    ("--perceive.affordance.points", "0"),
    ("--perceive.affordance.look-s", "0"),
    ("--perceive.supervise.cloud-points", "0"),
    ("--perceive.supervise.width", "1000000"),
    ("--perceive.tracker.work-width", "0"),
]


@pytest.mark.parametrize(("flag", "value"), WRONG)
def test_a_setting_out_of_bounds(flag, value, tmp_path, capsys):
    assert main(["run", "cut_dough", flag, value]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lucibot: ") and said.count("\n") == 1, said
    assert flag in said and value in said, said
    assert not any(tmp_path.iterdir())


def test_a_gpu_that_is_not_there_is_missed_before_anything_is_built(tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["run", "cut_dough", "--optimize.device", "cuda"]) == 2
    said = capsys.readouterr().err
    assert "--optimize.device cuda: this machine has no CUDA GPU" in said and said.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_what_an_optimizer_asks_of_the_population():
    with pytest.raises(WrongSetting, match="even number"):
        SearchConfig(population=5, optimizer=Evosax(strategy="CR_FM_NES"))
    assert SearchConfig(population=6, optimizer=Evosax(strategy="CR_FM_NES")).population == 6


def all_configs(kind) -> set[type]:
    found = set()
    for cls in classes(kind):
        found.add(cls)
        hints = typing.get_type_hints(cls)
        for f in dataclasses.fields(cls):
            found |= all_configs(hints[f.name])
    return found


def test_every_config_checks_itself_and_every_default_passes():
    assert all(issubclass(c, Config) for c in all_configs(RunConfig)), all_configs(RunConfig)
    for preset in PRESETS.values():
        assert dataclasses.replace(preset) == preset
    with pytest.raises(WrongSetting, match=r"SearchConfig\.population = 'ten'"):
        SearchConfig(population="ten")


def test_no_number_takes_nan_or_is_unbounded(tmp_path):
    """Every numeric setting that a plain run has, whoever adds it."""
    for s in settings(RunConfig, RunConfig()):
        if not isinstance(s.default, float):
            continue
        *way, last = s.path.replace("-", "_").split(".")
        config = RunConfig()
        for name in way:
            config = getattr(config, name, None)
        if not hasattr(config, last):
            continue  # A setting of a member that is not chosen.
        for value in (float("nan"), float("inf"), True, "1"):
            with pytest.raises(WrongSetting):
                dataclasses.replace(config, **{last: value})
