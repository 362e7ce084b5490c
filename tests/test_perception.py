"""Perception against a synthetic twin: cups whose every pose, touch and contact is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lucibot.core.camera import Camera
from lucibot.core.geometry import pose_np
from lucibot.core.heights import height_map
from lucibot.core.progress import silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.perception.affordance import grasps_at
from lucibot.perception.config import EventConfig, PoseConfig
from lucibot.perception.events import read_events
from lucibot.perception.keyframes import (
    KeyframeConfig,
    follow_path,
    held_on_the_way,
    sample_keyframes,
)
from lucibot.perception.landing import _slide_to
from lucibot.perception.poses import follow_poses, refine_poses
from lucibot.perception.problem import Pin, add_pin, sizes_between
from lucibot.providers.answerer import PixelAnswerer
from lucibot.providers.depth import FillDepth, ReplayDepth
from lucibot.providers.depth.replay import write_depth
from lucibot.providers.hand import ReplayHand
from lucibot.providers.hand.replay import write_hands
from lucibot.providers.tracker import ReplayTracker
from lucibot.report.art import with_grasps
from lucibot.stages.perceive import PerceiveConfig, Perception, perceive, read_tracks
from lucibot.task import Task, load_task
from lucibot.vision.contour import KNOWN_MARGIN_M, edge_offsets, outlines
from lucibot.vision.draw import DrawMesh, Windows, draw_depth
from lucibot.vision.grid import UNSURE
from lucibot.vision.pieces import connected_parts
from lucibot.vision.rest import first_motions
from lucibot.vision.support import CELL_M, settle, world_vertices
from lucibot.vision.trajectory import Smoothness, Trajectory, solve

FPS, FRAMES, NESTED_M = 15.0, 60, 0.0394


def static_depth(task: Task, camera: Camera) -> np.ndarray:
    depth = np.full((camera.height, camera.width), np.inf, np.float32)
    for b in task.spec.background:
        mesh = DrawMesh.from_trimesh(task.mesh(b).subdivide().subdivide(), b.T_world_object)
        T = b.T_world_object.copy()
        T[:3, 3] += T[:3, :3] @ mesh.anchor_m
        depth = np.minimum(depth, draw_depth(mesh, T[None], camera)[0])
    return depth


def drawn(task: Task, camera: Camera, i: int, poses: np.ndarray, scale=None) -> np.ndarray:
    o = task.objects[i]
    mesh = DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
    at = Trajectory.from_poses(poses, mesh.anchor_m)
    if scale is not None:
        at = replace(at, log_scale=np.log(scale))
    return draw_depth(mesh, at.T_world_object, camera)


def first_view(task: Task, camera: Camera) -> SceneView:
    background = static_depth(task, camera)
    depth, labels = background.copy(), np.zeros(background.shape, np.uint8)
    for i, o in enumerate(task.objects):
        own = drawn(task, camera, i, pose_np(o.T_world_object)[None])[0]
        labels[own < depth] = i + 1
        depth = np.minimum(depth, own)
    blank = np.full((*labels.shape, 3), 128, np.uint8)
    return SceneView(
        camera=camera, names=tuple(o.name for o in task.objects), first_frame=blank,
        background_frame=blank, labels=labels, depth_m=depth, background_depth_m=background,
    )  # fmt: skip


def smoothly(t: np.ndarray, a: float, b: float) -> np.ndarray:
    x = np.clip((t - a) / (b - a), 0, 1)
    return x * x * (3 - 2 * x)


def wobbled(mask: np.ndarray, rng: np.random.Generator, px: float) -> np.ndarray:
    """A mask whose outline errs by `px`, smoothly, as a tracker's does."""
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    noise = cv2.GaussianBlur(rng.normal(size=mask.shape).astype(np.float32), (0, 0), 5)
    return inside - outside + px * noise / noise.std() > 0


@dataclass
class Twin:
    task: Task
    view: SceneView
    video: Video
    poses: np.ndarray
    tracks: Tracks


