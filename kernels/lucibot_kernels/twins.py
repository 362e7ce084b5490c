"""Slow, readable torch twins of the kernels: what each computes, with nothing done for speed.

The twins work in float64 where the kernels work in float32, and take no shortcut that a kernel
takes (no clipping, no grid, no union-find), so that agreement means something.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

NEAR_M = 0.01


def observe(
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
    body_label: torch.Tensor,
    position_m: torch.Tensor,
    quaternion: torch.Tensor,
    particles_m: torch.Tensor,
    particle_radius_m: torch.Tensor,
    particle_label: torch.Tensor,
    background_label: torch.Tensor,
    background_depth_m: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Label (B, H, W), depth (B, H, W) f64 [m] and face (B, H, W); see `Observer`.

    A ray through each pixel centre meets each triangle and each sphere.
    """
    T = torch.as_tensor(T_cam_world, dtype=torch.float64)
    u, v = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    ray = torch.stack([(u + 0.5 - cx) / fx, (v + 0.5 - cy) / fy, torch.ones(u.shape)], -1).double()
    batch = position_m.shape[0]
    label = background_label.expand(batch, height, width).clone()
    depth = background_depth_m.double().expand(batch, height, width).clone()
    face = torch.full((batch, height, width), -1, dtype=torch.int32)
    for b in range(batch):
        R = rotation(quaternion[b])
        world = (R[vertex_body.long()] @ vertices_m.double()[..., None])[..., 0]
        world = world + position_m[b].double()[vertex_body.long()]
        camera = world @ T[:3, :3].T + T[:3, 3]
        for f, corners in enumerate(faces.long()):
            z = triangle_depth(ray, camera[corners])
            nearer = z < depth[b]
            depth[b][nearer], face[b][nearer] = z[nearer], f
            label[b][nearer] = body_label[vertex_body[corners[0]]]
        centres = particles_m[b].double() @ T[:3, :3].T + T[:3, 3]
        for n, centre in enumerate(centres):
            z = sphere_depth(ray, centre, float(particle_radius_m[n]))
            nearer = z < depth[b]
            depth[b][nearer], face[b][nearer] = z[nearer], -1
            label[b][nearer] = particle_label[n]
    return label, depth, face


def rotation(quaternion: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) f64 of quaternions (..., 4) wxyz."""
    w, x, y, z = torch.nn.functional.normalize(quaternion.double(), dim=-1).unbind(-1)
    zero = torch.zeros_like(w)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.eye(3) + 2 * w[..., None, None] * cross + 2 * cross @ cross


def triangle_depth(ray: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Depth z [m] at which rays (..., 3) with z = 1 meet a triangle (3, 3); infinite if never."""
    a, b, c = corners
    weights = ray @ torch.stack([b.cross(c, dim=0), c.cross(a, dim=0), a.cross(b, dim=0)], -1)
    total = weights.sum(-1)
    z = a.dot(b.cross(c, dim=0)) / total
    hit = (weights / total[..., None] >= 0).all(-1) & (z >= NEAR_M)
    return torch.where(hit, z, torch.inf)


def sphere_depth(ray: torch.Tensor, centre: torch.Tensor, radius: float) -> torch.Tensor:
    """Depth z [m] at which rays (..., 3) with z = 1 meet a sphere; infinite if never."""
    a, b = (ray * ray).sum(-1), ray @ centre
    gap = b * b - a * (centre.dot(centre) - radius**2)
    root = gap.clamp(min=0).sqrt()
    near, far = (b - root) / a, (b + root) / a
    z = torch.where(near >= NEAR_M, near, far)
    return torch.where((gap >= 0) & (z >= NEAR_M), z, torch.inf)


