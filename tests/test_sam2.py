"""SAM 2 as a segmenter: its prompts, its model with random weights, its memory, and its mistakes."""

from __future__ import annotations

import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, Sam2VideoConfig, Sam2VideoModel

from lucibot.core.errors import RunFailed, UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.providers.checkpoints import Checkpoint
from lucibot.providers.tracker import ComposedTracker, Sam2Segmenter, settled_tracker
from lucibot.providers.tracker import sam2 as member
from lucibot.providers.tracker.base import Segments
from lucibot.providers.tracker.known import ensure_followed
from lucibot.providers.tracker.prompts import Prompt, prompts_of, spread_points
from lucibot.twin.marks import Mark
from lucibot.twin.segment import Sam2PhotoSegmenter

SIDE = 64
H, W = 48, 80
MEMORIES, POINTERS = 2, 3


def tiny_config() -> Sam2VideoConfig:
    grid = SIDE // 4
    vision = dict(
        model_type="sam2_vision_model", fpn_hidden_size=128, backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[grid, grid], [grid // 2, grid // 2], [grid // 4, grid // 4]],
        backbone_config=dict(
            model_type="sam2_hiera_det_model", hidden_size=8, num_attention_heads=1,
            image_size=[SIDE, SIDE], blocks_per_stage=[1, 1, 2, 1],
            embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 2, 4, 8],
            window_size_per_stage=[8, 4, 4, 4], global_attention_blocks=[3],
            window_positional_embedding_background_size=[4, 4],
        ),
    )  # fmt: skip
    return Sam2VideoConfig(
        vision_config=vision, image_size=SIDE, num_maskmem=MEMORIES,
        max_object_pointers_in_encoder=POINTERS,
        prompt_encoder_config=dict(hidden_size=128, image_size=SIDE, mask_input_channels=4),
        mask_decoder_config=dict(
            hidden_size=128, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
        ),
        memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[SIDE // 16, SIDE // 16], memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64, mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=64,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    torch.manual_seed(0)
    model = Sam2VideoModel(tiny_config())
    # A fresh model says that nothing is there; this one says that all is.
    torch.nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 4.0)
    path = tmp_path_factory.mktemp("sam2")
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def view():
    labels = np.zeros((H, W), np.uint8)
    labels[8:30, 6:30], labels[16:40, 44:70] = 1, 2
    picture = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    return SceneView(
        camera=None, names=("cup", "block"), first_frame=picture, background_frame=None,
        labels=labels, depth_m=np.ones((H, W), np.float32),
        background_depth_m=np.ones((H, W), np.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def video(view):
    frames = [np.roll(view.first_frame, t, 1) for t in range(6)]
    return Video(frames=np.stack(frames), fps=8.0)


def segmenter(folder, **more):
    return Sam2Segmenter(model=str(folder), library="transformers", device="cpu", **more).create()


def test_points_lie_inside_far_from_each_other():
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:70] = True
    points = spread_points(mask, 6)
    assert points.shape == (6, 2)
    u, v = points.T.astype(int)
    assert mask[v, u].all() and (u >= 17).all() and (u < 63).all() and (v >= 17).all()
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(6, 1)]
    assert gaps.min() > 10
    # A part that an arm has cut off is told of, too, however small.
    mask[2:6, 2:6] = True
    assert (spread_points(mask, 3) < 6).all(1).any()
    assert len(spread_points(np.zeros((4, 4), bool), 5)) == 0
    one = np.zeros((9, 9), bool)
    one[4, 7] = True
    assert spread_points(one, 5).tolist() == [[7, 4]]


def test_each_object_is_told_of_the_others(view):
    cup, block = prompts_of(view.labels, 2, inside=5, outside=2)
    assert cup.inside.tolist() == [True] * 5 + [False] * 2 == block.inside.tolist()
    for i, prompt in enumerate((cup, block)):
        u, v = prompt.points_px.T.astype(int)
        assert ((view.labels[v, u] == i + 1) == prompt.inside).all()
        assert (view.labels[v, u] > 0).all()
    alone = prompts_of(view.labels, 2, inside=5, outside=0)[0]
    assert alone.inside.all()


def test_logits_become_masks_that_share_no_pixel():
    logits = np.full((2, 2, 3), -5.0, np.float32)
    logits[0, 0], logits[1, :, 0] = 2.0, 3.0
    masks, sure = member.read_logits(logits, np.array([0.0, 40.0]))
    assert masks[0].tolist() == [[False, True, True], [False] * 3]
    assert masks[1].tolist() == [[True, False, False], [True, False, False]]
    inside = 1 / (1 + np.exp(-np.array([2.0, 3.0])))
    assert sure == pytest.approx(inside * [0.5, 1.0], abs=1e-5)


@pytest.fixture
def lenient(monkeypatch):
    """Random weights know no objects."""
    monkeypatch.setattr("lucibot.providers.tracker.known.LEAST_AGREEMENT", 0.0)


def test_random_weights_are_told_after_one_frame(folder, view, video):
    frames = []
    with pytest.raises(RunFailed, match=r"sam2 does not know 'cup'.*agree by \d+% \(IoU"):
        segmenter(folder).segment(
            None, view, video, progress=lambda text, done=None: frames.append(text)
        )
    assert not any("frame 2" in text for text in frames)


@pytest.mark.parametrize("prompt", ["points", "masks"])
def test_a_saved_model_follows_all_objects(folder, view, video, prompt, lenient):
    found = segmenter(folder, prompt=prompt).segment(None, view, video)
    T = len(video)
    assert found.masks.shape == (T, 2, H, W) and found.masks.dtype == bool
    assert found.confidence.shape == found.lost.shape == (T, 2)
    assert found.confidence.dtype == np.float32
    assert (found.confidence >= 0).all() and (found.confidence <= 1).all()
    assert not (found.masks[:, 0] & found.masks[:, 1]).any()
    assert (found.lost | found.masks.any((2, 3))).all()
    if prompt == "masks":
        for i in range(2):
            true = view.labels == i + 1
            iou = (found.masks[0, i] & true).sum() / (found.masks[0, i] | true).sum()
            assert iou > 0.9
    again = segmenter(folder, prompt=prompt).segment(None, view, video)
    assert np.array_equal(found.masks, again.masks)


def test_what_is_forgotten_would_not_be_looked_at_again(folder, view, video, monkeypatch):
    kept = []
    forget = member._forget

    def watched(session, t, config):
        forget(session, t, config)
        outputs = session.output_dict_per_obj[0]["non_cond_frame_outputs"]
        kept.append((len(session.processed_frames), len(outputs)))
        assert all("high_res_masks" not in o for o in outputs.values())

    with monkeypatch.context() as m:
        m.setattr(member, "_forget", watched)
        lean = list(follow(folder, view, video))
    assert max(frames for frames, _ in kept) == 0
    assert max(memories for _, memories in kept) == max(MEMORIES, POINTERS) - 1 < len(video) - 1
    monkeypatch.setattr(member, "_forget", lambda *_: None)
    whole = list(follow(folder, view, video))
    for (a, b), (c, d) in zip(lean, whole, strict=True):
        assert np.array_equal(a, c) and np.array_equal(b, d)
    # It does look back: without the frames before it the last one is read otherwise.
    alone = list(follow(folder, view, replace(video, frames=video.frames[[0, -1]])))
    assert not np.array_equal(alone[-1][0], lean[-1][0])


def follow(folder, view, video):
    told = prompts_of(view.labels, 2, inside=4, outside=1)
    return segmenter(folder)._follower.follow(video.frames, told)


def test_the_model_is_gone_when_it_has_done_its_work(folder, view, video, lenient, monkeypatch):
    loaded, load = [], Checkpoint.load

    def watched(self, *a, **k):
        model = load(self, *a, **k)
        loaded.append(weakref.ref(model))
        return model

    monkeypatch.setattr(Checkpoint, "load", watched)
    tracker = segmenter(folder)
    assert not loaded
    tracker.segment(None, view, replace(video, frames=video.frames[:2]))
    assert len(loaded) == 1 and loaded[0]() is None


def test_half_precision_runs(folder, view, video, lenient):
    short = replace(video, frames=video.frames[:3])
    found = segmenter(folder, dtype="bfloat16").segment(None, view, short)
    assert np.isfinite(found.confidence).all()


def test_mistakes_show_when_it_is_made(folder, tmp_path, monkeypatch):
    config = CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                              num_attention_heads=1, image_size=8, patch_size=4)  # fmt: skip
    CLIPVisionModel(config).save_pretrained(tmp_path)
    flag = r"--perceive\.tracker\.segmenter\.model"
    with pytest.raises(UserError, match=f"{flag}.*wrong kind, clip_vision_model"):
        segmenter(tmp_path)
    with pytest.raises(UserError, match=f"{flag} facebook/sam9.*hf download facebook/sam9"):
        segmenter("facebook/sam9")
    tracker = ComposedTracker(segmenter=Sam2Segmenter(model="./nowhere", library="transformers"))
    with pytest.raises(UserError, match=f"{flag}.*no such folder"):
        tracker.create()
    monkeypatch.setattr("lucibot.providers.tracker.sam2_package.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package sam2: pip install .*transformers"):
        Sam2Segmenter(model=str(folder), library="sam2").create()


