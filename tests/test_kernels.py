"""The kernels against their readable twins, against closed forms, and on bad input.

`LUCIBOT_TEST_DEVICE=cuda pytest tests/test_kernels.py` tries them on a GPU.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys

import lucibot_kernels as lk
import pytest
import torch
from lucibot_kernels import clouds as clouds_module
from lucibot_kernels import observe as observe_module
from lucibot_kernels import points as points_module
from lucibot_kernels import runtime, twins

I32 = torch.int32
DEVICE = os.environ.get("LUCIBOT_TEST_DEVICE", "cpu")
torch.set_default_device(DEVICE)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["few threads", "many"])
def threads(request, monkeypatch):
    """As a CPU works, and the way through the code that a GPU takes. One thread takes it here: that
    two would meet at a pixel or a cell only `LUCIBOT_TEST_DEVICE=cuda` can show."""
    if request.param == "many":
        monkeypatch.setattr(runtime, "few_threads", lambda device: False)


# --- observe ------------------------------------------------------------------------------------


def camera(width: int = 61, height: int = 47) -> dict:
    """From (0.1, -0.8, 0.5) towards the origin."""
    eye = torch.tensor([0.1, -0.8, 0.5], dtype=torch.float64)
    forward = -eye / eye.norm()
    right = forward.cross(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), dim=0)
    right /= right.norm()
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3] = torch.stack([right, forward.cross(right, dim=0), forward])
    T[:3, 3] = -T[:3, :3] @ eye
    return {
        "width": width, "height": height, "fx": 70.0, "fy": 75.0,
        "cx": width / 2 + 1.3, "cy": height / 2 - 0.7, "T_cam_world": T,
    }  # fmt: skip


FRONT = {  # a camera at the origin that looks along +z
    "width": 40, "height": 30, "fx": 50.0, "fy": 50.0, "cx": 20.0, "cy": 15.0,
    "T_cam_world": torch.eye(4, dtype=torch.float64),
}  # fmt: skip


def meshes() -> dict:
    """A tetrahedron and a large triangle."""
    vertices = [
        [0.1, 0.1, 0.1], [0.1, -0.1, -0.1], [-0.1, 0.1, -0.1], [-0.1, -0.1, 0.1],
        [-0.3, -0.2, 0], [0.35, 0, 0], [0, 0.3, 0],
    ]  # fmt: skip
    return {
        "vertices_m": torch.tensor(vertices),
        "faces": torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2], [4, 5, 6]], dtype=I32),
        "vertex_body": torch.tensor([0, 0, 0, 0, 1, 1, 1], dtype=I32),
        "body_label": torch.tensor([3, 1], dtype=I32),
    }


def backgrounds(cam: dict) -> dict:
    shape = (cam["height"], cam["width"])
    depth = 0.8 + 0.4 * torch.rand(shape)
    depth[:, :20] = torch.inf
    return {
        "background_label": torch.randint(4, 7, shape, dtype=I32), "background_depth_m": depth
    }  # fmt: skip


def assert_like_twin(seen: lk.Observation, cam: dict, *, sharp: float = 0.8, **scene) -> None:
    """The kernel agrees with the twin, up to a thousandth of a pixel.

    Rounding decides pixels on an edge, so the twin draws five times, the camera shifted by 1e-3
    pixels: the kernel's depth must lie in the range of those, and its label and face be theirs
    where all five agree, which must be so for most pixels.
    """
    drawn = [
        twins.observe(**{**cam, "cx": cam["cx"] + dx, "cy": cam["cy"] + dy}, **scene)
        for dx, dy in ((0, 0), (1e-3, 1e-3), (1e-3, -1e-3), (-1e-3, 1e-3), (-1e-3, -1e-3))
    ]
    label, depth, face = (torch.stack(x) for x in zip(*drawn, strict=True))
    assert (seen.depth >= depth.amin(0) * (1 - 3e-5)).all()
    assert (seen.depth <= depth.amax(0) * (1 + 3e-5)).all()
    same = (label == label[0]).all(0) & (face == face[0]).all(0)
    assert same.double().mean() > sharp
    assert torch.equal(seen.label[same], label[0][same])
    if seen.face is not None:
        assert torch.equal(seen.face[same], face[0][same])


def random_scene(batch: int, particles: int, *, spread: float = 0.15) -> dict:
    return {
        "position_m": torch.randn(batch, 2, 3) * spread,
        "quaternion": torch.randn(batch, 2, 4),
        "particles_m": torch.randn(batch, particles, 3) * spread,
        "particle_radius_m": 0.004 + 0.03 * torch.rand(particles),
        "particle_label": torch.randint(7, 9, (particles,), dtype=I32),
    }


def draw(cam: dict, fixed: dict, scene: dict, **options) -> lk.Observation:
    radius, label = scene["particle_radius_m"], scene["particle_label"]
    observer = lk.Observer(**cam, **fixed, particle_radius_m=radius, particle_label=label)
    return observer.observe(
        scene["position_m"], scene["quaternion"], scene["particles_m"], **options
    )


@pytest.mark.parametrize(("batch", "particles"), [(1, 0), (1, 7), (3, 11), (0, 4)])
def test_observe_is_its_twin(batch, particles, threads, monkeypatch):
    # On a GPU room for two environments at a time.
    monkeypatch.setattr(observe_module, "_GPU_SCRATCH_BYTES", 2 * 8 * 61 * 47)
    cam = camera()
    fixed, scene = {**meshes(), **backgrounds(cam)}, random_scene(batch, particles)
    seen = draw(cam, fixed, scene, with_face=True)
    if batch == 0:
        assert seen.label.shape == (0, 47, 61)
        return
    assert_like_twin(seen, cam, **fixed, **scene)
    assert {3, 1} & set(seen.label.unique().tolist())


def test_observe_cuts_at_the_near_plane():
    """Triangles and spheres around, across and behind the camera."""
    for seed in range(8):
        torch.manual_seed(seed)
        scene = random_scene(2, 6, spread=0.12)
        fixed = {**meshes(), **backgrounds(FRONT)}
        seen = draw(FRONT, fixed, scene, with_face=True)
        assert_like_twin(seen, FRONT, sharp=0.5, **fixed, **scene)


def test_a_floor_under_the_camera_reaches_the_bottom_of_the_image():
    """One corner of this triangle lies far behind the camera; the plane y = 0.2 is z = 0.2 / dy."""
    corners = torch.tensor([[-50.0, 0.2, 40.0], [50.0, 0.2, 40.0], [0.0, 0.2, -80.0]])
    observer = lk.Observer(
        **FRONT, vertices_m=corners, faces=torch.tensor([[0, 1, 2]], dtype=I32),
        vertex_body=torch.zeros(3, dtype=I32), body_label=torch.ones(1, dtype=I32),
    )  # fmt: skip
    seen = observer.observe(torch.zeros(1, 1, 3), torch.tensor([[[1.0, 0, 0, 0]]]))
    rows = (torch.arange(30) + 0.5 - 15) / 50
    expected = (0.2 / rows[16:])[:, None].expand(14, 40)
    torch.testing.assert_close(seen.depth[0, 16:], expected, rtol=2e-5, atol=0)
    assert (seen.label[0, 16:] == 1).all()
    assert torch.isinf(seen.depth[0, :15]).all()


def test_depth_of_a_tilted_plane_and_of_a_sphere():
    ray_x = ((torch.arange(40) + 0.5 - 20) / 50).double()
    ray_y = ((torch.arange(30) + 0.5 - 15) / 50).double()[:, None]
    # The plane z = 1 + 0.5 x - 0.3 y fills the image.
    corner = torch.tensor([[-3.0, -3.0], [4.0, -3.0], [-3.0, 4.0]])
    z = 1 + 0.5 * corner[:, :1] - 0.3 * corner[:, 1:]
    plane = lk.Observer(
        **FRONT, vertices_m=torch.cat([corner, z], 1), faces=torch.tensor([[0, 1, 2]], dtype=I32),
        vertex_body=torch.zeros(3, dtype=I32), body_label=torch.ones(1, dtype=I32),
    )  # fmt: skip
    pose = torch.zeros(1, 1, 3), torch.tensor([[[2.0, 0, 0, 0]]])
    seen = plane.observe(*pose)
    expected = 1 / (1 - 0.5 * ray_x + 0.3 * ray_y)
    torch.testing.assert_close(seen.depth[0].double(), expected, rtol=3e-6, atol=0)
    # Its corners turn clockwise as this camera sees them, so it shows its back.
    assert torch.isinf(plane.observe(*pose, cull_backfaces=True).depth).all()

    ball = lk.Observer(**FRONT, particle_radius_m=0.1, particle_label=torch.ones(1, dtype=I32))
    seen = ball.observe(particles_m=torch.tensor([[[0.03, -0.02, 0.7]]]))
    a = ray_x**2 + ray_y**2 + 1
    b = 0.03 * ray_x - 0.02 * ray_y + 0.7
    gap = b**2 - a * (0.03**2 + 0.02**2 + 0.7**2 - 0.1**2)
    hit = gap >= 0
    assert torch.equal(seen.label[0] == 1, hit)
    expected = ((b - gap.clamp(min=0).sqrt()) / a)[hit]
    torch.testing.assert_close(seen.depth[0][hit].double(), expected, rtol=1e-5, atol=0)


def test_observe_culls_faces_that_turn_away():
    """The closed tetrahedron looks the same without its far faces, and is seen from inside out."""
    cam, scene = camera(), random_scene(4, 0)
    fixed = {k: v[:4] if k in ("faces", "vertices_m", "vertex_body") else v[:1]
             for k, v in meshes().items()}  # fmt: skip
    scene["position_m"], scene["quaternion"] = (
        scene["position_m"][:, :1],
        scene["quaternion"][:, :1],
    )
    scene = {k: v.contiguous() for k, v in scene.items()}
    both = draw(cam, fixed, scene, with_face=True)
    volume = torch.linalg.det(
        fixed["vertices_m"][fixed["faces"][0].long()] - fixed["vertices_m"][3]
    )
    if volume < 0:  # the corners must turn counter-clockwise as seen from outside
        fixed["faces"] = fixed["faces"].flip(1).contiguous()
    culled = draw(cam, fixed, scene, with_face=True, cull_backfaces=True)
    assert torch.equal(culled.label, both.label)
    assert ((culled.depth - both.depth).abs() < 1e-4)[both.label == 3].double().mean() > 0.99
    fixed["faces"] = fixed["faces"].flip(1).contiguous()
    inside = draw(cam, fixed, scene, cull_backfaces=True)
    seen = both.label == 3
    assert (inside.depth[seen] > both.depth[seen] + 1e-3).double().mean() > 0.9


def test_observe_draws_subsets_regions_and_nothing():
    cam = camera()
    fixed, scene = {**meshes(), **backgrounds(cam)}, random_scene(2, 9)
    full = draw(cam, fixed, scene)
    alone = draw(
        cam, fixed, scene, background=False, draw=torch.tensor([True, False]),
        draw_particle=torch.zeros(9, dtype=torch.bool),
    )  # fmt: skip
    assert set(alone.label.unique().tolist()) == {0, 3}
    assert torch.equal(torch.isinf(alone.depth), alone.label == 0)
    # A region is a window into the whole image, and both particle layouts draw alike.
    observer = lk.Observer(
        **cam, **fixed, roi=(13, 9, 31, 20), particle_radius_m=scene["particle_radius_m"],
        particle_label=scene["particle_label"],
    )  # fmt: skip
    genesis_layout = scene["particles_m"].transpose(0, 1).contiguous().transpose(0, 1)
    assert not genesis_layout.is_contiguous()
    part = observer.observe(scene["position_m"], scene["quaternion"], genesis_layout)
    window = (slice(None), slice(9, 29), slice(13, 44))
    assert (part.label == full.label[window]).double().mean() > 0.995
    close = (part.depth - full.depth[window]).abs() < 1e-5
    assert (close | torch.isinf(part.depth)).double().mean() > 0.995
    # Off the screen, behind the camera or diverged: the background remains, and nothing crashes.
    for value in (30.0, 1e9, -1e38, math.inf, math.nan):
        gone = {**scene, "position_m": torch.full((2, 2, 3), value),
                "particles_m": torch.full((2, 9, 3), value)}  # fmt: skip
        gone["position_m"][..., :2] = scene["position_m"][..., :2]
        seen = draw(cam, fixed, gone)
        assert torch.equal(seen.label[1], fixed["background_label"])
        assert torch.equal(seen.depth[1], fixed["background_depth_m"])
    zero = draw(cam, fixed, {**scene, "quaternion": torch.zeros(2, 2, 4)})
    assert not ((zero.label == 3) | (zero.label == 1)).any()


def test_neighbouring_triangles_leave_no_cracks():
    """A tilted quad of 1,800 triangles covers every pixel of an image that it surrounds."""
    n = 31
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-4, 4, n)] * 2, indexing="ij"), -1)
    vertices = torch.cat([grid, 0.1 * torch.rand(n, n, 1)], -1).view(-1, 3)
    i = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1, 1)
    faces = torch.cat([i + torch.tensor([0, 1, n]), i + torch.tensor([1, n + 1, n])]).to(I32)
    observer = lk.Observer(
        **{**FRONT, "width": 320, "height": 240, "fx": 300.0, "fy": 300.0, "cx": 160, "cy": 120},
        vertices_m=vertices, faces=faces, vertex_body=torch.zeros(n * n, dtype=I32),
        body_label=torch.ones(1, dtype=I32),
    )  # fmt: skip
    quaternion = torch.cat([torch.ones(16, 1, 1), 0.1 * torch.randn(16, 1, 3)], -1)
    seen = observer.observe(torch.tensor([0.0, 0, 2.0]) + 0.1 * torch.randn(16, 1, 3), quaternion)
    assert (seen.label == 1).all()


def test_the_passes_of_the_gpu_give_the_bits_of_the_cpu(monkeypatch):
    cam = camera()
    fixed, scene = {**meshes(), **backgrounds(cam)}, random_scene(5, 60)
    serial = draw(cam, fixed, scene, with_face=True)
    monkeypatch.setattr(runtime, "few_threads", lambda device: False)
    parallel = draw(cam, fixed, scene, with_face=True)
    for name in ("label", "depth", "face"):
        assert torch.equal(getattr(serial, name), getattr(parallel, name))


def test_observe_writes_into_what_it_is_given_and_repeats_to_the_bit():
    cam = camera()
    fixed, scene = {**meshes(), **backgrounds(cam)}, random_scene(3, 40)
    first = draw(cam, fixed, scene, with_face=True)
    again = draw(
        cam, fixed, scene, with_face=True, out=draw(cam, fixed, random_scene(3, 40), with_face=True)
    )
    one = draw(cam, fixed, {k: v[1:2] if v.ndim == 3 else v for k, v in scene.items()})
    assert torch.equal(first.label, again.label) and torch.equal(first.face, again.face)
    assert torch.equal(first.depth, again.depth)
    assert torch.equal(first.depth[1:2], one.depth) and torch.equal(first.label[1:2], one.label)


def test_labels_of_particles_may_differ_from_environment_to_environment():
    cam = camera()
    fixed, scene = {**meshes(), **backgrounds(cam)}, random_scene(3, 40)
    labels = torch.randint(9, 30, (3, 40), dtype=I32)
    seen = draw(cam, fixed, scene, particle_label=labels)
    assert torch.equal(seen.depth, draw(cam, fixed, scene).depth)
    for b in range(3):
        mine = {**scene, "particle_label": labels[b]}
        assert torch.equal(seen.label[b], draw(cam, fixed, mine).label[b])


@pytest.mark.parametrize("wanted", [[3], [1, 7], [8, 3], [200]])
@pytest.mark.parametrize("cam", [camera(), FRONT], ids=["apart", "amidst"])
def test_the_overlap_is_that_of_the_picture(cam, wanted, threads):
    """To the bit; also with bodies off the screen, behind the camera, across its plane or gone."""
    fixed, scene = {**meshes(), **backgrounds(cam)}, random_scene(9, 25)
    scene["position_m"][1] += torch.tensor([0.0, 5.0, 0.0])
    scene["position_m"][2] -= torch.tensor([5.0, 0.0, 0.0])
    scene["position_m"][3, 0] = torch.nan
    scene["particles_m"][4] *= 30
    scene["particles_m"][5, ::2] = torch.inf
    scene["position_m"][6] = 1e5 * torch.randn(2, 3)
    shape = (cam["height"], cam["width"])
    mask, valid = torch.rand(3, len(wanted), *shape) > 0.5, torch.rand(3, *shape) > 0.3
    radius, label = scene["particle_radius_m"], scene["particle_label"]
    observer = lk.Observer(**cam, **fixed, particle_radius_m=radius, particle_label=label)
    genesis_layout = scene["particles_m"].transpose(0, 1).contiguous().transpose(0, 1)
    poses = scene["position_m"], scene["quaternion"], genesis_layout
    for v in (torch.ones_like(valid), valid):
        got = observer.overlap(lk.Wanted(wanted, mask, v), *poses)
        seen = observer.observe(*poses).label.split(3)
        for compare in (lk.label_iou, twins.label_iou):
            each = [compare(*x) for x in zip(seen, [wanted] * 3, mask, v, strict=True)]
            torch.testing.assert_close(got, torch.cat(each), rtol=0, atol=0)
    with pytest.raises(ValueError, match="labels: expected different labels"):
        lk.Wanted([1, 1], mask[:, [0, 0]])
    with pytest.raises(ValueError, match="B: expected a multiple of the 2 sets of masks, got 9"):
        observer.overlap(lk.Wanted(wanted, mask[:2]), *poses)


def test_observe_names_what_is_wrong():
    cam = camera()
    observer = lk.Observer(**cam, **meshes())
    pose = torch.zeros(2, 2, 3), torch.ones(2, 2, 4)
    with pytest.raises(ValueError, match=r"quaternion: expected .*\(B, Nb, 4\) with B=2, Nb=2"):
        observer.observe(pose[0], torch.ones(3, 2, 4))
    with pytest.raises(
        TypeError, match=r"position_m: .*float32.* got float64 \(2, 2, 3\) on " + DEVICE
    ):
        observer.observe(pose[0].double(), pose[1])
    with pytest.raises(ValueError, match="position_m: expected a contiguous"):
        observer.observe(torch.zeros(2, 2, 6)[..., ::2], pose[1])
    with pytest.raises(ValueError, match=r"faces: expected indices in 0\.\.6, got 0\.\.7"):
        lk.Observer(**cam, **{**meshes(), "faces": torch.tensor([[0, 1, 7]], dtype=I32)})
    with pytest.raises(ValueError, match="background_depth_m: expected positive"):
        lk.Observer(**cam, **meshes(), background_depth_m=torch.zeros(47, 61))
    with pytest.raises(ValueError, match="roi: expected a box"):
        lk.Observer(**cam, **meshes(), roi=(50, 0, 20, 10))
    with pytest.raises(TypeError, match="particles_m: expected a tensor float32"):
        lk.Observer(**cam, particle_radius_m=0.1, particle_label=torch.ones(3, dtype=I32)).observe()


# --- overlap ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_label_iou_is_its_twin(batch, threads):
    label = torch.randint(0, 5, (batch, 13, 11), dtype=I32)
    masks, valid = torch.rand(3, 13, 11) > 0.5, torch.rand(13, 11) > 0.2
    for wanted, mask in ((2, masks[0]), ([1, 3], masks[0]), ([4, 9, 1], masks)):
        for v in (None, valid, mask.roll(1, -1)):
            got = lk.label_iou(label, wanted, mask, v)
            torch.testing.assert_close(got, twins.label_iou(label, wanted, mask, v))
            if v is not None and v.ndim <= mask.ndim:
                loose = mask.to(torch.uint8) * 7, v.to(torch.uint8) * 3
                assert torch.equal(lk.label_iou(label, wanted, *loose), got)
    with pytest.raises(ValueError, match=r"mask: expected .* L=2 wanted labels"):
        lk.label_iou(label, [1, 2], masks)
    with pytest.raises(TypeError, match="mask: expected a tensor bool or uint8"):
        lk.label_iou(label, 1, masks[0].float())


def test_label_iou_of_nothing():
    label, none = torch.zeros(2, 8, 8, dtype=I32), torch.zeros(8, 8, dtype=torch.bool)
    assert torch.equal(lk.label_iou(label, 1, none), torch.ones(2))
    assert torch.equal(lk.label_iou(label, 1, ~none), torch.zeros(2))
    assert torch.equal(lk.label_iou(label, 1, ~none, none), torch.ones(2))
    assert torch.equal(lk.label_iou(label[:, :0], 1, none[:0]), torch.ones(2))


# --- clouds -------------------------------------------------------------------------------------


def cloud(kind: str, *shape: int) -> torch.Tensor:
    x = torch.rand(*shape, 3)
    match kind:
        case "plane":
            x[..., 2] = 0.25
        case "line":
            x[..., 1:] = 0.0
        case "same":
            x[:] = 0.5
        case "outlier":
            x[..., :1, :] = 40.0
        case "far":
            x += 5.0
        case "away from the origin":
            x = x * 0.01 + 30.0
        case "lattice":  # many equal distances, and coordinates on the borders of cells
            x = (x * 8).round() / 8
    return x


KINDS = ["cube", "plane", "line", "same", "outlier", "far", "away from the origin", "lattice"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", ["cube", "plane", "lattice"])
def test_clouds_are_their_twins(kind, other, threads):
    a, b = cloud(kind, 3, 150), cloud(other, 3, 97)
    nearest, least, both = lk.nearest_distance(a, b), lk.min_distance(a, b), lk.chamfer(a, b)
    exact = torch.stack([twins.nearest_distance(x, y) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(nearest.double(), exact, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(least, nearest.amin(1), rtol=0, atol=0)
    for i in range(3):
        expected = torch.tensor(twins.chamfer(a[i], b[i]))
        got = torch.stack([both.a_to_b[i], both.b_to_a[i]])
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(both.mean * 2, both.sum) and torch.equal(both.sum, both[0] + both[1])


@pytest.mark.parametrize(("batch", "n", "m"), [(1, 1, 1), (2, 1, 300), (4, 700, 3), (0, 5, 5)])
def test_clouds_of_any_size_and_shared_clouds(batch, n, m, threads):
    a, b = torch.randn(batch, n, 3), torch.randn(m, 3)
    genesis_layout = a.transpose(0, 1).contiguous().transpose(0, 1)
    both = lk.chamfer(genesis_layout, b)
    assert both.a_to_b.shape == (batch,)
    each = lk.chamfer(a, b.expand(batch, m, 3).contiguous())
    assert torch.equal(both.a_to_b, each.a_to_b) and torch.equal(both.b_to_a, each.b_to_a)
    for i in range(batch):
        assert both.a_to_b[i].item() == pytest.approx(twins.chamfer(a[i], b)[0], rel=1e-5)
        assert lk.min_distance(a, b)[i].item() == pytest.approx(
            twins.min_distance(a[i], b), rel=1e-5
        )


def test_padding_is_not_there(threads):
    a, b = torch.rand(3, 60, 3), torch.rand(3, 80, 3)
    a[0, 10:20, 1] = torch.nan
    a[1, 5:, 0] = torch.inf
    b[2, ::2] = torch.nan
    length = torch.tensor([60, 60, 17], dtype=I32)
    both = lk.chamfer(a, b, a_length=length)
    nearest = lk.nearest_distance(a, b, a_length=length)
    least = lk.min_distance(a, b, a_length=length)
    for i in range(3):
        x = a[i, : length[i]]
        ab, ba = twins.chamfer(x, b[i])
        assert both.a_to_b[i].item() == pytest.approx(ab, rel=1e-5)
        assert both.b_to_a[i].item() == pytest.approx(ba, rel=1e-5)
        assert least[i].item() == pytest.approx(twins.min_distance(x, b[i]), rel=1e-5)
        exists = torch.isfinite(a[i]).all(1) & (torch.arange(60) < length[i])
        assert torch.equal(~torch.isnan(nearest[i]), exists)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True])
def test_a_least_distance_within_reach_is_the_least_distance(kind, shared, threads):
    a, b = cloud(kind, 4, 150), cloud("cube", 97) if shared else cloud("cube", 4, 97)
    a[0] += 0.9
    a[1] += 3.0
    a[2, ::3] = torch.nan
    exact = lk.min_distance(a, b)
    for within in (0.0, 1e-3, 0.05, 0.4, 10.0, *exact.tolist()):
        near = lk.min_distance(a, b, within_m=within)
        reached = exact <= within
        assert torch.equal(near[reached], exact[reached])
        assert (near[~reached] >= exact[~reached]).all()
    assert torch.isinf(lk.min_distance(torch.full((2, 3, 3), torch.nan), a[:2], within_m=1.0)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_small_clouds_compared_point_by_point_give_the_bits_of_grids(kind, monkeypatch):
    a, b = cloud(kind, 4, 150), cloud("cube", 97)
    a[1, ::3] = torch.nan
    a[2] = torch.nan
    few = lk.chamfer(a, b), lk.chamfer(a, a.flip(0))
    monkeypatch.setattr(clouds_module, "_FEW_PAIRS", 0)
    for x, y in zip(few, (lk.chamfer(a, b), lk.chamfer(a, a.flip(0))), strict=True):
        assert torch.equal(x.a_to_b, y.a_to_b) and torch.equal(x.b_to_a, y.b_to_a)


def test_empty_clouds_have_a_defined_distance(threads):
    some, gone = torch.rand(2, 4, 3), torch.full((2, 3, 3), torch.nan)
    for nothing in (gone, torch.zeros(2, 0, 3)):
        assert torch.isinf(torch.stack(lk.chamfer(some, nothing))).all()
        assert torch.isinf(torch.stack(lk.chamfer(nothing, some))).all()
        assert torch.equal(torch.stack(lk.chamfer(nothing, nothing)), torch.zeros(2, 2))
        assert torch.isinf(lk.min_distance(nothing, some)).all()
        assert torch.isinf(lk.min_distance(nothing, nothing)).all()
        assert torch.isinf(lk.nearest_distance(some, nothing)).all()
    # One empty cloud leaves the others of the batch alone.
    gone[0] = 0.5
    assert torch.equal(torch.isinf(lk.chamfer(some, gone).sum), torch.tensor([False, True]))
    with pytest.raises(ValueError, match=r"a_length: expected 0\.\.4 points, got 1\.\.5"):
        lk.chamfer(some, some, a_length=torch.tensor([1, 5], dtype=I32))
    with pytest.raises(ValueError, match=r"b: expected a tensor float32 \(B, M, 3\) with B=2"):
        lk.chamfer(some, torch.zeros(3, 4, 3))


# --- groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
@pytest.mark.parametrize(
    ("batch", "n", "reach"), [(4, 300, 0.1), (2, 900, 0.06), (1, 1, 0.5), (0, 3, 1), (2, 0, 1)]
)
def test_groups_are_their_twin(batch, n, reach, share, threads):
    points = torch.rand(batch, n, 3) - 0.3
    lattice = (points * 20).round() / 20  # many points in one place, equal distances
    for p in (points, lattice, points.transpose(0, 1).contiguous().transpose(0, 1)):
        got, expected = lk.linked_groups(p, reach, share), twins.linked_groups(p, reach, share)
        assert torch.equal(got[0], expected[0]) and torch.equal(got[1], expected[1])
    assert not n or batch < 2 or lk.linked_groups(points, reach)[1].min() > 1


def test_groups_of_one_size_are_numbered_by_their_first_points_and_a_lost_one_is_none(threads):
    line = torch.zeros(3, 6, 3)
    line[:, :, 0] = torch.tensor([5.0, 0.0, 9.0, 5.1, 0.1, 9.1])
    line[1, 2, 1] = torch.nan
    line[2, :, 2] = torch.tensor([1e30, 0, 0, 0, 0, 0])
    group, count = lk.linked_groups(line, 0.2)
    assert group[0].tolist() == [0, 1, 2, 0, 1, 2] and count.tolist() == [3, 0, 4]
    assert (group[1] == -1).all() and group[2].tolist() == [2, 0, 1, 3, 0, 1]
    with pytest.raises(ValueError, match="reach_m: expected a positive distance"):
        lk.linked_groups(line, 0.0)


# --- points -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [1, 7])
@pytest.mark.parametrize("reach", [1e-4, 0.03, 0.5, 3.0])
def test_what_is_near_a_surface_is_its_twin(reach, lanes, monkeypatch):
    """Bodies at many distances, among them just within and just out of reach."""
    monkeypatch.setattr(points_module, "_CPU_LANES", lanes)
    a, b = torch.randn(150, 3), torch.randn(90, 3) * 0.3
    quaternion = torch.nn.functional.normalize(torch.randn(2, 24, 4), dim=-1)
    position = torch.randn(24, 3), torch.randn(24, 3) * torch.linspace(0, 8, 24)[:, None]
    surface = lk.Surface(a, reach)
    world = [
        twins.posed_points(x, *p)
        for x, p in zip((a, b), zip(position, quaternion, strict=True), strict=True)
    ]
    apart = torch.tensor([twins.min_distance(x, y) for x, y in zip(*world, strict=True)])
    clear = (apart - reach).abs() > 1e-5
    assert clear.sum() > 20
    expected = twins.near_surface(*world, reach)
    got = surface.near(position[0], quaternion[0], b, (position[1], quaternion[1]))
    assert torch.equal(got[clear], expected[clear])
    for cloud in (world[1].float(), world[1].float().transpose(0, 1).contiguous().transpose(0, 1)):
        assert torch.equal(surface.near(position[0], quaternion[0], cloud)[clear], expected[clear])
    gone = torch.full((24, 5, 3), torch.nan)
    gone[:, 3] = torch.inf
    assert not surface.near(position[0], quaternion[0], gone).any()
    assert surface.near(position[0][:0], quaternion[0, :0], gone[:0]).shape == (0,)
    for just, near in ((0.99, True), (1.01, False)):
        touching = position[0] + torch.tensor([0.0, 0.0, just * reach])
        one = lk.Surface(torch.zeros(1, 3), reach).near(
            position[0], quaternion[0], touching[:, None]
        )
        assert (one == near).all()
    with pytest.raises(ValueError, match="reach_m: expected a positive distance, got 0"):
        lk.Surface(a, 0.0)


@pytest.mark.parametrize("width", [16, 17])
@pytest.mark.parametrize("lanes", [1, 7])
@pytest.mark.parametrize("most", [1, 20, 64, 187, 207, 100_000])
def test_unproject_is_its_twin(most, lanes, width, monkeypatch):
    """With several lanes, too, as on a GPU; of images that fill their words and such that do not."""
    monkeypatch.setattr(points_module, "_CPU_LANES", lanes)
    mask = torch.rand(5, 13, width) < torch.tensor([0.0, 0.01, 0.3, 0.9, 1.0])[:, None, None]
    depth, rays = torch.rand(5, 13, width) + 0.5, torch.randn(13, width, 3)
    centre = torch.randn(3)
    got = lk.unproject(mask, depth, rays, centre, most)
    expected = twins.unproject(mask, depth, rays, centre, most)
    assert torch.equal(got.isnan(), expected.isnan()) and got[0].isnan().all()
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6, equal_nan=True)
    assert torch.equal(
        got.isnan(), lk.unproject(mask.byte() * 3, depth, rays, centre, most).isnan()
    )


def test_unproject_of_nothing():
    nothing = torch.zeros(0, 4, 5)
    got = lk.unproject(nothing > 0, nothing, torch.zeros(4, 5, 3), torch.zeros(3), 8)
    assert got.shape == (0, 8, 3)
    with pytest.raises(ValueError, match="most: expected at least 1 point, got 0"):
        lk.unproject(nothing > 0, nothing, torch.zeros(4, 5, 3), torch.zeros(3), 0)


# --- runtime ------------------------------------------------------------------------------------


def test_importing_the_package_is_light():
    code = (
        "import sys, lucibot_kernels; print({'torch', 'quadrants', 'genesis'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_runtime_is_started_once_and_never_replaced():
    up = lk.ensure_initialized(DEVICE)
    program = runtime._quadrants().lang.impl.get_runtime()._prog
    assert lk.ensure_initialized("cuda") == up == runtime.active_device()
    assert runtime._quadrants().lang.impl.get_runtime()._prog is program
    with pytest.raises(ValueError, match="device: expected 'cpu' or 'cuda', got 'tpu'"):
        lk.ensure_initialized("tpu")
    with pytest.raises(ValueError, match="device: expected tensors on cpu or cuda, got meta"):
        lk.label_iou(
            torch.zeros(1, 8, 8, dtype=I32, device="meta"), 1,
            torch.zeros(8, 8, dtype=torch.bool, device="meta"),
        )  # fmt: skip


@pytest.mark.slow
def test_the_kernels_give_the_same_bits_under_genesis_and_alone():
    """Also that they survive Genesis replacing the runtime that they had started."""
    code = """
