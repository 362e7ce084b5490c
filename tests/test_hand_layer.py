"""What is a hand: what is held from outside the picture and is no known object, whatever its colour."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from lucibot.core.video import Video
from lucibot.task import load_task
from lucibot.vision.hands import border_of, covered_by, held_from_outside, narrow, still_held
from lucibot.vision.regions import classify
from lucibot.vision.scene_model import HAND, UNKNOWN
from lucibot.vision.standing import within_reach

SIZE = 90, 120


@dataclass(frozen=True)
class View:
    """As much of a `SceneView` as classification looks at."""

    first_frame: np.ndarray
    background_frame: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def scene():
    """A wooden table in the colour of skin, with a red box on it."""
    rng = np.random.default_rng(3)
    grain = cv2.GaussianBlur(
        rng.normal(0, 1, SIZE).astype(np.float32), (0, 0), sigmaX=6, sigmaY=0.8
    )
    table = np.clip(np.float32([196, 148, 112]) * (1 + 0.5 * grain[..., None]), 0, 255).astype(
        np.uint8
    )
    labels = np.zeros(SIZE, np.uint8)
    labels[40:55, 35:55] = 1
    first = table.copy()
    first[labels > 0] = (190, 30, 30)
    return View(first_frame=first, background_frame=table, labels=labels)


def clip(scene: View, colour, *, leaves: bool = True) -> tuple[Video, np.ndarray]:
    """An arm in `colour` comes in over the right border, stays, and leaves; where it is drawn."""
    rng = np.random.default_rng(4)
    reach = [0, 0, 15, 30, 45, 45, 45, 45, 30, 15, 0, 0, 0]
    frames, arms = [], []
    for r in reach if leaves else reach[:8]:
        arm = np.zeros(SIZE, np.uint8)
        if r:
            cv2.line(arm, (SIZE[1] + 20, 70), (SIZE[1] - r, 62), 1, 13)
        shade = np.linspace(1.05, 0.75, SIZE[0])[:, None, None]
        rgb = np.where(arm[..., None] > 0, np.float32(colour) * shade, scene.first_frame)
        rgb = cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), 0.6) + rng.normal(0, 1.5, (*SIZE, 3))
        frames.append(np.clip(rgb, 0, 255).astype(np.uint8))
        arms.append(arm > 0)
    return Video(frames=np.stack(frames), fps=8), np.stack(arms)


@pytest.mark.parametrize(
    "colour", [(236, 224, 212), (104, 56, 44), (40, 36, 32), (47, 111, 208), (138, 141, 144)],
    ids=["light", "brown", "dark", "blue glove", "grey gripper"],
)  # fmt: skip
def test_an_arm_of_any_colour_is_a_hand_on_wood_that_looks_like_skin(scene, colour):
    video, arms = clip(scene, colour)
    regions = classify(scene, video, width=SIZE[1], step=1)
    there = arms.any((1, 2))
    for found, arm in zip(regions.hand[there], arms[there], strict=True):
        assert (found & arm).sum() > 0.75 * (found | arm).sum()
    assert not regions.hand[~there].any()


def test_what_appears_in_the_middle_is_no_hand(scene):
    video, _ = clip(scene, (104, 56, 44))
    frames = video.frames.copy()
    frames[6:, 12:24, 20:32] = (104, 56, 44)
    regions = classify(scene, Video(frames=frames, fps=8), width=SIZE[1], step=1)
    patch = regions.labels[6:, 14:22, 22:30]
    assert (patch == UNKNOWN).mean() > 0.9 and not (patch == HAND).any()


def test_a_hand_that_has_left_leaves_none_behind(scene):
    """A part of the table changes its light for good while the arm is over it."""
    video, arms = clip(scene, (150, 105, 80))
    frames = video.frames.astype(np.float32)
    frames[5:, 56:76, 60:100] *= np.where(arms[5:, 56:76, 60:100, None], 1.0, 0.72)
    regions = classify(
        scene, Video(frames=frames.astype(np.uint8), fps=8), width=SIZE[1], step=1
    )  # fmt: skip
    assert not regions.hand[-2:].any()


def blank() -> np.ndarray:
    return np.zeros(SIZE, bool)


def test_fingers_hang_together_with_their_arm_across_an_object():
    foreign, objects = blank(), blank()
    foreign[30:44, 80:] = True
    objects[28:46, 60:80] = True
    foreign[34:42, 50:60] = True
    foreign[10:20, 10:20] = True
    found = held_from_outside(foreign, border_of(SIZE), objects)
    assert found[36, 55] and found[36, 100] and not found[15, 15]


def test_without_an_arm_there_is_no_hand():
    foreign = blank()
    foreign[30:50, 30:60] = True
    assert not held_from_outside(foreign, border_of(SIZE), blank()).any()
    # Nor does a speck at the border make one.
    foreign[60:62, -3:] = True
    assert not held_from_outside(foreign, border_of(SIZE), blank()).any()


def test_a_hand_behind_a_post_is_its_arms():
    foreign = blank()
    foreign[30:50, 30:60] = True
    foreign[30:50, 64:] = True
    assert np.array_equal(held_from_outside(foreign, border_of(SIZE), blank()), foreign)


def test_what_the_hand_has_left_behind_is_none():
    foreign = blank()
    foreign[30:50, 30:50] = True
    foreign[30:50, 90:] = True
    found = held_from_outside(foreign, border_of(SIZE), blank())
    assert found[40, 100] and not found[:, :60].any()


def test_what_a_hand_model_sees_needs_no_arm():
    """Key points of an open hand, fingers up, in the middle of the picture."""
    points = np.zeros((21, 2))
    points[0] = 60, 70
    for f in range(5):
        for j in range(4):
            points[1 + 4 * f + j] = 48 + 6 * f, 56 - 8 * j
    hand = covered_by(points, SIZE)
    assert hand[60, 60] and hand[36, 60] and not hand[40, 63] and hand.mean() < 0.1
    found = held_from_outside(hand, border_of(SIZE), blank(), hand)
    assert (found == hand).mean() > 0.99
    assert not held_from_outside(hand, border_of(SIZE), blank()).any()


def test_a_rigid_thing_does_not_spread_over_the_hand_that_looks_like_it(scene):
    video, arms = clip(scene, (150, 40, 40))
    reach = np.s_[:, 40:80, 30:]
    spread = {}
    for rigid in (True, False):
        regions = classify(scene, video, width=SIZE[1], step=1, rigid=(rigid,))
        spread[rigid] = (regions.object(0) & arms)[reach].sum((1, 2)).max()
    assert spread[True] <= spread[False] and spread[True] < 0.6 * (scene.labels > 0).sum()


def test_an_arm_in_the_colours_of_the_shaded_table_is_told_by_the_grain_that_it_hides():
    """The arm's light is the table's at half light, and beside it lies its shadow, as dark."""
    rng = np.random.default_rng(3)
    size = (180, 240)
    grain = cv2.GaussianBlur(
        rng.normal(0, 1, size).astype(np.float32), (0, 0), sigmaX=6, sigmaY=0.8
    )
    table = np.float32([196, 148, 112]) * (1 + 0.5 * grain[..., None])
    labels = np.zeros(size, np.uint8)
    labels[80:110, 70:110] = 1
    first = np.where(labels[..., None] > 0, np.float32([190, 30, 30]), table)
    shade = np.ones(size, np.float32)
    shade[16:96, 152:] = 0.5
    shade = cv2.GaussianBlur(shade, (0, 0), 3)
    frames, arms = [], []
    for reach in (0, 0, 30, 60, 90, 90, 90, 60, 30, 0):
        arm = np.zeros(size, np.uint8)
        if reach:
            cv2.line(arm, (280, 140), (240 - reach, 132), 1, 30)
        light = first * (shade[..., None] if reach else 1)
        light = np.where(arm[..., None] > 0, np.float32([98, 74, 56]), light)
        frames.append(np.clip(light + rng.normal(0, 1.5, light.shape), 0, 255).astype(np.uint8))
        arms.append(arm > 0)
    view = View(
        first_frame=frames[0], background_frame=table.clip(0, 255).astype(np.uint8), labels=labels
    )
    regions = classify(view, Video(frames=np.stack(frames), fps=8), width=240, step=1)
    arms = np.stack(arms)
    there = arms.any((1, 2))
    for found, arm in zip(regions.hand[there], arms[there], strict=True):
        assert (found & arm).sum() > 0.8 * (found | arm).sum()
    assert not regions.hand[~there].any()


def test_what_lies_all_around_in_an_object_is_that_objects(scene):
    """A drawer shows its inside, in the hand's colours, while the hand still pulls it."""
    video, arms = clip(scene, (128, 84, 62), leaves=False)
    frames, boxes = video.frames.copy(), scene.labels > 0
    for t in range(4, len(frames)):
        box = np.zeros(SIZE, bool)
        box[40 : 55 + 2 * (t - 3), 35:55] = True
        frames[t][box & ~arms[t]] = (190, 30, 30)
        frames[t, 45:52, 41:49] = (124, 80, 59)
    regions = classify(
        scene, Video(frames=frames, fps=8), width=SIZE[1], step=1, rigid=(False,)
    )  # fmt: skip
    inside = regions.labels[-3:, 46:51, 42:48]
    assert boxes[48, 45] and (inside != HAND).all() and (inside[-1] == 1).all()
    assert regions.hand[-3:][arms[-3:]].mean() > 0.7


