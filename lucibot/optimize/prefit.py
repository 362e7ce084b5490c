"""The fit of the actuators' poses by drawing alone, before any physics.

Rollouts that are spent on aligning the tool with the video are wasted: masks of the tool need no
simulation. Outlines of the drawn actuator are compared with its masks, and Gauss-Newton steps with
analytic Jacobians move all its keyframes at once. What the masks do not say, above all the distance along
the line of sight, stays where perception put it, for the estimate is a prior; samples that are chosen by
their IoU would leave it wherever they happened to lie.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from lucibot_kernels import Observer, Wanted
from scipy.linalg import block_diag

from lucibot.core.geometry import rotvec_to_quat
from lucibot.core.progress import Progress, silent
from lucibot.objective.supervision import Supervision
from lucibot.optimize.config import PrefitConfig
from lucibot.task import Task
from lucibot.vision.contour import MOVING_MARGIN_M, edge_offsets, outlines
from lucibot.vision.draw import DrawMesh, Windows, draw_windows
from lucibot.vision.grid import UNSURE
from lucibot.vision.trajectory import Trajectory, normal_equations, rotvec_between

OWN = 1
"""The actuator's label in what is compared."""
FARTHEST_PX, NEAREST_PX = 10.0, 3.0
"""How far from the drawn outline a mask's edge is looked for, in the first round and in the last."""


class Pass(NamedTuple):
    """A few rounds from the estimate on."""

    sigma_px: float
    """Scale of the Cauchy loss of an outline's offsets."""
    weight: float
    """Of a point of the outline."""
    correlation: float
    """Of the estimate's errors at two keyframes."""


PASSES = (
    Pass(sigma_px=1.5, weight=1.0, correlation=0.64), Pass(sigma_px=0.7, weight=3.0, correlation=0.0)
)  # fmt: skip
"""What the errors have in common first; then what is left, each keyframe for itself."""