import torch
import lucibot_kernels as lk

def results():
    torch.manual_seed(0)
    a, b = torch.rand(4, 500, 3), torch.rand(4, 400, 3)
    eye = torch.eye(4)
    eye[2, 3] = 2.0
    observer = lk.Observer(width=64, height=48, fx=60.0, fy=60.0, cx=32.0, cy=24.0,
        T_cam_world=eye, particle_radius_m=0.02, particle_label=torch.ones(500, dtype=torch.int32))
    seen = observer.observe(particles_m=a)
    mask = seen.label > 0
    return [*lk.chamfer(a, b), lk.min_distance(a, b + 1), seen.depth, seen.label,
            lk.label_iou(seen.label, 1, mask[0]), lk.linked_groups(a, 0.05)[0],
            lk.Surface(a[0], 0.1).near(b[0, :4], torch.eye(4), b + 1),
            lk.unproject(mask, seen.depth, torch.ones(48, 64, 3), a[0, 0], 50).nan_to_num()]

alone = results()
import genesis as gs
gs.init(backend=gs.cpu, logging_level="error")
assert lk.ensure_initialized("cpu") == "cpu"
for x, y in zip(alone, results(), strict=True):
    assert torch.equal(x, y)
print("same")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("same"), done.stderr[-2000:]