def test_a_thing_on_a_joint_is_seen_where_that_lets_it_come(scene):
    """Its colours are the arm's."""
    video, arms = clip(scene, (185, 34, 32))
    reach = np.zeros(SIZE, bool)
    reach[30:90, 30:60] = True
    regions = classify(
        scene, video, width=SIZE[1], step=1, rigid=(False,), reach=(reach,)
    )  # fmt: skip
    assert not (regions.object(0) & ~reach).any()
    beyond = arms & ~reach
    assert regions.hand[beyond].mean() > 0.7


def test_the_reach_of_a_joint_covers_the_thing_wherever_it_comes():
    task = load_task("open_drawer")
    (thing,) = [o for o in task.objects if o.articulation is not None]
    camera = task.camera.resized(160, 120)
    reach = within_reach(task, thing, camera, margin_px=2)
    joint, corners = thing.articulation, np.asarray(task.mesh(thing).vertices)
    for value in np.linspace(joint.lower, joint.upper, 5):
        T = joint.poses(value)
        uv, _ = camera.project(corners @ T[:3, :3].T + T[:3, 3])
        x, y = np.round(uv - 0.5).astype(int).T
        inside = (x >= 0) & (x < 160) & (y >= 0) & (y < 120)
        assert inside.any() and reach[y[inside], x[inside]].all()
    assert reach.mean() < 0.6


