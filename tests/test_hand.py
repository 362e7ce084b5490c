"""Key points of hands: what a model says, what any program may say, and who is asked."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from lucibot.config import RunConfig
from lucibot.core.errors import RunFailed, UserError
from lucibot.options import with_settings
from lucibot.perception.affordance import frames_read
from lucibot.perception.config import AffordanceConfig
from lucibot.preflight import settled_run
from lucibot.providers.hand import CommandHand, MediapipeHand, OutlineHand
from lucibot.providers.hand import config as hand_config
from lucibot.providers.hand.base import TIPS
from lucibot.store.configs import from_dict, to_dict
from lucibot.task import load_task

FRAMES = np.full((4, 48, 64, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, small_task):
    """Pictures in which the storyboard's hand holds a knife: (frames, hand layers, knife's masks,
    where its tips were drawn (T, 5, 2))."""
    from lucibot.providers.renderer import RasterRenderer
    from lucibot.providers.video.storyboard import draw, faults, schema
    from lucibot.providers.video.storyboard.scenery import Scenery
    from lucibot.stages.scene import build_view

    folder = tmp_path_factory.mktemp("task") / "cut_dough"
    task = small_task("cut_dough", folder, width=640, height=480, fps=5)
    view = build_view(task, RasterRenderer(samples=1).create())
    spec = schema.load_storyboard(task)
    scenery = Scenery(task, view, cut=frozenset(c.object for c in spec.cut))
    plan = faults.plan_with_fault(task, scenery, spec, "", np.random.default_rng(3))
    drawer = draw.Drawer(scenery, plan)
    shown = np.flatnonzero(plan.hands[0].present)[2::4]
    pictures = [drawer.frame(int(t)) for t in shown]
    knife = plan.names.index("knife")
    tips = np.stack([p.tips_m.reshape(-1, 3)[:5] for p in pictures])
    return (
        np.stack([np.clip(p.rgb, 0, 255).astype(np.uint8) for p in pictures]),
        np.stack([p.hand for p in pictures]) > 0,
        np.stack([p.masks[knife] for p in pictures])[:, None] > 0,
        np.stack([task.camera.project(t)[0] for t in tips]),
    )


def test_a_model_finds_the_key_points_of_a_drawn_hand(drawn):
    pytest.importorskip("mediapipe", reason="mediapipe is absent: pip install 'lucibot[hand]'")
    frames, layer, _, tips = drawn
    found = MediapipeHand().create().detect(frames)
    seen = [t for t, hands in enumerate(found) if hands]
    assert len(seen) >= 0.5 * len(frames)
    off = []
    for t in seen:
        hand = found[t][0]
        assert hand.keypoints_px.shape == (21, 2) and hand.keypoints_m.shape == (21, 3)
        assert not hand.keypoints_m[0].any() and np.isfinite(hand.keypoints_m).all()
        assert 0.05 < np.ptp(hand.keypoints_m, axis=0).max() < 0.3 and hand.side == "left"
        x0, _, x1, y1 = hand.box_px
        rows, columns = np.nonzero(layer[t])
        assert columns.min() - 9 <= x0 < x1 <= columns.max() + 9 and y1 <= rows.max() + 9
        off.append(np.linalg.norm(hand.tips_px[:, None] - tips[t], axis=-1).min(1))
    # Of 640 across, where a finger is some 14 wide; a few are behind the knife.
    assert np.median(off) < 20
    # One frame is read as it is among others.
    (alone,) = MediapipeHand().create().detect(frames[seen[-1]][None])
    assert np.array_equal(alone[0].keypoints_px, found[seen[-1]][0].keypoints_px)


def test_where_the_model_sees_no_hand_the_outline_is_read(drawn):
    pytest.importorskip("mediapipe", reason="mediapipe is absent: pip install 'lucibot[hand]'")
    _, layer, knife, _ = drawn
    blank = np.full((*layer.shape, 3), 128, np.uint8)
    assert MediapipeHand().create().detect(blank) == [[] for _ in blank]
    found = MediapipeHand().create().detect(blank, hand_layer=layer, contact_masks=knife)
    told = OutlineHand().create().detect(blank, hand_layer=layer, contact_masks=knife)
    assert any(told) and [len(h) for h in found] == [len(h) for h in told]


def test_a_run_settles_what_finds_hands_and_keeps_it(monkeypatch):
    task = load_task("cut_dough")
    monkeypatch.setattr(hand_config, "mediapipe_is_installed", lambda: True)
    config = settled_run(task, RunConfig())
    assert config.perceive.hand == MediapipeHand()
    kept = from_dict(RunConfig, to_dict(config))
    monkeypatch.setattr(hand_config, "mediapipe_is_installed", lambda: False)
    assert settled_run(task, RunConfig()).perceive.hand == OutlineHand()
    # Resumed where it is absent, the run says so instead of taking another.
    assert settled_run(task, kept) == kept
    with pytest.raises(UserError, match=r"not installed: pip install 'lucibot\[hand\]'"):
        from lucibot.providers.hand import mediapipe

        monkeypatch.setattr(mediapipe, "mediapipe_is_installed", lambda: False)
        kept.perceive.hand.create()
    chosen = with_settings(RunConfig(), {"perceive.hand": "outline"})
    assert settled_run(task, chosen).perceive.hand == OutlineHand()


def test_hands_are_asked_for_where_they_are_read():
    """At the beginning of each hold, and at keyframes at which something is held."""
    held = np.zeros((40, 2), bool)
    held[4:14, 0] = held[20:22, 1] = True
    at = frames_read(held, np.array([2, 8, 21, 30]), 20.0, AffordanceConfig(look_s=0.15))
    assert at.tolist() == [4, 5, 6, 8, 20, 21]
    assert len(frames_read(held & False, np.array([2, 8]), 20.0, AffordanceConfig())) == 0


SCRIPT = """
import sys, av, numpy as np
video, keypoints = sys.argv[1:]
count = sum(1 for _ in av.open(video).decode(video=0))
px = np.full((count, 2, 21, 2), np.nan)
px[1, 0], px[1, 1] = 10, 20
px[3, 1] = np.arange(42).reshape(21, 2)
np.savez(keypoints, keypoints_px=px, keypoints_m=np.full((count, 2, 21, 3), 0.5),
         score=np.full((count, 2), [0.3, 0.8]), side=np.full((count, 2), ["left", "right"]))