# --- affordance ---------------------------------------------------------------------------------


def poses(*lead: int, spread: float = 0.03) -> tuple[torch.Tensor, torch.Tensor]:
    q = torch.nn.functional.normalize(torch.randn(*lead, 4), dim=-1)
    return torch.randn(*lead, 3) * spread, q


def grasped(K: int, M: int, F: int) -> dict:
    """An area of two holds, tips about it of which some are not seen, and a camera."""
    tips = torch.randn(K, F, 3) * 0.04
    tips[torch.rand(K, F) < 0.3] = torch.nan
    first = torch.arange(M) < M // 2
    return {
        "area": torch.randn(M, 3) * 0.03,
        "counted": torch.stack([first if k % 2 else ~first for k in range(K)]).view(K, M),
        "tips": tips, "eye": torch.tensor([0.1, -0.7, 0.5]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("K", "B", "M", "F"), [(1, 1, 1, 1), (3, 2, 17, 5), (4, 5, 64, 5), (2, 3, 0, 5), (2, 0, 4, 2)]
)
@pytest.mark.parametrize("depth_share", [0.0, 0.3, 1.0])
def test_tip_distance_is_its_twin(K, B, M, F, depth_share):
    grasp, (position, quaternion) = grasped(K, M, F), poses(K, B)
    found = lk.tip_distance(
        position=position, quaternion=quaternion, depth_share=depth_share, **grasp
    )
    twin = twins.tip_distance(
        position=position, quaternion=quaternion, depth_share=depth_share, **grasp
    )
    assert found.shape == (K, B)
    torch.testing.assert_close(found.double(), twin, rtol=2e-4, atol=2e-6, equal_nan=True)


def test_tip_distance_of_closed_forms():
    """One point, one tip straight ahead: across in full, along by its share, capped far away."""
    area, counted = torch.zeros(1, 3), torch.ones(1, 1, dtype=torch.bool)
    position = torch.tensor([[[0.0, 0, 1.0], [0.03, 0, 1.0], [0, 0, 1.04], [9.0, 0, 1.0]]])
    quaternion = torch.tensor([1.0, 0, 0, 0]).expand(1, 4, 4).contiguous()
    found = lk.tip_distance(
        area, counted, position, quaternion, torch.tensor([[[0.0, 0, 1.0]]]), torch.zeros(3),
        depth_share=0.5, slack_m=0.005, cap_m=0.05,
    )[0]  # fmt: skip

    def cost(d: float) -> float:
        d = math.hypot(d, 0.005) - 0.005
        return 0.05 * d / (0.05 + d)

    expected = [0.0, cost(0.03), cost(0.02), cost(9.0)]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-6)
    assert found[3] < 0.05
    # A pose that is not finite is as far as can be; what nobody sees says nothing.
    position[0, 0] = torch.nan
    unseen = torch.full((1, 1, 3), torch.nan)
    assert lk.tip_distance(area, counted, position, quaternion, torch.ones(1, 1, 3),
                           torch.zeros(3))[0, 0] == pytest.approx(0.05)  # fmt: skip
    assert lk.tip_distance(
        area, counted, position, quaternion, unseen, torch.zeros(3)
    ).isnan().all()  # fmt: skip
    assert lk.tip_distance(area, ~counted, position, quaternion, torch.ones(1, 1, 3),
                           torch.zeros(3)).isnan().all()  # fmt: skip