def test_a_segmenter_that_does_not_know_the_objects_is_told_apart(view):
    true = np.stack([view.labels == 1, view.labels == 2])
    masks = np.repeat(true[None], 4, 0)
    lost = np.zeros((4, 2), bool)

    def check(masks, lost):
        confidence = np.ones(lost.shape, np.float32)
        ensure_followed(view, Segments(masks=masks, confidence=confidence, lost=lost), "sam2")

    check(masks, lost)
    with pytest.raises(RunFailed, match="sam2 does not know 'block'"):
        check(np.repeat(np.stack([true[0], true[0]])[None], 4, 0), lost)
    gone = lost.copy()
    gone[1:, 0] = True
    with pytest.raises(RunFailed, match="loses 'cup' after the first frame"):
        check(masks, gone)
    gone[3, 0] = False
    check(masks, gone)


# The surface of the authors' package. Its model follows each prompt as the picture moves to the right,
# a pixel a frame, and looks at the last five frames; object 1 is gone in the third.
PACKAGE = {
    "sam2/__init__.py": "",
    "sam2/utils/__init__.py": "",
    "sam2/utils/misc.py": "def tqdm(*a, **k): raise AssertionError('a bar is drawn')",
    "sam2/sam2_video_predictor.py": """
import os
import numpy as np, torch
from PIL import Image
def tqdm(*a, **k): raise AssertionError('a bar is drawn')
class Predictor:
    image_size, num_maskmem, max_obj_ptrs_in_encoder = 32, 3, 5
    def init_state(self, folder):
        (name,) = os.listdir(folder)
        self.first = np.array(Image.open(os.path.join(folder, name)))
        return {"images": None, "num_frames": 1, "output_dict_per_obj": {}}
    def _add(self, state, obj_id, mask):
        state["output_dict_per_obj"][obj_id] = {
            "cond_frame_outputs": {0: self._out(9.0)}, "non_cond_frame_outputs": {}, "mask": mask}
    def _out(self, score): return {"object_score_logits": torch.tensor([[score]])}
    def add_new_mask(self, state, frame_idx, obj_id, mask): self._add(state, obj_id, mask)
    def add_new_points_or_box(self, state, frame_idx, obj_id, points, labels):
        mask = np.zeros(self.first.shape[:2], bool)
        for (u, v), on in zip(points.astype(int), labels):
            if on: mask[v - 2:v + 3, u - 2:u + 3] = True
        self._add(state, obj_id, mask)
    def propagate_in_video(self, state, start_frame_idx):
        from sam2 import sam2_video_predictor
        objects = state["output_dict_per_obj"]
        for t in sam2_video_predictor.tqdm(range(state["num_frames"]), desc="propagate"):
            picture = state["images"][t]
            assert picture.shape == (3, 32, 32) and picture.dtype == torch.float32
            logits = []
            for k, o in objects.items():
                if t:
                    o["non_cond_frame_outputs"][t] = self._out(-9.0 if (k, t) == (1, 2) else 3.0)
                assert len(o["non_cond_frame_outputs"]) <= 5
                logits.append(np.where(np.roll(o["mask"], t, 1), 4.0, -4.0))
            yield t, list(objects), torch.tensor(np.stack(logits))[:, None]
""",
    "sam2/build_sam.py": """
from sam2.sam2_video_predictor import Predictor
def build_sam2_video_predictor(config_file, ckpt_path, device):
    if open(ckpt_path, "rb").read() != b"weights": raise RuntimeError("Error(s) in loading\\nthem")
    assert config_file == "configs/sam2.1/sam2.1_hiera_b+.yaml" and device == "cpu"
    return Predictor()
""",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in [n for n in sys.modules if n.partition(".")[0] == "sam2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    weights = tmp_path / "sam2.1_hiera_base_plus.pt"
    weights.write_bytes(b"weights")
    yield weights
    for name in [n for n in sys.modules if n.partition(".")[0] == "sam2"]:
        del sys.modules[name]


@pytest.mark.parametrize("prompt", ["masks", "points"])
def test_the_authors_package_is_asked_where_it_is_chosen(package, view, video, prompt, lenient):
    settings = dict(model=str(package), library="sam2", device="cpu", prompt=prompt)
    member = Sam2Segmenter(**settings).create()
    found = member.segment(None, view, video)
    assert found.lost[:, 0].sum() == 0 and np.flatnonzero(found.lost[:, 1]).tolist() == [2]
    for t in range(len(video)):
        true = np.roll(view.labels == 1, t, 1)
        assert (found.masks[t, 0] & ~true).sum() == 0
        if prompt == "masks":
            assert np.array_equal(found.masks[t, 0], true)
    assert not found.masks[2, 1].any() and found.confidence[1, 1] > 0.9


def test_what_the_package_cannot_load_is_one_line(package, view, video, tmp_path):
    def create(**more):
        return Sam2Segmenter(library="sam2", device="cpu", **more).create()

    package.write_bytes(b"others")
    with pytest.raises(UserError, match=r"cannot be loaded as configs/sam2\.1.*Error\(s\)") as e:
        create(model=str(package)).segment(None, view, video)
    assert "\n" not in str(e.value)
    other = tmp_path / "mine.pt"
    other.write_bytes(b"weights")
    with pytest.raises(UserError, match=r"segmenter\.architecture configs/sam2\.1"):
        create(model=str(other))
    with pytest.raises(UserError, match="a folder is for transformers"):
        create(model=str(tmp_path))
    assert settled_tracker(ComposedTracker(segmenter=Sam2Segmenter())).segmenter.library == "sam2"


def test_a_photo_for_a_twin_is_segmented_by_the_same_model(folder, view):
    given = np.zeros((H, W), bool)
    given[2:5, 3:9] = True
    marks = {
        "cup": Mark(clicks=((10, 12), (20, 20)), outside=((50, 30),)),
        "block": Mark(box=(44, 16, 70, 40)),
        "plate": Mark(mask=given),
    }
    found = Sam2PhotoSegmenter(model=str(folder), device="cpu").create().segment(
        view.first_frame, marks
    )  # fmt: skip
    assert list(found) == list(marks) and found["plate"] is given
    assert all(m.shape == (H, W) and m.dtype == bool for m in found.values())
    with pytest.raises(UserError, match=r"^--segmenter\.model \./nowhere"):
        Sam2PhotoSegmenter(model="./nowhere", device="cpu").create()


def test_a_box_is_two_points_of_their_own_kinds():
    prompt = Prompt(
        points_px=np.float32([[10, 20]]), inside=np.array([True]),
        box_px=np.float32([4, 8, 16, 32]),
    )  # fmt: skip
    given = member.point_input(prompt, (H, W), SIDE)
    scale = np.array([SIDE / W, SIDE / H])
    expected = np.array([[4, 8], [16, 32], [10, 20]]) * scale
    assert given["point_coords"][0, 0].numpy() == pytest.approx(expected)
    assert given["point_labels"][0, 0].tolist() == [2, 3, 1]
