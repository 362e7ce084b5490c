"""What a plan looks like: the arm over pictures of the replay."""

from __future__ import annotations

import numpy as np
import torch
import trimesh

from lucibot.core.camera import Camera
from lucibot.robot.collision import CollisionWorld

LIGHT = np.array([-0.3, 0.5, 0.8]) / np.linalg.norm([-0.3, 0.5, 0.8])
COLOUR = np.array([235, 170, 60])
OPAQUE = 0.85


def arm_over(
    pictures: list[np.ndarray], world: CollisionWorld, angles: np.ndarray, camera: Camera,
    background_depth_m: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The pictures (H, W, 3) side by side, with the arm at angles (M, J) in each, M of them. What stands
    still hides it, what moves does not.

    Args:
        camera: of the pictures.
        background_depth_m: (H, W) of what stands still.
    """
    from lucibot_kernels import Observer

    drawn = []
    for picture, q in zip(pictures, angles, strict=True):
        mesh = trimesh.util.concatenate(world.shapes(q))
        n = len(mesh.vertices)
        observer = Observer(
            width=camera.width, height=camera.height, fx=camera.fx, fy=camera.fy, cx=camera.cx,
            cy=camera.cy, T_cam_world=np.linalg.inv(camera.T_world_cam),
            vertices_m=torch.as_tensor(mesh.vertices, dtype=torch.float32),
            faces=torch.as_tensor(mesh.faces, dtype=torch.int32),
            vertex_body=torch.zeros(n, dtype=torch.int32),
            body_label=torch.ones(1, dtype=torch.int32),
            background_depth_m=torch.as_tensor(background_depth_m, dtype=torch.float32),
        )  # fmt: skip
        seen = observer.observe(
            torch.zeros(1, 1, 3), torch.tensor([[[1.0, 0, 0, 0]]]), with_face=True
        )
        face = seen.face[0].numpy()
        lit = 0.45 + 0.55 * np.clip(mesh.face_normals @ LIGHT, 0, 1)
        colour = COLOUR * lit[face][..., None]
        mixed = np.where((face >= 0)[..., None], OPAQUE * colour + (1 - OPAQUE) * picture, picture)
        drawn.append(mixed.round().astype(np.uint8))
    return np.concatenate(drawn, 1)