@pytest.mark.parametrize("leads", [True, False])
def test_a_hand_whose_arm_passes_for_shade_is_one_as_long_as_that_leads_out(leads):
    size = 60, 80
    hand, before, differs = (np.zeros(size, bool) for _ in range(3))
    hand[25:35, 30:40] = before[24:34, 31:41] = True
    new = np.zeros(size, bool)
    new[45:55, 10:20] = True
    differs[28:31, 40 : 80 if leads else 70] = differs[new] = True
    found = still_held(hand | new, before, differs, border_of(size))
    assert found[hand].all() == leads and not found[~hand].any()


def test_what_a_hand_holds_comes_out_on_its_other_side_however_fast_it_came(scene):
    """A blue rod lies above and is carried down between two samples by a grey arm, broad as half of it.
    A shorter blue thing stands beside it from then on, and no hand holds that."""
    labels = np.zeros(SIZE, np.uint8)
    labels[12:16, 20:80] = 1
    first, empty = scene.background_frame.copy(), scene.background_frame
    first[labels > 0] = (30, 60, 200)
    carried = empty.copy()
    carried[64:68, 20:80] = carried[50:54, 90:105] = (30, 60, 200)
    carried[56:, 36:64] = (120, 122, 125)
    frames = np.stack([first] * 3 + [carried] * 3)
    view = View(first_frame=first, background_frame=empty, labels=labels)
    found = classify(view, Video(frames=frames, fps=8), width=SIZE[1], step=1, rigid=(True,)).labels
    sides = np.zeros(SIZE, bool)
    sides[65:67, 22:33] = sides[65:67, 67:78] = True
    assert (found[3:, sides] == 1).all()
    assert (found[3:, 51:53, 92:103] == UNKNOWN).all()


@pytest.mark.parametrize("expected", [True, False])
def test_an_arm_in_the_colours_of_the_shaded_table_leads_to_its_hand_where_one_is_expected(
    expected,
):
    """A plain grey table hides a grey forearm all along; its hand is lighter, and is seen."""
    empty = np.full((*SIZE, 3), 150, np.uint8)
    labels = np.zeros(SIZE, np.uint8)
    labels[20:32, 20:40] = 1
    first = empty.copy()
    first[labels > 0] = (190, 30, 30)
    frames = [first] * 3
    for reach in (50, 60, 70, 70, 70, 70):
        frame = first.copy()
        cv2.line(frame, (SIZE[1] + 20, 60), (SIZE[1] - reach + 16, 60), (108, 108, 108), 14)
        cv2.circle(frame, (SIZE[1] - reach, 60), 9, (225, 225, 225), -1)
        frames.append(frame)
    view = View(first_frame=first, background_frame=empty, labels=labels)
    video = Video(frames=np.stack(frames), fps=8)
    found = classify(view, video, width=SIZE[1], step=1, hand_expected=expected).labels
    hand = found[5:, 57:64, 47:54]
    assert (hand == (HAND if expected else UNKNOWN)).mean() > 0.9
    assert (found[:3] != HAND).all() and (found[:, labels > 0] == 1).all()


def test_a_hand_goes_on_beyond_a_narrow_thing_that_its_arm_is_at():
    size = 120, 160
    foreign, post, board = (np.zeros(size, bool) for _ in range(3))
    foreign[50:70, 100:] = foreign[55:65, 50:60] = True
    post[40:80, 70:98] = board[85:115, 20:140] = True
    nothing = np.zeros(size, bool)
    posts = narrow([post, board, nothing])
    assert len(posts) == 1 and (posts[0] == post).all()
    assert held_from_outside(foreign, border_of(size), nothing, posts=posts)[foreign].all()
    far = np.roll(post, -40, 1)
    for others in ((), (far,)):
        found = held_from_outside(foreign, border_of(size), nothing, posts=others)
        assert found[50:70, 100:].all() and not found[:, :100].any()
