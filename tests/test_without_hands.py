"""Videos in which objects move alone: what a task says of hands, and what is made of it."""

from __future__ import annotations

import numpy as np
import pytest

from lucibot.config import PerceiveConfig
from lucibot.core.progress import silent
from lucibot.core.video import Video
from lucibot.perception.grasp import without_hands
from lucibot.providers.hand import OutlineHand
from lucibot.providers.verifier import PixelVerifier, pixels
from lucibot.stages.perceive import perceive
from lucibot.task import Task
from lucibot.vision.regions import Regions, classify_task

FPS = 7


def wanting(task: Task, hands: str) -> Task:
    return Task(task.folder, task.spec.model_copy(update={"hands": hands}), task.instruction)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, small_task):
    """cut_dough with its hand, without it, and with it and a thing that slides alone."""
    from lucibot.providers.renderer import RasterRenderer
    from lucibot.providers.video.storyboard import draw, faults, schema
    from lucibot.providers.video.storyboard.scenery import Scenery
    from lucibot.stages.scene import build_view

    folder = tmp_path_factory.mktemp("task") / "cut_dough"
    task = small_task("cut_dough", folder, width=320, height=240, fps=FPS)
    view = build_view(task, RasterRenderer(samples=1).create())
    spec = schema.load_storyboard(task)
    scenery = Scenery(task, view, cut=frozenset(c.object for c in spec.cut))
    out = {}
    for name, fault in (("hand", ""), ("alone", ""), ("slides", "wrong_object_moves")):
        rng = np.random.default_rng(11)
        plan = faults.plan_with_fault(task, scenery, spec, fault, rng)
        if name == "alone":
            plan = plan.with_(hands=[])
        drawer = draw.Drawer(scenery, plan)
        frames = [drawer.frame(t).rgb for t in range(len(plan))]
        frames = [f + rng.normal(size=f.shape) * 1.5 for f in frames]
        out[name] = Video(frames=np.clip(np.stack(frames), 0, 255).astype(np.uint8), fps=FPS)
        out[f"{name} poses"] = plan.T_world_object
    return task, view, out


@pytest.fixture(scope="module")
def judge():
    """Looks at each video once, whatever the task says of hands."""
    looked: dict[int, Regions] = {}

    def once(task, view, video, **settings) -> Regions:
        if id(video) not in looked:
            looked[id(video)] = classify_task(task, view, video, **settings)
        return looked[id(video)]

    with pytest.MonkeyPatch.context() as m:
        m.setattr(pixels, "classify_task", once)
        yield PixelVerifier().create()


@pytest.mark.parametrize(
    ("hands", "shows", "usable", "reason"),
    [
        ("expected", "hand", True, None),
        ("expected", "alone", False, "moves without being touched"),
        ("none", "alone", True, None),
        ("none", "hand", True, "a hand is seen in"),
        ("optional", "alone", True, None),
        ("optional", "hand", True, None),
        ("optional", "slides", False, "moves without being touched"),
    ],
)
def test_what_a_video_may_show_is_the_tasks_to_say(drawn, judge, hands, shows, usable, reason):
    task, view, videos = drawn
    verdict = judge.judge(wanting(task, hands), view, videos[shows])
    assert verdict.usable == usable, verdict.reasons
    assert any(reason in r for r in verdict.reasons) if reason else not verdict.reasons


def test_the_first_motion_stands_for_the_first_contact(drawn):
    task, view, videos = drawn
    task = wanting(task, "none")
    found = perceive(task, view, videos["alone"], PerceiveConfig(hand=OutlineHand()), silent)
    assert without_hands(task, found.tracks) and not found.tracks.hand.any()
    knife = videos["alone poses"][:, task.label("knife") - 1, :3, 3]
    moves = int(np.argmax(np.linalg.norm(knife - knife[0], axis=1) > 0.003))
    assert abs(found.answers.first_contact - moves) <= 2
    assert "No hand is seen" in found.answers.reasons["first_contact"]
    assert "with no hand near" in found.answers.reasons["held knife"]
    sup = found.supervision
    assert sup.held.any() and sup.valid.all()
    assert np.isnan(sup.affordance.points).all() and np.isnan(sup.affordance.tips_m).all()
    # The hand that hid the tool's grip is not there: its path is read as well as with one.
    at = sup.keyframes[sup.held[:, 0]]
    off = np.linalg.norm(found.poses[at, task.label("knife") - 1, :3] - knife[at], axis=1)
    assert np.median(off) < 0.02