def label_iou(
    label: torch.Tensor,
    wanted: int | Sequence[int],
    mask: torch.Tensor,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `overlap.label_iou`."""
    labels = [wanted] if isinstance(wanted, int) else list(wanted)
    of_each = [label == w for w in labels]
    seen = torch.stack(of_each, 1) if mask.ndim == 3 else sum(of_each).bool()
    inter, union = seen & mask.bool(), seen | mask.bool()
    if valid is not None:
        inter, union = inter & valid.bool(), union & valid.bool()
    inter, union = inter.sum((-2, -1)), union.sum((-2, -1))
    return torch.where(union > 0, inter / union, 1.0)


def nearest_distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Distances (N,) f64 [m] from points a (N, 3) to the nearest of b (M, 3), all of them real."""
    difference = a.double()[:, None] - b.double()[None]
    return difference.square().sum(-1).sqrt().amin(1)


def chamfer(a: torch.Tensor, b: torch.Tensor) -> tuple[float, float]:
    """Mean distances [m] a to b and b to a of two clouds; see `clouds.chamfer` for empty ones."""
    a, b = a[torch.isfinite(a).all(1)], b[torch.isfinite(b).all(1)]
    if len(a) == 0 or len(b) == 0:
        value = 0.0 if len(a) == len(b) else torch.inf
        return value, value
    return float(nearest_distance(a, b).mean()), float(nearest_distance(b, a).mean())


def min_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The smallest distance [m] between two clouds; infinite if one is empty."""
    a, b = a[torch.isfinite(a).all(1)], b[torch.isfinite(b).all(1)]
    return float(nearest_distance(a, b).min()) if len(a) and len(b) else torch.inf


def posed_points(
    points: torch.Tensor, position: torch.Tensor, quaternion: torch.Tensor
) -> torch.Tensor:
    """Points (N, 3) [m] of a body's frame in the world, (B, N, 3) f64 [m]."""
    R = rotation(quaternion)
    return points.double() @ R.transpose(-1, -2) + position.double()[:, None]


def near_surface(surface: torch.Tensor, points: torch.Tensor, reach_m: float) -> torch.Tensor:
    """See `points.Surface.near`, with both clouds (B, ., 3) in the world; (B,) bool."""
    least = [min_distance(a, b) for a, b in zip(surface, points, strict=True)]
    return torch.tensor(least) < reach_m


def tip_distance(
    area: torch.Tensor, counted: torch.Tensor, position: torch.Tensor, quaternion: torch.Tensor,
    tips: torch.Tensor, eye: torch.Tensor, *, depth_share: float = 1.0, slack_m: float = 0.005,
    blur_m: float = 0.003, cap_m: float = 0.05,
) -> torch.Tensor:  # fmt: skip
    """See `affordance.tip_distance`; (K, B) f64 [m], differentiable in the poses."""
    K, B = position.shape[:2]
    out = torch.full((K, B), torch.nan, dtype=torch.float64)
    for k in range(K):
        seen = tips[k][torch.isfinite(tips[k]).all(-1)].double()
        mine = area[counted[k]].double()
        for b in range(B if len(seen) and len(mine) else 0):
            posed = mine @ rotation(quaternion[k, b]).T + position[k, b].double()
            sight = torch.nn.functional.normalize(seen - eye.double(), dim=-1)
            apart = posed[None] - seen[:, None]  # (F, M, 3)
            along = (apart * sight[:, None]).sum(-1)
            across = (apart - along[..., None] * sight[:, None]).square().sum(-1)
            d = (across + (depth_share * along) ** 2 + slack_m**2).sqrt() - slack_m
            d = (torch.softmax(-d / blur_m, dim=-1) * d).sum(-1)
            out[k, b] = (cap_m * d / (cap_m + d)).nan_to_num(cap_m).mean()
    return out


def weighed_depth(depth: torch.Tensor) -> torch.Tensor:
    """Of depths (..., N) the mean (...) of the positive ones, each weighed by its square; 0 of
    none."""
    d = depth.clamp(min=0)
    squares = d.square().sum(-1)
    return torch.where(squares > 0, (d**3).sum(-1) / squares.clamp(min=1e-300), 0.0)


def depth_of_points(
    T_hand_body: torch.Tensor, half_m: torch.Tensor, position: torch.Tensor,
    quaternion: torch.Tensor, points: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """See `affordance.HandSpace.depth_of_points`, with points (B, N, 3) in the world; (B, R) f64."""
    out = torch.zeros(len(points), len(T_hand_body), dtype=torch.float64)
    for b, cloud in enumerate(points):
        real = cloud[torch.isfinite(cloud).all(-1)].double()
        body = (real - position[b].double()) @ rotation(quaternion[b])
        for r, T in enumerate(T_hand_body.double()):
            inside = body @ T[:, :3].T + T[:, 3]
            out[b, r] = weighed_depth((half_m.double() - inside.abs()).amin(-1))
    return out


def depth_in_solids(
    samples_m: torch.Tensor, position: torch.Tensor, quaternion: torch.Tensor,
    distance: torch.Tensor, low: torch.Tensor, cell_m: float,
) -> torch.Tensor:  # fmt: skip
    """See `affordance.HandSpace.depth_in_solids`, with its samples (R, S, 3); (B, R) f64 [m]."""
    out = torch.zeros(len(position), len(samples_m), dtype=torch.float64)
    sides = torch.tensor(distance.shape)
    for b in range(len(position)):
        world = samples_m.double() @ rotation(quaternion[b]).T + position[b].double()
        at = ((world - low.double()) / cell_m).clamp(min=0).minimum(sides - 1.0)  # (R, S, 3)
        first = at.long().minimum(sides - 2)
        part = at - first
        value = torch.zeros(world.shape[:-1], dtype=torch.float64)
        for corner in torch.cartesian_prod(*[torch.arange(2)] * 3):
            weight = torch.where(corner.bool(), part, 1 - part).prod(-1)
            x, y, z = (first + corner).unbind(-1)
            value = value + weight * distance.double()[x, y, z]
        out[b] = weighed_depth(-value)
    return out


def unproject(
    mask: torch.Tensor, depth: torch.Tensor, rays: torch.Tensor, centre: torch.Tensor, most: int
) -> torch.Tensor:
    """See `points.unproject`; (B, most, 3) f64 [m]."""
    out = torch.full((len(mask), most, 3), torch.nan, dtype=torch.float64)
    for b, pixels in enumerate(mask.bool()):
        points = centre.double() + rays.double()[pixels] * depth[b].double()[pixels][:, None]
        count = min(len(points), most)
        for i in range(count):
            out[b, i] = points[i * len(points) // count]
    return out


def linked_groups(
    points: torch.Tensor, reach_m: float, least_share: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groups.linked_groups`."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    B, N, _ = points.shape
    group = torch.full((B, N), -1, dtype=torch.int32)
    count = torch.zeros(B, dtype=torch.int32)
    for b in range(B):
        if N == 0 or not torch.isfinite(points[b]).all():
            continue
        pairs = cKDTree(points[b].double().cpu().numpy()).query_pairs(
            reach_m, output_type="ndarray"
        )
        links = coo_matrix((np.ones(len(pairs), bool), pairs.T), shape=(N, N))
        _, component = connected_components(links, directed=False)
        sizes = np.bincount(component)
        order = np.argsort(-sizes, kind="stable")
        kept = order[sizes[order] >= least_share * N]
        number = np.full(len(sizes), -1, np.int32)
        number[kept] = np.arange(len(kept))
        group[b], count[b] = torch.from_numpy(number[component]), len(kept)
    return group, count
