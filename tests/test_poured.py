"""A drink that the first frame does not show is the fluid in its glass, and no hand or new object."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lucibot.core.video import Video
from lucibot.vision.regions import classify
from lucibot.vision.scene_model import HAND
from tests.test_hand_layer import View

SIZE = 120, 160
CAN, DRINK = 1, 2
SKIN = 150.0, 96.0, 74.0
COLA = 22.0, 26.0, 62.0
BOWL = (116, 76), (26, 18)
"""Middle and half axes [pixels]."""
VESSEL = cv2.ellipse(np.zeros(SIZE, np.uint8), *BOWL, 0, 0, 360, 1, -1) > 0
POOL = 4, 8, 12, 16, 18, 19, 20, 20, 20, 20, 20, 20
"""Half its width as it is filled [pixels]."""


@pytest.fixture(scope="module")
def scene():
    """A rough pale table, a brown bowl, and a red can with a small grey opening."""
    rng = np.random.default_rng(5)
    rough = cv2.GaussianBlur(rng.normal(0, 12, SIZE).astype(np.float32), (0, 0), 1.2)
    empty = np.float32([190, 184, 170]) + rough[..., None]
    empty[VESSEL] = np.float32([116, 74, 46]) + rough[VESSEL, None]
    empty = np.clip(empty, 0, 255).astype(np.uint8)
    labels = np.zeros(SIZE, np.uint8)
    labels[44:78, 40:62] = CAN
    labels[44:50, 46:56] = DRINK
    first = empty.copy()
    first[labels == CAN] = (186, 24, 28)
    first[labels == DRINK] = (150, 150, 152)
    return View(first_frame=first, background_frame=empty, labels=labels)


def film(scene: View, *, pool=(), colour=COLA, leaves: bool = True, finger: int = 0) -> Video:
    """A hand takes the can from the left, tilts it over the bowl, and brings it back or stays.

    Args:
        pool: half of the pool's width in each frame in which the can is tilted over the bowl, and
            as it is in the last of them from then on.
        finger: so far, at most, a finger reaches over the can's end into the bowl [pixels].
    """
    rng, frames = np.random.default_rng(6), []
    steps = [*np.linspace(0, 1, 6), *np.ones(12), *(np.linspace(1, 0, 6) if leaves else ())]
    reaches = [0, 0, 12, 24, 36, *[36] * len(steps), *([24, 12, 0, 0, 0, 0, 0] if leaves else ())]
    for k, reach in enumerate(reaches):
        step = steps[np.clip(k - 5, 0, len(steps) - 1)]
        way = np.array([36.0 * step, -14.0 * step])
        rgb = scene.background_frame.astype(np.float32)
        full = 0 if k < 11 or not len(pool) else pool[min(k - 11, len(pool) - 1)]
        if full:
            cv2.ellipse(rgb, (116, 80), (full, full // 2), 0, 0, 360, colour, -1)
        turn = cv2.getRotationMatrix2D((51.0, 61.0), -70.0 * step, 1.0)
        turn[:, 2] += way
        size = SIZE[::-1]
        can = cv2.warpAffine(scene.labels, turn, size, flags=cv2.INTER_NEAREST)
        rgb[can > 0] = (186, 24, 28)
        if step < 0.3:
            rgb[can == DRINK] = (150, 150, 152)
        if full and step == 1:
            cv2.line(rgb, (106, 50), (108, 76), colour, 2)
        if reach:
            x, y = 6 + reach + way[0], 66 + way[1]
            cv2.line(rgb, (-30, round(y) + 20), (round(x), round(y)), SKIN, 13)
        if finger and step == 1:
            cv2.line(rgb, (106, 50), (106 + finger // 3, 50 + finger), SKIN, 9)
        rgb = cv2.GaussianBlur(rgb, (0, 0), 0.6) + rng.normal(0, 1.5, (*SIZE, 3))
        frames.append(np.clip(rgb, 0, 255).astype(np.uint8))
    return Video(frames=np.stack(frames), fps=8)


def read(scene: View, video: Video) -> np.ndarray:
    """(K, h, w) labels."""
    return classify(
        scene, video, width=SIZE[1], step=1, rigid=(True, False), fluids=(DRINK,), vessels=(VESSEL,)
    ).labels  # fmt: skip


@pytest.mark.parametrize(
    ("colour", "leaves"),
    [(COLA, True), (COLA, False), ((236.0, 236.0, 230.0), True), ((60.0, 130.0, 40.0), False)],
    ids=["dark, can put back", "dark, to the end", "milk, can put back", "green, to the end"],
)
def test_what_fills_a_bowl_from_a_can_is_the_fluid(scene, colour, leaves):
    labels = read(scene, film(scene, pool=POOL, colour=colour, leaves=leaves))
    pool = labels[-6:, 76:84, 102:130]
    assert (pool == DRINK).mean() > 0.9
    # The arm stays a hand.
    assert (labels[12:16, 60:74, 4:30] == HAND).mean() > 0.5


@pytest.mark.parametrize("leaves", [True, False], ids=["and put back", "to the end"])
def test_a_can_held_over_a_bowl_pours_nothing(scene, leaves):
    labels = read(scene, film(scene, leaves=leaves))
    assert not (labels[11:, VESSEL] == DRINK).sum(1).max() > 40


def test_a_finger_over_the_can_is_no_drink(scene):
    labels = read(scene, film(scene, leaves=False, finger=34))
    assert not (labels[12:, VESSEL] == DRINK).sum(1).max() > 40
    assert (labels[12:, 62:78, 111:114] == HAND).mean() > 0.5


def test_what_appears_in_a_bowl_far_from_the_can_is_no_drink(scene):
    video = film(scene)
    frames = video.frames.copy()
    for f in frames[-6:]:
        cv2.ellipse(f, (122, 80), (16, 9), 0, 0, 360, COLA, -1)
    labels = read(scene, Video(frames=frames, fps=8))
    assert not (labels[-6:, VESSEL] == DRINK).any()
