"""The paper's tables from runs: ranks, cells that stay empty, what is taken over, the tuned step."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lucibot import sweep
from lucibot.cli import main
from lucibot.config import PRESETS
from lucibot.core.errors import RunFailed, UserError
from lucibot.paper import tables
from lucibot.paper.cells import Cell, Run, differing, rank_cells, score_cell, short, taken_over
from lucibot.paper.command import _without_places
from lucibot.paper.figures import SIDE, WIDTH, last_frames
from lucibot.paper.methods import METHODS, TASKS, Step, config_of, known_methods
from lucibot.paper.report import Results, write
from lucibot.paper.tune import chosen, name
from lucibot.store.configs import to_dict
from lucibot.task import load_task


def run(task: str, seed: int, method: str, score: float, *, loss=1.0, other=(), folder=None) -> Run:
    row = {"task": task, "seed": seed, "method": method, "task_digest": "d", "success": score == 1,
           "score": score, "rollouts": 64, "loss": loss, "seconds": 120.0}  # fmt: skip
    return Run(row=row, folder=folder or Path("."), other=other, scores={"state": score})


def keyed(*runs: Run) -> dict:
    return {r.key: r for r in runs}


def row_of(table: str, title: str) -> list[str]:
    line = next(x for x in table.splitlines() if x.startswith(f"| {title} |"))
    return [c.strip() for c in line.strip("|").split("|")][1:]


def test_ranks_are_among_those_that_were_run_and_equals_share_them():
    runs = keyed(
        run("cut_dough", 0, "full", 1.0), run("cut_dough", 0, "avdc", 0.5), run("cut_dough", 0, "t2r", 1.0),
        run("cut_dough", 1, "full", 1.0), run("cut_dough", 1, "avdc", 0.0), run("cut_dough", 1, "t2r", 0.5),
        run("cut_dough", 2, "full", 0.0),  # The others have no seed 2.
        run("stack_cups", 0, "full", 1.0),
    )  # fmt: skip
    found = rank_cells(runs, "cut_dough", list(METHODS), "state")
    assert {m: c.values for m, c in found.items() if c.values} == {
        "full": (1.5, 1.0), "avdc": (3.0, 3.0), "t2r": (1.5, 2.0)}  # fmt: skip
    assert not any(
        c.values for c in rank_cells(runs, "stack_cups", list(METHODS), "state").values()
    )


def test_what_was_not_run_is_an_empty_cell_and_has_no_mean():
    runs = keyed(
        *(run(t, s, "full", 1.0) for t in TASKS for s in (0, 1)), run("cut_dough", 0, "avdc", 0.4)
    )
    table = tables.table_2(runs, known_methods(["full", "avdc", "t2r"]), list(TASKS), "state")
    assert row_of(table, "Ours") == ["1.00 (1.00 to 1.00), 2/2"] * 8 + ["1.00"]
    assert row_of(table, "T2R") == [""] * 9
    assert row_of(table, "AVDC") == ["", "0.40, 0/1", "", "", "/", "", "", "", "-"]
    ranks = tables.table_1(runs, known_methods(["full", "avdc"]), list(TASKS), "state")
    assert row_of(ranks, "Ours") == ["", "1.00", *[""] * 7]  # One seed, and no mean over one task.
    assert row_of(ranks, "methods ranked")[1] == "2"


def test_a_failure_is_never_rounded_up_and_intervals_are_over_seeds():
    assert short(0.998, [1.0, 0.996]) == "0.99" and short(1.0, [1.0]) == "1.00"
    assert short(1.004, [1, 1.008]) == "1.00"
    cell = score_cell(
        [run("cut_dough", s, "full", v) for s, v in enumerate((0.0, 1.0, 1.0))], "state"
    )
    assert cell.text().startswith("0.67 (0.00 to 1.00), 2/3")
    # Nor is an end of the interval.
    assert Cell(values=(1.0, 1.0, 1.0, 0.998)).text() == "0.99 (0.99 to 1.00)"
    assert Cell().text() == ""


def test_preferences_are_rank_and_score():
    runs = keyed(run("stack_cups", 0, "full", 1.0), run("stack_cups", 0, "vlm-pref", 0.25))
    table = tables.table_3(runs, list(METHODS.values()), "state")
    assert row_of(table, "VLM-Pref") == ["2.0 / 0.25, 0/1", ""]
    assert row_of(table, "Ours") == ["1.0 / 1.00, 1/1", ""]


def test_selection_counts_what_was_taken():
    rows = [{"fault": "", "usable": True}] * 4 + [{"fault": "", "usable": False}]
    rows += [{"fault": "miss", "usable": True}] + [{"fault": "miss", "usable": False}] * 4
    assert row_of(tables.table_4(rows, "Ours"), "Ours") == ["10", "0.80", "0.80", "0.80"]
    assert row_of(tables.table_4([], "Ours"), "Ours") == [""] * 4


def test_where_another_is_ahead_is_said():
    runs = keyed(run("cut_dough", 0, "full", 0.5), run("cut_dough", 0, "avdc", 0.75),
                 run("cut_dough", 1, "avdc", 0.0))  # fmt: skip
    assert tables.behind(runs, list(METHODS.values()), ["cut_dough"]) == [
        "cut_dough: AVDC 0.750, Ours 0.500, over 1 seeds"
    ]


def test_methods_differ_from_the_preset_in_what_they_say():
    full = config_of(METHODS["full"], {}, rollouts=None, step=None)
    assert full == PRESETS["quick"]
    without = config_of(METHODS["no_parts"], {}, rollouts=None, step=None)
    assert differing(to_dict(full), to_dict(without)) == [
        f"optimize.objective.weights.{t}"
        for t in ("part_count", "part_iou", "part_chamfer", "part_distance")
    ]
    assert (
        config_of(
            METHODS["no_contact"], {}, rollouts=None, step=None
        ).optimize.objective.weights.contact
        == 0
    )
    spent = config_of(METHODS["full"], {}, rollouts=100, step=None).optimize.search
    assert (spent.generations * spent.population, spent.patience, spent.least_gain) == (112, 0, 0)
    still = config_of(METHODS["estimated"], {}, rollouts=100, step=None).optimize
    assert still.search.generations == 0
    with pytest.raises(UserError, match="--tune"):
        config_of(METHODS["paper"], {}, rollouts=None, step=None)
    tuned = config_of(
        METHODS["paper"], {}, rollouts=None, step=Step(position_m=0.01)
    ).optimize.search
    assert (tuned.population, tuned.generations) == (128, 5)
    assert (tuned.sigma_position_m, tuned.sigma_rotation_deg) == (0.01, 3)


def test_the_step_is_chosen_by_mean_rank_of_the_loss():
    steps = [Step(position_m=s) for s in (0.01, 0.02)]
    keys = [(t, 100, name(s)) for t in ("a", "b", "c") for s in steps]

    def rows(*losses):
        return [
            {"task": t, "seed": s, "method": m, "task_digest": "", "loss": v}
            for (t, s, m), v in zip(keys, losses, strict=True)
        ]

    # The second is far better once, and a little worse twice.
    best, ranks = chosen(rows(1.0, 1.1, 1.0, 1.1, 90.0, 1.0), keys, steps)
    assert best == steps[0] and ranks == {"paper 0.01 m": 1.333, "paper 0.02 m": 1.667}
    # What diverged is behind everything.
    assert chosen(rows(None, 9.0, None, 9.0, 1.0, 2.0), keys, steps)[0] == steps[1]
    with pytest.raises(
        RunFailed, match=r"1 runs of the tuning failed, the first c seed 100 'paper 0.02 m'"
    ):
        chosen(rows(1.0, 1.1, 1.0, 1.1, 90.0, 1.0)[:-1], keys, steps)


def test_the_step_is_tuned_on_tasks_of_ones_own(small_task, tmp_path, monkeypatch):
    own = [small_task(t, tmp_path / n, width=96, height=72, fps=10).folder
           for t, n in (("stack_cups", "mine"), ("hammer_peg", "cut_dough"))]  # fmt: skip
    asked = []

    def swept(points, **where):
        asked.extend(p.task for p in points)
        return [dict(zip(("task", "seed", "method"), p.key, strict=True), task_digest="", loss=1.0)
                for p in points]  # fmt: skip

    monkeypatch.setattr(sweep, "sweep", swept)
    named = ",".join(str(f) for f in own)
    assert (
        main(
            ["paper", "--tune", "--tasks", named, "--seeds", "100", "--out", str(tmp_path / "out")]
        )
        == 0
    )
    assert list(dict.fromkeys(asked)) == [str(f) for f in own]
    assert json.loads((tmp_path / "out" / "tuned.json").read_text())["tasks"] == [
        "mine",
        "cut_dough",
    ]


def test_runs_are_taken_over_if_they_fit(tmp_path):
    task = load_task("cut_dough")
    digest = task.digest[: sweep.DIGEST_LETTERS]
    full = PRESETS["quick"]
    rows = []
    for seed, (told, there) in enumerate([(digest, True), ("0" * 12, True), (digest, False)]):
        folder = tmp_path / "runs/cut_dough" / str(seed)
        if there:
            folder.mkdir(parents=True)
            config = to_dict(full)
            config["optimize"]["search"]["population"] = 32
            (folder / "run.json").write_text(json.dumps({"config": config}))
        rows.append({"task": "cut_dough", "seed": seed, "method": "full", "task_digest": told,
                     "success": True, "score": 1.0, "rollouts": 1, "run": f"cut_dough/{seed}"})  # fmt: skip
    sweep.write(tmp_path / "results.json", rows)
    found, left = taken_over(tmp_path, {"cut_dough": task}, {("cut_dough", "full"): full})
    (only,) = found.values()
    assert only.key == ("cut_dough", 0, "full") and only.other == ("optimize.search.population",)
    assert len(left) == 2 and "another task" in left[0] and "no run directory" in left[1]
    with pytest.raises(UserError, match=r"no results\.json"):
        taken_over(tmp_path / "none", {}, {})


def test_what_is_written_names_no_place_and_marks_what_is_other(tmp_path):
    runs = keyed(run("cut_dough", 0, "no_parts", 0.5, other=("optimize.search.population",)))
    results = Results(
        runs=runs, methods=known_methods(["no_parts", "t2r"]), tasks=["cut_dough"], seeds=[0, 1], judges=["state"],
        agreement={}, selection=[], missing=["T2R is not run: no sandbox"],
    )  # fmt: skip
    from lucibot.paper import report

    text = ""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(report, "_figures", lambda r, folder: "")
        text = write(results, [2], tmp_path / "report").read_text()
    assert "0.50, 0/1 †" in text and "`optimize.search.population`" in text
    assert "1 of 2 pairs" in text and "T2R is not run: no sandbox" in text
    kept = json.loads((tmp_path / "report/rows.json").read_text())
    assert kept[0]["scores"] == {"state": 0.5} and "run" not in kept[0]
    assert (
        _without_places("lucibot paper --out /a/b --seeds 0 --report c")
        == "lucibot paper --seeds 0"
    )


def test_what_was_settled_on_the_tables_own_seeds_is_said_alike_everywhere():
    from lucibot.objective.weights import TERMS
    from lucibot.paper import report

    root = Path(__file__).parents[1]
    readme = " ".join((root / "README.md").read_text().split())
    exceptions = report.CHOSEN.partition("The exceptions: ")[2].rstrip(".").split("; ")
    assert len(exceptions) == 6 and all(x in readme for x in exceptions)
    told = report._honesty(Results(runs={}, methods=[], tasks=[], seeds=[], judges=[], agreement={},
                                   selection=[], missing=[]))  # fmt: skip
    written = (root / "bench" / "paper" / "README.md").read_text()
    assert all(line in written for line in told.splitlines())
    # Which terms read something else than pictures: those of the readme's table.
    rows = [row.split("|")[1:3] for row in (root / "README.md").read_text().splitlines()
            if row.startswith("| `") and row.count("|") == 3]  # fmt: skip
    named = {t: reads for terms, reads in rows for t in TERMS if f"`{t}`" in terms}
    other = {t for t, reads in named.items() if not reads.strip().startswith("drawn")}
    assert other == {
        t for t in TERMS if f"`{t}`" in told.partition("without them.")[2].splitlines()[0]
    }


def test_last_frames_stand_side_by_side_and_what_is_missing_is_grey(tmp_path):
    runs = keyed(
        run("cut_dough", 0, "full", 0.2, loss=0.1), run("cut_dough", 1, "full", 1.0, loss=9.0)
    )
    frames = {k: np.full((48, 64, 3), (0, 0, 250 if k[1] == 1 else 0), np.uint8) for k in runs}
    last_frames(runs, known_methods(["avdc", "full"]), ["cut_dough"], frames, tmp_path / "f.png")
    picture = cv2.imread(str(tmp_path / "f.png"))[..., ::-1]
    at = picture[80, SIDE + WIDTH // 4], picture[80, SIDE + WIDTH + WIDTH // 4]
    assert tuple(at[0]) == (225, 225, 225) and tuple(at[1]) == (0, 0, 250)


def test_a_ranking_by_a_judge_that_errs_gets_worse(tmp_path):
    pytest.importorskip("lucibot.baselines")
    from lucibot.paper.figures import consistency

    wrong = consistency(tmp_path / "figure.png")
    assert wrong[0.0] == 0 and wrong[0.1] < wrong[0.2] < wrong[0.3] < 0.5
    assert cv2.imread(str(tmp_path / "figure.png")) is not None


@pytest.mark.parametrize(("argv", "match"), [
    (("--tables", "5"), "unknown table '5'"),
    (("--methods", "ours"), "unknown method 'ours'"),
    (("--tasks", "cut_dogh"), "cut_dough"),
    (("--seeds", "x"), "expected seeds"),
    (("--judge", "gpt"), "unknown judge 'gpt'"),
    (("--rollouts", "none"), "expected a whole number"),
    (("--take-over", "nowhere", "--no-run"), "no results.json"),
    (("--tune", "--seeds", "0-1"), "seeds from 100 on, not 0"),
])  # fmt: skip
def test_bad_input_is_one_line(tmp_path, capsys, argv, match):
    status = main(["paper", "--out", str(tmp_path / "out"), *argv])
    line = capsys.readouterr().err.strip()
    assert status == 2 and "\n" not in line and match in line, line
