"""The video family: the storyboard. Files are in test_intake.py."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lucibot.core.errors import UserError
from lucibot.core.prompt import Prompt
from lucibot.core.video import read_video
from lucibot.providers.video import StoryboardVideo
from lucibot.providers.video.base import VideoRequest
from lucibot.providers.video.jobs import Jobs
from lucibot.services import Services
from lucibot.task import load_task


@pytest.fixture(scope="module")
def scene(tmp_path_factory, small_task):
    from lucibot.providers.renderer import RasterRenderer
    from lucibot.stages.scene import build_view

    folder = tmp_path_factory.mktemp("task") / "cut_dough"
    task = small_task("cut_dough", folder, width=240, height=180, fps=6)
    return task, build_view(task, RasterRenderer(samples=1).create())


@pytest.fixture(scope="module")
def drawn(scene, tmp_path_factory):
    """One clean candidate and one whose goal is missed, with what was planted."""
    from lucibot.providers.video.storyboard import draw, faults, scenery, schema

    task, view = scene
    spec = schema.load_storyboard(task)
    drawn_scene = scenery.Scenery(task, view, cut=frozenset(c.object for c in spec.cut))
    out = {}
    for fault in ("", "goal_not_reached"):
        p = faults.plan_with_fault(task, drawn_scene, spec, fault, np.random.default_rng(3))
        drawer = draw.Drawer(drawn_scene, p)
        out[fault] = p, [drawer.frame(t) for t in range(len(p))]
    return out


def test_the_same_seed_gives_the_same_bytes_and_says_what_it_planted(scene, tmp_path):
    task, view = scene
    model = StoryboardVideo(candidates=2, threads=2).create()
    raws = {}
    for folder, seed in (("a", 7), ("b", 7), ("c", 8)):
        jobs = Jobs(tmp_path / folder, model, Services(tmp_path / "services"), note=pytest.fail)
        first = VideoRequest(
            task=task, view=view, scene="", first_frame=tmp_path / "none.png",
            first_frame_sha256="", prompt=Prompt(text="", negative=""), seed=seed, index=0,
        )  # fmt: skip
        raws[folder] = [c.raw for c in jobs.make([first, replace(first, index=1)])]
    a, b, c = ([p.read_bytes() for p in raws[k]] for k in "abc")
    assert a == b and a != c
    planted = [json.loads((p.parent / "planted/candidate.json").read_text()) for p in raws["a"]]
    assert sum(p["fault"] == "" for p in planted) == 1
    for path, truth in zip(raws["a"], planted, strict=True):
        video = read_video(path)
        assert len(video) == truth["frames"] and video.frames.shape[1:] == (180, 240, 3)


def test_candidates_are_clean_at_least_once_unless_all_are_to_be_faulty():
    from lucibot.providers.video.storyboard.faults import FAULTS, choose_faults

    kinds = [choose_faults(4, None, np.random.default_rng(s)) for s in range(40)]
    assert all(1 <= sum(f != "" for f in k) <= 3 for k in kinds)
    assert {f for k in kinds for f in k} == {"", *FAULTS}
    assert sorted(choose_faults(4, 4, np.random.default_rng(0))) == sorted(FAULTS)


def test_the_first_drawn_frame_is_the_scenes(scene, drawn):
    _, view = scene
    _, frames = drawn[""]
    first = frames[0]
    assert np.abs(first.rgb - view.first_frame).mean() < 2
    for i, name in enumerate(view.names):
        assert (first.masks[i] == view.mask(name)).all()
    assert not first.hand.any()


def test_the_drawn_story(scene, drawn):
    """The hand comes and goes, the knife meets the dough, the dough ends in two parts."""
    _, view = scene
    _, frames = drawn[""]
    hand = np.array([f.hand.sum() for f in frames])
    touch = np.array([f.contact["knife", "dough"] for f in frames])
    assert hand[0] == 0 and hand[-1] == 0 and hand.max() > 0.05 * view.labels.size
    assert touch.any() and not touch[0] and not touch[-1]
    assert hand[np.flatnonzero(touch)].min() > 0
    parts = frames[-1].pieces
    assert set(parts) == {"plus", "minus"}
    areas = np.array([m.sum() for m in parts.values()])
    assert areas.min() > 0.25 * view.mask("dough").sum()
    plus, minus = (cv2.dilate(m.astype(np.uint8), np.ones((3, 3))) > 0 for m in parts.values())
    missed = drawn["goal_not_reached"][1][-1].pieces
    p, m = (cv2.dilate(v.astype(np.uint8), np.ones((3, 3))) > 0 for v in missed.values())
    assert (p & m).sum() > (plus & minus).sum()


def test_the_goal_is_missed_by_the_knife_staying_high(drawn):
    plan, _ = drawn["goal_not_reached"]
    clean, _ = drawn[""]
    k, d = plan.names.index("knife"), plan.names.index("dough")

    def lowest(p) -> float:
        gap = np.linalg.norm(p.T_world_object[:, k, :2, 3] - p.T_world_object[:, d, :2, 3], axis=1)
        return p.T_world_object[gap < 0.03, k, 2, 3].min()

    assert lowest(clean) < 0.017 and lowest(plan) > 0.035


def test_halves_of_a_cut_are_closed_and_make_up_the_whole():
    import trimesh

    from lucibot.providers.video.storyboard.shapes import cut_by_plane, object_shape

    task = load_task("cut_dough")
    whole = object_shape(task, task.object("dough"), finest_m=0.02)
    n = np.array([0.9, 0.43588989, 0.0])
    halves = [cut_by_plane(whole, np.array([0.01, 0, 0]), s * n, inside=1.0) for s in (1, -1)]

    def volume(s) -> float:
        m = trimesh.Trimesh(s.vertices, s.faces, process=False)
        m.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=6)
        assert m.is_watertight
        return float(m.volume)

    assert sum(map(volume, halves)) == pytest.approx(volume(whole), rel=2e-3)
    assert min(map(volume, halves)) > 0.2 * volume(whole)


@pytest.mark.parametrize("right", [True, False])
def test_a_closed_hand_wraps_its_grip_and_the_forearm_bends(right):
    from lucibot.providers.video.storyboard.hand import make_hand

    hand = make_hand(grip_radius_m=0.03, right=right, cell_m=0.006)
    around = np.hypot(hand.tips[:, 1], hand.tips[:, 2])
    assert (around > 0.03).all() and (around < 0.06).all()
    # Fingers and thumb close from both sides.
    angle = np.arctan2(hand.tips[:, 2], hand.tips[:, 1])
    assert abs(angle[0] - angle[1:].mean()) > 1.0
    assert np.sign(hand.tips[0, 0]) == (-1 if right else 1)
    elbow = np.array([0.3, -0.4, -0.2])
    posed = hand.posed(np.eye(4), elbow)
    far = posed[(hand.forearm_weight == 1) & (np.linalg.norm(posed - hand.wrist, axis=1) > 0.3)]
    way = far.mean(0) - hand.wrist
    aim = elbow - hand.wrist
    assert way @ aim / np.linalg.norm(way) / np.linalg.norm(aim) > 0.995
    fixed = hand.forearm_weight == 0
    np.testing.assert_allclose(posed[fixed], hand.vertices[fixed])


def test_a_storyboard_that_names_no_object_of_the_task_is_refused(scene, tmp_path):
    from lucibot.providers.video.storyboard.schema import load_storyboard

    task, _ = scene
    shutil.copytree(task.folder, tmp_path / "t")
    board = tmp_path / "t" / "storyboard.toml"
    board.write_text(board.read_text().replace('holds = "knife"', 'holds = "knive"'))
    with pytest.raises(UserError, match="Did you mean 'knife'"):
        load_storyboard(load_task(tmp_path / "t"))
    board.unlink()
    with pytest.raises(UserError, match=r"no storyboard\.toml"):
        load_storyboard(load_task(tmp_path / "t"))


def test_what_stays_is_drawn_and_lit_as_if_it_were_drawn_anew(scene):
    from lucibot.providers.video.storyboard import draw, light, plan, scenery, schema

    task, view = scene
    spec = schema.load_storyboard(task)
    all_at_rest = scenery.Scenery(task, view, cut=frozenset(c.object for c in spec.cut))
    p = plan.make_plan(task, spec, np.random.default_rng(3))
    kept, anew = draw.Drawer(all_at_rest, p), draw.Drawer(all_at_rest, p)
    for t in range(len(p)):
        anew._last = anew._standing = None
        assert np.array_equal(kept.frame(t).rgb, anew.frame(t).rgb), t
    # Of other things at rest the sun's shadows may be the same, and the sky's not.
    maps = all_at_rest.rest_maps
    kept._shadow_maps([], maps)
    other = maps[0], all_at_rest.lights.shadow_maps([])[1]
    assert not np.array_equal(maps[1], other[1])
    assert np.array_equal(kept._shadow_maps([], other)[1], other[1])
    lights, surface, maps = all_at_rest.lights, all_at_rest.surface["empty"], all_at_rest.rest_maps
    added = light.LitImage(lights, *surface, lights.shadow_maps([])).under(maps)
    assert np.array_equal(added, light.LitImage(lights, *surface, maps).under(maps))
    assert (added < light.LitImage(lights, *surface, lights.shadow_maps([])).total - 0.1).any()


def test_surfaces_touch_between_their_vertices():
    import trimesh

    from lucibot.providers.video.storyboard.draw import surfaces_touch

    def box(gap_m: float):
        moved = trimesh.creation.box((0.1, 0.1, 0.1)).apply_translation((0.03, 0.02, 0.1 + gap_m))
        return [(np.asarray(moved.vertices), np.asarray(moved.faces))]

    lower = trimesh.creation.box((0.1, 0.1, 0.1))
    lower = [(np.asarray(lower.vertices), np.asarray(lower.faces))]
    assert surfaces_touch(lower, box(0.003), 0.005) and surfaces_touch(box(0.003), lower, 0.005)
    assert not surfaces_touch(lower, box(0.007), 0.005)
