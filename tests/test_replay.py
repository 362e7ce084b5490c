"""What an earlier run has read, taken in place of a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.perception.depth import KeptDepth
from lucibot.providers.depth import ReplayDepth
from lucibot.providers.depth.replay import read_depth, write_depth
from lucibot.providers.hand import ReplayHand, key_points_by
from lucibot.providers.hand.base import Hand
from lucibot.providers.hand.replay import write_hands
from lucibot.providers.tracker import ReplayTracker

H, W, T, N = 9, 14, 4, 2
RNG = np.random.default_rng(0)


@pytest.fixture
def view():
    background = RNG.uniform(0.4, 2, (H, W)).astype(np.float32)
    return SceneView(
        camera=None, names=("cup", "block"), first_frame=np.zeros((H, W, 3), np.uint8),
        background_frame=None, labels=np.zeros((H, W), np.uint8), depth_m=background,
        background_depth_m=background,
    )  # fmt: skip


@pytest.fixture
def video():
    return Video(frames=RNG.integers(0, 255, (T, H, W, 3), np.uint8), fps=8.0)


def test_depth_comes_back_to_the_bit(view, video, tmp_path):
    depth = np.repeat(view.background_depth_m[None], T, 0)
    depth[1:, 2:5, 3:9] = RNG.uniform(0.3, 1, (T - 1, 3, 6))
    depth[2:, :3, 10:] = np.nan
    write_depth(tmp_path / "depth.npz", video, depth, view.background_depth_m)
    assert np.array_equal(read_depth(tmp_path / "depth.npz"), depth, equal_nan=True)
    model = ReplayDepth(file=tmp_path / "depth.npz").create()
    assert not model.rests_on_poses
    kept = KeptDepth(model, None, view, video, None, seed=0)
    assert np.array_equal(kept(np.array([2, 0])), depth[[2, 0]], equal_nan=True)
    short = Video(frames=video.frames[:2], fps=8.0)
    with pytest.raises(UserError, match=r"another video, \(4, 9, 14\) in place of \(2, 9, 14\)"):
        model.estimate(None, view, short, None, np.arange(2), seed=0)
    with pytest.raises(UserError, match=r"depth\.npz: it is of another video of the same size"):
        model.estimate(
            None, view, replace(video, frames=255 - video.frames), None, np.arange(2), seed=0
        )


def test_tracks_come_back(view, video, tmp_path):
    masks, hand = RNG.random((T, N, H, W)) > 0.6, RNG.random((T, H, W)) > 0.8
    kept = {"confidence": RNG.random((T, N), np.float32), "lost": RNG.random((T, N)) > 0.7,
            "poses": RNG.random((T, N, 6), np.float32)}  # fmt: skip
    file = tmp_path / "tracks.npz"
    np.savez(file, shape=np.array(masks.shape), masks=np.packbits(masks), hand=np.packbits(hand),
             fit=np.zeros(3), **kept)  # fmt: skip
    member = ReplayTracker(file=file).create()
    tracks = member.track(None, view, video)
    assert np.array_equal(tracks.masks, masks) and np.array_equal(tracks.hand, hand)
    for name, value in kept.items():
        assert np.array_equal(getattr(tracks, name), value)
    # What the tracker said comes before what became of it.
    said = {f"told_{n}": ~v if v.dtype == bool else v / 2 for n, v in kept.items()}
    with np.load(file) as z:
        np.savez(tmp_path / "both.npz", **z, **said)
    both = ReplayTracker(file=tmp_path / "both.npz").create().track(None, view, video)
    for name in kept:
        assert np.array_equal(getattr(both, name), said[f"told_{name}"])
    with np.load(file) as z:
        np.savez(tmp_path / "known.npz", **z, video=np.array(video.sha256()))
    known = ReplayTracker(file=tmp_path / "known.npz").create()
    assert np.array_equal(known.track(None, view, video).masks, masks)
    with pytest.raises(UserError, match=r"known\.npz: it is of another video of the same size"):
        known.track(None, view, replace(video, frames=255 - video.frames))
    other = Video(frames=video.frames[:, ::2], fps=8.0)
    with pytest.raises(UserError, match=r"--perceive\.tracker\.file .*another video or task"):
        member.track(None, view, other)


def hand(score: float, side: str) -> Hand:
    pixels = RNG.uniform(0, 9, (21, 2)).astype(np.float32)
    pixels[5:7] = np.nan
    metres = RNG.uniform(-0.1, 0.1, (21, 3)).astype(np.float32)
    return Hand(keypoints_px=pixels, keypoints_m=metres - metres[:1], side=side, score=score,
                box_px=np.array([1, 2, 30, 40], np.float32))  # fmt: skip


def test_hands_come_back_for_the_pictures_that_were_read(video, tmp_path):
    hands = [[hand(0.9, "right"), hand(0.4, "unknown")], [], [hand(0.7, "left")]]
    write_hands(tmp_path / "hands.npz", video.frames[:3], hands)
    config = ReplayHand(file=tmp_path / "hands.npz")
    found = config.create().detect(video.frames[[2, 0, 1]])
    for told, then in zip(found, [hands[2], hands[0], hands[1]], strict=True):
        assert [h.side for h in told] == [h.side for h in then]
        for a, b in zip(told, then, strict=True):
            assert a.score == pytest.approx(b.score)
            for name in ("keypoints_px", "keypoints_m", "box_px"):
                assert np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
    with pytest.raises(
        UserError, match="1 of the 2 pictures that are asked for were not read then"
    ):
        config.create().detect(video.frames[2:])
    assert key_points_by(config) is None


def test_no_hands_at_all_come_back_as_none(video, tmp_path):
    write_hands(tmp_path / "hands.npz", video.frames[:2], [[], []])
    assert ReplayHand(file=tmp_path / "hands.npz").create().detect(video.frames[:2]) == [[], []]
    write_hands(tmp_path / "hands.npz", video.frames[:0], [])
    assert ReplayHand(file=tmp_path / "hands.npz").create().detect(video.frames[:0]) == []


@pytest.mark.parametrize("member", [ReplayDepth, ReplayTracker, ReplayHand])
def test_files_that_are_none(member, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        member(file=tmp_path / "gone.npz").create()
    np.savez(tmp_path / "other.npz", x=1)
    (tmp_path / "text.npz").write_text("x")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(UserError, match=rf"\.file .*{name}: no .* that a run has kept") as e:
            member(file=tmp_path / name).create()
        assert "\n" not in str(e.value)