def test_tip_distance_is_smooth():
    """Small steps of the pose change it as the twin's gradient says."""
    grasp, (position, quaternion) = grasped(2, 40, 5), poses(2, 3)
    start = position.clone().requires_grad_()
    twins.tip_distance(position=start, quaternion=quaternion, **grasp).sum().backward()
    step = 2e-3
    for axis in range(3):
        shift = torch.zeros(3)
        shift[axis] = step
        ahead, back = (
            lk.tip_distance(position=(position + s).contiguous(), quaternion=quaternion, **grasp)
            for s in (shift, -shift)
        )
        slope = ((ahead - back) / (2 * step)).double()
        torch.testing.assert_close(slope, start.grad[..., axis].double(), rtol=0.1, atol=0.03)


@pytest.mark.parametrize(("B", "N"), [(1, 1), (3, 200), (2, 0), (0, 5)])
@pytest.mark.parametrize("turns", [1, 4])
@pytest.mark.parametrize("genesis_layout", [False, True])
def test_depth_of_points_in_a_hand_is_its_twin(B, N, turns, genesis_layout):
    hand = lk.HandSpace(
        torch.tensor([0.01, 0.02, 0.0]), torch.tensor([1.0, 2.0, 0.5]), (0.10, 0.06, 0.15),
        turns=turns,
    )  # fmt: skip
    position, quaternion = poses(B)
    points = torch.randn(N, B, 3).mul(0.08)
    if N > 10:
        points[::7] = torch.nan
    cloud = points.transpose(0, 1) if genesis_layout else points.transpose(0, 1).contiguous()
    found = hand.depth_of_points(position, quaternion, cloud)
    twin = twins.depth_of_points(hand.T_hand_body, hand.half_m, position, quaternion, cloud)
    torch.testing.assert_close(found.double(), twin, rtol=1e-4, atol=1e-6)
    if N > 10:
        assert (found > 0).any()
        shape, other = torch.randn(N, 3) * 0.08, poses(B)
        world = twins.posed_points(shape, *other)
        posed = hand.depth_of_points(position, quaternion, shape, other)
        twin = twins.depth_of_points(hand.T_hand_body, hand.half_m, position, quaternion, world)
        torch.testing.assert_close(posed.double(), twin, rtol=1e-4, atol=1e-6)


