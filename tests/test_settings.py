"""Settings by their own names, in any order, on every command that runs something."""

import dataclasses
from typing import Literal, get_type_hints

import pytest

from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import UserError
from lucibot.optimize.config import CEM, RandomStart
from lucibot.options import with_preset, with_settings
from lucibot.providers.renderer import RasterRenderer
from lucibot.settings import Parser, configured, member_names, settings
from lucibot.store.configs import classes

QUICK = PRESETS["quick"]


def parse(*argv: str, config: RunConfig = QUICK) -> RunConfig:
    p = Parser("test", "TASK", "")
    p.add_argument("task")
    p.add_settings(RunConfig, config)
    options, given = p.parse(argv)
    assert options == {"task": "cut_dough"}
    return with_settings(config, given)


def test_every_field_of_every_member_is_a_flag():
    def paths(kind, at: str = "") -> set[str]:
        found = set()
        for cls in classes(kind):
            for f in dataclasses.fields(cls):
                here, t = f"{at}{f.name.replace('_', '-')}", get_type_hints(cls)[f.name]
                if f.name != "kind" and (not classes(t) or len(member_names(t)) > 1):
                    found.add(here)
                found |= paths(t, f"{here}.")
        return found

    listed = [s.path for s in settings(RunConfig, QUICK)]
    assert len(listed) == len(set(listed)) and set(listed) == paths(RunConfig)
    assert {"scene.renderer", "video", "optimize.search.optimizer", "optimize.start"} <= set(listed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class One:
    kind: Literal["one"] = "one"
    number: int = 1
    """Told by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Two:
    kind: Literal["two"] = "two"
    number: float = 2.5
    """Told by two."""
    style: str = "plain"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
    part: One | Two = One()


def test_members_may_share_a_name_of_a_setting():
    shared = {s.path: (s.default, s.help) for s in settings(Whole, Whole(part=Two()))}
    assert shared["part.number"] == (2.5, "Told by two.")
    p = Parser("x", "", "")
    p.add_settings(Whole, Whole())
    for words, expected in (
        ("--part.number 3", One(number=3)),
        ("--part two --part.number 3.5", Two(number=3.5)),
        ("--part.style bright --part.number 3", Two(number=3, style="bright")),
    ):
        assert configured(Whole(), p.parse(words.split())[1]).part == expected


@pytest.mark.parametrize(
    "words, where, value",
    [
        ("--optimize.search.population 64", "optimize.search.population", 64),
        ("--optimize.search.population=64", "optimize.search.population", 64),
        ("--optimize.search.sigma_position_m 1e-3", "optimize.search.sigma_position_m", 1e-3),
        ("--optimize.search.include-start no", "optimize.search.include_start", False),
        ("--optimize.search.sigma-depth-m none", "optimize.search.sigma_depth_m", None),
        ("--optimize.cluster auto", "optimize.cluster", "auto"),
        ("--video.candidates 2", "video.candidates", 2),
        ("--scene.renderer raster", "scene.renderer", RasterRenderer()),
        ("--scene.renderer.samples 3", "scene.renderer", RasterRenderer(samples=3)),
        ("--optimize.search.optimizer.kept 1", "optimize.search.optimizer", CEM(kept=1)),
        ("--optimize.search.optimizer cem", "optimize.search.optimizer", CEM()),
        ("--optimize.start none", "optimize.start", None),
        ("--optimize.start.room-m 0.2", "optimize.start", RandomStart(room_m=0.2)),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_setting_works_by_its_own_name_before_and_after_the_task(words, where, value, first):
    argv = [*words.split(), "cut_dough"] if first else ["cut_dough", *words.split()]
    found = parse(*argv)
    for name in where.split("."):
        found = getattr(found, name)
    assert found == value


def test_settings_come_together_in_any_order():
    one = ["--scene.renderer.samples", "3"]
    two = ["--scene.renderer", "raster"]
    three = ["--optimize.start.room-m", "0.2"]
    paper = PRESETS["paper"]
    found = parse(*one, "cut_dough", *three, *two, config=paper)
    assert found == parse(*two, *three, *one, "cut_dough", config=paper)
    assert found.optimize.start == RandomStart(room_m=0.2)
    assert found.optimize.search == paper.optimize.search


@pytest.mark.parametrize(
    "words, named",
    [
        ("--optimize.serch.population 64", "Did you mean '--optimize.search.population'"),
        ("--video.candidats 2", "Did you mean '--video.candidates'"),
        ("--optimize.search.population many", "expected INT"),
        ("--optimize.search.sigma-position-m nan", "expected FLOAT"),
        ("--optimize.search.include-start perhaps", "expected yes|no"),
        ("--scene.renderer mitsubo", "Did you mean 'mitsuba'"),
        ("--scene.renderer.variant lvm", "scalar_rgb"),
        (
            "--scene.renderer mitsuba --scene.renderer.samples 2",
            "no setting of --scene.renderer mits",
        ),
        (
            "--optimize.start none --optimize.start.room-m 0.2",
            "no setting of --optimize.start none",
        ),
        ("--video file", "needs --video.paths"),
        ("--video nowhere.mp4", "no such file"),
        ("--video .", "is a folder"),
        ("--optimize.search.population", "expected one argument"),
    ],
)
def test_a_mistake_is_named(words, named):
    with pytest.raises(UserError) as told:
        parse("cut_dough", *words.split())
    assert named in str(told.value) and len(str(told.value)) < 400


def test_a_video_is_a_file_too(tmp_path):
    clip = tmp_path / "clip[1].mp4"
    clip.touch()
    assert parse("cut_dough", "--video", str(clip)).video.paths == (clip,)
    others = (tmp_path / "other.mp4", tmp_path / "with,comma.mp4")
    for path in others:
        path.touch()
    assert parse("cut_dough", "--video", f"{clip},{others[0]}").video.paths == (clip, others[0])
    assert parse("cut_dough", "--video.paths", str(others[1])).video.paths == others[1:]


def test_a_preset_changes_what_presets_differ_in():
    drawn = with_settings(QUICK, {"video.candidates": "2"})
    assert with_preset(drawn, "paper") == dataclasses.replace(PRESETS["paper"], video=drawn.video)
