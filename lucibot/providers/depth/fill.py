"""Depth without a network: what is known exactly, and a guided fill for the rest.

Background pixels carry the known background depth, a rigid object's pixels its posed mesh's, and a
deformable's pixels its first depth where it still is, and elsewhere that of something as tall as it
was, standing on what is under it; but what a tool has taken along is where the tool is. Hands are
left unknown (NaN).
"""

from __future__ import annotations

import cv2
import numpy as np

from lucibot.core.camera import Camera
from lucibot.core.geometry import matrix_np
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.core.tracks import Tracks
from lucibot.core.video import Video
from lucibot.providers.depth.carried import carried_parts, carried_surface
from lucibot.providers.depth.config import FillDepth
from lucibot.task import Task
from lucibot.vision.draw import DrawMesh, draw_depth
from lucibot.vision.grid import nearest_depth, resize_mask
from lucibot.vision.labelling import box_around


class DepthByFilling:
    rests_on_poses = True
    batch = 16

    def __init__(self, config: FillDepth):
        self.config = config

    def estimate(
        self, task: Task, view: SceneView, video: Video, tracks: Tracks, frames: np.ndarray, *,
        seed: int, progress: Progress = silent,
    ) -> np.ndarray:  # fmt: skip
        """See `DepthModel`; the depth has the view's size, NaN at hands."""
        camera = view.camera
        size = (camera.width, camera.height)
        frames = np.asarray(frames)
        out = np.repeat(view.background_depth_m[None], len(frames), 0).astype(np.float32)
        meshes = {
            i: DrawMesh.from_trimesh(task.mesh(o), o.T_world_object)
            for i, o in enumerate(task.objects) if o.is_rigid
        }  # fmt: skip
        tools = {i: mesh for i, mesh in meshes.items() if "actuator" in task.objects[i].roles}
        for i in range(len(task.objects)):
            mesh = meshes.get(i)
            first = view.labels == i + 1
            shape = (_height(view, first), _inset(view, first)) if mesh is None else (0.0, 0.0)
            for k, t in enumerate(frames):
                mask = resize_mask(tracks.masks[t, i], size)
                pose = tracks.poses[t, i]
                if not mask.any():
                    continue
                if mesh is not None and np.isfinite(pose).all():
                    filled = _posed(mesh, pose, camera, mask)
                elif mesh is None:
                    filled = self._standing(
                        view, mask, first, tracks.hand[t], tracks.masks[t], i, shape
                    )
                    _put_on_tools(filled, tools, camera, mask, tracks, i, int(t))
                else:
                    filled = nearest_depth(view.depth_m, first)
                out[k][mask] = filled[mask]
        for k, t in enumerate(frames):
            hand = resize_mask(tracks.hand[t], size)
            out[k][hand] = np.nan
        return out

    def _standing(self, view, mask, first, hand, masks, i, shape) -> np.ndarray:
        """(H, W) depth of a deformable."""
        in_front = np.zeros_like(mask)
        for other in (hand, *np.delete(masks, i, 0)):
            in_front |= resize_mask(other, (view.camera.width, view.camera.height))
        block = block_depth(view.camera, mask, view.background_depth_m, in_front, *shape)
        if block is None:
            return nearest_depth(view.depth_m, first)
        keep = first & (np.abs(block - view.depth_m) < self.config.carry_within_m)
        return np.where(keep, view.depth_m, block)


def _put_on_tools(
    depth_m: np.ndarray, tools: dict[int, DrawMesh], camera: Camera, mask: np.ndarray, tracks: Tracks,
    i: int, t: int,
) -> None:  # fmt: skip
    """Overwrite (H, W) depth where a rigid actuator has taken a part of deformable i along."""
    size = (camera.width, camera.height)
    for j, mesh in tools.items():
        pose = tracks.poses[t, j]
        if not np.isfinite(pose).all():
            continue
        tool = resize_mask(tracks.masks[t, j], size)
        middle_px = _middles_px(mesh, tracks.poses[: t + 1, j], camera)
        parts = carried_parts(mask, tool, tracks.masks[: t + 1, i], middle_px)
        if not parts:
            continue
        drawn = draw_depth(mesh, _about_anchor(mesh, pose)[None], camera)[0]
        for part in parts:
            surface = carried_surface(camera, part, drawn)
            if surface is not None:
                depth_m[part] = surface[part]


