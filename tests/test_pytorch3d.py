"""The kernels against PyTorch3D, where it is installed: distances of clouds, pictures of meshes, and
gradients of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from lucibot_kernels import Observer, chamfer, gradients

pytest.importorskip(
    "pytorch3d", reason="PyTorch3D is not installed: docs/gradients.md says how it is built"
)

from pytorch3d.ops import knn_points
from pytorch3d.renderer import (
    BlendParams,
    MeshRasterizer,
    PerspectiveCameras,
    RasterizationSettings,
)
from pytorch3d.renderer.blending import sigmoid_alpha_blend
from pytorch3d.structures import Meshes

SIDE, FOCAL = 96, 110.0


def test_chamfer_and_its_gradient():
    rng = torch.Generator().manual_seed(3)
    a = (0.1 * torch.rand(5, 300, 3, generator=rng)).requires_grad_()
    b = (0.1 * torch.rand(5, 210, 3, generator=rng)).requires_grad_()

    def theirs():
        there = knn_points(a, b).dists[..., 0].sqrt().mean(1)
        return there + knn_points(b, a).dists[..., 0].sqrt().mean(1)

    wanted, found = theirs(), gradients.chamfer(a, b).sum
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(chamfer(a.detach(), b.detach()).sum, wanted.detach())
    weight = torch.tensor([1.0, -2, 0.5, 3, 1])
    for ours, other in zip(
        torch.autograd.grad((found * weight).sum(), (a, b)),
        torch.autograd.grad((wanted * weight).sum(), (a, b)),
        strict=True,
    ):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-6)


@pytest.fixture(scope="module")
def scene():
    """An egg-shaped mesh before a camera that looks along z, x to the right and y down."""
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.1)
    mesh.apply_scale([1.0, 0.6, 1.4])
    vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
    faces = torch.tensor(mesh.faces, dtype=torch.int32)
    observer = Observer(
        width=SIDE, height=SIDE, fx=FOCAL, fy=FOCAL, cx=SIDE / 2, cy=SIDE / 2, T_cam_world=np.eye(4),
        vertices_m=vertices, faces=faces, vertex_body=torch.zeros(len(vertices), dtype=torch.int32),
        body_label=torch.ones(1, dtype=torch.int32), device="cpu",
    )  # fmt: skip
    return observer, vertices, faces.long()


def theirs(vertices, faces, position, *, sigma_px=0.0, faces_per_pixel=1):
    """Fragments of PyTorch3D's rasteriser; its x goes to the left and its y up."""
    seen = (vertices + position) * torch.tensor([-1.0, -1.0, 1.0])
    cameras = PerspectiveCameras(
        focal_length=FOCAL, principal_point=((SIDE / 2, SIDE / 2),), image_size=((SIDE, SIDE),),
        in_ndc=False,
    )  # fmt: skip
    # Blurs are squares of lengths in units of half the picture.
    blur = (5 * sigma_px * 2 / SIDE) ** 2
    settings = RasterizationSettings(
        image_size=SIDE, blur_radius=blur, faces_per_pixel=faces_per_pixel, bin_size=0,
        perspective_correct=True,
    )  # fmt: skip
    return MeshRasterizer(cameras=cameras, raster_settings=settings)(Meshes([seen], [faces]))


POSITIONS = torch.tensor([[0.0, 0.0, 0.5], [0.07, -0.05, 0.45], [-0.12, 0.03, 0.6]])
UPRIGHT = torch.tensor([[1.0, 0, 0, 0]])


@pytest.mark.parametrize("position", POSITIONS)
def test_mask_and_depth(scene, position):
    observer, vertices, faces = scene
    ours = observer.observe(position[None, None], UPRIGHT[None])
    fragments = theirs(vertices, faces, position)
    covered = fragments.pix_to_face[0, ..., 0] >= 0
    mask = ours.label[0] == 1
    assert mask.sum() > 500
    # Pixels whose centres lie on an edge may go either way.
    assert (mask != covered).sum() <= 2
    both = mask & covered
    depth, wanted = ours.depth[0][both], fragments.zbuf[0, ..., 0][both]
    assert (depth - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("position", POSITIONS)
def test_the_soft_silhouette_is_moved_the_same_way(scene, position):
    """The profiles of the edge differ, but what a picture asks of a position does not."""
    observer, vertices, faces = scene
    goal = observer.observe(
        (position + torch.tensor([0.012, -0.008, 0.0]))[None, None], UPRIGHT[None]
    )
    wanted = (goal.label[0] == 1).float()

    p = position.clone().requires_grad_()
    soft = gradients.soft_observe(observer, p[None, None], UPRIGHT[None]).silhouette[0]
    (ours,) = torch.autograd.grad(((soft - wanted) ** 2).sum(), p)

    q = position.clone().requires_grad_()
    fragments = theirs(vertices, faces, q, sigma_px=1.0, faces_per_pixel=30)
    # Its sigmoid takes squares of distances: of the width of one pixel.
    blend = BlendParams(sigma=(2 / SIDE) ** 2)
    colours = torch.ones(*fragments.pix_to_face.shape, 3)
    alpha = sigmoid_alpha_blend(colours, fragments, blend)[0, ..., 3]
    (other,) = torch.autograd.grad(((alpha - wanted) ** 2).sum(), q)

    # Its product over all faces near an edge is up to a pixel wider than the mesh.
    assert not ((soft > 0.5) & (alpha < 0.5)).any()
    assert ((soft > 0.5) != (alpha > 0.5)).float().mean() < 0.03
    across = torch.nn.functional.cosine_similarity(ours[:2], other[:2], dim=0)
    assert across > 0.95
    # Downhill is towards where the goal was drawn.
    assert (-ours[:2] @ torch.tensor([0.012, -0.008])) > 0