def prefit(
    task: Task,
    supervision: Supervision,
    background_depth_m: np.ndarray,
    config: PrefitConfig,
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Waypoints (K, A, 6) whose drawn masks fit the video, and the masks' IoU before and after.

    Args:
        background_depth_m: (H, W) float32 on the observation grid: what hides the actuator.

    Returns:
        waypoints, and {"before": (K, A), "after": (K, A)} IoU, NaN where nothing was fitted.
    """
    waypoints = np.array(supervision.waypoints, np.float64)
    iou = {n: np.full(waypoints.shape[:2], np.nan, np.float32) for n in ("before", "after")}
    for a, actuator in enumerate(task.actuators):
        ks = np.flatnonzero(
            supervision.held[:, a]
            & (supervision.waypoint_confidence[:, a] > 0)
            & supervision.actuator_masks[:, a].any((1, 2))
        )
        if len(ks) == 0 or not actuator.is_rigid:
            continue
        progress(f"fitting {actuator.name} to {len(ks)} keyframes by drawing")
        drawing = _Drawing(task, actuator, supervision, a, ks, background_depth_m, device)
        outline = _Outline(task, actuator, supervision, a, ks, background_depth_m)
        tries = outline.tries(waypoints[ks, a], config)
        found = drawing.iou(tries)
        # The first is the estimate, which nothing is exchanged for that is no better.
        best = found.argmax(0)
        waypoints[ks, a] = tries[best, np.arange(len(ks))]
        iou["before"][ks, a], iou["after"][ks, a] = found[0], found.max(0)
    return waypoints.astype(np.float32), iou


def _compared(sup: Supervision, a: int, ks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks (n, H, W) of an actuator at some keyframes, and the pixels that count: where another object
    is seen, this one may be hidden behind it."""
    mask = sup.actuator_masks[ks, a]
    others = np.delete(sup.actuator_masks[ks], a, axis=1).any(1) | sup.target_masks[ks]
    return mask, sup.valid[ks] & (~others | mask)


class _Outline:
    """Fits one actuator's outline to its masks at some keyframes."""

    def __init__(self, task, actuator, sup: Supervision, a: int, ks, background_depth_m):
        mesh = task.mesh(actuator)
        vertices = np.asarray(mesh.vertices, float)
        # Turned about its middle, it stays where it is seen.
        middle = 0.5 * (vertices.min(0) + vertices.max(0))
        self._mesh = DrawMesh(
            vertices_m=np.ascontiguousarray(vertices - middle),
            faces=np.ascontiguousarray(mesh.faces, np.int32), anchor_m=middle,
        )  # fmt: skip
        mask, valid = _compared(sup, a, ks)
        self._label = np.where(mask, OWN, np.where(valid, 0, UNSURE)).astype(np.uint8)
        self._camera, self._background_m = sup.camera, np.asarray(background_depth_m, np.float32)

    def tries(self, start: np.ndarray, config: PrefitConfig) -> np.ndarray:
        """The start (n, 6), and poses after each round of each pass: (1 + rounds, n, 6)."""
        first = Trajectory.from_poses(start, self._mesh.anchor_m)
        out = [start]
        for settings in PASSES:
            now = first
            for reach_px in np.linspace(FARTHEST_PX, NEAREST_PX, config.rounds):
                now = now.moved(self._step(first, now, settings, config, float(reach_px)))
                out.append(now.poses(self._mesh.anchor_m))
        return np.stack(out)

    def _step(self, first, now, settings: Pass, config: PrefitConfig, reach_px: float):
        """One Gauss-Newton step (n, 7) of all keyframes; the size stays."""
        n = len(now)
        drawn = draw_windows(self._mesh, now.T_world_object, self._camera, self._background_m)
        points, normals, z, weight = outlines(drawn, config.outline_points)
        offset, weight = edge_offsets(
            points, normals, z, weight, Windows.stack([drawn]), self._label, np.arange(n), OWN,
            np.array([MOVING_MARGIN_M]), reach_px,
        )  # fmt: skip
        H, g, _ = normal_equations(
            now, self._camera, points, normals, z, offset, weight * settings.weight,
            settings.sigma_px,
        )  # fmt: skip
        shared = np.full((n, n), settings.correlation)
        np.fill_diagonal(shared, 1.0)
        sigma = np.repeat([config.sigma_position_m, np.deg2rad(config.sigma_rotation_deg)], 3)
        prior = np.kron(np.linalg.inv(shared), np.diag(sigma**-2.0))
        back = np.concatenate([
            first.position_m - now.position_m, rotvec_between(now.rotation, first.rotation)
        ], axis=1)  # fmt: skip
        step = np.linalg.solve(
            block_diag(*H[:, :6, :6]) + prior, g[:, :6].reshape(-1) + prior @ back.reshape(-1)
        )
        return np.concatenate([step.reshape(n, 6), np.zeros((n, 1))], axis=1)


class _Drawing:
    """Draws one actuator alone and compares it with its masks at some keyframes."""

    def __init__(self, task, actuator, sup: Supervision, a: int, ks, background_depth_m, device):
        mesh = task.mesh(actuator)
        cam = sup.camera
        one = torch.ones(1, dtype=torch.int32, device=device)
        self._observer = Observer(
            width=cam.width, height=cam.height, fx=cam.fx, fy=cam.fy, cx=cam.cx, cy=cam.cy,
            T_cam_world=cam.T_cam_world, device=device,
            vertices_m=torch.as_tensor(np.asarray(mesh.vertices), dtype=torch.float32).to(device),
            faces=torch.as_tensor(np.asarray(mesh.faces), dtype=torch.int32).to(device),
            vertex_body=torch.zeros(len(mesh.vertices), dtype=torch.int32, device=device),
            body_label=one,
            background_depth_m=torch.as_tensor(background_depth_m, dtype=torch.float32).to(device),
        )  # fmt: skip
        self._device = device
        # Of a closed surface only what faces the camera is seen.
        self._closed = bool(mesh.is_watertight and mesh.volume > 0)
        mask, valid = _compared(sup, a, ks)
        self._wanted = Wanted(
            [1], torch.as_tensor(mask[:, None], device=device).contiguous(),
            torch.as_tensor(valid, device=device).contiguous(),
        )  # fmt: skip

    def iou(self, poses: np.ndarray) -> np.ndarray:
        """Poses (P, n, 6) to IoU (P, n)."""
        flat = torch.as_tensor(rearrange(poses, "p n c -> (n p) 1 c")).to(self._device)
        found = self._observer.overlap(
            self._wanted, flat[..., :3].float().contiguous(),
            rotvec_to_quat(flat[..., 3:]).float().contiguous(), cull_backfaces=self._closed,
        )  # fmt: skip
        return rearrange(found, "(n p) 1 -> p n", n=poses.shape[1]).cpu().numpy()
