"""Intake: any file becomes a clip on the task's grid, and what was done to it is said."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lucibot.core.camera import Camera
from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.similarity import scene_similarity
from lucibot.core.video import Video, write_video
from lucibot.task import load_task
from lucibot.vision.footage import Footage
from lucibot.vision.intake import IntakeConfig, take_in
from lucibot.vision.mirrored import turning_point
from lucibot.vision.placement import black_bars, fit_to_camera
from lucibot.vision.registration import enlarged, register
from lucibot.vision.start import Refused

FPS = 6


@pytest.fixture(scope="module")
def scene(tmp_path_factory, small_task):
    from lucibot.providers.renderer import RasterRenderer
    from lucibot.stages.scene import build_view

    folder = tmp_path_factory.mktemp("task") / "cut_dough"
    task = small_task("cut_dough", folder, width=320, height=240, fps=FPS)
    return task, build_view(task, RasterRenderer(samples=1).create())


def write(path, frames, *, fps=12, codec="libx264", pix_fmt="yuv420p", times=None, options=None,
          aspect=None, rotation=None, flip=False, source="rgb24", tag=None,
          container_options=None):  # fmt: skip
    """Encode frames (n, h, w, 3) as a file with what real ones have."""
    frames = np.asarray(frames)
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.options = {"crf": "10"} if codec == "libx264" else {}
        stream.options = {**stream.options, **(options or {})}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=flip)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for k, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=source)
            if tag:
                frame = tag(frame)
            if times is not None:
                frame.pts, frame.time_base = round(times[k] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def still(view, frames: int) -> np.ndarray:
    return np.repeat(view.first_frame[None], frames, 0)


def marked(view, frames: int) -> np.ndarray:
    """The scene, with a bright square that is a step further on in each frame."""
    out = still(view, frames)
    for k in range(frames):
        out[k, 4:16, 8 + 12 * k : 20 + 12 * k] = (250, 40, 40)
    return out


def marks(video: Video) -> list[int]:
    """Which step of `marked` each frame shows."""
    strip = video.frames[:, 6:14].astype(int)
    red = (strip[..., 0] - strip[..., 1]).mean(1)
    return [round(float(np.flatnonzero(r > 100).mean() - 13.5) / 12) for r in red]


def differs(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


# ---- what containers say of their pictures


def test_a_file_of_another_size_and_rate_is_fitted(scene, tmp_path):
    task, view = scene
    big = cv2.resize(view.first_frame, (640, 480), interpolation=cv2.INTER_CUBIC)
    write_video(tmp_path / "in.mp4", Video(frames=np.repeat(big[None], 24, 0), fps=12))
    video, report = take_in(tmp_path / "in.mp4", task, view)
    assert video.frames.shape == (12, 240, 320, 3) and video.fps == FPS
    assert min(scene_similarity(video.frames[0], view).values()) > 0.95
    assert report.source_fps == 12 and report.frames == 12 and report.registered
    assert any("resampled from 12 to 6" in d for d in report.done) and not report.warnings


@pytest.mark.parametrize(
    ("rotation", "flip"), [(90, False), (-90, False), (180, False), (90, True)]
)
def test_a_rotated_file_is_turned_upright(scene, tmp_path, rotation, flip):
    task, view = scene
    stored = np.rot90(view.first_frame, -rotation // 90)
    if flip:
        # The container turns, then mirrors.
        stored = np.rot90(view.first_frame[:, ::-1], -rotation // 90)
    path = write(tmp_path / "r.mp4", np.repeat(stored[None], 12, 0), rotation=rotation, flip=flip)
    video, report = take_in(path, task, view)
    assert differs(video.frames[0], view.first_frame) < 4
    assert any("as the container asks" in d for d in report.done) and not report.corrected


def test_pixels_that_are_not_square_are_made_so(scene, tmp_path):
    task, view = scene
    narrow = cv2.resize(view.first_frame, (240, 240), interpolation=cv2.INTER_AREA)
    path = write(tmp_path / "a.mp4", np.repeat(narrow[None], 12, 0), aspect=Fraction(4, 3))
    video, report = take_in(path, task, view)
    assert differs(video.frames[0], view.first_frame) < 5
    assert report.pixel_aspect == pytest.approx(4 / 3) and report.valid == (0, 0, 320, 240)


def test_each_output_frame_is_the_one_shown_at_its_time(scene, tmp_path):
    """A file of variable rate: frame k comes on when it says, not after k mean intervals."""
    task, view = scene
    times = [0.0, 0.1, 0.2, 0.3, 1.2, 1.3, 2.2, 2.3, 2.4, 2.5]
    path = write(tmp_path / "v.mkv", marked(view, 10), times=times, options={"bf": "0"})
    video, report = take_in(path, task, view)
    want = [
        int(np.searchsorted(times, k / FPS + 0.05, side="right")) - 1 for k in range(len(video))
    ]
    assert marks(video) == want and report.variable_rate
    assert len(video) == pytest.approx(2.6 * FPS, abs=1)


def test_resampling_keeps_the_first_frame_and_the_duration(scene, tmp_path):
    task, view = scene
    path = write(tmp_path / "f.mp4", marked(view, 24), fps=24)
    video, _ = take_in(path, task, view)
    assert marks(video) == [0, 4, 8, 12, 16, 20]


def test_a_cover_picture_is_not_the_video(scene, tmp_path):
    task, view = scene
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 640, 640, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        art = av.VideoFrame.from_ndarray(np.full((640, 640, 3), 200, np.uint8), format="rgb24")
        container.mux(cover.encode(art))
        for image in still(view, 12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    video, report = take_in(path, task, view)
    assert report.codec == "h264" and len(video) == 6
    assert any("passed over" in d for d in report.done)


def colour_chart() -> np.ndarray:
    """(96, 128, 3) patches that any mistake of range or matrix changes by 5 or more."""
    colours = [
        (235, 20, 20),
        (20, 200, 40),
        (30, 40, 220),
        (250, 250, 250),
        (4, 4, 4),
        (200, 160, 30),
    ]
    chart = np.zeros((96, 128, 3), np.uint8)
    for k, c in enumerate(colours):
        chart[48 * (k // 3) : 48 * (k // 3 + 1), 42 * (k % 3) : 42 * (k % 3) + 44] = c
    return chart


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("matrix", "space"), [("BT.601", 5), ("BT.709", 1)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_colours_come_out_as_they_went_in(tmp_path, full, matrix, space, pix_fmt):
    chart = colour_chart()

    def tag(frame):
        out = frame.reformat(format=pix_fmt, dst_colorspace=space, dst_color_range=2 if full else 1)
        out.colorspace, out.color_range = {5: 6, 1: 1}[space], 2 if full else 1
        return out

    options = {"crf": "1", "x264-params": f"fullrange={'on' if full else 'off'}:"
               f"colormatrix={'bt709' if space == 1 else 'smpte170m'}"}  # fmt: skip
    path = write(tmp_path / "c.mp4", [chart] * 3, pix_fmt=pix_fmt, options=options, tag=tag)
    footage = Footage(path)
    image = next(iter(footage)).read()
    assert footage.facts.matrix == matrix and footage.facts.full_range == full
    inner = cv2.erode(np.ones(chart.shape[:2], np.uint8), np.ones((3, 3))) > 0
    for y in (0, 48):
        for x in (0, 42, 84):
            patch = np.s_[y + 8 : y + 40, x + 8 : x + 34]
            assert differs(image[patch], chart[patch]) < 2.5 and inner[patch].all()


def test_transparent_pictures_are_laid_on_black_and_it_is_said(scene, tmp_path):
    task, view = scene
    alpha = np.full((240, 320, 1), 255, np.uint8)
    alpha[:, :40] = 0
    rgba = np.concatenate([view.first_frame, alpha], -1)
    path = write(tmp_path / "a.mov", [rgba] * 12, codec="qtrle", pix_fmt="argb", source="rgba")
    video, report = take_in(path, task, view)
    assert (video.frames[0, :, :39] == 0).all()
    assert differs(video.frames[0, :, 41:], view.first_frame[:, 41:]) < 1
    assert any("alpha" in w for w in report.warnings)


def test_interlaced_pictures_are_parted(tmp_path):
    """Two moments lie in one picture: a bright box has moved from one field to the other."""
    frames = np.zeros((6, 96, 128, 3), np.uint8)
    frames[:, 30:60, 20:50] = 220
    frames[:, 1::2] = 0
    frames[:, 31:60:2, 60:90] = 220
    path = write(
        tmp_path / "i.mp4", frames, options={"x264-params": "tff=1:interlaced=1", "crf": "5"}
    )
    footage = Footage(path)
    image = next(iter(footage)).read()
    assert footage.facts.interlaced
    assert image[35:55, 25:45].min() > 180 and image[35:55, 65:85].max() < 60


# ---- where the scene lies


def test_what_is_thinner_than_a_coarse_pixel_is_compared():
    floor = np.full((720, 1280, 3), 150, np.uint8)
    first, labels = floor.copy(), np.zeros((720, 1280), np.uint8)
    labels[300:303, 500:800], labels[600:602, 100:102] = 1, 2
    first[labels > 0] = (200, 30, 30)
    camera = Camera.look_at(position=(0, -1, 1), target=(0, 0, 0), vertical_fov_deg=45,
                            width=1280, height=720)  # fmt: skip
    depth = np.ones((720, 1280), np.float32)
    view = SceneView(camera=camera, names=("stick", "crumb"), first_frame=first, depth_m=depth,
                     background_frame=None, labels=labels, background_depth_m=depth)  # fmt: skip
    # The crumb is so small that nothing of it stands out: it tells nothing, either way.
    assert scene_similarity(first, view) == pytest.approx({"stick": 1.0}, abs=1e-3)
    assert scene_similarity(floor, view)["stick"] < 0.5


@pytest.mark.parametrize("times", [2.5, 3])
def test_a_map_between_small_pictures_is_enlarged_about_their_corners(times):
    """Not about the middle of their first pixels, which is where the numbers begin."""
    small = np.array([[1.04, -0.03, 2.0], [0.03, 1.04, -1.0]])
    at = np.array([[-0.5, -0.5], [10, 20], [300, 100]])
    there = at @ small[:, :2].T + small[:, 2]
    large = enlarged(small, times)
    np.testing.assert_allclose(
        (times * (at + 0.5) - 0.5) @ large[:, :2].T + large[:, 2], times * (there + 0.5) - 0.5
    )


@pytest.mark.parametrize(("dx", "dy", "scale", "turn"), [(7, 0, 1, 0), (-3.4, 2.6, 1, 0),
                                                         (2, 1, 1.03, 1.0), (0, 0, 0.98, -1.0)])  # fmt: skip
def test_a_displaced_scene_is_found_in_another_style_and_taken_out(
    scene, tmp_path, dx, dy, scale, turn
):
    task, view = scene
    h, w = view.labels.shape
    A = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), -turn, scale)
    A[:, 2] += (dx, dy)
    rng = np.random.default_rng(0)
    image = cv2.warpAffine(view.first_frame, A, (w, h)).astype(float) / 255
    image = np.clip((image**1.3 * 0.85 * 255 + 10) * [1.05, 1, 0.9], 0, 255)
    found = register(view.first_frame, np.clip(image + rng.normal(size=image.shape) * 5, 0, 255)
                     .astype(np.uint8))  # fmt: skip
    assert found.certain
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1.0]])
    assert np.abs(corners @ (found.A - A).T).max() < 0.6
    path = write(tmp_path / "d.mp4", [image.astype(np.uint8)] * 12)
    video, report = take_in(path, task, view)
    assert report.corrected and any("is taken out" in d for d in report.done)
    assert report.registration["displacement_px"] > 1.5
    after = register(view.first_frame, video.frames[0])
    assert after.certain and after.displacement_px < 0.5
    x0, y0, x1, y1 = report.valid
    # A scene that is drawn smaller leaves nothing out.
    assert ((x1 - x0) * (y1 - y0) < w * h) == (scale >= 1) and x1 - x0 > 0.85 * w
    if (dx, dy) == (7, 0):
        # Whole pixels: nothing is resampled, and the border goes on over what is not known.
        assert report.valid == (0, 0, w - 7, h)
        assert (video.frames[0, :, w - 7 :] == video.frames[0, :, w - 8 : w - 7]).all()


def test_what_lies_where_it_should_is_left_alone(scene, tmp_path):
    task, view = scene
    _, report = take_in(write(tmp_path / "s.mp4", still(view, 12)), task, view)
    assert report.registered and not report.corrected and not report.done[1:]
    assert report.registration["displacement_px"] < 0.3


def test_a_scene_that_lies_too_far_off_is_refused_with_the_figure(scene, tmp_path):
    task, view = scene
    moved = np.roll(still(view, 12), 28, axis=2)
    moved[:, :, :28] = moved[:, :, 28:29]
    with pytest.raises(UserError, match=r"elsewhere: 2[78]\.\d pixels to the right") as e:
        take_in(write(tmp_path / "far.mp4", moved), task, view)
    assert differs(e.value.picture, moved[0]) < 4, "it is shown as it lies"


def test_another_scene_agrees_on_nothing(scene):
    _, view = scene
    assert not register(view.first_frame, view.first_frame[::-1]).certain
    noise = np.random.default_rng(0).integers(0, 255, view.first_frame.shape, dtype=np.uint8)
    assert not register(view.first_frame, noise).certain


def test_a_likeness_that_cannot_be_placed_to_the_pixel_is_accepted_with_a_word(scene, tmp_path):
    task, view = scene
    soft = cv2.GaussianBlur(view.first_frame, (0, 0), 9)
    for name in view.names:
        # Objects stand, the rest of the picture is another one.
        keep = cv2.dilate(view.mask(name).astype(np.uint8), np.ones((25, 25))) > 0
        soft[keep] = view.first_frame[keep]
    _, report = take_in(write(tmp_path / "l.mp4", [soft] * 12), task, view)
    assert not report.registered
    assert any("could not be measured" in w for w in report.warnings)


# ---- aspects and bars


def test_another_aspect_gets_bars_and_the_same_one_none(scene):
    task, _ = scene
    wide = np.full((120, 480, 3), 200, np.uint8)
    out = fit_to_camera(wide, task.camera)
    assert (out[:79] == 0).all() and (out[161:] == 0).all() and (out[82:158] > 190).all()
    assert (fit_to_camera(np.full((241, 320, 3), 200, np.uint8), task.camera) > 190).all()


def test_black_bars_of_the_file_are_taken_off(scene, tmp_path):
    """A scene with bars all round: it was fitted to one aspect and then to another."""
    task, view = scene
    wide = np.zeros((320, 426, 3), np.uint8)
    wide[30:270, 53:373] = view.first_frame
    assert black_bars(wide) == (53, 30, 53, 50)
    video, report = take_in(write(tmp_path / "b.mp4", [wide] * 12), task, view)
    assert differs(video.frames[0], view.first_frame) < 4
    assert any("black bars are taken off" in d for d in report.done)


def test_a_wide_picture_of_the_scene_is_cropped_or_squeezed_as_it_shows_it(scene, tmp_path):
    task, view = scene
    squeezed = cv2.resize(view.first_frame, (426, 240), interpolation=cv2.INTER_CUBIC)
    video, report = take_in(write(tmp_path / "q.mp4", [squeezed] * 12), task, view)
    assert differs(video.frames[0], view.first_frame) < 4
    assert any("squeezed" in d for d in report.done)
    extended = cv2.copyMakeBorder(view.first_frame, 0, 0, 53, 53, cv2.BORDER_REFLECT)
    video, report = take_in(write(tmp_path / "e.mp4", [extended] * 12), task, view)
    assert differs(video.frames[0], view.first_frame) < 5
    assert any("sides are cropped" in d for d in report.done)


# ---- where a clip starts and ends


def test_the_first_good_frame_is_taken_and_it_is_said(scene, tmp_path):
    task, view = scene
    fade = still(view, 24) * np.clip(np.arange(24) / 8, 0, 1)[:, None, None, None]
    black = still(view, 24) * (np.arange(24) > 0)[:, None, None, None]
    title = still(view, 24)
    title[:10] = title[:10, ::-1]
    cases = {"fade": (fade, 8), "black": (black, 1),
             "title": (title, 10)}  # fmt: skip
    for name, (frames, first) in cases.items():
        path = write(tmp_path / f"{name}.mp4", frames.astype(np.uint8))
        video, report = take_in(path, task, view)
        assert report.start_s == pytest.approx(first / 12, abs=1e-3), name
        assert differs(video.frames[0], view.first_frame) < 5
        assert any(f"starts at {first / 12:.2f} s" in d for d in report.done), report.done


def test_a_clip_whose_contrast_rises_later_starts_with_its_first_frame(scene, tmp_path):
    """As many video models draw: the first frame is the picture that they were given."""
    task, view = scene
    rise = 1 + 0.3 * np.clip(np.arange(24) / 12, 0, 1)[:, None, None, None]
    frames = still(view, 24).astype(np.float32)
    middle = frames.mean((1, 2, 3), keepdims=True)
    frames = np.clip(middle + rise * (frames - middle), 0, 255).astype(np.uint8)
    _, report = take_in(write(tmp_path / "rise.mp4", frames), task, view)
    assert report.start_s == 0 and not any("starts at" in d for d in report.done)


def test_fades_and_flicker_are_told_and_a_fade_out_ends_the_clip(scene, tmp_path):
    task, view = scene
    there = reach(view, [*range(20), *range(20, 0, -1)], done_at=20).astype(float)
    n = len(there)
    t = np.arange(n)
    middle = 1 - 0.85 * np.exp(-(((t - 18) / 2.0) ** 2))
    end = np.clip((n - 3 - t) / 8, 0, 1)
    flicker = 1 + 0.06 * (t % 2)
    cases = {"plain": 1 + 0 * t, "middle": middle, "end": end, "flicker": flicker}
    for name, light in cases.items():
        frames = np.clip(there * light[:, None, None, None], 0, 255).astype(np.uint8)
        video, report = take_in(write(tmp_path / f"{name}.mp4", frames), task, view)
        words = " ".join(report.warnings)
        assert ("it fades from 1." in words) == (name == "middle"), (name, words)
        assert ("it fades out from" in words) == (name == "end"), (name, words)
        assert ("it flickers" in words) == (name == "flicker"), (name, words)
        if name == "middle":
            ((a, b, least),) = report.fades_s
            assert 1.1 < a < 1.5 < b < 2.0 and least < 0.4
        if name == "end":
            assert 2.3 < report.fades_out_s < 2.8
            assert video.duration_s == pytest.approx(report.fades_out_s, abs=0.2)
            assert video.frames[-1].mean() > 0.8 * video.frames[0].mean()
        else:
            assert video.duration_s == pytest.approx(n / 12, abs=0.1)
        assert bool(report.flicker) == (name == "flicker")


def reach(view, steps, done_at=None) -> np.ndarray:
    """A hand that reaches as far into the picture as `steps` say; from `done_at` on a thing that it
    left stays."""
    out = still(view, len(steps))
    for k, far in enumerate(steps):
        out[k, 100:140, : 20 + 4 * far] = (210, 160, 130)
        if done_at is not None and k >= done_at:
            out[k, 60:80, 150:190] = (20, 20, 20)
    return out


@pytest.mark.parametrize("fps", [6, 12, 24])
def test_a_clip_that_runs_backwards_is_cut_where_it_turns(scene, tmp_path, fps):
    task, view = scene
    there = reach(view, range(3 * fps))
    back = np.concatenate([there, there[::-1]])
    video, report = take_in(write(tmp_path / "b.mp4", back, fps=fps), task, view)
    assert video.duration_s == pytest.approx(3.0, abs=0.2)
    assert any(re.search(r"runs backwards from (2\.[89]|3\.0)", w) for w in report.warnings)


def test_a_hand_that_comes_and_goes_does_not_run_backwards(scene):
    """The way out is the way in, and what it has done remains."""
    _, view = scene

    def sketches(frames):
        return np.stack([
            cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (64, 48), interpolation=cv2.INTER_AREA)
            for f in frames
        ])  # fmt: skip

    steps = [min(k, 39 - k) for k in range(40)]
    assert turning_point(sketches(reach(view, steps)), 10) in (19, 20)
    assert turning_point(sketches(reach(view, steps, done_at=20)), 10) is None
    assert turning_point(sketches(still(view, 40)), 10) is None
    rng = np.random.default_rng(0)
    noisy = still(view, 40) + rng.normal(size=(40, *view.first_frame.shape)) * 12
    assert turning_point(sketches(np.clip(noisy, 0, 255).astype(np.uint8)), 10) is None


def test_memory_does_not_grow_with_the_file(scene, tmp_path):
    """Two minutes at 50 frames a second are read as far as they are used, picture by picture."""
    import tracemalloc

    task, view = scene
    small = cv2.resize(view.first_frame, (64, 48), interpolation=cv2.INTER_AREA)
    path = write(tmp_path / "long.mp4", np.repeat(small[None], 6000, 0), fps=50,
                 options={"preset": "ultrafast"})  # fmt: skip
    config = IntakeConfig(longest_s=8.0, least_similarity=0.3)
    tracemalloc.start()
    try:
        video, report = take_in(path, task, view, config)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(video) == 8 * FPS and report.source_frames < 9 * 50
    assert peak < 2.5 * video.frames.nbytes
    assert any("--intake.longest-s" in w for w in report.warnings)


# ---- what is refused, and why


def test_videos_that_cannot_serve_are_refused_with_one_line(scene, tmp_path):
    task, view = scene
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    write_video(tmp_path / "short.mp4", Video(frames=still(view, 4), fps=10))
    write_video(tmp_path / "upside_down.mp4", Video(frames=still(view, 10)[:, ::-1], fps=10))
    write_video(tmp_path / "black.mp4", Video(frames=still(view, 10) * 0, fps=10))
    cv2.imwrite(str(tmp_path / "one.png"), view.first_frame)
    write_sound(tmp_path / "sound.mp4")
    whole = write(tmp_path / "whole.mp4", still(view, 24)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    cases = {
        "missing.mp4": "no such video", "text.mp4": "is no video", "empty.mp4": "is empty",
        "folder.mp4": "is a folder", "sound.mp4": "no video stream, only sound",
        "one.png": "is one picture", "short.mp4": r"lasts 0\.40 s.*at least 0\.5 s",
        "upside_down.mp4": "does not start with the scene", "black.mp4": "nothing is seen",
        "cut.mp4": "cut off before its index",
    }  # fmt: skip
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            take_in(tmp_path / name, task, view)
        assert "\n" not in str(error.value) and name in str(error.value)
        # What can be seen is there to be shown.
        shows = name in ("upside_down.mp4", "black.mp4")
        assert isinstance(error.value, Refused) == shows
        if shows:
            wanted = view.first_frame[::-1] if name == "upside_down.mp4" else 0 * view.first_frame
            assert differs(error.value.picture, wanted) < 6


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 44100), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_a_damaged_end_is_cut_off_and_said(scene, tmp_path):
    task, view = scene
    rng = np.random.default_rng(0)
    grainy = np.clip(still(view, 36) + rng.normal(size=(36, 240, 320, 3)) * 10, 0, 255)
    path = write(tmp_path / "g.mp4", grainy.astype(np.uint8),
                 options={"crf": "20"},
                 container_options={"movflags": "faststart"})  # fmt: skip
    data = bytearray(path.read_bytes())
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])
    for k in range(len(data) * 6 // 10, len(data), 40):
        data[k] ^= 0xFF
    (tmp_path / "bits.mp4").write_bytes(data)
    for name, words in (("cut.mp4", "damaged"), ("bits.mp4", "damaged")):
        video, report = take_in(tmp_path / name, task, view)
        assert 1.0 < video.duration_s < 2.5
        assert any(words in w and "of 3.00 s" in w for w in report.warnings), report.warnings


@pytest.mark.parametrize(("name", "shows"), [("stack_cups", True), ("rubber_band", False)])
def test_real_first_frames_are_told_apart(name, shows, shared_video):
    from lucibot.providers.renderer import RasterRenderer
    from lucibot.stages.scene import build_view

    task = load_task("stack_cups")
    view = build_view(task, RasterRenderer(samples=1).create())
    frame = next(iter(Footage(shared_video(f"{name}.mp4")))).read()
    similarity = min(scene_similarity(fit_to_camera(frame, task.camera), view).values())
    assert (similarity >= IntakeConfig().least_similarity) == shows
