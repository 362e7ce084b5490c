"""Sweeps: what is made once is not made again, whatever happened in between."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from lucibot import sweep
from lucibot.cli import main
from lucibot.config import PRESETS, RunConfig
from lucibot.core.errors import RunFailed, UserError
from lucibot.options import with_settings
from lucibot.pipeline import Stage
from lucibot.preflight import settled_run
from lucibot.record import start_run
from lucibot.store.configs import to_dict
from lucibot.store.result import Result
from lucibot.store.run import RunDirectory
from lucibot.sweep import Point, _shape
from lucibot.task import load_task

QUICK = PRESETS["quick"]
OTHER_LOSS = dataclasses.replace(
    QUICK,
    optimize=dataclasses.replace(QUICK.optimize, objective=PRESETS["paper"].optimize.objective),
)


@pytest.fixture
def made(monkeypatch):
    """Runs without stages: what was made, which simulations were open, and who is to fail."""
    log = {"runs": [], "open": [], "begun": 0, "fails": {}}

    @contextmanager
    def begin(self, task, config):
        log["begun"] += 1
        log["open"].append((self.name, task.name))
        yield self.name
        log["open"].remove((self.name, task.name))

    def run_stages(run, task, config, *, seed, ahead, take_over):
        assert {name for name, _ in log["open"]} == set(ahead) == {"optimize", "execute"}
        log["runs"].append((task.name, seed, run.path.name))
        if seed in log["fails"]:
            raise log["fails"][seed]
        result = Result(
            task=task.name, task_digest=task.digest, instruction="", seed=seed, success=seed == 0,
            score=0.5, missed=[], metrics={}, loss=1.0, terms={}, rollouts=3, failed_rollouts=0,
            same_loss_when_replayed=True, seconds={"scene": 2.0}, taken_over={}, own_seconds=2.0,
            taken_over_seconds=3.0, wall_seconds=2.0, cost_usd=0.0, video={}, versions={},
            machine={},
        )  # fmt: skip
        (run.path / "result.json").write_text(json.dumps(dataclasses.asdict(result)))

    monkeypatch.setattr(Stage, "begin", begin)
    monkeypatch.setattr(sweep, "run_stages", run_stages)
    return log


def points(*seeds: int) -> list[Point]:
    configs = {"quick": QUICK, "other": OTHER_LOSS}
    return [
        Point(task=t, seed=s, method=m, config=c)
        for t in ("cut_dough", "open_door") for s in seeds for m, c in configs.items()
    ]  # fmt: skip


def go(tmp_path, *seeds: int, measured=None) -> list[sweep.Row]:
    more = {} if measured is None else {"measured": measured}
    return sweep.sweep(points(*seeds), out=tmp_path, results=tmp_path / "r.json",
                       say=lambda line: None, **more)  # fmt: skip


def test_a_sweep_goes_on_where_it_was(made, tmp_path):
    assert len(go(tmp_path, 0)) == 4
    rows = go(tmp_path, 0, 1)
    assert len(made["runs"]) == len(rows) == 8 and not made["open"]
    assert sum(r["success"] for r in rows) == 4
    assert all((tmp_path / r["run"] / "result.json").is_file() for r in rows)
    assert {(r["seconds"], r["own_seconds"]) for r in rows} == {(5.0, 2.0)}
    # Two searches of one shape share a simulation: one for each task, stage and sweep.
    assert made["begun"] == 2 * 2 * 2


def test_a_sweep_says_what_its_runs_may_cost(made, tmp_path, monkeypatch):
    pytest.importorskip("runwayml", reason="pip install 'lucibot[runway]'")
    monkeypatch.setenv("RUNWAYML_API_SECRET", "planted-0123456789")
    paid = with_settings(QUICK, {"video": "runway", "video.candidates": "2"})
    told: list[str] = []
    both = [Point(task="open_door", seed=s, method=m, config=c)
            for s in (0, 1) for m, c in (("quick", QUICK), ("paid", paid))]  # fmt: skip
    sweep.sweep(both, out=tmp_path, results=tmp_path / "r.json", say=told.append)
    assert told[0].startswith("4 runs to go")
    assert told[1].startswith("2 of them pay: in all at most 5.00 USD; ")
    told.clear()
    sweep.sweep(both, out=tmp_path, results=tmp_path / "r.json", say=told.append)
    assert told == ["0 runs to go: about 0 min"]


def test_what_fails_is_a_row_and_is_tried_again(made, tmp_path):
    made["fails"] = {1: RunFailed("all rollouts diverged")}
    rows = go(tmp_path, 0, 1)
    assert sorted({r["seed"] for r in rows if "error" in r}) == [1]
    # What failed may have taken its simulations with it: the next run gets new ones.
    assert made["begun"] == 2 * 2 * 2 and not made["open"]
    made["fails"] = {}
    again = go(tmp_path, 0, 1)
    assert len(again) == 8 and not [r for r in again if "error" in r]
    assert len(made["runs"]) == 8 + 4
    # In the run directories that were begun.
    assert len({name for *_, name in made["runs"]}) == 8


def test_rows_of_a_task_that_has_changed_are_made_anew(made, tmp_path):
    rows = go(tmp_path, 0)
    stale = [{**r, "task_digest": "0" * 12} if r["task"] == "open_door" else r for r in rows]
    sweep.write(tmp_path / "r.json", stale)
    assert go(tmp_path, 0) == rows
    assert [t for t, *_ in made["runs"][4:]] == ["open_door"] * 2
    # Rows whose time was not worth keeping say nothing of what is left.
    sweep.write(tmp_path / "r.json", [{k: v for k, v in r.items() if k != "seconds"} for r in rows])
    assert len(go(tmp_path, 0, 1)) == 8


def test_a_run_that_reached_its_cap_is_gone_on_with_by_a_higher_one(made, tmp_path):
    """And by all that changes no result, but not by what does."""
    task = load_task("open_door")

    def config(setting: str, value: str) -> RunConfig:
        given = {"prompt": "vlm", "prompt.model": "m", "select.budget": "6", setting: value}
        return settled_run(task, with_settings(QUICK, given))

    def found(setting: str, value: str) -> RunDirectory | None:
        point = Point(task="open_door", seed=0, method="", config=config(setting, value))
        return sweep.begun(task, point, tmp_path)

    run = RunDirectory.create(tmp_path, task.name, {
        "task": "open_door", "task_digest": task.digest, "seed": 0,
        "config": to_dict(config("services.max-usd", "2")),
    })  # fmt: skip
    for same in (("services.max-usd", "5"), ("services.vlm.base-url", "http://localhost"),
                 ("optimize.workers", "1"), ("optimize.cluster", "auto")):  # fmt: skip
        assert found(*same) is not None and found(*same).path == run.path, same
    for other in (("select.budget", "7"), ("prompt.model", "n"), ("optimize.environments", "3")):
        assert found(*other) is None, other


@pytest.mark.parametrize("wrong", [UserError("no such video"), ZeroDivisionError("by zero")])
def test_one_run_that_cannot_be_made_does_not_end_a_sweep(made, tmp_path, wrong):
    made["fails"] = {1: wrong}
    rows = go(tmp_path, 0, 1, 2)
    assert sorted(r["seed"] for r in rows if "error" not in r) == [0] * 4 + [2] * 4
    assert all(str(wrong) in r["error"] for r in rows if r["seed"] == 1)
    (tmp_path / "s.json").write_text("not a list")
    with pytest.raises(UserError, match="not a list of results"):
        sweep.read(tmp_path / "s.json")


def test_a_task_whose_files_are_wrong_fails_its_own_runs(made, tmp_path, capsys):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "task.toml").write_text("title = 3")
    arguments = [
        "cut_dough",
        str(broken),
        "open_door",
        "--seeds",
        "0",
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(["sweep", *arguments]) == 1
    text = "".join(capsys.readouterr())
    assert "1 runs failed" in text and "broken         seed 0 quick       failed: " in text
    assert [t for t, *_ in made["runs"]] == ["cut_dough", "open_door"]


def test_two_task_folders_of_one_name_are_refused(made, tmp_path, capsys, small_task):
    size = {"width": 96, "height": 72, "fps": 6}
    both = [str(small_task("cut_dough", tmp_path / x / "cups", **size).folder) for x in ("a", "b")]
    for command in (["sweep", *both], ["paper", "--tasks", ",".join(both)]):
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        assert "have one name" in capsys.readouterr().err
    assert not made["runs"] and not (tmp_path / "out").exists()


def test_what_was_taken_over_takes_no_time_again():
    point = points(1)[0]
    rows = [{"task": "cut_dough", "seed": 0, "method": "quick", "seconds": 600.0, "own_seconds": 120.0},
            {"task": "cut_dough", "seed": 2, "method": "quick", "seconds": 240.0}]  # fmt: skip
    assert sweep.announcement([point], rows[:1]) == "1 runs to go: about 2 min"
    assert sweep.announcement([point], rows) == "1 runs to go: about 3 min"


def test_rows_that_come_at_the_same_time_are_all_kept(tmp_path):
    rows = [
        {"task": "t", "seed": s, "method": "m", "task_digest": "", "success": True, "score": 1.0,
         "rollouts": 1, "seconds": 1.0}
        for s in range(60)
    ]  # fmt: skip
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda r: sweep._add(tmp_path / "r.json", r, lambda line: None), rows))
    assert sorted(r["seed"] for r in sweep.read(tmp_path / "r.json")) == list(range(60))


def test_two_sweeps_of_one_folder_lose_no_row_and_make_no_run_twice(made, tmp_path):
    """Another sweep adds rows while this one works, and is at work on one of its points."""
    other, theirs = points(7)[0], []
    run = sweep.run_stages

    def meanwhile(directory, task, config, **more):
        if not theirs:
            row = {"task": "stack_cups", "seed": 7, "method": "quick", "task_digest": "",
                   "success": True, "score": 1.0, "rollouts": 1, "seconds": 1.0}  # fmt: skip
            theirs.append(row)
            sweep.write(tmp_path / "r.json", [*sweep.read(tmp_path / "r.json"), row])
        run(directory, task, config, **more)

    task = load_task(other.task)
    at_work = start_run(task, settled_run(task, other.config), seed=other.seed, out=tmp_path)
    sweep.run_stages = meanwhile
    try:
        with at_work.locked():
            rows = go(tmp_path, 0, 7)
    finally:
        sweep.run_stages = run
    assert theirs[0] in rows
    assert len(rows) == 1 + 8 - 1 and other.key not in {sweep.key(r) for r in rows}


def test_the_command_lists_what_it_made(made, tmp_path, capsys):
    arguments = ["sweep", "open_door", "cut_dough", "--seeds", "0,2-3", "--out", str(tmp_path)]
    assert main([*arguments, "--optimize.search.population", "8"]) == 0
    text = capsys.readouterr().out
    small = "quick --optimize.search.population 8"
    assert f"| open_door | {small} | 1/3 | 0.50 | 3 | 0.1 |" in text
    records = [json.loads(p.read_text()) for p in tmp_path.glob("*/*/run.json")]
    assert {r["config"]["optimize"]["search"]["population"] for r in records} == {8}
    # A cap is none, and what was made is there.
    assert main([*arguments, "--optimize.search.population", "8", "--max-usd", "2"]) == 0
    assert f"| open_door | {small} | 1/3 |" in capsys.readouterr().out and len(made["runs"]) == 6
    # Another setting is another method: it does not pass for the first one's result.
    assert main([*arguments, "--optimize.search.population", "4"]) == 0
    assert f"| open_door | {small[:-1]}4 | 1/3 |" in (text := capsys.readouterr().out)
    assert f"| open_door | {small} | 1/3 |" in text and len(made["runs"]) == 12
    made["fails"] = {4: RunFailed("all rollouts diverged")}
    assert main([*arguments[:3], "--seeds", "4", "--out", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    "argv, named",
    [
        (["cut_dogh"], "Did you mean 'cut_dough'"),
        (["cut_dough", "--presets", "quik"], "Did you mean 'quick'"),
        (["cut_dough", "--seeds", "few"], "0-4"),
        (["cut_dough", "--seeds", "4-1"], "0-4"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, argv, named):
    assert main(["sweep", *argv, "--out", str(tmp_path)]) == 2
    assert named in capsys.readouterr().err


def test_points_that_film_in_another_width_share_no_simulation():
    wide = with_settings(RunConfig(), {"execute.film-width": "320"})
    assert (
        _shape(wide)
        != _shape(RunConfig())
        == _shape(with_settings(RunConfig(), {"execute.film-fps": "5"}))
    )