"""


def member(script, body: str, **settings):
    script.write_text(body)
    return CommandHand(command=f"{sys.executable} {script} {{video}} {{keypoints}}", **settings)


def test_any_program_may_find_hands(tmp_path):
    found = member(tmp_path / "hands.py", SCRIPT).create().detect(FRAMES)
    assert [len(h) for h in found] == [0, 2, 0, 1]
    assert [h.side for h in found[1]] == ["right", "left"], "the surest first"
    hand = found[3][0]
    assert np.array_equal(
        hand.tips_px[:, 0], [2 * t for t in TIPS]
    ) and hand.score == pytest.approx(0.8)
    assert hand.box_px.tolist() == [0, 1, 40, 41] and not hand.keypoints_m.any()
    assert member(tmp_path / "hands.py", SCRIPT).create().detect(FRAMES[:0]) == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [("import sys; sys.exit('no weights')", "status 1: no weights"), ("", "wrote no key points"),
     ("import sys; open(sys.argv[2], 'w').write('x')", "cannot be read as npz"),
     ("import sys, numpy as np; np.savez(sys.argv[2], a=np.zeros(2))", "no array 'keypoints_px'"),
     ("import sys, numpy as np; np.savez(sys.argv[2], keypoints_px=np.zeros((3, 1, 21, 2)))",
      r"shape \(3, 1, 21, 2\), not \(4, 1, 21, 2\)"),
     ("import sys, numpy as np; np.savez(sys.argv[2], keypoints_px=np.full((4, 1, 21, 2), 'x'))",
      "where numbers are asked for"),
     ("import time; time.sleep(60)", "longer than 2 s")],
)  # fmt: skip
def test_a_hand_model_that_fails_is_one_clear_line(tmp_path, body, complaint):
    model = member(tmp_path / "hands.py", body, timeout_s=2).create()
    with pytest.raises(RunFailed, match=complaint) as e:
        model.detect(FRAMES)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("command", ["", "hands {video}", "/nowhere {video} {keypoints}"])
def test_a_hand_model_that_cannot_be_called_is_the_users_mistake(command):
    with pytest.raises(UserError, match=r"--perceive\.hand\.command"):
        CommandHand(command=command).create().detect(FRAMES)
