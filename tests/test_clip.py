"""How a clip is read: the camera at rest, the light of the first frame, and what is not seen."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lucibot.core.camera import Camera
from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video, write_video
from lucibot.vision.clip import Reading, read_clip, reading_of, study
from lucibot.vision.grid import UNSURE, Grid
from lucibot.vision.registration import register
from lucibot.vision.steady import follow_camera
from lucibot.vision.tone import fit_tones

H, W, T = 240, 320, 14
THING = np.s_[120:170, 130:190]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A table with something to be seen on it, a lighter wall, and a red thing."""
    rng = np.random.default_rng(1)
    grain = sum(
        a * cv2.normalize(cv2.GaussianBlur(rng.normal(size=(H, W)).astype(np.float32), (0, 0), s),
                          None, -1, 1, cv2.NORM_MINMAX)
        for s, a in ((2, 25), (6, 30), (20, 30))
    )  # fmt: skip
    out = np.clip(grain[..., None] + [120, 115, 105], 0, 255)
    out[:70] = np.clip(0.5 * grain[:70, :, None] + [185, 185, 190], 0, 255)
    out[THING] = (170, 40, 35)
    return out.astype(np.uint8)


@pytest.fixture(scope="module")
def view(picture) -> SceneView:
    camera = Camera.look_at(
        position=(0, -0.4, 0.3), target=(0, 0, 0), vertical_fov_deg=48, width=W, height=H
    )
    labels = np.zeros((H, W), np.uint8)
    labels[THING] = 1
    one = np.ones((H, W), np.float32)
    return SceneView(
        camera=camera, names=("thing",), first_frame=picture, background_frame=None, labels=labels,
        depth_m=one, background_depth_m=one,
    )  # fmt: skip


def clip(picture: np.ndarray, change=lambda t, frame: frame, arm: float = 0.0, noise=1.5) -> Video:
    """The picture for T frames, a bar of skin as wide as a share `arm` of it from frame 3 on, each
    frame changed, with noise."""
    rng = np.random.default_rng(2)
    frames = []
    for t in range(T):
        frame = picture.copy()
        if t >= 3 and arm:
            frame[:, : round(arm * W)] = (200, 150, 125)
            # And its shadow beside it.
            shade = np.s_[:, round(arm * W) : round((arm + 0.12) * W)]
            frame[shade] = (0.65 * frame[shade]).astype(np.uint8)
        frame = change(t, frame).astype(np.float32) + rng.normal(size=frame.shape) * noise
        frames.append(np.clip(np.rint(frame), 0, 255).astype(np.uint8))
    return Video(frames=np.stack(frames), fps=10)


def exposed(t: int, frame: np.ndarray) -> np.ndarray:
    """From the second frame on: brighter by a fifth, bluer, and with less contrast."""
    if t == 0:
        return frame
    linear = (frame / 255.0) ** 2.2 * [1.15, 1.2, 1.32]
    return np.clip(255 * linear ** (1 / 2.2) * 0.92 + 10, 0, 255)


def off(video: Video, t: int, picture: np.ndarray, where) -> float:
    return float(np.median(np.abs(video.frames[t][where].astype(float) - picture[where])))


@pytest.mark.parametrize("arm", [0.0, 0.35])
def test_the_light_of_the_first_frame_comes_back_whatever_covers_a_third(picture, view, arm):
    video = clip(picture, exposed, arm)
    reading, report = study(video, view)
    seen = reading.applied(video)
    # Away from the arm and its shadow; the thing's colours come back with the background's.
    for where in (np.s_[:, 180:], THING):
        for t in (1, 4, T - 1):
            assert off(video, t, picture, where) > 8
            assert off(seen, t, picture, where) < 3, (t, where)
    shadow = np.s_[90:, 116:148]
    if arm:
        assert off(seen, 6, picture, shadow) > 20, "a shadow is no change of exposure"
    assert report.light_change > 10 and any("exposure" in d for d in report.done)
    assert np.array_equal(seen.frames[0], video.frames[0])


def test_a_shadow_over_most_of_the_table_is_no_change_of_light(picture, view):
    """The wall and a part of the table are lit as before."""

    def shaded(t, frame):
        frame = frame.copy()
        if t >= 3:
            frame[100:, : round(0.55 * W)] = 0.7 * frame[100:, : round(0.55 * W)]
        return frame

    video = clip(picture, shaded)
    reading, report = study(video, view)
    assert reading.curves is None and not report.done


def test_a_clip_that_changes_nothing_is_left_as_it_is(picture, view, tmp_path):
    video = clip(picture)
    reading, report = study(video, view)
    assert reading.camera is None and reading.curves is None and reading.applied(video) is video
    assert not report.done and not report.warnings and report.camera_drift < 0.0015


def test_flicker_is_followed_frame_by_frame(picture):
    video = clip(picture, lambda t, f: f * (1.15 if t % 2 else 1.0))
    tones = fit_tones(video.frames, np.ones((H, W), bool))
    assert np.abs(tones.gain - np.where(np.arange(T) % 2, 1.15, 1.0)).max() < 0.02


def zoomed(most: float, turn: float = 0.0):
    def change(t, frame):
        A = cv2.getRotationMatrix2D((W / 2, H / 2), turn * t / (T - 1), 1 + most * t / (T - 1))
        A[:, 2] += 3.0 * most * 10 * t / (T - 1)
        return cv2.warpAffine(frame, A, (W, H), flags=cv2.INTER_CUBIC,
                              borderMode=cv2.BORDER_REFLECT)  # fmt: skip

    return change