@pytest.fixture(scope="module")
def twin() -> Twin:
    """Yellow is lifted, carried, lowered into red and let go, while the video makes it 4% smaller;
    the tracker's poses err along the ray by up to 2 cm."""
    rng = np.random.default_rng(0)
    task = load_task("stack_cups")
    camera = task.camera.resized(320, round(320 * task.camera.height / task.camera.width))
    t = np.arange(FRAMES) / FRAMES
    start = [pose_np(o.T_world_object) for o in task.objects]
    poses = np.stack([np.repeat(s[None], FRAMES, 0) for s in start], 1)
    lift, above = np.array([0, 0, 0.13]), np.array([0, 0, 0.1])
    end = start[0][:3] + np.array([0, 0, NESTED_M])
    poses[:, 1, :3] += smoothly(t, 0.3, 0.45)[:, None] * lift
    poses[:, 1, :3] += smoothly(t, 0.4, 0.65)[:, None] * (end + above - start[1][:3] - lift)
    poses[:, 1, 2] -= 0.1 * smoothly(t, 0.6, 0.78)
    tilt = np.deg2rad(15) * smoothly(t, 0.3, 0.5) * (1 - smoothly(t, 0.6, 0.78))
    poses[:, 1, 3:] = tilt[:, None] * np.array([0, 1.0, 0])
    scale = 1 - 0.04 * smoothly(t, 0.3, 0.8)
    depth = np.stack([
        drawn(task, camera, 0, poses[:, 0]), drawn(task, camera, 1, poses[:, 1], scale)
    ], 1)  # fmt: skip
    masks = np.zeros(depth.shape, bool)
    hand = np.zeros((FRAMES, *depth.shape[2:]), bool)
    for k in range(FRAMES):
        there = smoothly(t[k : k + 1], 0.12, 0.22)[0] * (1 - smoothly(t[k : k + 1], 0.8, 0.88)[0])
        if there > 0.01:
            uv, _ = camera.project(poses[k, 1, :3] + [0.03, 0, 0.1])
            u = int(uv[0] + (1 - there) * camera.width * 0.5)
            v = int(uv[1] - (1 - there) * camera.height * 0.6)
            layer = np.zeros(hand.shape[1:], np.uint8)
            cv2.circle(layer, (u, v), 14, 1, -1)
            cv2.line(layer, (u, v), (u, 0), 1, 16)
            hand[k] = layer > 0
        nearest = depth[k].argmin(0)
        for i in range(2):
            visible = (nearest == i) & np.isfinite(depth[k, i])
            masks[k, i] = wobbled(visible, rng, 0.8) & ~hand[k]
    guess = poses.copy()
    ray = guess[..., :3] - camera.T_world_cam[:3, 3]
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    along = 0.02 * np.sin(np.arange(FRAMES) / 7)[:, None, None]
    guess[..., :3] += ray * along + rng.normal(size=ray.shape) * 0.003
    turned = Rotation.from_rotvec(rng.normal(size=(FRAMES * 2, 3)) * 0.05)
    guess[..., 3:] = (
        (turned * Rotation.from_rotvec(guess[..., 3:].reshape(-1, 3))).as_rotvec().reshape(-1, 2, 3)
    )
    tracks = Tracks(
        masks=masks, hand=hand, confidence=np.ones((FRAMES, 2), np.float32),
        lost=np.zeros((FRAMES, 2), bool), poses=guess.astype(np.float32),
    )  # fmt: skip
    frames = np.full((FRAMES, camera.height, camera.width, 3), 128, np.uint8)
    return Twin(task, first_view(task, camera), Video(frames=frames, fps=FPS), poses, tracks)


@pytest.fixture(scope="module")
def perceived(twin: Twin) -> Perception:
    return read_tracks(twin.task, twin.view, twin.video, twin.tracks, PerceiveConfig(), silent)


