"""Goal relations on classified videos that are written down here."""

from __future__ import annotations

import numpy as np

from lucibot.providers.verifier.goals import Lifted, Spread, measure, relations
from lucibot.task import load_task
from lucibot.vision.regions import Regions
from lucibot.vision.scene_model import HAND
from lucibot.vision.standing import outline


def regions(task, name: str, boxes: list[tuple[int, int, int, int]], hands=()) -> Regions:
    """One frame for each box (y0, y1, x0, x1) that the object fills; `hands` in the last frame."""
    labels = np.zeros((len(boxes), 60, 80), np.uint8)
    for k, (y0, y1, x0, x1) in enumerate(boxes):
        labels[k, y0:y1, x0:x1] = task.label(name)
    for y0, y1, x0, x1 in hands:
        labels[-1, y0:y1, x0:x1] = HAND
    K = len(boxes)
    return Regions(
        frames=np.arange(K), labels=labels, lab=np.zeros((*labels.shape, 3), np.float32),
        noise=1.0,
    )  # fmt: skip


def test_lifted_asks_for_height_and_for_the_object_to_be_there():
    task = load_task("lift_mochi")
    boxes = [(40, 50, 30, 40), (36, 46, 30, 40), (28, 38, 30, 40), (28, 31, 30, 40)]
    relation = Lifted(object="brown_mochi", least=0.6)
    found = measure(task, None, None, regions(task, "brown_mochi", boxes), "lifted", relation)
    np.testing.assert_array_equal(found, [0, 0, 1, 0])


def test_spread_asks_for_area_and_is_unknown_under_a_hand():
    task = load_task("spread_butter")
    boxes = [(40, 50, 30, 40), (40, 52, 30, 40), (40, 54, 30, 42), (40, 54, 30, 42)]
    relation = Spread(object="butter", least=1.4)
    seen = regions(task, "butter", boxes, [(38, 50, 42, 60)])
    found = measure(task, None, None, seen, "spread", relation)
    np.testing.assert_array_equal(found, [0, 0, 1, np.nan])


def test_a_thing_is_inside_at_any_size_and_what_stands_behind_is_not():
    """Boxes for two cups: one that is put in is a fifth wider and taller and hides the opening; one that
    stands behind is hidden as much and leaves the opening as it was."""
    task = load_task("stack_cups")
    ((kind, relation),) = [r for r in relations(task) if r[0] == "inside"]
    thing, vessel = (task.label(n) for n in (relation.object, relation.container))
    first, inside, behind = (np.zeros((120, 160), np.uint8) for _ in range(3))
    first[60:110, 30:70] = vessel
    first[50:100, 100:140] = thing
    for labels in (inside, behind):
        labels[60:110, 30:70] = vessel
    inside[28:60, 26:74] = thing  # 48 wide, and 47 of 60 are seen.
    inside[60:75, 33:67] = thing
    behind[18:60, 30:70] = thing  # 42 of 50 are seen.
    labels = np.stack([first, inside, behind])
    hues = np.array([[50, 0, 0], [50, 60, 30], [70, 0, 70]], np.float32)
    regions = Regions(frames=np.arange(3), labels=labels, lab=hues[labels], noise=1.0)
    found = measure(task, None, None, regions, kind, relation)
    assert found.tolist() == [0.0, 1.0, 0.0]


def test_a_thing_in_a_shallow_vessel_that_stands_still_hides_a_part_of_it_alone():
    """The cup that is put in is drawn no larger than the other's opening, as a roll in a bowl."""
    task = load_task("stack_cups")
    ((kind, relation),) = [r for r in relations(task) if r[0] == "inside"]
    thing, vessel = (task.label(n) for n in (relation.object, relation.container))
    where = outline(task, task.object(relation.container), task.camera.resized(160, 120))
    ys, xs = np.nonzero(where)
    y, x = int(np.median(ys)), int(np.median(xs))
    first = np.where(where, vessel, 0).astype(np.uint8)
    first[:14, :14] = thing
    inside, held = (np.where(where, vessel, 0).astype(np.uint8) for _ in range(2))
    for labels in (inside, held):
        labels[y - 6 : y + 6, x - 6 : x + 6] = thing
    held[y - 6 : y + 6, x + 7 : x + 20] = HAND
    # The vessel has gone with it.
    both = np.roll(inside, 40, 1)
    both[y - 6 : y + 6, x - 6 : x + 6] = thing
    labels = np.stack([first, inside, held, both])
    regions = Regions(
        frames=np.arange(4), labels=labels, lab=np.zeros((4, 120, 160, 3), np.float32), noise=1.0
    )
    found = measure(task, None, None, regions, kind, relation)
    np.testing.assert_array_equal(found, [0, 1, np.nan, 0])


def test_what_has_moved_is_told_beside_the_hand_that_still_holds_it():
    task = load_task("open_drawer")
    ((kind, relation),) = [r for r in relations(task) if r[0] == "moved"]
    boxes = [(20, 30, 30, 50), (30, 44, 30, 50), (30, 44, 30, 50)]
    seen = regions(task, relation.object, boxes, [(36, 44, 44, 60)])
    assert measure(task, None, None, seen, kind, relation).tolist() == [0, 1, 1]
    hidden = regions(task, relation.object, boxes, [(18, 40, 30, 60)])
    assert np.isnan(measure(task, None, None, hidden, kind, relation)[-1])