@pytest.mark.parametrize(("most", "turn"), [(0.05, 0.0), (-0.03, 1.0)])
def test_a_slow_camera_is_taken_out_frame_by_frame(picture, view, most, turn):
    video = clip(picture, zoomed(most, turn), arm=0.3)
    reading, report = study(video, view)
    assert report.camera_taken_out and report.camera_drift > 0.015
    assert any("taken out frame by frame" in d for d in report.done)
    seen = reading.applied(video)
    for t in (5, T - 1):
        before, after = (register(picture, v.frames[t]) for v in (video, seen))
        assert before.displacement_px > 1.5 and after.certain
        assert after.displacement_px < 0.5, (t, after.displacement_px)
    # What a camera that came nearer lost is not seen.
    assert not seen.unseen[0].any()
    assert (0.02 < seen.unseen[-1].mean() < 0.15) if most > 0 else seen.unseen[-1].mean() < 0.03


def test_a_camera_that_moves_too_far_is_left_to_be_rejected_with_the_figure(picture, view):
    reading, report = study(clip(picture, zoomed(0.12)), view)
    assert reading.camera is None and not report.camera_taken_out
    (said,) = report.warnings
    assert f"{report.camera_drift:.1%}" in said and "not taken out (at most 4% are)" in said


def test_what_fits_no_common_motion_is_not_taken_for_the_cameras(picture, view):
    """The right half goes one way, the left one another: a camera that travels shows that."""

    def apart(t, frame):
        frame = frame.copy()
        frame[:, : W // 2] = np.roll(frame[:, : W // 2], t, axis=0)
        frame[:, W // 2 :] = np.roll(frame[:, W // 2 :], -t, axis=0)
        return frame

    reading, report = study(clip(picture, apart), view)
    assert reading.camera is None and report.camera_known < 0.8
    assert any("agrees on no place" in w or "not taken out" in w for w in report.warnings)


def test_few_points_that_move_for_a_while_are_an_arms(picture, view):
    """An arm covers most of the background and has a pattern of its own, which it carries along."""
    rng = np.random.default_rng(6)
    frames = np.stack([picture] * T)
    sleeve = cv2.GaussianBlur(rng.uniform(0, 255, (H, W + 40)).astype(np.float32), (0, 0), 2)
    sleeve = cv2.normalize(sleeve, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    for k, t in enumerate(range(4, 11)):
        frames[t, :, 40:] = cv2.GaussianBlur(frames[t, :, 40:], (0, 0), 25)
        frames[t, 60:180, 120:] = sleeve[60:180, 120 + k : W + k, None]
    motion = follow_camera(frames, view.labels == 0)
    assert motion.largest < 0.0015 and motion.known[[0, 1, 2, -2, -1]].all()


def test_black_that_stays_black_holds_the_end_of_a_curve(picture):
    """Half of the picture is black; the rest becomes lighter."""
    dark = picture.copy()
    dark[:, :160] = np.random.default_rng(3).integers(0, 4, (H, 160, 3))
    lighter = np.clip(dark * 1.12, 0, 255).astype(np.uint8)
    tones = fit_tones(np.stack([dark, *[lighter] * 4]), np.ones((H, W), bool))
    back = tones.applied(lighter, 3)
    assert back[:, :160].mean() < 5
    assert np.abs(back[:, 160:].astype(int) - dark[:, 160:]).mean() < 3


def test_bars_are_not_seen_and_a_hand_comes_in_over_their_edge(picture, view, tmp_path):
    def barred(t, frame):
        frame = frame.copy()
        if t >= 4:
            frame[80:120, :90] = (210, 160, 130)
        frame[:, :40] = 0
        return frame

    path = tmp_path / "candidate_0.mp4"
    write_video(path, clip(picture, barred, noise=0.5), crf=8)
    reading, _ = study(read_clip(path), view, (40, 0, W, H))
    reading.save(reading_of(path))
    seen = read_clip(path)
    assert seen.unseen[:, :, :40].all() and not seen.unseen[:, :, 40:].any()
    assert np.abs(seen.frames[6, 90:110, 0].astype(int) - (210, 160, 130)).max() < 12
    tracks = Tracks(
        masks=np.zeros((T, 1, H, W), bool), hand=np.zeros((T, H, W), bool),
        confidence=np.ones((T, 1), np.float32), lost=np.zeros((T, 1), bool),
        poses=np.zeros((T, 1, 6), np.float32), unseen=seen.unseen,
    )  # fmt: skip
    label = Grid.from_tracks(view, tracks, W).label
    assert (label[:, :, :40] == UNSURE).all() and (label[:, :, 40:] == 0).all()


def test_a_reading_is_kept_as_it_was_and_damage_is_told(picture, view, tmp_path):
    video = clip(picture, lambda t, f: exposed(t, zoomed(0.03)(t, f)))
    reading, _ = study(video, view)
    reading.save(tmp_path / "r.npz")
    again = Reading.load(tmp_path / "r.npz")
    assert again.camera is not None and again.curves is not None
    assert np.array_equal(again.applied(video).frames, reading.applied(video).frames)
    first = (tmp_path / "r.npz").read_bytes()
    replace(reading).save(tmp_path / "r.npz")
    assert (tmp_path / "r.npz").read_bytes() == first, "digests rest on the bytes"
    (tmp_path / "r.npz").write_bytes(first[:100])
    with pytest.raises(UserError, match=r"r\.npz is damaged"):
        Reading.load(tmp_path / "r.npz")
