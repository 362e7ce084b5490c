"""The first frame: aligned to the pixel with the observer, lit, and the twin of a real video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lucibot.core.errors import RunFailed
from lucibot.core.scene_view import SceneView
from lucibot.providers.renderer import MitsubaRenderer, RasterRenderer
from lucibot.providers.renderer.denoise import denoise
from lucibot.providers.renderer.surfaces import corner_normals, look_through, task_surfaces
from lucibot.stages.scene import build_view
from lucibot.task import load_task

TASKS = ["cut_dough", "stack_cups"]
VIDEO = Path(__file__).resolve().parents[2] / "shared" / "videos" / "stack_cups.mp4"


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def traced():
    """One light path a pixel: geometry needs no more."""
    config = MitsubaRenderer(spp=1, max_depth=2, variant="scalar_rgb")
    return {n: config.create().trace(load_task(n), foreground=True) for n in TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_ray_traced_masks_and_depth_match_the_observer(name, traced):
    task, found = load_task(name), traced[name]
    labels, depth, _ = look_through(task_surfaces(task, foreground=True), task.camera)
    for o in task.objects:
        label = task.label(o.name)
        assert iou(found.labels == label, labels == label) >= 0.98, o.name
    same = found.labels == labels
    error = np.abs(found.depth_m - depth)[same]
    assert same.mean() > 0.999
    assert np.quantile(error, 0.999) < 0.001


@pytest.mark.parametrize("name", TASKS)
def test_picture_shows_the_objects_where_the_masks_are(name):
    """Pixels change between the plate and the picture inside the masks, and hardly elsewhere."""
    task = load_task(name)
    view = build_view(task, RasterRenderer(samples=1).create())
    change = np.abs(view.first_frame.astype(int) - view.background_frame).sum(-1)
    assert view.first_frame.shape == (task.camera.height, task.camera.width, 3)
    for o in task.objects:
        assert np.median(change[view.mask(o.name)]) > 30, o.name
    assert (change[view.labels == 0] == 0).all()
    nearer = view.depth_m < view.background_depth_m - 1e-4
    assert (nearer == (view.labels > 0)).mean() > 0.999
    assert np.isfinite(view.depth_m).all()


def test_view_survives_saving(tmp_path):
    view = build_view(load_task("cut_dough"), RasterRenderer(samples=1).create())
    view.save(tmp_path)
    again = SceneView.load(tmp_path)
    assert again.names == view.names
    for key in ("first_frame", "background_frame", "labels", "depth_m", "background_depth_m"):
        np.testing.assert_array_equal(getattr(again, key), getattr(view, key))


def test_light_casts_a_shadow_in_the_traced_picture(traced):
    """The table is darker beside the red cup, on the side the light travels to, than far away."""
    task = load_task("stack_cups")
    buffers = traced["stack_cups"]
    light = cv2.GaussianBlur((buffers.color / np.maximum(buffers.albedo, 0.02)).mean(-1), (0, 0), 4)
    base = np.array(task.object("red_cup").position_m)
    travel = np.array(task.spec.light.direction)
    along = travel[:2] / np.linalg.norm(travel[:2])
    step = np.array([*along, 0])
    spots = [base + 0.065 * step, base - 0.14 * step]
    (shaded, open_), _ = task.camera.project(np.array(spots))
    at = [light[int(v), int(u)] for u, v in (shaded, open_)]
    assert at[0] < 0.85 * at[1]


def test_dead_worker_is_reported(tmp_path, monkeypatch):
    """LLVM's back end aborts where it does not like what it finds."""
    dead = tmp_path / "dead.py"
    dead.write_text("import os; os.abort()")
    monkeypatch.setattr("lucibot.providers.renderer.mitsuba.WORKER", dead)
    with pytest.raises(RunFailed, match="mitsuba"):
        MitsubaRenderer(variant="scalar_rgb", spp=1).create().trace(
            load_task("cut_dough"), foreground=False
        )


