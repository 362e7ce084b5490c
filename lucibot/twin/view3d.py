"""A twin in the browser: its meshes, its camera, and the photo in it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from lucibot.core.errors import UserError
from lucibot.task import Task, load_task

FAR_M = 0.35
"""How far before the camera the photo is hung up."""


def show(folder: Path, *, forever: bool = True):
    """Serve the scene until Ctrl-C; says where.

    Raises:
        UserError: viser is not installed.
    """
    try:
        import viser
    except ImportError:
        raise UserError("--view needs viser: pip install 'lucibot[view]'") from None
    task = load_task(folder)
    server = viser.ViserServer()
    add_scene(server, task)
    print("Ctrl-C ends it", flush=True)
    while forever:
        time.sleep(1.0)
    return server


def add_scene(server, task: Task) -> None:
    """Put a task's meshes and camera into a `viser.ViserServer`."""
    import cv2
    import trimesh

    server.scene.set_up_direction("+z")
    for thing in [*task.spec.background, *task.objects]:
        mesh, T = task.mesh(thing).copy(), thing.T_world_object
        if thing.look is not None and thing.look.texture is None:
            rgba = np.r_[np.array(thing.look.color) ** (1 / 2.2), 1.0]
            colours = np.tile(np.round(255 * rgba).astype(np.uint8), (len(mesh.vertices), 1))
            mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colours)
        server.scene.add_mesh_trimesh(
            f"/{thing.name}", mesh, wxyz=_wxyz(T), position=tuple(T[:3, 3])
        )
    photo, camera = None, task.camera
    if task.spec.camera.photo is not None:
        photo = cv2.imread(str(task.path(task.spec.camera.photo)))[..., ::-1]
    server.scene.add_camera_frustum(
        "/camera", fov=float(np.deg2rad(camera.vertical_fov_deg)),
        aspect=camera.width / camera.height, scale=FAR_M, image=photo,
        wxyz=_wxyz(camera.T_world_cam), position=tuple(camera.T_world_cam[:3, 3]),
    )  # fmt: skip


def _wxyz(T: np.ndarray) -> tuple[float, ...]:
    x, y, z, w = Rotation.from_matrix(T[:3, :3]).as_quat()
    return float(w), float(x), float(y), float(z)