def test_depth_in_solids_is_its_twin_and_that_of_a_table():
    size = (0.08, 0.08, 0.15)
    hand = lk.HandSpace(torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]), size, turns=3)
    position, quaternion = poses(5, spread=0.05)
    distance, low = torch.randn(7, 9, 8) * 0.02, torch.tensor([-0.1, -0.15, -0.12])
    found = hand.depth_in_solids(position, quaternion, distance, low, 0.03)
    twin = twins.depth_in_solids(hand.samples_m, position, quaternion, distance, low, 0.03)
    assert found.shape == (5, 3) and (found > 0).any()
    torch.testing.assert_close(found.double(), twin, rtol=1e-3, atol=1e-5)

    # A table below z = 0: the hand goes sideways from a body that is lowered onto it.
    heights = torch.arange(20) * 0.02 - 0.2
    table = heights.expand(10, 10, 20).contiguous()
    low = torch.tensor([-0.1, -0.1, -0.2])
    z = torch.tensor([0.05, 0.039, 0.02, 0.0, -0.03, -0.2])
    position = torch.stack([0 * z, 0 * z, z], 1)
    upright = torch.tensor([1.0, 0, 0, 0]).expand(6, 4).contiguous()
    depth = hand.depth_in_solids(position, upright, table, low, 0.02)[:, 0]
    assert depth[0] == 0 and (depth[1:].diff() > 0).all()
    lowest = 0.04 - z
    assert (depth[1:] <= lowest[1:] + 1e-5).all() and (depth[1:] > 0.5 * lowest[1:]).all()


