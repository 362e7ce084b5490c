"""The kernels of pose estimation against plain twins of themselves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from lucibot.core.camera import Camera
from lucibot.core.heights import HeightMap
from lucibot.perception.problem import lowest_points
from lucibot.vision.contour import KNOWN_MARGIN_M, MOVING_MARGIN_M, edge_offsets, outlines
from lucibot.vision.draw import DrawMesh, Windows, draw_depth, draw_windows
from lucibot.vision.grid import UNSURE, Grid, resize_masks, visible_iou
from lucibot.vision.trajectory import Trajectory, normal_equations

H, W, COUNT = 90, 120, 48
MARGINS_M = np.array([MOVING_MARGIN_M, MOVING_MARGIN_M, KNOWN_MARGIN_M])


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera.look_at(
        position=(0.0, -0.5, 0.3), target=(0.0, 0.0, 0.0), vertical_fov_deg=35, width=W, height=H
    )


def two_balls() -> DrawMesh:
    """Two separate parts of different size, 12 cm apart."""
    parts = [trimesh.creation.icosphere(2, r) for r in (0.03, 0.02)]
    parts[1].apply_translation((0.12, 0.0, 0.02))
    return DrawMesh.from_trimesh(trimesh.util.concatenate(parts))


MESHES = {
    "ring": DrawMesh.from_trimesh(trimesh.creation.torus(0.05, 0.015)),
    "rod": DrawMesh.from_trimesh(trimesh.creation.cylinder(0.004, 0.2)),
    "two balls": two_balls(),
}


def poses(camera: Camera) -> np.ndarray:
    """(B, 4, 4): all over the picture and beyond it, at many depths, a few behind the camera, about
    it, or too small to have an outline."""
    rng = np.random.default_rng(0)
    T = np.tile(np.eye(4), (60, 1, 1))
    T[:, :3, :3] = Rotation.random(len(T), rng).as_matrix()
    T[:, :3, 3] = rng.uniform(-0.25, 0.25, (len(T), 3))
    ahead, eye = camera.T_world_cam[:3, 2], camera.T_world_cam[:3, 3]
    for b, far in enumerate((-0.5, 0.02, 12.0, 5.0, 3.0)):
        T[b, :3, 3] = eye + far * ahead
    T[5, :3, 3] = eye + 0.3 * ahead + 0.5 * camera.T_world_cam[:3, 0]
    return T


def plain_depth(mesh: DrawMesh, T_world_object: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W) [m], inf where nothing is drawn: each face over every pixel."""
    T = camera.T_cam_world @ T_world_object
    p = mesh.vertices_m @ T[:3, :3].T + T[:3, 3]
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    out = np.full(u.shape, np.inf, np.float32)
    for face in mesh.faces:
        (x, y, z) = p[face].T
        if (z < 1e-3).any():
            continue
        a, b = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        area = (a[1] - a[0]) * (b[2] - b[0]) - (b[1] - b[0]) * (a[2] - a[0])
        if area > -1e-12:
            continue
        share = [
            ((a[j] - u) * (b[k] - v) - (b[j] - v) * (a[k] - u)) / area
            for j, k in ((1, 2), (2, 0), (0, 1))
        ]
        inside = np.min(share, 0) >= 0
        near = sum(s / d for s, d in zip(share, z, strict=True))
        out[inside] = np.minimum(out[inside], 1 / near[inside])
    return out


@pytest.mark.parametrize("name", MESHES)
def test_meshes_are_drawn_as_if_every_face_were_asked_about_every_pixel(camera, name):
    mesh, T = MESHES[name], poses(camera)[::2]
    depth = draw_depth(mesh, T, camera)
    plain = np.stack([plain_depth(mesh, t, camera) for t in T])
    assert (np.isfinite(depth) == np.isfinite(plain)).all()
    drawn = np.isfinite(plain)
    assert drawn.any((1, 2)).sum() > 10 and not drawn[0].any()
    assert np.allclose(depth[drawn], plain[drawn], rtol=1e-6)


def test_what_lies_beyond_the_scene_is_left_out(camera):
    mesh, T = MESHES["ring"], poses(camera)
    far = np.random.default_rng(1).uniform(0.3, 0.8, (H, W)).astype(np.float32)
    plain = draw_depth(mesh, T, camera)
    plain[plain > far] = np.inf
    assert (draw_windows(mesh, T, camera, far).pictures() == plain).all()


