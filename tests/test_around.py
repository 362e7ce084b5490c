"""What a loop can be put around, and whether it goes around it, in videos as in rollouts."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from lucibot.core.camera import Camera
from lucibot.task import BackgroundSpec, Task, load_task
from lucibot.vision.around import Posts, around_pairs
from lucibot.vision.draw import DrawMesh, draw_depth
from lucibot.vision.standing import upright_things

STICKS = ("left_stick", "right_stick")


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("rubber_band")


@pytest.fixture(scope="module")
def posts(task) -> Posts:
    return Posts(task, task.camera, STICKS)


def depth_of(mesh: trimesh.Trimesh, camera: Camera) -> np.ndarray:
    """(H, W) [m] of a mesh in the world; inf beside it."""
    drawn = DrawMesh(
        vertices_m=np.asarray(mesh.vertices, float), faces=np.asarray(mesh.faces, np.int32),
        anchor_m=np.zeros(3),
    )  # fmt: skip
    return draw_depth(drawn, np.eye(4)[None], camera)[0]


def seen(task: Task, loop: np.ndarray, radius_m=0.004, closed=True) -> np.ndarray:
    """(H, W) bool: what is seen of a rope along points (S, 3) [m], the sticks before it."""
    pieces = []
    for a, b in zip(loop, np.roll(loop, -1, 0) if closed else loop[1:], strict=False):
        pieces.append(trimesh.creation.cylinder(radius_m, segment=[a, b], sections=8))
    depth = depth_of(trimesh.util.concatenate(pieces), task.camera)
    return np.isfinite(depth) & (depth < sticks_depth())


@functools.cache
def sticks_depth() -> np.ndarray:
    """(H, W) [m]."""
    task, found = load_task("rubber_band"), np.inf
    for name in STICKS:
        stick = task.mesh(task.solid(name)).copy()
        stick.apply_transform(task.solid(name).T_world_object)
        found = np.minimum(found, depth_of(stick, task.camera))
    return found


def hull_around(task: Task, names, grow_m: float, z_m: float) -> np.ndarray:
    """(S, 3) [m]: the tightest loop around sticks, `grow_m` off them, at a height."""
    from scipy.spatial import ConvexHull

    points = []
    for name in names:
        stick = task.mesh(task.solid(name)).copy()
        stick.apply_transform(task.solid(name).T_world_object)
        points.append(np.asarray(stick.vertices)[:, :2])
    points = np.concatenate(points)
    points = points[ConvexHull(points).vertices]
    middle = points.mean(0)
    out = points - middle
    out *= 1 + grow_m / np.linalg.norm(out, axis=1, keepdims=True)
    # Even steps, so that a tear is a length.
    closed = np.vstack([out, out[:1]]) + middle
    way = np.append(0, np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1)))
    at = np.linspace(0, way[-1], 40, endpoint=False)
    xy = np.stack([np.interp(at, way, closed[:, i]) for i in range(2)], axis=1)
    return np.column_stack([xy, np.full(len(xy), z_m)])


def told(posts: Posts, mask: np.ndarray) -> list[bool]:
    return [posts.goes_around(mask, name) for name in STICKS]


@pytest.mark.parametrize("z_m", [0.006, 0.03, 0.05])
@pytest.mark.parametrize("grow_m", [0.006, 0.02])
def test_a_loop_goes_around_what_it_is_put_around(task, posts, z_m, grow_m):
    assert told(posts, seen(task, hull_around(task, STICKS, grow_m, z_m))) == [True, True]
    assert told(posts, seen(task, hull_around(task, STICKS[:1], grow_m, z_m))) == [True, False]
    assert told(posts, seen(task, hull_around(task, STICKS[1:], grow_m, z_m))) == [False, True]


@pytest.mark.parametrize("z_m", [0.006, 0.03, 0.05])
def test_a_strand_in_front_goes_around_nothing(task, posts, z_m):
    front = np.array([[-0.11, -0.135, z_m], [0.15, -0.135, z_m]])
    assert told(posts, seen(task, front, closed=False)) == [False, False]
    # Nor does a loop that lies in front, nor one that lies beside.
    for middle in ((-0.04, -0.16), (0.025, -0.09)):
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        ring = np.column_stack([
            middle[0] + 0.02 * np.cos(angle), middle[1] + 0.02 * np.sin(angle), 0 * angle + z_m
        ])  # fmt: skip
        assert told(posts, seen(task, ring)) == [False, False]


@pytest.mark.parametrize("z_m", [0.006, 0.03, 0.05])
def test_a_loop_that_is_torn_where_it_is_seen_goes_around_nothing(task, posts, z_m):
    loop = hull_around(task, STICKS, 0.008, z_m)
    wanted = seen(task, loop)
    torn = 0
    for first in range(0, len(loop), 3):
        rest = np.roll(loop, -first, 0)[3:]
        mask = seen(task, rest, closed=False)
        if (wanted & ~mask).sum() < 0.7 * wanted.sum() / len(loop) * 3:
            continue  # The tear is hidden by a stick.
        torn += 1
        assert told(posts, mask) != [True, True], first
    assert torn >= 7


def test_the_band_lies_around_one_stick_at_first(task, posts):
    band = task.mesh(task.object("band")).copy()
    band.apply_transform(task.object("band").T_world_object)
    depth = depth_of(band, task.camera)
    mask = np.isfinite(depth) & (depth < sticks_depth())
    assert told(posts, mask) == [True, False]
    assert told(posts, np.zeros_like(mask)) == [False, False]


def test_a_rollouts_band_that_is_pressed_into_the_sticks_goes_around_them_and_a_torn_one_does_not(
    task,
):
    from lucibot.sim.going_around import GoingAround
    from lucibot.sim.moment import Moment

    size_m = 0.003
    line = hull_around(task, STICKS, -0.004, 0.006)
    away = np.linalg.norm(np.diff(np.vstack([line, line[:1]]), axis=0), axis=1).sum() / size_m
    at = np.linspace(0, len(line), int(away), endpoint=False)
    ring = np.stack([np.interp(at, range(len(line) + 1), [*line[:, i], line[0, i]])
                     for i in range(3)], axis=1)  # fmt: skip
    ring = np.concatenate([ring + np.array([0, 0, dz * size_m]) for dz in (0, 1, 2)])
    # Of the same number of particles, but none of the near side's right half.
    whole = torch.from_numpy(ring).float()
    left = whole[(whole[:, 0] < 0.02) | (whole[:, 1] > -0.09)]
    torn = left[torch.arange(len(whole)) % len(left)]
    particles = torch.stack([whole, torn], dim=1).contiguous()
    scene = SimpleNamespace(
        task=task, device=torch.device("cpu"), rigid_objects=[], particle_objects=task.objects,
        particle_sizes_m={"band": size_m}, particles=lambda name: particles,
        link_m=lambda name: 0.01,
    )  # fmt: skip
    moment = Moment(
        position={}, quaternion={}, velocity={}, particles={"band": particles},
        particle_velocity={}, error=torch.zeros(2, dtype=torch.bool),
    )  # fmt: skip
    pairs = tuple(("band", name) for name in STICKS)
    found = GoingAround(scene, task.camera, pairs).look(moment).tolist()
    assert found[0] == [True, True] and found[1] != [True, True]


def test_from_straight_above_a_loop_is_a_ring_with_the_post_in_it(task):
    above = Camera.look_at(
        position=(-0.0393, -0.089, 0.6), target=(-0.0393, -0.089, 0.0), up=(0.0, 1.0, 0.0),
        vertical_fov_deg=40, width=320, height=240,
    )  # fmt: skip
    rows, columns = np.indices((240, 320))
    away = np.hypot(rows - 120, columns - 160)
    posts = Posts(task, above, ["left_stick"])
    assert posts.goes_around((away > 40) & (away < 45), "left_stick")
    assert not posts.goes_around((away > 40) & (away < 45) & (rows < 150), "left_stick")


def test_only_upright_things_can_be_gone_around():
    """A target is paired neither with plates and slices nor with what has something over it."""
    assert around_pairs(load_task("rubber_band")) == (
        ("band", "left_stick"),
        ("band", "right_stick"),
    )
    for name in ("spread_butter", "cut_dough", "scoop_sand", "lift_mochi", "stack_cups"):
        assert around_pairs(load_task(name)) == (), name


def test_a_post_under_a_shelf_and_a_leaning_board_are_not_upright(task):
    post = BackgroundSpec(name="post", size_m=(0.02, 0.02, 0.1), position_m=(0.3, 0, 0.05))
    shelf = BackgroundSpec(name="shelf", size_m=(0.3, 0.3, 0.01), position_m=(0.3, 0, 0.2))
    plank = BackgroundSpec(
        name="plank", size_m=(0.02, 0.02, 0.2), position_m=(0.5, 0, 0.1),
        rotation_deg=(0.0, 35.0, 0.0),
    )  # fmt: skip
    table = next(b for b in task.spec.background if b.name == "table")

    def with_(*things) -> list[str]:
        spec = task.spec.model_copy(update={"background": [table, *things]})
        return upright_things(Task(task.folder, spec, ""))

    assert with_(post) == ["post"]
    assert with_(post, shelf) == []
    assert with_(post, plank) == ["post"]
