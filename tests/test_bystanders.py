"""What stands at the picture's border and does nothing is no hand; an arm that rests there is one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lucibot.core.video import Video
from lucibot.vision.regions import classify
from lucibot.vision.scene_model import HAND, UNKNOWN
from tests.test_hand_layer import View

SIZE = 120, 160
ARM = 96, 60, 48
REACH = [0, 0, 25, 50, 75, 75, 75, 75, 75, 50, 25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
"""How far the arm reaches in from the right, at 8 samples a second [pixels]."""


@pytest.fixture(scope="module")
def scene():
    """A pale table that gets darker to the right, with a yellow disc on it."""
    rng = np.random.default_rng(8)
    rough = cv2.GaussianBlur(rng.normal(0, 12, SIZE).astype(np.float32), (0, 0), 1.2)
    table = np.float32([176, 182, 190]) * np.linspace(1.1, 0.8, SIZE[1])[:, None] + rough[..., None]
    table = np.clip(table, 0, 255).astype(np.uint8)
    labels = np.zeros(SIZE, np.uint8)
    cv2.circle(labels, (70, 62), 14, 1, -1)
    first = table.copy()
    first[labels > 0] = (214, 180, 30)
    return View(first_frame=first, background_frame=table, labels=labels)


def film(scene: View, reach, stands=None, colour=(0, 0, 0), arm=ARM, sleeve=None) -> Video:
    """An arm that reaches `reach` pixels in from the right; `stands` tells of each frame where else
    something is: left, top, right and bottom, or nothing."""
    rng, frames = np.random.default_rng(9), []
    for k, r in enumerate(reach):
        rgb = scene.first_frame.astype(np.float32)
        if stands is not None and stands(k) is not None:
            x0, y0, x1, y1 = stands(k)
            cv2.rectangle(rgb, (x0, y0), (x1, y1), tuple(float(c) for c in colour), -1)
            cv2.rectangle(
                rgb, (x0, y0), (x1, (y0 + y1) // 2), tuple(0.8 * float(c) for c in colour), -1
            )
        if r:
            cv2.line(rgb, (SIZE[1] + 30, 78), (SIZE[1] - r, 64), tuple(map(float, arm)), 15)
            if sleeve is not None and r > 35:
                cv2.line(rgb, (SIZE[1] + 30, 78), (SIZE[1] + 35 - r, 70), sleeve, 19)
        rgb = cv2.GaussianBlur(rgb, (0, 0), 0.6) + rng.normal(0, 1.5, (*SIZE, 3))
        frames.append(np.clip(rgb, 0, 255).astype(np.uint8))
    return Video(frames=np.stack(frames), fps=8)


def read(scene: View, video: Video, key_points=None):
    return classify(scene, video, width=SIZE[1], step=1, key_points=key_points)


PLACES = {
    "left": (0, 20, 26, 48), "right, above the arm": (132, 10, 159, 36), "top": (20, 0, 50, 24),
    "bottom": (30, 98, 62, 119), "corner": (130, 96, 159, 119),
}  # fmt: skip


COLOURS = [(30, 130, 60), (200, 40, 40), (50, 70, 190), (30, 130, 60), (200, 40, 40)]


@pytest.mark.parametrize(
    ("place", "colour"), list(zip(PLACES.values(), COLOURS, strict=True)), ids=PLACES
)
def test_what_appears_at_a_border_and_does_nothing_is_no_hand(scene, place, colour):
    x0, y0, x1, y1 = place
    regions = read(scene, film(scene, REACH, lambda k: place if k >= 7 else None, colour))
    block = regions.labels[:, y0 + 3 : y1 - 2, x0 + 3 : x1 - 2]
    assert (block[12:] == UNKNOWN).mean() > 0.95 and not (block[12:] == HAND).any()
    # The arm stays a hand, beside it as well.
    arm = regions.labels[4:9, 66:74, 105:125]
    assert (arm == HAND).mean() > 0.9


@pytest.mark.parametrize("way", [(1, 0), (0, 1)], ids=["along", "in"])
def test_what_slides_in_slowly_and_stays_is_no_hand(scene, way):
    def place(k: int):
        late = max(0, 12 - k)
        x, y = 4 - 3 * late * way[0], 96 + 3 * late * way[1]
        return (max(x, 0), y, x + 30, SIZE[0] - 1) if x + 30 > 0 and y < SIZE[0] - 1 else None

    regions = read(scene, film(scene, REACH, place, (60, 60, 180)))
    assert (regions.labels[-6:, 100:117, 8:30] == UNKNOWN).mean() > 0.95


def test_an_arm_that_passes_behind_it_is_told_apart(scene):
    """It hides a part of where the arm comes in, and is first seen beside the arm."""
    place = (126, 74, 159, 110)
    video = film(scene, REACH, None)
    frames = video.frames.copy()
    frames[5:, place[1] : place[3], place[0] :] = (30, 130, 60)
    regions = read(scene, Video(frames=frames, fps=8))
    assert (regions.labels[-6:, 80:106, 130:156] == UNKNOWN).mean() > 0.95
    assert (regions.labels[5:8, 63:70, 95:120] == HAND).mean() > 0.9


def test_what_an_arm_moves_against_is_told_apart(scene):
    """It is never seen apart from the arm, a striped one, for else nobody could see it slide."""
    reach = [0, 0, 25, 50, *[75 - 6 * (k % 3) for k in range(12)], 50, 25, 0, 0]
    x0, y0, x1, y1 = 130, 76, 159, 110
    empty, frames = film(scene, [0] * len(reach)).frames, film(scene, reach).frames
    for k, r in enumerate(reach):
        arm = np.abs(frames[k].astype(int) - empty[k]).max(-1) > 25
        stripes = (np.arange(SIZE[1]) + r) // 4 % 2 == 0
        frames[k][arm & stripes] = (150, 110, 90)
        if 5 <= k < 16:
            block = np.zeros(SIZE, bool)
            block[y0:y1, x0 : x1 + 1] = True
            frames[k][block & ~arm] = (30, 60, 170)
    regions = read(scene, Video(frames=frames, fps=8))
    assert (regions.labels[6:15, 90:106, 136:156] == UNKNOWN).mean() > 0.95
    assert (regions.labels[6:15, 66:72, 102:125] == HAND).mean() > 0.9


@pytest.mark.parametrize(
    "arm", [ARM, (236, 224, 212), (47, 111, 208), (66, 70, 78)],
    ids=["brown", "light", "glove", "gripper"],
)  # fmt: skip
@pytest.mark.parametrize("sleeve", [None, (40.0, 120.0, 60.0)], ids=["bare", "in a sleeve"])
@pytest.mark.parametrize(
    "reach",
    [[0, 0, 25, 50, 75, 75, 75, 75, 50, *[28] * 14],
     [0, 0, *[28] * 8, 40, 60, 75, 75, 75, 50, 25, 0, 0, 0],
     [0, 0, 25, 50, *[75] * 16]],
    ids=["rests in the end", "waits at first", "holds on to the end"],
)  # fmt: skip
def test_an_arm_that_stands_still_stays_a_hand(scene, arm, sleeve, reach):
    regions = read(scene, film(scene, reach, arm=arm, sleeve=sleeve))
    there = np.flatnonzero(reach)
    arms = regions.labels[there, 69:78, 144:156]
    assert (arms == HAND).mean() > 0.9 and (arms == UNKNOWN).mean() < 0.05


def test_what_a_hand_model_sees_there_is_a_hand(scene):
    """A second hand, in a glove, lies at the border all the time and does nothing."""
    place = PLACES["left"]
    video = film(scene, REACH, lambda k: place if k >= 5 else None, (60, 60, 180))
    x, y = np.meshgrid(np.linspace(4, 20, 7), np.linspace(24, 42, 3))
    hand = np.stack([x.ravel(), y.ravel()], -1)
    regions = read(scene, video, lambda frames: [[hand]] * len(frames))
    assert not (regions.labels[8:, 24:44, 4:22] == UNKNOWN).any()