def test_the_hand_stands_on_the_area_and_goes_outwards():
    middle, outward = torch.tensor([0.1, 0.0, 0.02]), torch.tensor([0.0, 0.0, 2.0])
    hand = lk.HandSpace(middle, outward, (0.10, 0.04, 0.2), turns=2)
    for samples in hand.samples_m:
        torch.testing.assert_close(samples[:, 2].amin(), torch.tensor(0.02))
        torch.testing.assert_close(samples[:, 2].amax(), torch.tensor(0.22))
        torch.testing.assert_close(samples.mean(0)[:2], middle[:2], rtol=0, atol=1e-6)
    # A quarter turn on, width and thickness have changed places.
    wide = [(s[:, :2].amax(0) - s[:, :2].amin(0)).tolist() for s in hand.samples_m]
    assert wide[0] == pytest.approx(wide[1][::-1], abs=1e-6)
    assert sorted(wide[0]) == pytest.approx([0.04, 0.10], abs=1e-6)


def test_affordance_does_not_depend_on_the_batch():
    B = 6
    grasp, (position, quaternion) = grasped(3, 40, 5), poses(3, B)
    together = lk.tip_distance(position=position, quaternion=quaternion, **grasp)
    hand = lk.HandSpace(torch.zeros(3), torch.tensor([0.0, 0.3, 1.0]), (0.1, 0.06, 0.15))
    cloud, distance = torch.randn(B, 300, 3) * 0.08, torch.randn(6, 6, 6) * 0.03
    low = torch.full((3,), -0.1)
    deep = hand.depth_of_points(position[0], quaternion[0], cloud)
    inside = hand.depth_in_solids(position[0], quaternion[0], distance, low, 0.04)
    for b in range(B):
        one = slice(b, b + 1)
        p, q = position[:, one].contiguous(), quaternion[:, one].contiguous()
        alone = lk.tip_distance(position=p, quaternion=q, **grasp)
        assert torch.equal(alone.nan_to_num(-1), together[:, one].nan_to_num(-1))
        assert torch.equal(hand.depth_of_points(p[0], q[0], cloud[one]), deep[one])
        assert torch.equal(hand.depth_in_solids(p[0], q[0], distance, low, 0.04), inside[one])