def test_denoiser_keeps_texture_and_edges_and_removes_noise():
    rng = np.random.default_rng(0)
    albedo = np.where(np.indices((64, 64)).sum(0) % 2, 0.8, 0.2)[..., None].repeat(3, -1)
    light = np.where(np.arange(64) < 32, 1.0, 0.3)[None, :, None]
    normal = np.zeros((64, 64, 3))
    normal[:, :32, 2], normal[:, 32:, 0] = 1, 1
    depth = np.ones((64, 64))
    clean = albedo * light
    noisy = clean * rng.gamma(16, 1 / 16, clean.shape)
    out = denoise(noisy, albedo=albedo, normal=normal, depth=depth)
    assert np.abs(out - clean).mean() < 0.25 * np.abs(noisy - clean).mean()
    assert np.abs(out - clean).max() < 0.15


def test_corner_normals_are_smooth_on_a_ball_and_flat_on_a_box():
    import trimesh

    ball, box = trimesh.creation.icosphere(subdivisions=3), trimesh.creation.box()
    radial = np.asarray(ball.vertices)[ball.faces]
    assert np.einsum("fck,fck->fc", corner_normals(ball), radial).min() > 0.995
    np.testing.assert_allclose(
        corner_normals(box), np.repeat(np.asarray(box.face_normals)[:, None], 3, 1), atol=1e-9
    )


def cup_masks(frame: np.ndarray) -> dict[str, np.ndarray]:
    """Masks of both cups by colour and GrabCut: the coloured body, and the white next to it."""
    h, s, v = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2HSV))
    body = {
        "red_cup": ((h < 8) | (h > 172)) & (s > 140) & (v > 90),
        "yellow_cup": (h > 18) & (h < 34) & (s > 80) & (v > 90),
    }
    white = ((s < 40) & (v > 205)).astype(np.uint8)
    white[:150] = 0  # The wall is as bright as a rim.
    white = cv2.morphologyEx(white, cv2.MORPH_CLOSE, np.ones((5, 5)))
    _, patches, stats, _ = cv2.connectedComponentsWithStats(white)
    masks = {}
    for name, m in body.items():
        m = cv2.morphologyEx(m.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
        _, parts, sizes, _ = cv2.connectedComponentsWithStats(m)
        m = (parts == 1 + sizes[1:, 4].argmax()).astype(np.uint8)
        touching = np.unique(patches[cv2.dilate(m, np.ones((9, 9))) > 0])
        rim = np.isin(patches, [k for k in touching if k and stats[k, 4] > 300])
        outline, _ = cv2.findContours(
            (m | rim).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        hull = cv2.fillPoly(np.zeros_like(m), [cv2.convexHull(np.concatenate(outline))], 1)
        cut = np.full(m.shape, cv2.GC_BGD, np.uint8)
        cut[cv2.dilate(hull, np.ones((15, 15))) > 0] = cv2.GC_PR_BGD
        cut[hull > 0] = cv2.GC_PR_FGD
        cut[cv2.erode(hull, np.ones((9, 9))) > 0] = cv2.GC_FGD
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(frame[..., ::-1].copy(), cut, None, *models, 4, cv2.GC_INIT_WITH_MASK)
        masks[name] = (cut == cv2.GC_FGD) | (cut == cv2.GC_PR_FGD)
    return masks


@pytest.mark.skipif(not VIDEO.is_file(), reason=f"{VIDEO} is not there")
def test_stack_cups_is_the_twin_of_the_generated_video():
    import av

    with av.open(str(VIDEO)) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    task = load_task("stack_cups")
    size = (task.camera.width, task.camera.height)
    seen = cup_masks(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    labels, _, _ = look_through(task_surfaces(task, foreground=True), task.camera)
    for name, mask in seen.items():
        assert iou(labels == task.label(name), mask) >= 0.95, name
