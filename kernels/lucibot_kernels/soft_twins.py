"""Slow, readable torch twins of `gradients.pictures`, in float64, differentiable by autograd alone."""

from __future__ import annotations

import torch

from lucibot_kernels.twins import NEAR_M, rotation, sphere_depth, triangle_depth


def soft_observe(
    *,
    width: int,
    height: int,
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    T_cam_world: torch.Tensor,
    vertices_m: torch.Tensor,
    faces: torch.Tensor,
    vertex_body: torch.Tensor,
    position_m: torch.Tensor,
    quaternion: torch.Tensor,
    particles_m: torch.Tensor,
    particle_radius_m: torch.Tensor,
    background_depth_m: torch.Tensor,
    blur_px: float,
    blur_m: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `gradients.soft_observe`; silhouettes and depth (B, H, W) f64."""
    T = torch.as_tensor(T_cam_world).double()
    # Pixels in columns, so that the first of equals is the one that counts.
    u, v = (x.T.reshape(-1).double() + 0.5 for x in _grid(width, height))
    ray = torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones_like(u)], -1)
    behind = background_depth_m.double().T.reshape(-1)
    apart = torch.stack([u, v], -1)
    apart = (apart[:, None] - apart).square().sum(-1)
    camera = (fx, fy, cx, cy)
    silhouettes, depths = [], []
    for b in range(len(position_m)):
        R = rotation(quaternion[b])[vertex_body.long()]
        world = (R @ vertices_m.double()[..., None])[..., 0]
        world = world + position_m[b].double()[vertex_body.long()]
        corners = (world @ T[:3, :3].T + T[:3, 3])[faces.long()]  # (F, 3, 3)
        centres = particles_m[b].double() @ T[:3, :3].T + T[:3, 3]
        with torch.no_grad():
            hits = [triangle_depth(ray, c) for c in corners]
            hits += [
                sphere_depth(ray, c, float(r))
                for c, r in zip(centres, particle_radius_m, strict=True)
            ]
            nearest, primitive = torch.stack(hits).min(0)
            covered = torch.isfinite(nearest)
            other = torch.where(covered[:, None] != covered, apart, torch.inf)
            gap2, across = other.min(1)
        if not covered.any():
            silhouettes.append(torch.zeros_like(u))
            depths.append(torch.full_like(u, torch.inf))
            continue
        # What each pixel sees, or its nearest pixel does.
        primitive = torch.where(covered, primitive, primitive[across])
        depth = torch.zeros_like(u)
        distance = torch.zeros_like(u)
        for k in primitive.unique().tolist():
            mine = primitive == k
            inside, outside = mine & covered, mine & ~covered
            if k < len(faces):
                z = _plane_depth(ray[inside], corners[k])
                d = _triangle_distance(u[outside], v[outside], corners[k], camera)
            else:
                centre, r = centres[k - len(faces)], float(particle_radius_m[k - len(faces)])
                z = sphere_depth(ray[inside], centre, r)
                d = _sphere_distance(ray[outside], centre, r, camera)
            depth = depth.masked_scatter(inside, z)
            distance = distance.masked_scatter(outside, d)
        distance = torch.where(covered, gap2.sqrt() - distance[across], distance).clamp(min=0)
        depth = torch.where(covered, depth, depth[across])
        s = torch.where(torch.isfinite(gap2), _soft(distance, blur_px, covered), covered.double())
        open_ = torch.isfinite(behind)
        room = torch.where(open_, behind, 0.0) - depth
        seen = torch.where(open_, _soft(room.abs(), blur_m, room > 0), 1.0)
        silhouettes.append(s * seen)
        depths.append(depth)
    shape = (-1, width, height)
    return tuple(torch.stack(x).view(shape).transpose(1, 2) for x in (silhouettes, depths))


def soft_iou(
    silhouette: torch.Tensor, mask: torch.Tensor, valid: torch.Tensor | None = None
) -> torch.Tensor:
    """See `gradients.soft_iou`; (B,) f64."""
    s, m = torch.broadcast_tensors(silhouette.double(), mask.double())
    w = torch.ones_like(s) if valid is None else valid.double().expand_as(s)
    both = (w * torch.minimum(s, m)).sum((1, 2))
    either = (w * torch.maximum(s, m)).sum((1, 2))
    return torch.where(either > 0, both / either.clamp(min=1e-300), 1.0)


def chamfer(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See `gradients.chamfer`; of clouds (B, N, 3) and (B, M, 3) of points that all exist."""
    nearest = [_distances(x, y).amin(2) for x, y in ((a, b), (b, a))]
    return nearest[0].mean(1), nearest[1].mean(1)


def contact_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """See `gradients.contact_distance`; (B,) of clouds in the world whose points all exist."""
    return _distances(a, b).amin((1, 2))


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a[:, :, None] - b[:, None]).square().sum(-1).sqrt()


def _grid(width: int, height: int):
    return torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")


def _soft(d: torch.Tensor, blur: float, inside: torch.Tensor) -> torch.Tensor:
    h = 0.5 / (1 + d / blur) ** 2
    return torch.where(inside, 1 - h, h)


def _plane_depth(ray: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    normal = (corners[1] - corners[0]).cross(corners[2] - corners[0], dim=0)
    return normal.dot(corners[0]) / (ray @ normal)


def _triangle_distance(u, v, corners, camera) -> torch.Tensor:
    """From pixels (P,) to a projected triangle that they are not in."""
    fx, fy, cx, cy = camera
    at = torch.stack([u, v], -1)
    z = corners[:, 2].clamp(min=NEAR_M)
    pixel = torch.stack([fx * corners[:, 0] / z + cx, fy * corners[:, 1] / z + cy], -1)
    sides = []
    for k in range(3):
        p, way = pixel[k], pixel[(k + 1) % 3] - pixel[k]
        t = ((at - p) @ way / way.dot(way)).clamp(0, 1)
        sides.append((at - p - t[:, None] * way).norm(dim=-1))
    return torch.stack(sides).amin(0)


def _sphere_distance(ray, centre, radius: float, camera) -> torch.Tensor:
    """How far rays (P, 3) pass a sphere, in pixels where it is."""
    along = (ray @ centre) / ray.square().sum(-1)
    passes = (centre - ray * along[:, None]).norm(dim=-1) - radius
    return (camera[0] * camera[1]) ** 0.5 * passes.clamp(min=0) / centre[2].clamp(min=NEAR_M)