def test_affordance_refuses_bad_input():
    grasp, (position, quaternion) = grasped(2, 4, 5), poses(2, 3)
    with pytest.raises(ValueError, match=r"quaternion.*K=2"):
        lk.tip_distance(position=position, quaternion=quaternion[:1].contiguous(), **grasp)
    with pytest.raises(TypeError, match=r"counted.*bool"):
        lk.tip_distance(
            position=position, quaternion=quaternion, **{**grasp, "counted": grasp["area"]}
        )
    with pytest.raises(ValueError, match="depth_share"):
        lk.tip_distance(position=position, quaternion=quaternion, depth_share=2.0, **grasp)
    with pytest.raises(ValueError, match="contiguous"):
        lk.tip_distance(
            position=position.transpose(0, 1).contiguous().transpose(0, 1), quaternion=quaternion,
            **grasp,
        )  # fmt: skip
    with pytest.raises(ValueError, match="direction"):
        lk.HandSpace(torch.zeros(3), torch.zeros(3), (0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="positive lengths"):
        lk.HandSpace(torch.zeros(3), torch.ones(3), (0.1, 0.0, 0.1))
    hand = lk.HandSpace(torch.zeros(3), torch.ones(3), (0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="two cells"):
        hand.depth_in_solids(
            position[0], quaternion[0], torch.zeros(1, 4, 4), torch.zeros(3), 0.1
        )  # fmt: skip
    with pytest.raises(TypeError, match="points"):
        hand.depth_of_points(position[0], quaternion[0], torch.zeros(3, 4, 3).double())