def plain_outline(depth: np.ndarray, count: int):
    """`outlines` of one (H, W) picture with OpenCV."""
    h, w = depth.shape
    drawn = np.isfinite(depth).astype(np.uint8)
    found, _ = cv2.findContours(drawn, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    line = max(found, key=len)[:, 0].astype(float) if found else np.zeros((0, 2))
    points, normals, z, weight = np.zeros((count, 2)), np.zeros((count, 2)), *np.zeros((2, count))
    if len(line) < 12:
        return points, normals, z, weight
    wrapped = np.concatenate([line[-4:], line, line[:4]])
    smooth = np.stack([np.convolve(wrapped[:, k], np.ones(5) / 5, "valid") for k in (0, 1)], 1)
    tangent = smooth[4:] - smooth[:-4]
    normal = np.stack([tangent[:, 1], -tangent[:, 0]], 1)
    nx, ny = line.T
    normal *= 1 if np.sum(nx * np.roll(ny, -1) - np.roll(nx, -1) * ny) > 0 else -1
    length = np.linalg.norm(normal, axis=1)
    step = np.linalg.norm(np.diff(line, axis=0, append=line[:1]), axis=1)
    along = np.cumsum(step) - step
    pick = np.searchsorted(along, (np.arange(count) + 0.5) / count * step.sum()) % len(line)
    p = line[pick].astype(int)
    normals = np.where(length[pick] > 1e-6, normal[pick].T / np.maximum(length[pick], 1e-9), 0).T
    inner = (p > 0).all(1) & (p < (w - 1, h - 1)).all(1) & (length[pick] > 1e-6)
    return p + 0.5, normals, depth[p[:, 1], p[:, 0]], inner * min(1.0, step.sum() / count)


def scribbles() -> np.ndarray:
    """(B, H, W) depth of blobs with holes, parts within holes, thin lines and single pixels."""
    rng = np.random.default_rng(2)
    out = np.full((80, H, W), np.inf, np.float32)
    for b, depth in enumerate(out):
        sigma = (0, 1, 2, 4)[b % 4]
        noise = rng.normal(size=(H, W))
        if sigma:
            noise = cv2.GaussianBlur(noise, (0, 0), sigma)
        shown = np.abs(noise) < rng.uniform(0.1, 1.2) * noise.std()
        if b % 3 == 0:
            shown[rng.integers(60) :], shown[:, rng.integers(80) :] = False, False
        depth[shown] = rng.uniform(0.3, 0.8, shown.sum())
    out[0], out[1] = np.inf, np.inf
    out[1, 40, 50:54] = 0.5
    return out


@pytest.mark.parametrize("name", [*MESHES, "scribbles"])
def test_outlines_are_those_of_opencv(camera, name):
    if name == "scribbles":
        drawn = Windows.whole(scribbles())
    else:
        drawn = draw_windows(MESHES[name], poses(camera), camera)
    plain = [np.stack(k) for k in zip(*(plain_outline(d, COUNT) for d in drawn.pictures()),
                                      strict=True)]  # fmt: skip
    ours = outlines(drawn, COUNT)
    assert 0 < (plain[3] > 0).any(1).sum() < len(drawn)
    # Of two points as near to where one is wanted, rounding takes one.
    same = (ours[0] == plain[0]).all(-1)
    assert same.mean() > 0.995
    for a, b in zip(ours, plain, strict=True):
        assert np.allclose(a[same], b[same], atol=1e-12)
    again = outlines(drawn[np.repeat(np.arange(len(drawn)), 2)], COUNT)
    for a, b in zip(again, ours, strict=True):
        assert (a == np.repeat(b, 2, 0)).all()


@pytest.mark.parametrize(
    "size", [(75, 56), (64, 90), (119, 60), (60, 45), (60, 44), (120, 50), (150, 112)]
)
def test_masks_are_resized_as_by_opencv(size):
    drawn = np.isfinite(scribbles())
    drawn[1:6] = False
    drawn[2], drawn[3, 0, 0], drawn[4, -1, -1], drawn[5, 20:61, 30:71] = True, True, True, True
    how = cv2.INTER_AREA if size[0] <= W else cv2.INTER_LINEAR
    plain = [cv2.resize(255 * m.astype(np.uint8), size, interpolation=how) > 127 for m in drawn]
    assert (resize_masks(drawn, size) == np.stack(plain)).all()


@pytest.fixture(scope="module")
def picture(camera):
    """Three objects in forty frames, their masks a little beside them: (N, B) windows, the grid."""
    T = poses(camera)[:40]
    drawn = [draw_windows(m, T, camera) for m in MESHES.values()]
    rng = np.random.default_rng(3)
    label = np.zeros((2 * len(T), H, W), np.uint8)
    for b in range(len(T)):
        for i, windows in enumerate(drawn):
            shift = rng.integers(-4, 5, 2)
            label[2 * b][np.roll(np.isfinite(windows[[b]].pictures()[0]), shift, (0, 1))] = i + 1
        label[2 * b, :, rng.integers(W) :][:, :12] = UNSURE
    area = np.stack([(label == i + 1).sum((1, 2)) for i in range(3)], 1)
    grid = Grid(
        camera=camera, label=label, hand=label == UNSURE, area_px=area,
        first_depth_m=np.zeros((H, W), np.float32), first_label=label[0],
    )  # fmt: skip
    return Windows.stack(drawn), grid, 2 * np.arange(len(T))


def against(other_m: np.ndarray, own_m: np.ndarray, margin_m: np.ndarray) -> np.ndarray:
    """`speaks_against` for arrays."""
    share = np.clip((other_m - own_m - margin_m[0]) / (margin_m[1] - margin_m[0]), 0, 1)
    return np.where(np.isfinite(other_m), share, 0)


@pytest.mark.parametrize("i", range(3))
def test_iou_asks_only_pixels_that_can_be_judged(picture, i):
    depths, grid, frames = picture
    iou, seen = visible_iou(depths[i], grid, frames, i, depths, MARGINS_M)
    every = [depths[j].pictures() for j in range(3)]
    for b, t in enumerate(frames):
        label, own = grid.label[t], every[i][b]
        drawn, mask = np.isfinite(own), label == i + 1
        weight = (mask | (label == 0)).astype(float)
        for j in {0, 1, 2} - {i}:
            with np.errstate(invalid="ignore"):
                behind = against(every[j][b], own, MARGINS_M[j])
            weight = np.where(label == j + 1, np.nan_to_num(behind), weight)
        union = weight[drawn | mask].sum()
        assert np.isclose(iou[b], (drawn & mask).sum() / union if union else 0)
        assert np.isclose(seen[b], weight[drawn].mean() if drawn.any() else 0)


def test_offsets_do_not_depend_on_how_pictures_are_kept(picture):
    depths, grid, frames = picture
    whole = Windows.stack([Windows.whole(depths[j].pictures()) for j in range(3)])
    some = np.array([30, 7, 12])
    for i in range(3):
        found = [
            edge_offsets(
                *outlines(d[i], COUNT), d, grid.label, t, i + 1, MARGINS_M, 8.0
            ) for d, t in ((depths, frames), (whole, frames), (depths[:, some], frames[some]))
        ]  # fmt: skip
        assert (found[0][1] > 0).any() and (found[0][0] != 0).any()
        for a, b, c in zip(*found, strict=True):
            assert (a == b).all() and (a[some] == c).all()
        swapped = depths[[1, 2, 0]].exchanged(0, depths[i])
        assert (swapped[0].pictures() == depths[i].pictures()).all()
        assert (swapped[1].pictures() == depths[2].pictures()).all()


def plain_offset(mine, label, other_m, i, point, normal, z, weight, reach):
    """`edge_offsets` of one point: (H, W) is object i drawn, and the labels; (N, H, W) [m] all."""
    half = int(2 * reach)
    o = 0.5 * np.arange(-half, half + 1)
    u, v = np.floor(point[:, None] + o * normal[:, None]).astype(int)
    within = (u >= 0) & (v >= 0) & (u < W) & (v < H)
    u, v = np.where(within, u, 0), np.where(within, v, 0)
    what, mine = np.where(within, label[v, u], UNSURE), within & mine[v, u]
    says = np.where(what == i + 1, 1.0, np.where(what == 0, -1.0, 0.0))
    for j in {0, 1, 2} - {i}:
        behind = against(other_m[j, v, u], z, MARGINS_M[j])
        says = np.where(what == j + 1, -behind, says)
    empty = np.flatnonzero(within & ~mine)
    if weight == 0 or not (empty >= half).any():
        return 0.0, 0.0
    own_edge = empty[empty >= half][0]
    for again in np.flatnonzero(mine[own_edge:])[:1]:
        says[own_edge + again :] = 0
    for thick in np.flatnonzero(~mine[:half])[-1:]:
        says[: thick + 1] = 0
    cost = (says > 0).sum() - np.concatenate([[0.0], np.cumsum(says)])
    least = np.flatnonzero(cost < cost.min() + 1e-6)
    nearest = least[np.abs(least - own_edge).argmin()]
    runs = np.split(least, np.flatnonzero(np.diff(least) > 1) + 1)
    (width,) = (0.5 * (len(r) - 1) for r in runs if nearest in r)
    loose = 1 + width**2 if nearest == own_edge else 1
    return 0.5 * (nearest - own_edge), weight / loose


@pytest.mark.parametrize("reach_px", [2.0, 8.0])
def test_offsets_are_those_of_a_plain_search(picture, reach_px):
    depths, grid, frames = picture
    label = grid.label.copy()
    label[frames[1]] = 0  # no mask
    label[frames[2]][label[frames[2]] == 2] = 0
    label[frames[2], 45, 60] = 2  # one pixel
    every = np.stack([depths[j].pictures() for j in range(3)])
    for i in range(3):
        points, normals, z, weight = outlines(depths[i], COUNT)
        offset, w = edge_offsets(
            points, normals, z, weight, depths, label, frames, i + 1, MARGINS_M, reach_px
        )
        plain = np.array([
            [
                plain_offset(np.isfinite(every[i, b]), label[t], every[:, b], i, *at, reach_px)
                for at in zip(points[b], normals[b], z[b], weight[b], strict=True)
            ] for b, t in enumerate(frames)
        ])  # fmt: skip
        assert (offset == plain[..., 0]).all() and np.allclose(w, plain[..., 1], atol=1e-12)
        assert (offset != 0).any() and (w[offset == 0] > 0).any()


def test_normal_equations_follow_the_outline(camera):
    """A step of the anchor moves the points along their normals as the derivative says."""
    rng = np.random.default_rng(4)
    B, C = 3, 20
    R = Rotation.random(B, rng).as_matrix()
    at = Trajectory(position_m=rng.uniform(-0.05, 0.05, (B, 3)), rotation=R, log_scale=np.zeros(B))
    world = at.position_m[:, None] + rng.uniform(-0.04, 0.04, (B, C, 3))
    points, z = camera.project(world)
    normals = rng.normal(size=(B, C, 2))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    J = np.empty((B, C, 7))
    for k in range(7):
        step = np.zeros((B, 7))
        step[:, k] = 1e-6
        turn = Rotation.from_rotvec(step[:, 3:6]).as_matrix() * np.exp(step[:, 6])[:, None, None]
        arm = (world - at.position_m[:, None]) @ np.swapaxes(turn, 1, 2)
        moved, _ = camera.project(at.position_m[:, None] + step[:, None, :3] + arm)
        J[..., k] = np.sum((moved - points) * normals, -1) / 1e-6
    offset, weight = rng.normal(size=(B, C)), rng.uniform(0, 1, (B, C))
    weight[:, 0] = 0
    found = normal_equations(at, camera, points, normals, z, offset, weight, 1.2)
    w = weight / (1 + (offset / 1.2) ** 2) / 1.2**2
    assert np.allclose(found[0], np.einsum("bck,bc,bcl->bkl", J, w, J), rtol=1e-3, atol=1)
    assert np.allclose(found[1], np.einsum("bck,bc->bk", J, w * offset), rtol=1e-3, atol=1)
    assert np.allclose(found[2], (weight * np.log1p((offset / 1.2) ** 2)).sum(1))


def test_the_lowest_point_is_measured_against_what_is_below_it():
    rng = np.random.default_rng(5)
    tops = HeightMap(
        lower_xy_m=np.array([-0.1, -0.1]), cell_m=0.01, z=rng.uniform(0, 0.1, (20, 15))
    )
    mesh, T = MESHES["two balls"], np.tile(np.eye(4), (6, 1, 1))
    T[:, :3, :3] = Rotation.random(6, rng).as_matrix()
    T[:, :3, 3] = rng.uniform(-0.1, 0.1, (6, 3))
    T[5, 0, 3] = 9
    arm, gap = lowest_points(mesh.vertices_m, T, tops)
    world = mesh.vertices_m @ np.swapaxes(T[:, :3, :3], 1, 2) + T[:, None, :3, 3]
    plain = world[..., 2] - tops.at(world[..., :2])
    assert np.allclose(gap[:5], plain[:5].min(1)) and gap[5] == np.inf
    at = plain[:5].argmin(1)
    assert np.allclose(arm[:5] + T[:5, :3, 3], world[np.arange(5), at])
