"""The pixel verifier: each planted fault costs what it should, a clean video passes."""

from __future__ import annotations

import dataclasses
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lucibot.core.errors import UserError
from lucibot.core.video import Video, read_video, write_video
from lucibot.providers.verifier import PixelVerifier
from lucibot.providers.verifier.goals import count_parts, relations
from lucibot.providers.verifier.hues import Hues
from lucibot.providers.verifier.motion import exchanged, shifted, untouched
from lucibot.task import Task, load_task, tasks_folder
from lucibot.vision.regions import Regions, classify
from lucibot.vision.scene_model import HAND, UNKNOWN, grown
from lucibot.vision.steady import follow_camera


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One drawn video of cut_dough for each fault, and a clean one, small and at 10 frames/s."""
    from lucibot.providers.renderer import RasterRenderer
    from lucibot.providers.video.storyboard import draw, faults, schema
    from lucibot.providers.video.storyboard.scenery import Scenery
    from lucibot.stages.scene import build_view

    folder = tmp_path_factory.mktemp("task") / "cut_dough"
    shutil.copytree(tasks_folder() / "cut_dough", folder)
    text = (folder / "task.toml").read_text()
    for key, value in {"width": 400, "height": 300, "fps": 10}.items():
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
    (folder / "task.toml").write_text(text)
    task = load_task(folder)
    view = build_view(task, RasterRenderer(samples=1).create())
    spec = schema.load_storyboard(task)
    scenery = Scenery(task, view, cut=frozenset(c.object for c in spec.cut))
    out = {}
    for fault in ("", *faults.FAULTS):
        rng = np.random.default_rng(11)
        p = faults.plan_with_fault(task, scenery, spec, fault, rng)
        drawer = draw.Drawer(scenery, p)
        frames = []
        for t in range(len(p)):
            rgb = drawer.frame(t).rgb
            if "camera" in p.extra:
                rgb = cv2.warpAffine(
                    rgb, p.extra["camera"][t], (400, 300), borderMode=cv2.BORDER_REPLICATE
                )
            rgb = rgb + rng.normal(size=rgb.shape) * 1.5
            frames.append(np.clip(rgb, 0, 255).astype(np.uint8))
        out[fault] = Video(frames=np.stack(frames), fps=10)
    return task, view, out


def test_a_clean_video_is_usable(videos):
    task, view, drawn = videos
    verdict = PixelVerifier().create().judge(task, view, drawn[""])
    assert verdict.usable and not verdict.new_object, verdict.reasons


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("goal_not_reached", "the goal 'pieces dough'"), ("new_object", "something appears"),
     ("camera_drift", "the camera moves"), ("wrong_object_moves", "without being touched")],
)  # fmt: skip
def test_each_fault_is_rejected_for_its_own_reason(videos, fault, reason):
    task, view, drawn = videos
    verdict = PixelVerifier().create().judge(task, view, drawn[fault])
    assert not verdict.usable
    assert any(reason in r for r in verdict.reasons), verdict.reasons
    assert verdict.new_object == (fault == "new_object")
    if fault == "goal_not_reached":
        return
    # The picture that shows it: of one of the frames, at one place or over another frame.
    shown = next(s for s in verdict.shown if reason in s.words)
    assert 0 < shown.frame < len(drawn[fault])
    if fault == "camera_drift":
        assert shown.over == 0 and shown.box is None
        return
    x0, y0, x1, y1 = np.array(shown.box) * [400, 300, 400, 300]
    inside = np.s_[round(y0) : round(y1), round(x0) : round(x1)]
    changed = np.abs(drawn[fault].frames[shown.frame].astype(int) - drawn[fault].frames[0]).max(-1)
    assert 4 < x1 - x0 < 250 and (changed[inside] > 40).mean() > 0.1


@pytest.mark.parametrize(("drawn_over", "is_new"), [("white", True), ("a gleam", False)])
def test_what_is_small_has_to_stand_out(videos, drawn_over, is_new):
    """Ten pixels across of four hundred (0.08% of the picture), on the empty table from half-way on."""
    task, view, drawn = videos
    frames = drawn[""].frames.copy()
    there = frames[len(frames) // 2 :, 245:255, 50:60]
    there[...] = 235 if is_new else np.clip(there * 1.35 + 45, 0, 255)
    verdict = PixelVerifier().create().judge(task, view, Video(frames=frames, fps=10))
    assert verdict.new_object == is_new, verdict.evidence
    assert verdict.evidence["unexplained_area"] > 0, "it is seen, and too faint for its size"


def grainy(video: Video, sigma: float, crf: int, folder) -> Video:
    """The video with film grain of `sigma` of 255, encoded and decoded again."""
    rng = np.random.default_rng(5)
    noisy = [np.clip(f + rng.normal(size=f.shape) * sigma, 0, 255) for f in video.frames]
    path = folder / f"grain_{sigma}_{crf}.mp4"
    write_video(path, Video(frames=np.stack(noisy).astype(np.uint8), fps=video.fps), crf=crf)
    return read_video(path)


@pytest.mark.parametrize(("sigma", "crf"), [(4, 20), (8, 32), (12, 20), (12, 26)])
def test_grain_costs_no_points(videos, tmp_path, sigma, crf):
    """Noise is measured where nothing moves; what changes by no more than that does not move."""
    task, view, drawn = videos
    judge = PixelVerifier().create()
    clean = judge.judge(task, view, drawn[""])
    verdict = judge.judge(task, view, grainy(drawn[""], sigma, crf, tmp_path))
    assert verdict.usable and abs(verdict.total - clean.total) <= 0.5, verdict.reasons
    assert verdict.evidence["self_motion"] < 0.12


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("goal_not_reached", "the goal 'pieces dough'"), ("new_object", "something appears"),
     ("camera_drift", "the camera moves"), ("wrong_object_moves", "without being touched")],
)  # fmt: skip
def test_grain_hides_no_fault(videos, tmp_path, fault, reason):
    task, view, drawn = videos
    noisy = grainy(drawn[fault], 12, 26, tmp_path)
    verdict = PixelVerifier().create().judge(task, view, noisy)
    assert not verdict.usable
    assert any(reason in r for r in verdict.reasons), verdict.reasons


def test_a_task_that_names_no_goal_can_still_be_run(videos):
    task, view, drawn = videos
    goalless = Task(task.folder, task.spec.model_copy(update={"goal": []}), "")
    judge = PixelVerifier().create()
    verdict = judge.judge(goalless, view, drawn[""])
    assert verdict.usable and any("no goal relation" in r for r in verdict.reasons)
    assert not judge.judge(goalless, view, drawn["camera_drift"]).usable
    still = Video(frames=np.repeat(view.first_frame[None], 30, 0), fps=10)
    assert not judge.judge(goalless, view, still).usable


def test_a_still_picture_reaches_no_goal(videos):
    task, view, _ = videos
    still = Video(frames=np.repeat(view.first_frame[None], 30, 0), fps=10)
    verdict = PixelVerifier().create().judge(task, view, still)
    assert verdict.goal == 2 and not verdict.usable
    assert any("no hand" in r for r in verdict.reasons)


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_a_background_that_cannot_be_followed_moves_no_camera(seed):
    """A plain wall shows nothing but what compression makes of it, and that changes."""
    rng = np.random.default_rng(seed)

    def noise() -> np.ndarray:
        return cv2.GaussianBlur(rng.normal(0, 30, (240, 320)).astype(np.float32), (0, 0), 4)

    wall = 128 + noise()
    walls = [wall, wall, *(128 + 0.25 * (wall - 128) + noise() for _ in range(10))]
    frames = [np.repeat(np.clip(w, 0, 255).astype(np.uint8)[..., None], 3, -1) for w in walls]
    labels = np.zeros((240, 320), np.uint8)
    labels[100:140, 150:170] = 1
    motion = follow_camera(np.stack(frames), labels == 0)
    assert motion.displacement.max() < 1e-3 and not motion.known[2:].any()


def test_hands_are_told_from_objects_and_shadows(videos):
    _, view, drawn = videos
    regions = classify(view, drawn[""], width=320, step=2)
    hand = (regions.labels == HAND).reshape(len(regions.frames), -1).mean(1)
    assert hand[0] == 0 and hand[-1] < 0.001 and hand.max() > 0.08
    dough = regions.object(view.names.index("dough"))
    assert 0.8 < dough[-1].sum() / dough[0].sum() < 1.3


def test_a_shadow_that_leaves_with_its_object_is_background(videos):
    _, view, _ = videos
    knife = view.labels == view.names.index("knife") + 1
    beside = grown(knife, 15) & (view.labels == 0)
    shaded, gone = view.first_frame.copy(), view.first_frame.copy()
    shaded[beside] = 0.6 * shaded[beside]
    gone[grown(knife, 5)] = view.background_frame[grown(knife, 5)]
    video = Video(frames=np.stack([shaded] * 5 + [gone] * 5), fps=10)
    regions = classify(replace(view, first_frame=shaded), video, width=400, step=1)
    assert (regions.labels[-1][beside] == 0).mean() > 0.99


def test_a_disc_that_turns_moves_though_its_region_does_not():
    rng = np.random.default_rng(0)
    pattern = cv2.GaussianBlur(rng.uniform(0, 255, (120, 160)).astype(np.float32), (0, 0), 3)
    pattern = cv2.normalize(pattern, None, 0, 255, cv2.NORM_MINMAX)
    disc = np.zeros((120, 160), np.uint8)
    cv2.circle(disc, (80, 60), 40, 1, -1)
    lightness = []
    for k in range(8):
        turn = cv2.getRotationMatrix2D((80, 60), 3.0 * max(k - 3, 0), 1)
        turned = cv2.warpAffine(pattern, turn, (160, 120), borderMode=cv2.BORDER_REFLECT)
        lightness.append(np.where(disc > 0, turned, 120))
    # A shadow passes meanwhile.
    lightness[3] = lightness[3] * np.linspace(0.7, 1, 160)
    lab = np.zeros((8, 120, 160, 3), np.float32)
    lab[..., 0] = np.stack(lightness) / 2.55
    regions = Regions(frames=np.arange(8), labels=np.repeat(disc[None], 8, 0), lab=lab, noise=0.0)
    assert exchanged(regions, 0, 3, 7) == 0
    hues = Hues(regions, 1)
    assert shifted(regions, 0, 0, 3, hues) < 0.002
    assert shifted(regions, 0, 3, 7, hues) > 0.02


def test_what_two_objects_both_look_like_tells_of_neither_that_it_moves():
    """Through a red cup's region a white pattern is seen that shifts: the other cup's inside."""
    rng = np.random.default_rng(1)
    pattern = cv2.GaussianBlur(rng.normal(size=(120, 160)).astype(np.float32), (0, 0), 2)
    pattern *= 20 / pattern.std()
    labels = np.zeros((120, 160), np.uint8)
    labels[20:60, 20:70], labels[70:110, 90:140] = 1, 2
    outside = np.zeros((120, 160), bool)
    outside[45:60, 20:70] = outside[95:110, 90:140] = True

    def lab(way: int) -> np.ndarray:
        out = np.zeros((120, 160, 3), np.float32)
        out[..., 0] = 60 + np.where(outside, pattern, np.roll(pattern, way, 1))
        out[outside] += np.where(labels[outside, None] == 1, (0, 50, 30), (0, -5, 60))
        return out

    both, seen = np.stack([labels] * 2), np.stack([lab(0), lab(3)])
    regions = Regions(frames=np.arange(2), labels=both, lab=seen, noise=0.0)
    hues = Hues(regions, 2)
    # Where both meet, corners of the outside have some of the inside about them.
    assert shifted(regions, 0, 0, 1, hues) < 0.005
    # The red one alone: nothing else can be white.
    alone = dataclasses.replace(regions, labels=np.where(both == 1, both, 0))
    assert shifted(alone, 0, 0, 1, Hues(alone, 1)) > 0.015
    # Its outside shifts as well.
    moved = dataclasses.replace(regions, lab=np.stack([lab(0), np.roll(lab(0), 3, 1)]))
    assert shifted(moved, 0, 0, 1, hues) > 0.015


@pytest.mark.parametrize(
    ("light", "tint", "is_new"),
    [((0.6, 0.6), 0, False), ((0.6, 0.8), 0, True), ((0.6, 0.6), 9, True)],
)
def test_what_is_darkened_evenly_in_its_own_hue_is_in_a_shadow(light, tint, is_new):
    """On a plain grey table; the halves of a box are in two lights, and paint has its own hue."""
    lab = np.zeros((12, 60, 80, 3), np.float32)
    lab[...] = 60, 1, 4
    for half, of in zip((slice(30, 40), slice(40, 50)), light, strict=True):
        lab[4:, 20:40, half] *= of
    lab[4:, 20:40, 30:50, 1] += tint
    labels = np.zeros(lab.shape[:3], np.uint8)
    labels[4:, 20:40, 30:50] = UNKNOWN
    regions = Regions(frames=np.arange(12), labels=labels, lab=lab, noise=0.0)
    evidence: dict[str, float] = {}
    judge = PixelVerifier().create()
    found = judge._new_object(regions, [], 0.125 * np.arange(12), [], evidence, [])
    assert found == is_new, evidence


def test_only_moments_without_a_touch_between_are_compared():
    seconds = 0.125 * np.arange(12)
    touched = np.zeros(12, bool)
    touched[4] = True
    pairs = dict(untouched(touched, seconds))
    assert pairs == {2: [0], 3: [0, 1], 7: [5], 8: [5, 6], 9: [5, 6, 7], 10: [5, 6, 7, 8],
                     11: [5, 6, 7, 8, 9]}  # fmt: skip
    assert dict(untouched(np.zeros(12, bool), seconds))[11] == [3, 4, 5, 6, 7, 8, 9]


def test_parts_are_counted_by_gaps_and_not_by_notches():
    frame = np.full((120, 200, 3), 60, np.uint8)
    frame[30:90, 40:160] = 210
    mask = np.zeros((120, 200), bool)
    mask[30:90, 40:160] = True
    assert count_parts(frame, mask) == 1
    notched, cut = frame.copy(), frame.copy()
    notched[30:65, 98:103] = 120
    cut[30:90, 98:103] = 120
    assert count_parts(notched, mask) == 1
    assert count_parts(cut, mask) == 2


def test_an_unknown_goal_relation_names_the_known_ones():
    task = load_task("cut_dough")
    goal = [{"relation": "piecs", "object": "dough", "count": 2}]
    asked = Task(task.folder, task.spec.model_copy(update={"goal": goal}), "")
    with pytest.raises(UserError, match="Did you mean 'pieces'"):
        relations(asked)