def errors_m(poses: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.linalg.norm(poses[..., :3] - truth[..., :3], axis=-1)


def test_poses_of_the_twin(twin: Twin, perceived: Perception):
    before, after = (errors_m(p, twin.poses) for p in (twin.tracks.poses, perceived.poses))
    assert after[:, 0].max() < 1e-3, "a cup that never moves stays where the scene has it"
    assert np.allclose(perceived.poses[:12], twin.poses[:12], atol=1e-6)
    assert after[:, 1].mean() < 0.006 < before[:, 1].mean()
    assert after[:, 1].max() < 0.02
    axis = Rotation.from_rotvec(perceived.poses[:, 1, 3:]).apply([0, 0, 1.0])
    truth = Rotation.from_rotvec(twin.poses[:, 1, 3:]).apply([0, 0, 1.0])
    angle = np.rad2deg(np.arccos(np.clip((axis * truth).sum(1), -1, 1)))
    assert angle.max() < 5
    assert not perceived.lost.any()


def test_the_nested_cup_rests_as_geometry_says(twin: Twin, perceived: Perception):
    last = perceived.poses[-1]
    assert last[1, 2] - last[0, 2] == pytest.approx(NESTED_M, abs=0.002)
    assert np.linalg.norm(last[1, :2] - last[0, :2]) < 0.003
    assert perceived.scale[-1, 1] == pytest.approx(0.96, abs=0.02)
    assert np.allclose(perceived.poses[-5:, 1], last[1])


def test_joint_fit_beats_frame_by_frame(twin: Twin, perceived: Perception):
    plain = follow_poses(twin.task, twin.view, twin.tracks, FPS, PoseConfig())
    joint = errors_m(perceived.poses, twin.poses)[:, 1].mean()
    assert joint < 0.7 * errors_m(plain.poses, twin.poses)[:, 1].mean()


@pytest.mark.slow
def test_poses_without_a_tracker_that_gives_any(twin: Twin):
    blind = replace(twin.tracks, poses=np.full_like(twin.tracks.poses, np.nan))
    found = refine_poses(twin.task, twin.view, blind, FPS, PoseConfig())
    assert errors_m(found.poses, twin.poses)[:, 1].mean() < 0.01


def test_measured_depth_draws_a_pose_along_the_ray(twin: Twin):
    """With depth trusted fully, a floating object's drifting size no longer hides its depth."""
    depth = np.stack(
        [drawn(twin.task, twin.view.camera, i, twin.poses[:, i]) for i in range(2)], 1
    ).min(1)
    depth = np.where(np.isfinite(depth), depth, 0)
    moving = slice(20, 44)
    plain, taught = (
        refine_poses(
            twin.task, twin.view, twin.tracks, FPS,
            PoseConfig(width=320, depth_sigma_m=0.002), depth_m=d,
        )
        for d in (None, depth)
    )  # fmt: skip
    error = [errors_m(p.poses, twin.poses)[moving, 1].mean() for p in (plain, taught)]
    assert error[1] < error[0]


def test_answers_of_the_twin(twin: Twin, perceived: Perception):
    a = perceived.answers
    moves = np.flatnonzero(errors_m(twin.poses[1:], twin.poses[:-1])[:, 1] > 1e-3)
    touches = [(twin.tracks.hand[t] & _silhouette(twin, t)).any() for t in range(FRAMES)]
    assert int(np.argmax(touches)) - 1 <= a.first_contact <= moves[0] + 1
    e = perceived.events
    assert e.held[moves[0] + 2 : moves[-1] - 2, 1].all() and not e.held[: moves[0] - 8, 1].any()
    gone = np.flatnonzero(twin.tracks.hand.any((1, 2)))[-1]
    assert gone < a.goal <= gone + 6
    nested = twin.poses[:, 1, 2] - twin.poses[:, 0, 2] < NESTED_M + 0.002
    nested &= np.arange(FRAMES) > 30
    assert e.contact[nested, 0].all() and not e.contact[:30, 0].any()
    assert np.array_equal(a.contact, perceived.supervision.contact)
    assert set(a.reasons) >= {"first_contact", "goal", "held yellow_cup"}


def _silhouette(twin: Twin, t: int) -> np.ndarray:
    return np.isfinite(drawn(twin.task, twin.view.camera, 1, twin.poses[t : t + 1, 1])[0])


def test_supervision_of_the_twin(twin: Twin, perceived: Perception):
    s = perceived.supervision
    assert s.keyframes[-1] == perceived.answers.goal and (np.diff(s.keyframes) > 0).all()
    assert s.keyframes[0] > perceived.answers.first_contact
    assert not s.held[-1].any() and s.held[1, 1]
    assert np.array_equal(s.waypoints, perceived.poses[s.keyframes])
    assert s.actuator_masks.shape == (len(s.keyframes), 2, s.camera.height, s.camera.width)
    assert len(s.part_masks) == 2 and s.contact[-1, 0]
    for cloud, i in ((s.part_clouds[0], 0), (s.part_clouds[1], 1)):
        at = cloud[np.isfinite(cloud[:, 0])]
        base = twin.poses[-1, i, :3]
        assert len(at) > 100
        assert (np.linalg.norm(at[:, :2] - base[:2], axis=1) < 0.06).all()
        assert (at[:, 2] > base[2] - 0.01).all() and (at[:, 2] < base[2] + 0.14).all()
    red, yellow = (s.actuators.index(n) for n in ("red_cup", "yellow_cup"))
    assert s.affordance.holds(red) == [] and s.affordance.holds(yellow) == [0]
    area, normals = s.affordance.area(yellow, 0)
    assert (np.hypot(area[:, 0], area[:, 1]) < 0.055).all() and (area[:, 2] > -0.002).all()
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    tips, held = s.affordance.tips_m[:, yellow], perceived.events.held[s.keyframes, 1]
    seen = np.isfinite(tips).all(-1)
    assert (
        seen.any() and not seen[~held].any() and not np.isfinite(s.affordance.tips_m[:, red]).any()
    )
    uv, _ = s.camera.project(tips[seen])
    assert np.allclose(uv, s.affordance.tips_px[:, yellow][seen], atol=1e-3)
    # The hand covers the cup's rim; the tips are as far away as the cup is there.
    for k in np.flatnonzero(seen.any(1)):
        off = np.linalg.norm(tips[k, seen[k]] - twin.poses[s.keyframes[k], 1, :3], axis=1)
        assert (off < 0.15).all()


def test_perception_is_read_back_as_written(perceived: Perception, tmp_path):
    far = perceived.depth_m.copy()
    far[0, 0, :3] = 6.6, np.inf, 6.5
    perceived = replace(perceived, depth_m=far)
    perceived.save(tmp_path)
    back = Perception.load(tmp_path)
    far[0, 0, :2] = np.nan, np.nan  # Farther than 16 bits reach.
    assert np.array_equal(back.tracks.masks, perceived.tracks.masks)
    assert np.array_equal(back.tracks.hand, perceived.tracks.hand)
    assert np.array_equal(back.poses, perceived.poses)
    assert np.array_equal(back.supervision.contact, perceived.supervision.contact)
    assert back.answers.reasons == perceived.answers.reasons
    assert np.nanmax(np.abs(back.depth_m - perceived.depth_m)) <= 6e-5
    assert np.array_equal(np.isnan(back.depth_m), np.isnan(perceived.depth_m))


def test_what_a_tool_pushes_moves_before_any_hand_comes_to_it():
    """Yellow, in a hand, pushes red over the table; only later does the hand come over red."""
    task = load_task("stack_cups")
    camera = task.camera.resized(320, round(320 * task.camera.height / task.camera.width))
    frames, way_m = 48, 0.06
    t = np.arange(frames) / frames
    start = [pose_np(o.T_world_object) for o in task.objects]
    poses = np.stack([np.repeat(s[None], frames, 0) for s in start], 1)
    apart = start[0][:3] - start[1][:3]
    gap = np.linalg.norm(apart) - 0.094
    ahead = apart / np.linalg.norm(apart)
    poses[:, 1, :3] += smoothly(t, 0.2, 0.4)[:, None] * gap * ahead
    pushed = smoothly(t, 0.45, 0.65)[:, None] * way_m * ahead
    poses[:, :, :3] += pushed[:, None]
    depth = np.stack([drawn(task, camera, i, poses[:, i]) for i in range(2)], 1)
    nearest = depth.argmin(1)
    masks = np.isfinite(depth) & (nearest[:, None] == np.arange(2)[:, None, None])
    hand = np.zeros((frames, *depth.shape[2:]), bool)
    for k in range(frames):
        # On yellow from the start of its way, on red at the end.
        on = 1 if t[k] < 0.75 else 0
        if 0.15 < t[k] < 0.72 or t[k] > 0.78:
            u, v = camera.project(poses[k, on, :3] + [0, 0, 0.11])[0].astype(int)
            hand[k, : v + 4, u - 10 : u + 10] = True
    masks &= ~hand[:, None]
    tracks = Tracks(
        masks=masks, hand=hand, confidence=np.ones((frames, 2), np.float32),
        lost=np.zeros((frames, 2), bool), poses=poses.astype(np.float32),
    )  # fmt: skip
    found = refine_poses(task, first_view(task, camera), tracks, FPS, PoseConfig(width=320))
    begins = np.flatnonzero(smoothly(t, 0.45, 0.65) > 0.02)[0]
    assert found.touched[-1, 0] and not found.touched[: int(0.75 * frames), 0].any()
    assert abs(int(found.moves_from[0]) - begins) <= 2
    moving = (t > 0.45) & (t < 0.75)
    assert errors_m(found.poses, poses)[moving].max() < 0.012


def test_what_is_pushed_on_is_reached_by_what_was_pushed():
    """A hand moves the first thing, that the second, that the third; the fourth only looks worse."""
    frames, from_frame = 40, (5, 12, 20)
    touched, near = np.zeros((frames, 4), bool), np.zeros((frames, 4, 4), bool)
    touched[5:, 0] = touched[35:, 1:] = True
    near[10:, 0, 1] = near[10:, 1, 0] = near[18:, 1, 2] = near[18:, 2, 1] = True
    worse = np.zeros((frames, 4))
    for i, a in enumerate(from_frame):
        worse[a:, i] = 0.1
    worse[20:, 3] = 0.1
    usable = np.ones((frames, 4), bool)
    assert first_motions(worse, touched, near, usable).tolist() == [5, 12, 20, 35]
    # What has clearly gone has gone, though nobody is seen to have reached it.
    worse[20:, 3] = 0.3
    assert first_motions(worse, touched, near, usable)[3] == 20


def test_what_is_held_is_drawn_where_it_is(twin: Twin, perceived: Perception):
    s, size = perceived.supervision, twin.view.camera
    k = int(np.flatnonzero(np.isfinite(s.affordance.tips_px).any((1, 2, 3)))[0])
    frame = twin.video.frames[s.keyframes[k]]
    held = grasps_at(twin.task, s, k)
    assert list(held) == ["yellow_cup"]
    area, tips = held["yellow_cup"]
    picture = with_grasps(frame, [(area, tips, (249, 115, 22))], size)
    changed = (picture != frame).any(-1)
    uv = size.project(area)[0].astype(int)
    assert changed[uv[:, 1], uv[:, 0]].all()
    u, v = size.project(tips[np.isfinite(tips).all(1)][0])[0].astype(int)
    assert changed[v - 8 : v + 9, u - 8 : u + 9].any()
    cup = np.isfinite(drawn(twin.task, size, 1, perceived.poses[s.keyframes[[k]], 1])[0])
    assert not changed[cv2.dilate(cup.astype(np.uint8), np.ones((31, 31))) == 0].any()


# --- the pieces -----------------------------------------------------------------------------------


def _square(shift: int = 0) -> np.ndarray:
    """(1, 60, 60) bool."""
    out = np.zeros((1, 60, 60), bool)
    out[0, 20:40, 20 + shift : 40 + shift] = True
    return out


def _offsets(label: np.ndarray):
    """Of the square that lies in the middle: normals, offsets and weights, and those before."""
    drawn = Windows.whole(np.where(_square(), 0.5, np.inf))
    points, normals, z, weight = outlines(drawn, 80)
    offset, w = edge_offsets(
        points, normals, z, weight, Windows.stack([drawn]), label, np.array([0]), 1,
        np.array([KNOWN_MARGIN_M]), 8.0,
    )  # fmt: skip
    return normals, offset, w, weight


@pytest.mark.parametrize("shift", [-3, 0, 4])
def test_offsets_find_a_shifted_edge(shift):
    normals, offset, w, _ = _offsets(_square(shift).astype(np.uint8))
    right, left = (normals[0, :, 0] * s > 0.99 for s in (1, -1))
    assert (w[0, right] > 0).all()
    assert np.allclose(offset[0, right], shift, atol=0.5)
    assert np.allclose(offset[0, left], -shift, atol=0.5)


def test_a_hand_over_an_edge_neither_pulls_nor_pushes():
    label = _square().astype(np.uint8)
    label[:, :, 34:50] = UNSURE
    normals, offset, w, weight = _offsets(label)
    hidden, seen = (normals[0, :, 0] * s > 0.99 for s in (1, -1))
    assert (offset[0, hidden] == 0).all() and (w[0, hidden] < 0.1).all()
    assert (offset[0, seen] == 0).all() and (w[0, seen] == weight[0, seen]).all()


def test_pins_and_smoothness_alone_give_a_straight_line():
    n = 9
    start = Trajectory(
        position_m=np.zeros((n, 3)), rotation=np.repeat(np.eye(3)[None], n, 0),
        log_scale=np.zeros(n),
    )  # fmt: skip
    H, g = np.zeros((n, 7, 7)), np.zeros((n, 7))
    goal = replace(start[[0]], position_m=np.array([[0.08, -0.04, 0.02]]))
    add_pin(H, g, start, Pin(frames=np.array([0]), target=start[[0]]))
    add_pin(H, g, start, Pin(frames=np.array([n - 1]), target=goal))
    smooth = Smoothness(
        acceleration_m=1e-3, acceleration_rad=1e-2, velocity_m=10, velocity_rad=10,
        scale_step=0.01, scale=1,
    )  # fmt: skip
    step = np.zeros((n, 7))
    # The problem is linear here; repeating undoes the damping.
    for _ in range(8):
        more = solve(start.moved(step), H, g - np.einsum("tij,tj->ti", H, step), smooth)
        step += more
    line = np.linspace(0, 1, n)[:, None] * goal.position_m
    assert np.allclose(step[:, :3], line, atol=2e-5)


def test_what_has_grown_in_a_hand_does_not_shrink_back_in_it():
    """Nothing is seen between a known start and a rest at which the thing is 5% larger; there it is as
    large as the way between them says, and not the size of its mesh, however long it was away."""
    n, grown = 200, 0.05
    start = Trajectory(
        position_m=np.zeros((n, 3)), rotation=np.repeat(np.eye(3)[None], n, 0),
        log_scale=np.zeros(n),
    )  # fmt: skip
    pins = [
        Pin(frames=np.arange(190, n), target=replace(start[:10], log_scale=np.full(10, grown))),
        Pin(frames=np.arange(50), target=start[:50]),
    ]
    sizes = sizes_between(n, pins)
    assert np.allclose(sizes[[0, 49, 190, n - 1]], [0, 0, grown, grown])
    H, g, now = np.zeros((n, 7, 7)), np.zeros((n, 7)), start
    smooth = Smoothness(
        acceleration_m=1e-3, acceleration_rad=1e-2, velocity_m=10, velocity_rad=10,
        scale_step=0.003, scale=0.04,
    )  # fmt: skip
    for pin in pins:
        add_pin(H, g, now, pin)
    for _ in range(8):
        step = now.log_scale
        rest = g.copy()
        rest[:, 6] -= H[:, 6, 6] * step
        now = now.moved(solve(now, H, rest, smooth, sizes))
    halfway = (49 + 190) // 2
    assert now.log_scale[halfway] == pytest.approx(grown / 2, abs=0.002)
    assert sizes_between(5, [pins[1]]).tolist() == [0] * 5


def test_a_cup_let_go_beside_the_axis_slides_into_the_other():
    task = load_task("stack_cups")
    red, yellow = (DrawMesh.from_trimesh(task.mesh(o), o.T_world_object) for o in task.objects)

    def at(xyz):
        return Trajectory(
            position_m=np.array([xyz], float), rotation=np.eye(3)[None], log_scale=np.zeros(1)
        )

    top = height_map(world_vertices(red, at((0, 0, 0))), red.faces, CELL_M, top=True)
    under = height_map(
        world_vertices(yellow, at((0.008, -0.005, 0.1))), yellow.faces, CELL_M, top=False
    )
    shift, raised = settle(under, top, reach_m=0.025)
    assert np.linalg.norm(shift + np.array([0.008, -0.005])) < 0.0015
    # The outer wall meets the inner edge of the rim where the two cones are equally wide.
    assert 0.1 + raised == pytest.approx(NESTED_M, abs=0.0025)


def test_depth_of_a_block_that_has_slid():
    task = load_task("cut_dough")
    camera = task.camera.resized(320, 240)
    view = first_view(task, camera)
    moved = pose_np(task.objects[1].T_world_object)[None].copy()
    moved[0, :2] += [-0.03, -0.01]
    truth = drawn(task, camera, 1, moved)[0]
    masks = np.zeros((1, 2, 240, 320), bool)
    masks[0, 1] = np.isfinite(truth)
    hand = np.zeros((1, 240, 320), bool)
    hand[0, :40] = True
    tracks = Tracks(
        masks=masks, hand=hand, confidence=np.ones((1, 2), np.float32),
        lost=np.zeros((1, 2), bool), poses=np.full((1, 2, 6), np.nan, np.float32),
    )  # fmt: skip
    video = Video(frames=view.first_frame[None], fps=FPS)
    depth = FillDepth().create().estimate(task, view, video, tracks, np.array([0]), seed=0)[0]
    error = np.abs(depth - truth)[masks[0, 1]]
    assert np.median(error) < 0.004 and np.percentile(error, 90) < 0.015
    rest = ~masks[0].any(0) & ~hand[0]
    assert np.array_equal(depth[rest], view.background_depth_m[rest])
    assert np.isnan(depth[hand[0]]).all()


def test_parts_are_split_by_a_gap_or_a_valley_and_not_by_a_notch():
    mask = np.zeros((80, 140), bool)
    mask[20:60, 20:120] = True
    image = np.full((80, 140, 3), 200, np.uint8)
    assert len(connected_parts(mask, image)) == 1
    notched, cut = image.copy(), image.copy()
    notched[20:40, 68:71] = 120
    cut[20:60, 68:71] = 120
    assert len(connected_parts(mask, notched)) == 1
    left, right = connected_parts(mask, cut)
    assert np.nonzero(left)[1].mean() < 70 < np.nonzero(right)[1].mean()
    assert (left | right).sum() > 0.97 * mask.sum() and not (left & right).any()
    bridged = mask.copy()
    bridged[:, 60:70] = False
    bridged[40, 60:70] = True
    assert len(connected_parts(bridged)) == 2


def test_the_grain_of_a_surface_parts_nothing():
    """Sand has valleys of lightness all over: a heap apart from the rest is all that counts."""
    mask = np.zeros((80, 140), bool)
    mask[30:70, 20:120] = True
    mask[5:25, 60:100] = True
    grain = np.random.default_rng(0).random((80, 140, 1)) < 0.1
    image = np.where(cv2.dilate(grain.astype(np.uint8), np.ones((2, 2)))[..., None] > 0, 120, 200)
    parts = connected_parts(mask, image.repeat(3, 2).astype(np.uint8))
    assert sorted(int(p.sum()) for p in parts) == [20 * 40, 40 * 100]


def test_keyframes_hold_the_switches_and_end_with_the_goal():
    held = np.zeros((100, 2), bool)
    held[10:70, 0] = True
    held[40:70, 1] = True
    quality = np.ones(100)
    quality[47:50] = 0.2
    frames = sample_keyframes(10, 90, held, quality, 20.0, KeyframeConfig(count=8))
    assert frames[-1] == 90 and frames[0] > 10
    assert {39, 69} <= set(frames.tolist()), "the last frames before and of a hold"
    assert not set(range(47, 50)) & set(frames.tolist()), "blurred frames are avoided"
    on_way = held_on_the_way(held, frames, 10)
    at = {int(f): row.tolist() for f, row in zip(frames, on_way, strict=True)}
    assert at[39] == [True, False] and at[69] == [True, True] and at[90] == [False, False]
    dense = sample_keyframes(10, 90, held, quality, 20.0, KeyframeConfig(rate_hz=5.0))
    assert len(dense) > 1.5 * len(frames)


def test_no_touch_and_no_motion_is_an_error(twin: Twin):
    from lucibot.core.errors import UserError

    still = replace(
        twin.tracks, masks=np.repeat(twin.tracks.masks[:1], 20, 0),
        hand=np.zeros((20, *twin.tracks.hand.shape[1:]), bool),
        confidence=twin.tracks.confidence[:20], lost=twin.tracks.lost[:20],
        poses=np.repeat(twin.poses[:1], 20, 0).astype(np.float32),
    )  # fmt: skip
    with pytest.raises(UserError, match="no hand touches"):
        events = read_events(
            twin.task, twin.view, still, still.poses, FPS,
            lambda frames: np.zeros((len(frames), 1, 1)), EventConfig(),
        )  # fmt: skip
        PixelAnswerer().create().span(twin.task, twin.view, twin.video, still, events)


def test_a_soft_thing_is_where_it_was_until_it_is_seen_elsewhere():
    """A liquid in a bottle: seen in its mouth, not seen, at its edge as a jet whose depth nobody knows,
    and away from it; then a drop at the edge for a while, and twice at the bottle with a gap between."""
    task = load_task("pour_liquid")
    camera = task.camera.resized(320, 240)
    view = first_view(task, camera)
    bottle, liquid = view.labels == 1, view.labels == 2
    rows, columns = np.nonzero(bottle)
    right, middle = columns.max(), int(rows.mean())
    near, far = np.zeros_like(bottle), np.zeros_like(bottle)
    near[middle : middle + 30, right + 2 : right + 8] = True
    far[middle : middle + 30, right + 40 : right + 60] = True
    stretches = [(liquid, 5), (0 * liquid, 5), (near, 6), (far, 12)]
    soft = np.concatenate([np.repeat(m[None].astype(bool), n, 0) for m, n in stretches])
    T = len(soft)
    masks = np.stack([np.repeat(bottle[None], T, 0), soft], 1)
    poses = np.full((T, 2, 6), np.nan, np.float32)
    poses[:, 0] = pose_np(task.objects[0].T_world_object)
    tracks = Tracks(
        masks=masks, hand=np.zeros_like(soft), confidence=np.ones((T, 2), np.float32),
        lost=np.zeros((T, 2), bool), poses=poses,
    )  # fmt: skip

    def depth_of(frames: np.ndarray) -> np.ndarray:
        """The jet is taken to lie on the table behind the bottle."""
        first = np.where(soft[frames] & liquid, view.depth_m, view.background_depth_m)
        return first.astype(np.float32)

    def contact(tracks: Tracks) -> np.ndarray:
        return read_events(task, view, tracks, poses, 20.0, depth_of, EventConfig()).contact[:, 0]

    assert contact(tracks).tolist() == [True] * 16 + [False] * 12
    # It touches, a jet of unknown depth hangs on, it touches: all the while. Seen away, it is parted.
    for between, expected in ((near, True), (far, False)):
        stays = np.repeat(liquid[None], T, 0)
        stays[9:15] = between
        soft[:] = stays
        again = contact(replace(tracks, masks=np.stack([masks[:, 0], stays], 1)))
        assert again[:9].all() and again[15:].all() and (again[9:15] == expected).all()


def test_keyframes_are_added_where_the_path_bends():
    """An object lifted over another: a straight line between two keyframes would run through."""
    t = np.linspace(0, 1, 41)
    arc = np.stack([0.2 * t, 0 * t, 0.1 * np.sin(np.pi * t)], -1)[:, None]
    config = KeyframeConfig(straight_m=0.01)
    held = np.ones((41, 1), bool)
    frames = follow_path(np.array([20, 40]), 0, arc, held, np.zeros(41, bool), config)
    assert {20, 40} < set(frames.tolist()) and (np.diff(frames) > 0).all()
    # The arc is a graph over x, so the vertical distance bounds the distance to the lines.
    corners = arc[[0, *frames], 0]
    height = np.interp(arc[:, 0, 0], corners[:, 0], corners[:, 2])
    assert np.abs(height - arc[:, 0, 2]).max() < 1.5 * config.straight_m
    assert np.abs(np.interp(arc[:, 0, 0], arc[[0, 20, 40], 0, 0], arc[[0, 20, 40], 0, 2])
                  - arc[:, 0, 2]).max() > 1.5 * config.straight_m  # fmt: skip
    straight = arc * [1, 1, 0]
    np.testing.assert_array_equal(
        follow_path(np.array([20, 40]), 0, straight, held, np.zeros(41, bool), config), [20, 40]
    )


def test_a_keyframe_that_the_path_hardly_needs_gives_its_place():
    """Down and up along one line between two keyframes: its lowest point is not left out."""
    z = np.interp(np.arange(61), [0, 40, 46, 52, 60], [0.1, 0.1, 0.02, 0.1, 0.1])
    path = np.stack([0 * z, 0 * z, z], -1)[:, None]
    held = np.ones((61, 1), bool)
    even = np.array([8, 16, 24, 32, 40, 52, 60])
    frames = follow_path(even, 0, path, held, np.zeros(61, bool), KeyframeConfig(most_added=0))
    assert 46 in frames and 60 in frames and len(frames) == len(even)


def test_what_came_along_with_a_tool_is_where_the_tool_is():
    from lucibot.providers.depth.carried import carried_parts, carried_surface

    def disc(u: float, v: float, r: float) -> np.ndarray:
        y, x = np.mgrid[:240, :320] + 0.5
        return (x - u) ** 2 + (y - v) ** 2 < r**2

    # A ball and a tool beside it go up together; another ball stays.
    rise = np.linspace(0, 60, 13)
    tool_px = np.stack([np.full(13, 195.0), 150 - rise], 1)
    stays = disc(60, 150, 20)
    masks = np.stack([disc(160, 150 - r, 20) | stays for r in rise])
    tool = np.zeros((240, 320), bool)
    tool[80:100, 178:240] = True
    ball = disc(160, 90, 20)
    (carried,) = carried_parts(ball | stays, tool, masks, tool_px)
    assert np.array_equal(carried, ball)
    # The same picture, but the ball has been there all along, or the tool has hardly moved.
    assert not carried_parts(ball | stays, tool, np.repeat(masks[-1:], 13, 0), tool_px)
    assert not carried_parts(ball | stays, tool, masks, np.repeat(tool_px[-1:], 13, 0))

    camera = load_task("cut_dough").camera.resized(320, 240)
    depth = np.where(tool, 0.5, np.inf).astype(np.float32)
    surface = carried_surface(camera, ball, depth)
    radius_m = 20 * 0.5 / camera.fx
    assert surface[90, 160] == pytest.approx(0.5 - radius_m, abs=2e-3)
    assert surface[ball].max() < 0.5
    assert carried_surface(camera, stays, depth) is None


@pytest.mark.slow
def test_a_run_without_models_replays_what_one_with_models_has_read(
    twin: Twin, perceived: Perception, tmp_path
):
    # Hands are kept by their pictures: let no two be the same.
    shades = np.arange(FRAMES, dtype=np.uint8)[:, None, None, None]
    video = replace(twin.video, frames=twin.video.frames + shades)
    assert perceived.video_sha256 == twin.video.sha256()
    replace(perceived, video_sha256=video.sha256()).save(tmp_path)
    write_hands(tmp_path / "hands.npz", video.frames[perceived.hands_at], perceived.hands)
    config = PerceiveConfig(
        tracker=ReplayTracker(file=tmp_path / "tracks.npz"),
        hand=ReplayHand(file=tmp_path / "hands.npz"),
    )
    again = perceive(twin.task, twin.view, video, config, silent)
    assert np.array_equal(again.tracks.masks, perceived.tracks.masks)
    assert np.array_equal(again.poses, perceived.poses, equal_nan=True)
    then, now = vars(perceived.supervision), vars(again.supervision)
    for name, value in then.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(now[name], value, equal_nan=value.dtype.kind == "f"), name


@pytest.mark.slow
def test_depth_that_was_measured_leads_to_the_same_poses(
    twin: Twin, perceived: Perception, tmp_path
):
    depth = FillDepth().create().estimate(
        twin.task, twin.view, twin.video, perceived.tracks, np.arange(len(twin.video)), seed=0
    )  # fmt: skip
    write_depth(tmp_path / "depth.npz", twin.video, depth, twin.view.background_depth_m)
    config = PerceiveConfig(depth=ReplayDepth(file=tmp_path / "depth.npz"))
    again = read_tracks(twin.task, twin.view, twin.video, twin.tracks, config, silent)
    assert errors_m(again.poses, twin.poses)[:, 1].mean() < 0.01


@pytest.mark.parametrize("aside_m", [0.0, 0.002, 0.01, 0.1, 0.4])
def test_what_is_set_on_another_thing_seen_from_above_stays_in_the_scene(aside_m):
    """Along its line of sight, which is nearly a plumb line there, it would slide metres up or down."""
    camera = Camera.look_at(position=(0, 0, 0.8), target=(0, 0, 0), up=(0, 1, 0),
                            vertical_fov_deg=60, width=320, height=240)  # fmt: skip
    pose = Trajectory(position_m=np.array([[aside_m, 0, 0.05]]), rotation=np.eye(3)[None],
                      log_scale=np.zeros(1))  # fmt: skip
    xy = np.array([aside_m + 0.03, 0.0])
    problem = SimpleNamespace(grid=SimpleNamespace(camera=camera))
    slid = _slide_to(problem, pose, xy).position_m
    assert np.abs(slid - pose.position_m).max() < 0.15
    if aside_m == 0.4:
        np.testing.assert_allclose(slid[0, :2], xy)
