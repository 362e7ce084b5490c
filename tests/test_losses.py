"""Loss terms: zero for what the video shows, and right in sign for what it does not."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lucibot_kernels import even_ranks, label_iou
from skimage.measure import label as connected_regions

from lucibot.core.camera import Camera
from lucibot.objective.config import VideoObjective
from lucibot.objective.losses import Losses
from lucibot.objective.objective import FAR_M, Parts, Picture
from lucibot.objective.supervision import Affordance, Supervision
from lucibot.objective.weights import FULL_WEIGHTS, PAPER_WEIGHTS, TERMS
from lucibot.perception.supervise import _cloud, goal_lasts

H, W, M = 48, 64, 1024
CAMERA = Camera.look_at(
    position=(0, -0.5, 0.4), target=(0, 0, 0), vertical_fov_deg=45, width=W, height=H
)
LABELS = {"tool": 1, "clay": 2}


def blocks(*boxes) -> torch.Tensor:
    """A label image (1, H, W) of boxes (label, top, left, bottom, right)."""
    label = torch.zeros(1, H, W, dtype=torch.int32)
    for value, top, left, bottom, right in boxes:
        label[:, top:bottom, left:right] = value
    return label


def keyframe_terms(losses: Losses, k: int, label: torch.Tensor, contact=True) -> dict:
    w = losses.wanted
    overlap = label_iou(label, w.labels, w.mask[k], w.valid[k])
    return losses.at_keyframe(k, overlap, torch.tensor([[contact]]))


TOOL = (1, 4, 4, 10, 20)
HALVES = ((2, 20, 10, 35, 28), (2, 20, 32, 35, 50))


def cloud(mask: np.ndarray) -> np.ndarray:
    points = CAMERA.unproject(np.full((H, W), 0.6))[mask]
    out = np.full((M, 3), np.nan, np.float32)
    kept = points[even_ranks(len(points), M)]
    out[: len(kept)] = kept
    return out


def supervision(valid=None) -> Supervision:
    seen = blocks(TOOL, *HALVES)[0].numpy()
    parts = np.stack([blocks(h)[0].numpy() == 2 for h in HALVES])
    return Supervision(
        camera=CAMERA, actuators=("tool",), targets=("clay",), contact_pairs=(("tool", "clay"),),
        keyframes=np.arange(2), waypoints=np.zeros((2, 1, 6), np.float32),
        waypoint_confidence=np.array([[1], [0]], np.float32), held=np.ones((2, 1), bool),
        actuator_masks=np.stack([seen == 1] * 2)[:, None], target_masks=np.stack([seen == 2] * 2),
        valid=np.ones((2, H, W), bool) if valid is None else valid,
        actuator_clouds=cloud(seen == 1)[None], target_cloud=cloud(seen == 2),
        contact=np.array([[True], [False]]), around_pairs=(("clay", "post"),),
        around=np.ones(1, bool), affordance=Affordance.none(2, 1), part_masks=parts,
        part_clouds=np.stack([cloud(p) for p in parts]), part_valid=np.ones((H, W), bool),
    )  # fmt: skip


def picture(label: torch.Tensor, around: bool = True) -> Picture:
    """What is seen of a label image; the clay's connected regions are a rollout's parts."""
    number = torch.stack([torch.from_numpy(connected_regions(x.numpy() == 2)) for x in label]).int()
    depth = torch.full(label.shape, 0.6)
    return Picture(
        label=label, depth=depth, around=torch.full((len(label), 1), around),
        parts=Parts(number=number, depth=depth, count=number.amax((1, 2))),
    )  # fmt: skip


def goal_terms(label: torch.Tensor) -> dict[str, float]:
    terms = Losses(LABELS, supervision()).at_goal(picture(label))
    return {k: float(v[0]) for k, v in terms.items()}


def test_what_the_video_shows_costs_nothing():
    terms = goal_terms(blocks(TOOL, *HALVES))
    keyframe = keyframe_terms(Losses(LABELS, supervision()), 0, blocks(TOOL, *HALVES))
    losses = Losses(LABELS, supervision())
    settled = losses.settled(picture(blocks(*HALVES)))
    affordance = {n for n in TERMS if n.startswith("affordance")}
    assert set(terms) | set(keyframe) | set(settled) == set(TERMS) - affordance
    assert all(v == pytest.approx(0, abs=2e-3) for v in terms.values()), terms
    assert float(keyframe["actuator_iou"][0]) == 0 and float(keyframe["contact"][0]) == 0


def test_an_uncut_block_misses_a_part_though_its_mask_fits_well():
    whole = goal_terms(blocks(TOOL, (2, 20, 10, 35, 50)))
    cut_and_slid = goal_terms(blocks(TOOL, (2, 22, 13, 37, 31), (2, 22, 36, 37, 54)))
    assert (
        whole["target_iou"] < cut_and_slid["target_iou"]
    )  # The paper's term points the wrong way.
    assert whole["part_count"] == 0.5 and cut_and_slid["part_count"] == 0
    assert whole["part_iou"] > cut_and_slid["part_iou"]
    assert whole["part_distance"] > 5 * cut_and_slid["part_distance"]


def test_hidden_pixels_do_not_count_and_lost_keyframes_say_nothing():
    valid = np.ones((2, H, W), bool)
    valid[:, :, 12:] = False
    losses = Losses(LABELS, supervision(valid))
    half = blocks((1, 4, 4, 10, 12), *HALVES)
    assert float(keyframe_terms(losses, 0, half)["actuator_iou"][0]) == 0
    second = keyframe_terms(losses, 1, half)  # Lost, and no contact expected.
    assert second["actuator_iou"].isnan().all() and second["contact"].isnan().all()


def test_a_ring_that_opened_costs():
    losses, label = Losses(LABELS, supervision()), blocks(TOOL, *HALVES)
    for around, cost in ((True, 0), (False, 1)):
        assert float(losses.at_goal(picture(label, around))["around"]) == cost


def test_a_missed_contact_and_a_vanished_target_cost():
    losses = Losses(LABELS, supervision())
    assert float(keyframe_terms(losses, 0, blocks(TOOL), False)["contact"][0]) == 1
    gone = goal_terms(blocks())
    assert gone["target_iou"] == 1 and gone["part_iou"] == 1 and gone["part_count"] == 1
    assert gone["target_chamfer"] == pytest.approx(FAR_M)
    assert gone["part_distance"] == pytest.approx(FAR_M)


def test_how_far_a_part_lies_whose_depth_is_not_known_is_not_asked():
    clouds = np.full((2, M, 3), np.nan, np.float32)
    clouds[0] = supervision().part_clouds[0]
    losses = Losses(LABELS, replace(supervision(), part_clouds=clouds))
    slid = blocks(TOOL, HALVES[0], (2, 20, 36, 35, 54))
    assert float(losses.at_goal(picture(slid))["part_distance"][0]) == 0
    assert goal_terms(slid)["part_distance"] > 0.01


def test_what_follows_the_goal_counts_only_where_the_video_shows_it():
    """What is still held in the goal frame will be dropped, of which the video says nothing."""
    fallen = blocks((2, 30, 10, 45, 28), (2, 30, 32, 45, 50))
    for held, costs in ((True, False), (False, True)):
        goal = replace(supervision(), held=np.full((2, 1), held))
        terms = Losses(LABELS, goal).settled(picture(fallen))
        assert (float(terms["settled_target_iou"][0]) > 0.3) == costs
        assert held == all(not v.any() for v in terms.values())


@pytest.mark.parametrize(("held", "lasts", "lets_drop", "costs"), [
    (True, True, False, True),
    (True, True, True, False),  # What the simulation drops need not stay.
    (True, False, False, False),  # The video does not show that it stays.
    (False, True, False, False),  # Nothing is held: the terms that have settled speak of it.
])  # fmt: skip
def test_what_is_held_up_has_to_stay_up_where_the_video_shows_it(held, lasts, lets_drop, costs):
    goal = replace(supervision(), held=np.full((2, 1), held), goal_lasts=lasts)
    losses = Losses(LABELS, goal, lets_drop=lets_drop)
    thrown = losses.settled(picture(blocks((2, 30, 10, 45, 28), (2, 30, 32, 45, 50))))
    kept = losses.settled(picture(blocks(TOOL, *HALVES)))
    assert (float(thrown["target_lasts"][0]) > 0.3) == costs
    assert float(kept["target_lasts"][0]) == pytest.approx(0, abs=1e-6)
    terms = {n: 0.0 for n in TERMS} | {"target_lasts": float(thrown["target_lasts"][0])}
    assert VideoObjective(least_target_iou=0.8).reached(terms) == (not costs)


def test_a_goal_lasts_where_the_video_goes_on_to_show_it():
    def lasts(frames=40, held=slice(5, None), moving=slice(5, 25), goal=27) -> bool:
        flags = {n: np.zeros((frames, k), bool) for n, k in (("held", 2), ("moving", 3))}
        flags["held"][held, 1], flags["moving"][moving, 2] = True, True
        # Something else moves all the time.
        flags["moving"][:, 0] = True
        return goal_lasts(SimpleNamespace(**flags), [2], goal, 4)

    assert lasts()
    assert not lasts(frames=30)  # Too short to show it.
    assert not lasts(held=slice(5, 32))  # It is let go.
    assert not lasts(held=slice(30, None))  # Another hold than the goal's.
    assert not lasts(moving=slice(5, 36))  # It goes on.
    assert lasts(moving=[*range(5, 25), 33])  # What flickers in one frame does not.


def test_a_pixel_more_hardly_moves_a_cloud():
    """A mask that grows past the number of points that are kept must not lose half of them."""
    losses, depth = Losses(LABELS, supervision()), torch.full((1, H, W), 0.6)
    mask = torch.zeros(H * W, dtype=torch.bool)
    mask[: M + 1] = True
    grown = mask.view(1, H, W)
    mask = mask.clone()
    mask[M] = False
    before, after = losses._cloud(mask.view(1, H, W), depth), losses._cloud(grown, depth)
    assert before.isfinite().all(2).sum() == after.isfinite().all(2).sum() == M
    assert (before - after).norm(dim=2).median() < 1e-6


def test_the_video_and_a_rollout_that_looks_like_it_keep_the_same_points():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 0.7, (H, W)).astype(np.float32)
    for pixels in (M - 1, M, M + 1, 2 * M - 1, 2500):
        mask = np.zeros(H * W, bool)
        mask[rng.choice(H * W, pixels, replace=False)] = True
        mask = mask.reshape(H, W)
        video = torch.from_numpy(_cloud(CAMERA, depth, mask, M))
        rollout = Losses(LABELS, supervision())._cloud(
            torch.from_numpy(mask)[None], torch.from_numpy(depth)[None]
        )
        torch.testing.assert_close(rollout[0], video, rtol=0, atol=2e-6, equal_nan=True)


def test_batches_agree_with_one_by_one():
    torch.manual_seed(0)
    labels = torch.cat([
        blocks(TOOL, *HALVES), blocks((2, 20, 10, 35, 50)), blocks(), blocks((1, 1, 1, 9, 9)),
        blocks((2, 1, 1, 9, 9), (2, 20, 20, 30, 30), (2, 40, 40, 45, 60)),
    ])  # fmt: skip
    whole = picture(labels)
    depth = 0.5 + 0.2 * torch.rand(labels.shape)
    losses = Losses(LABELS, supervision())

    def at(i):
        parts = Parts(number=whole.parts.number[i], depth=depth[i], count=whole.parts.count[i])
        return losses.at_goal(
            Picture(label=labels[i], depth=depth[i], parts=parts, around=whole.around[i])
        )

    together = at(slice(0, 5))
    for i in range(5):
        single = at(slice(i, i + 1))
        for name, value in together.items():
            torch.testing.assert_close(value[i : i + 1], single[name], rtol=0, atol=0)


def test_weights_make_the_sum():
    terms = {n: torch.tensor([1.0, 2.0]) for n in TERMS}
    paper = 1 + 1 + 10 + 10 + 1
    torch.testing.assert_close(PAPER_WEIGHTS.total(terms), torch.tensor([1.0, 2.0]) * paper)
    assert float(FULL_WEIGHTS.total(terms)[0]) == paper + 1 + 1 + 10 + 10 + 1 + 10 + 1
