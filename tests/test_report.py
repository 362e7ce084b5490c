"""The report: one self-contained page that shows what it is given and nothing else."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from lucibot.core.camera import Camera
from lucibot.core.prompt import Prompt
from lucibot.core.video import Video, write_video
from lucibot.report.art import PALETTE, with_axes, with_masks
from lucibot.report.blame import failed_at
from lucibot.report.data import (
    ArmSection,
    CandidateRow,
    Comparison,
    MaskFrame,
    Metric,
    PoseFrame,
    ReportData,
    Rollouts,
    Timing,
)
from lucibot.report.page import write_report

CAMERA = Camera.look_at(
    position=(0.0, -0.4, 0.3), target=(0, 0, 0), vertical_fov_deg=48, width=160, height=120
)


def rollouts(rng: np.random.Generator) -> Rollouts:
    generation = np.repeat(np.arange(6), 16)
    terms = {
        "actuator_mask_iou": 0.4 * 0.8**generation + 0.05 * rng.random(96),
        "target_chamfer": 0.03 * 0.7**generation + 0.004 * rng.random(96),
    }
    loss = sum(terms.values())
    failed = rng.random(96) < 0.05
    return Rollouts(
        generation=generation, loss=np.where(failed, np.inf, loss), terms=terms, failed=failed,
        weights={"actuator_mask_iou": 1.0, "target_chamfer": 20.0},
    )  # fmt: skip


@pytest.fixture
def full(tmp_path) -> ReportData:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (120, 160, 3), np.uint8)
    film = tmp_path / "film.mp4"
    write_video(film, Video(frames=np.stack([image] * 6), fps=20.0))
    mask = np.zeros((2, 120, 160), bool)
    mask[0, 20:50, 20:60], mask[1, 60:100, 80:140] = True, True
    pose = np.eye(4)
    return ReportData(
        title="Cut <dough>", instruction="Cut the dough in two.", success=True,
        headline={"rollouts": "96"}, objects=("knife", "dough"), camera=CAMERA, first_frame=image,
        prompt=Prompt(text="Cut <it>.", negative="blur"),
        candidates=(
            CandidateRow(name="candidate 0", video=film, match=5.5, motion=2.5, goal=5.0,
                         total=13.0, usable=True, chosen=True),
            CandidateRow(name="candidate 1", match=3, motion=2, goal=2, total=7, usable=False,
                         reasons=("the goal is not reached: 1 piece",)),
        ),
        masks=(MaskFrame(index=3, image=image, masks=mask, hand=mask[0], lost=("knife",)),),
        poses=(PoseFrame(index=3, image=image, poses={"knife": pose}, confidence={"knife": 0.9}),),
        keyframes=(10, 20), fps=20.0, keyframe_images=(image, image), actuators=("knife",),
        held=np.array([[True], [False]]), contact_pairs=(("knife", "dough"),),
        contact=np.array([[False], [True]]), rollouts=rollouts(rng),
        comparisons=(Comparison(keyframe=0, frame=10, video=image, simulation=image),),
        robot=ArmSection(arm="franka", success=False, why="it dropped <it>", film=film,
                         metrics=(Metric(name="pieces", value="1", wanted="2", passed=False),),
                         facts={"off its trajectory": "1.5 mm"}),
        failed_at="execution", film=film, chosen_video=film, metrics=(Metric(name="pieces", value="2", passed=True),),
        timings=(Timing(stage="scene", seconds=12.0), Timing(stage="imagine", seconds=3.0)),
        search_seconds={"physics": 9.5, "losses": 0.5},
        notes=("scalar_rgb",),
        provenance={"seed": "0"},
    )  # fmt: skip


class _Page(HTMLParser):
    """Sections, sources and whether every tag is closed."""

    void = frozenset({"meta", "img", "br", "link", "hr", "input", "path", "use"})

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.sources, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "section":
            self.ids.append(attrs["id"])
        if "src" in attrs:
            self.sources.append(attrs["src"])
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag


def test_full_report_is_one_file_with_every_section(full, tmp_path):
    write_report(full, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = _Page(text)
    assert not page.open
    assert page.ids == ["metrics", "prompt", "candidates", "masks", "poses", "keyframes", "search",
                        "comparison", "film", "robot", "timings", "appendix"]  # fmt: skip
    assert page.sources and all(s.startswith("data:") for s in page.sources)
    links = re.findall(r'(?:href|url\()\s*=?\s*["\']?(?!#)(https?:[^"\')]+)', text)
    assert not [x for x in links if "w3.org" not in x]
    assert "Cut &lt;dough&gt;" in text and "it dropped &lt;it&gt;" in text, "names are escaped"
    assert "put down to" in text and "does not hold" in text
    assert "95.0 %" in text, "the shares of the search's time"
    assert text.count("candidate 1") == 1 and "the goal is not reached" in text
    assert not list(tmp_path.glob(".*.part"))


def test_what_is_missing_is_left_out(tmp_path):
    write_report(ReportData(title="Bare"), tmp_path / "report.html")
    page = _Page((tmp_path / "report.html").read_text())
    assert page.ids == [] and page.sources == []


def test_all_rollouts_failed_still_gives_a_report(tmp_path):
    nothing = Rollouts(
        generation=np.zeros(3, int), loss=np.full(3, np.inf), terms={"t": np.full(3, np.nan)},
        failed=np.ones(3, bool),
    )  # fmt: skip
    write_report(ReportData(title="Bad", rollouts=nothing), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert _Page(text).ids == ["search"] and "All 3 rollouts diverged" in text


def test_masks_are_tinted_only_where_they_are(full):
    (frame,) = full.masks
    out = with_masks(frame)
    far = ~frame.masks.any(0)
    far[15:55, 15:65] = far[55:105, 75:145] = False
    np.testing.assert_array_equal(out[far], frame.image[far])
    inside = out[75:90, 95:125].astype(float)
    np.testing.assert_allclose(
        inside, 0.6 * frame.image[75:90, 95:125] + 0.4 * np.array(PALETTE[1]), atol=0.51
    )


def test_axes_are_drawn_where_the_camera_sees_them(full):
    grey = np.full((120, 160, 3), 90, np.uint8)
    out = with_axes(PoseFrame(index=0, image=grey, poses={"knife": np.eye(4)}), CAMERA)
    (x_end,), _ = CAMERA.project(np.array([[0.03, 0, 0]]))
    u, v = np.round(x_end - 0.5).astype(int)
    assert (out[v - 1 : v + 2, u - 1 : u + 2, 0].max() > 180) and out[v, u, 1] < 120
    lost = PoseFrame(index=0, image=grey, poses={"knife": np.full((4, 4), np.nan)})
    np.testing.assert_array_equal(with_axes(lost, CAMERA), grey)


@pytest.mark.parametrize("damage", ["cut", "empty", "other arrays", "other shape", "not finite"])
def test_a_damaged_planted_artefact_leaves_the_measurement_out_with_a_note(damage, tmp_path):
    from types import SimpleNamespace

    from lucibot.core.geometry import pose_np
    from lucibot.sim.state import BodyState, FinalState
    from lucibot.stages.report import _off_the_video
    from lucibot.task import load_task

    task, notes = load_task("open_door"), []
    planted = tmp_path / "planted" / "candidate_0.npz"
    planted.parent.mkdir()
    poses = np.stack([np.stack([pose_np(o.T_world_object) for o in task.objects])] * 2)
    body = BodyState(
        initial_pose=np.zeros(6), pose=np.zeros(6), velocity=np.zeros(6), joint=np.zeros(())
    )
    state = FinalState(bodies={o.name: body for o in task.objects}, particles={})
    ctx = SimpleNamespace(task=task, inputs={"imagine": tmp_path}, note=notes.append)
    np.savez_compressed(planted, poses=poses)
    assert _off_the_video(ctx, "candidate_0.mp4", state) == pytest.approx(
        {"door.off_video_deg": 0.0}
    )
    assert not notes
    if damage in ("cut", "empty"):
        planted.write_bytes(planted.read_bytes()[:200] if damage == "cut" else b"")
    elif damage == "other arrays":
        np.savez_compressed(planted, places=poses)
    elif damage == "other shape":
        np.savez_compressed(planted, poses=poses[..., :3])
    else:
        np.savez_compressed(planted, poses=np.full_like(poses, np.nan))
    assert _off_the_video(ctx, "candidate_0.mp4", state) == {}
    assert len(notes) == 1 and "candidate_0.npz is damaged" in notes[0]


@pytest.mark.parametrize(
    "success, usable, off, robot, wanted",
    [
        (True, True, 0.1, None, None),
        (True, False, 0.1, None, None),
        (False, False, 0.1, None, "video"),
        (False, True, 0.9, None, "search"),
        (False, True, None, None, "search"),
        (False, True, 0.1, None, "perception"),
        (True, True, 0.1, {"success": True, "failed": None}, None),
        (True, True, 0.1, {"success": False, "failed": None}, "execution"),
        (True, True, 0.1, {"success": False, "failed": "grasp"}, "grasp"),
        (False, True, 0.1, {"success": False, "failed": "planning"}, "perception"),
    ],
)
def test_a_failure_is_put_down_to_the_first_stage_that_went_wrong(
    success, usable, off, robot, wanted
):
    terms = {"target_iou": off}
    assert failed_at(success, usable=usable, terms=terms, robot=robot) == wanted
