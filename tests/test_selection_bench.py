"""The measurement of selection: its labelled set, and the figures that it prints."""

from __future__ import annotations

import sys

import pytest

from lucibot.benchmark.command import load
from lucibot.task import checkout_folder


@pytest.fixture(scope="module")
def bench():
    return load("selection", checkout_folder("bench") / "selection" / "measure.py")


def test_both_halves_of_the_set_go_through_all_hands(bench):
    tones = {half: {bench.hand_of(k, i, 10) for k in range(10) for i in range(half, 10, 2)}
             for half in (0, 1)}  # fmt: skip
    assert tones[0] == tones[1] == set(bench.HANDS) and len(bench.HANDS) == 16


def test_precision_recall_and_f1_are_of_what_is_taken(bench):
    scores = sys.modules[f"{bench.__package__}.scores"]
    row = {"task": "t", "clip": 0, "hand": "", "total": 13.0, "reasons": ["why"]}
    rows = [{**row, "fault": f, "usable": u} for f, u in
            [("", True)] * 3 + [("", False)] + [("new_object", False)] * 4 + [("camera_drift", True)]]  # fmt: skip
    found = scores.scores(rows)
    assert (found["precision"], found["recall"], found["f1"]) == (0.75, 0.75, 0.75)
    text = scores.table(rows)
    assert "| 9 | 3/4 | 1/5 | 0.75 | 0.75 | 0.75 |" in text and "False verdicts: 2" in text
    assert "| camera_drift | 1/1 |" in text and "| new_object | 0/4 |" in text
    assert scores.table([]) == "nothing has been judged"
    assert scores.scores([])["f1"] == 0
