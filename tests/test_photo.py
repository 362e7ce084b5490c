"""A real scene's photo as the first frame, through a camera whose picture was cut out of a larger one."""

import re
import shutil

import cv2
import numpy as np
import pytest

from lucibot.cli import main
from lucibot.core.camera import Camera
from lucibot.core.errors import UserError
from lucibot.core.scene_view import SceneView
from lucibot.core.video import Video
from lucibot.providers.renderer import MitsubaRenderer, PhotoRenderer, RasterRenderer
from lucibot.providers.tracker import EmbeddedTracker
from lucibot.providers.video.storyboard.scenery import Scenery
from lucibot.stages.scene import build_view, chosen_renderer
from lucibot.task import load_task, tasks_folder
from lucibot.vision.regions import classify

SIZE = (320, 240)


def test_a_picture_cut_out_of_another_sees_the_same_pixels():
    """The left half of a picture is a camera's whose axis lies at that half's right edge."""
    place = {"position": (0.1, -0.5, 0.4), "target": (0, 0, 0.05)}
    whole = Camera.look_at(**place, vertical_fov_deg=45, width=320, height=240)
    half = Camera.look_at(
        **place, vertical_fov_deg=45, width=160, height=240, principal_point=(1.0, 0.5)
    )
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (50, 3))
    assert np.allclose(whole.project(points)[0], half.project(points)[0])
    assert np.allclose(half.rays, whole.rays[:, :160])
    assert np.allclose(half.resized(80, 120).project(points)[0], 0.5 * half.project(points)[0])


@pytest.mark.parametrize("principal_point", [(0.5, 0.5), (0.3, 0.6), (0.7, 0.45), (1.0, 0.0)])
def test_a_centred_camera_holds_the_picture(principal_point):
    camera = Camera.look_at(
        position=(0, -0.5, 0.4), target=(0, 0, 0), vertical_fov_deg=45, width=160, height=120,
        principal_point=principal_point,
    )  # fmt: skip
    centred, (x, y) = camera.centred()
    assert x + 160 <= centred.width and y + 120 <= centred.height
    assert (centred.cx, centred.cy) == (centred.width / 2, centred.height / 2)
    point = np.array([[0.02, 0.03, 0.04]])
    assert np.allclose(camera.project(point)[0] + [x, y], centred.project(point)[0], atol=0.51)


def _twin(folder, *, background: bool = True, photo_size=SIZE):
    """A copy of a shipped task whose first frame is a photo: drawn by another renderer, brighter, and
    larger than the camera's picture."""
    shutil.copytree(tasks_folder() / "stack_cups", folder)
    text = (folder / "task.toml").read_text()
    for key, value in zip(("width", "height"), SIZE, strict=True):
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
    head, _, rest = text.partition("[camera]\n")
    named = 'photo = "assets/photo.png"\n'
    if background:
        named += 'photo_background = "assets/empty.png"\n'
    text = f"{head}[camera]\nprincipal_point = [0.45, 0.52]\n{rest}"
    (folder / "task.toml").write_text(text)
    drawn = build_view(load_task(folder), RasterRenderer(samples=1).create())
    large = tuple(2 * n for n in photo_size)
    for name, picture in (("photo", drawn.first_frame), ("empty", drawn.background_frame)):
        bright = np.clip(picture.astype(float) * 1.1, 0, 255).astype(np.uint8)
        cv2.imwrite(
            str(folder / f"assets/{name}.png"),
            cv2.resize(bright, large, interpolation=cv2.INTER_NEAREST)[..., ::-1],
        )
    (folder / "task.toml").write_text(text.replace("[camera]\n", f"[camera]\n{named}"))
    return load_task(folder), drawn


def test_a_photo_is_the_first_frame(tmp_path):
    task, drawn = _twin(tmp_path / "twin")
    assert isinstance(chosen_renderer(task, None), PhotoRenderer)
    assert isinstance(chosen_renderer(load_task("stack_cups"), None), MitsubaRenderer)
    assert chosen_renderer(task, RasterRenderer()) == RasterRenderer()
    view = build_view(task, chosen_renderer(task, None).create())
    assert view.first_frame.shape == drawn.first_frame.shape
    expected = np.clip(drawn.first_frame.astype(float) * 1.1, 0, 255)
    assert np.abs(view.first_frame - expected).mean() < 2
    assert np.array_equal(view.labels, drawn.labels)
    before = task.digest_of("scene")
    picture = cv2.imread(str(task.path("assets/photo.png")))
    picture[0, 0] ^= 1
    cv2.imwrite(str(task.path("assets/photo.png")), picture)
    assert load_task(tmp_path / "twin").digest_of("scene") != before


def test_nobody_needs_a_photo_of_the_empty_scene_but_the_storyboard(tmp_path):
    task, _ = _twin(tmp_path / "twin", background=False)
    renderer = PhotoRenderer().create()
    view = build_view(task, renderer)
    assert view.background_frame is None and "without its objects" in renderer.notes[0]
    view.save(tmp_path / "view")
    assert SceneView.load(tmp_path / "view").background_frame is None
    video = Video(frames=np.repeat(view.first_frame[None], 4, 0), fps=20.0)
    tracks = EmbeddedTracker().create().track(task, view, video)
    for i in range(2):
        overlap = tracks.masks[-1, i] & (view.labels == i + 1)
        union = tracks.masks[-1, i] | (view.labels == i + 1)
        assert overlap.sum() > 0.9 * union.sum()
    regions = classify(view, video, width=160, step=1)
    small = cv2.resize(view.labels, (160, 120), interpolation=cv2.INTER_NEAREST)
    assert np.array_equal(regions.labels[-1], small)
    with pytest.raises(UserError, match="photo_background"):
        Scenery(task, view)


def test_a_photo_of_another_shape_or_none_is_refused(tmp_path):
    task, _ = _twin(tmp_path / "wide", photo_size=(320, 160))
    with pytest.raises(UserError, match="640x320 pixels, another shape than the camera's 320x240"):
        build_view(task, PhotoRenderer().create())
    with pytest.raises(UserError, match="has no photo"):
        build_view(load_task("stack_cups"), PhotoRenderer().create())
    (tmp_path / "wide" / "assets" / "photo.png").write_text("no picture")
    with pytest.raises(UserError, match="no picture that can be read"):
        build_view(task, PhotoRenderer().create())
    assert main(["run", str(tmp_path / "wide"), "--out", str(tmp_path), "--until", "scene"]) == 2