def _posed(mesh: DrawMesh, pose: np.ndarray, camera: Camera, mask: np.ndarray) -> np.ndarray:
    """(H, W) the posed mesh's depth, carried to pixels of the mask that it does not cover."""
    T = _about_anchor(mesh, pose)
    drawn = draw_depth(mesh, T[None], camera)[0]
    covered = np.isfinite(drawn) & mask
    if covered.any():
        return _spread(drawn, covered, mask)
    covered = np.isfinite(drawn)
    if not covered.any():
        return np.full(mask.shape, camera.project(T[:3, 3])[1], np.float32)
    return nearest_depth(drawn, covered)


def _spread(depth_m: np.ndarray, known: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Depth (H, W) that in all of `mask` is that of the nearest pixel of it at which it is `known`."""
    if known[mask].all():
        return depth_m
    out, box = depth_m.copy(), box_around(mask, 0)
    out[box] = nearest_depth(depth_m[box], known[box])
    return out


def _about_anchor(mesh: DrawMesh, pose: np.ndarray) -> np.ndarray:
    """(..., 4, 4) of the mesh about its anchor, for poses (..., 6)."""
    T = matrix_np(pose)
    T[..., :3, 3] += T[..., :3, :3] @ mesh.anchor_m
    return T


def _middles_px(mesh: DrawMesh, poses: np.ndarray, camera: Camera) -> np.ndarray:
    """(T, 2) where a mesh's anchor is seen at poses (T, 6); NaN where they are."""
    known = np.isfinite(poses).all(1)
    out = np.full((len(poses), 2), np.nan)
    out[known] = camera.project(_about_anchor(mesh, poses[known])[:, :3, 3])[0]
    return out


def _height(view: SceneView, first: np.ndarray) -> float:
    """World height [m] of the top of what `first` marks in the first frame."""
    if not first.any():
        return 0.0
    return float(np.percentile(view.camera.unproject(view.depth_m.astype(float), first)[:, 2], 95))


def _inset(view: SceneView, first: np.ndarray) -> float:
    """How far [m] the object's front stands before what is seen under its lowest pixels.

    Rounded lower edges let one see under them; the first frame, whose depth is known, tells how
    far.
    """
    if not first.any():
        return 0.0
    nothing = np.zeros_like(first)
    block = block_depth(view.camera, first, view.background_depth_m, nothing, _height(view, first))
    if block is None:
        return 0.0
    world_z = view.camera.unproject(view.depth_m.astype(float), first)[:, 2]
    front = world_z < 0.7 * _height(view, first)
    if not front.any():
        return 0.0
    # Depth to distance over ground: by as much as each pixel's own line of sight goes ahead.
    along = view.camera.rays[first] @ _ahead(view.camera)
    return float(np.median(((block - view.depth_m)[first] * along)[front]))


def _ahead(camera: Camera) -> np.ndarray:
    """(3,) unit: level, away from the camera."""
    flat = np.array([*camera.T_world_cam[:2, 2], 0.0])
    return flat / max(np.linalg.norm(flat), 1e-9)


def block_depth(camera: Camera, mask: np.ndarray, background_m: np.ndarray, in_front: np.ndarray,
                top_m: float, inset_m: float = 0.0) -> np.ndarray | None:  # fmt: skip
    """Depth of upright blocks with a flat top at height `top_m` [m, world] that fill `mask`.

    In each column the lowest pixel of each connected part stands on the background below it, unless
    something in front hides its foot: then the feet of the columns beside it count. The front
    stands `inset_m` before the place seen under its lowest pixel.

    Returns:
        (H, W) float32 [m], or None where no foot is seen at all.
    """
    h, w = mask.shape
    eye, flat = camera.T_world_cam[:3, 3], _ahead(camera)
    out = np.zeros((h, w), np.float32)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    hidden = cv2.dilate(in_front.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    found = False
    for k in range(1, count):
        x, y, wide, tall = stats[k, :4]
        box = np.s_[y : y + tall, x : x + wide]
        part = parts[box] == k
        cols = np.arange(x, x + wide)
        low = y + tall - 1 - part[::-1].argmax(0)
        seen = (low < h - 1) & ~hidden[np.minimum(low + 1, h - 1), cols]
        if not seen.any():
            continue
        found = True
        foot_m = camera.unproject(background_m, (low[seen], cols[seen])) @ flat
        reach = np.interp(cols, cols[seen], foot_m) - inset_m
        ray = camera.rays[box]
        front = (reach[None] - eye @ flat) / np.maximum(ray @ flat, 1e-6)
        front_z = eye[2] + front * ray[..., 2]
        top = (top_m - eye[2]) / np.minimum(ray[..., 2], -1e-6)
        depth = np.where(front_z <= top_m, front, np.maximum(top, front))
        out[box][part] = np.minimum(depth, background_m[box])[part]
    if not found:
        return None
    return _spread(out, out > 0, mask)
