"""The fit of the actuators' poses by drawing alone, before any physics.

Rollouts that are spent on aligning the tool with the video are wasted: masks of the tool need no
simulation. Every keyframe's pose of every held actuator is fitted at once by the cross-entropy
method; thousands of drawings take seconds. What masks cannot see, above all the distance along the
line of sight, stays where perception put it.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from lucibot_kernels import Observer, Wanted

from lucibot.core.geometry import compose_rotvec, rotvec_to_quat
from lucibot.core.progress import Progress, silent
from lucibot.objective.supervision import Supervision
from lucibot.optimize.config import PrefitConfig
from lucibot.task import Task

ELITE_SHARE = 0.15


def prefit(
    task: Task,
    supervision: Supervision,
    background_depth_m: np.ndarray,
    config: PrefitConfig,
    *,
    seed: int,
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
    rng = np.random.default_rng(seed)
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
        waypoints[ks, a], iou["before"][ks, a], iou["after"][ks, a] = _fit(
            drawing, waypoints[ks, a], config, rng
        )
    return waypoints.astype(np.float32), iou


def _fit(drawing: _Drawing, start: np.ndarray, config: PrefitConfig, rng: np.random.Generator):
    """Cross-entropy search of displacements (n, 6) in units of the first spread."""
    n = len(start)
    spread = np.array([config.sigma_position_m] * 3 + [np.deg2rad(config.sigma_rotation_deg)] * 3)
    elites = max(2, round(ELITE_SHARE * config.population))
    mean, std = np.zeros((n, 6)), np.ones((n, 6))
    best, best_cost = np.zeros((n, 6)), np.full(n, np.inf)
    for _ in range(config.iterations):
        z = mean + std * rng.normal(size=(config.population, n, 6))
        z[0], z[1] = best, mean  # The first round's best is the start itself.
        iou = drawing.iou(_displace(start, z * spread))
        cost = 1 - iou + config.prior_weight * (z**2).mean(-1)
        order = np.argsort(cost, axis=0, kind="stable")
        chosen = np.take_along_axis(z, order[:elites, :, None], axis=0)
        top = np.take_along_axis(cost, order[:1], axis=0)[0]
        better = top < best_cost
        best[better], best_cost[better] = chosen[0][better], top[better]
        mean, std = chosen.mean(0), chosen.std(0) + 0.02
    fitted = _displace(start, best[None] * spread)
    return fitted[0], drawing.iou(start[None])[0], drawing.iou(fitted)[0]


def _displace(start: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Poses (P, n, 6): the start (n, 6), moved and turned about its origin in the world frame."""
    out = np.empty_like(shift)
    out[..., :3] = start[:, :3] + shift[..., :3]
    rot = torch.as_tensor(start[:, 3:]).expand((*shift.shape[:-1], 3))
    out[..., 3:] = compose_rotvec(torch.as_tensor(shift[..., 3:]), rot).numpy()
    return out


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
        # Where another object is seen, this one may be hidden behind it: such pixels do not count.
        mask = sup.actuator_masks[ks, a]
        others = np.delete(sup.actuator_masks[ks], a, axis=1).any(1) | sup.target_masks[ks]
        valid = sup.valid[ks] & (~others | mask)
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
