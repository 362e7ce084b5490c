"""The goal frame that is read from a video: the targets lie still, and what happens to them has happened."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from lucibot.providers.answerer import PixelAnswerer
from lucibot.task import load_task

FRAMES, SHAPE = 120, (30, 40)


class Film(SimpleNamespace):
    """Hands (T, H, W), and what else is asked of a grid."""

    def __len__(self) -> int:
        return len(self.hand)


def goal(moving: list[tuple[int, int]], hands: list[tuple[int, int]], **settings) -> int:
    """The goal of a film of cut_dough whose target moves in some frames and has a hand at it in some."""
    task = load_task("cut_dough")
    dough = task.label(task.targets[0].name) - 1
    masks = np.zeros((FRAMES, len(task.objects), *SHAPE), bool)
    masks[:, dough, 10:20, 10:20] = True
    film = Film(hand=np.zeros((FRAMES, *SHAPE), bool))
    moves = np.zeros((FRAMES, len(task.objects)), bool)
    for a, b in hands:
        film.hand[a:b, 12:25, 15:30] = True
    for a, b in moving:
        moves[a:b, dough] = True
    answer = PixelAnswerer(**settings).create()
    return answer._goal(task, film, masks, moves, 2, 3)[0]


def test_what_is_nudged_first_and_moved_later_is_done_later():
    # Pushed aside with no hand at it, then carried in a hand to the end of the film.
    assert goal([(10, 16), (40, 90)], [(35, 120)]) >= 90
    # The hand lets go and leaves: then.
    assert 90 <= goal([(10, 16), (40, 90)], [(35, 100)]) <= 105


@pytest.mark.parametrize("last", [[], [(100, 106)]])
def test_little_that_comes_after_it_does_not_count(last):
    # A jerk at the end of the film, in a hand that has come back: it was done before.
    assert 60 <= goal([(20, 60), *last], [(15, 66), *((99, 120) for _ in last)]) <= 75


def test_how_much_may_come_is_a_setting():
    film = [(10, 30), (60, 70)], [(5, 34), (55, 120)]
    assert goal(*film, to_come=0.5) < 50
    assert goal(*film, to_come=0.0) >= 70
