"""How far what was read lies from what was drawn."""

from __future__ import annotations

import numpy as np
import torch

from lucibot.core.geometry import matrix_np, rotation_angle_deg
from lucibot.perception.result import Perception
from lucibot.task import Task

MOVED_M, MOVED_DEG = 0.002, 2.0
"""Poses count from the frame in which a thing has moved by so much: before, they are known."""
ROUND = 0.02
"""Moments of inertia that differ by less than this share are equal: a thing is round about the third."""


def read_errors(task: Task, read: Perception, drawn: dict) -> dict:
    """Errors of one reading, plain numbers by name; what cannot be measured is missing."""
    masks, own = read.tracks.masks, drawn["masks"]
    out: dict = {}
    over = [
        iou(a, b)
        for i in range(own.shape[1])
        for a, b in zip(masks[:, i], own[:, i], strict=True)
        if b.any()
    ]
    out["mask_iou"] = float(np.mean(over))
    worst = [np.mean([iou(a, b) for a, b in zip(masks[:, i], own[:, i], strict=True) if b.any()] or [1.0])
             for i in range(own.shape[1])]  # fmt: skip
    out["mask_iou_worst_object"] = float(np.min(worst))
    hand, drawn_hand = read.tracks.hand, drawn["hand"]
    seen = drawn_hand.mean((1, 2)) > 1e-3
    out["hand_iou"] = float(
        np.mean([iou(a, b) for a, b in zip(hand[seen], drawn_hand[seen], strict=True)])
    )
    out["hand_where_none"] = (
        float((hand[~seen].mean((1, 2)) > 2e-3).mean()) if (~seen).any() else 0.0
    )
    far, deep, turned = [], [], []
    for i, o in enumerate(task.objects):
        if not o.is_rigid:
            continue
        A, B = matrix_np(read.poses[:, i]), matrix_np(drawn["poses"][:, i])
        moved = np.linalg.norm(B[:, :3, 3] - B[0, :3, 3], axis=1) > MOVED_M
        moved |= _angle(B, np.broadcast_to(B[:1], B.shape)) > MOVED_DEG
        if not moved.any():
            continue
        off, middle = _offsets(task, o, A[moved], B[moved])
        ray = middle - task.camera.T_world_cam[:3, 3]
        ray /= np.linalg.norm(ray, axis=1, keepdims=True)
        far.append(np.linalg.norm(off, axis=1))
        deep.append(np.abs((off * ray).sum(1)))
        turned.append(_turned(task, o, A[moved], B[moved]))
    if far:
        for name, values, unit in (
            ("position_mm", far, 1e3),
            ("depth_mm", deep, 1e3),
            ("rotation_deg", turned, 1.0),
        ):
            values = unit * np.concatenate(values)
            out[name], out[f"{name}_p90"] = (
                float(np.median(values)),
                float(np.quantile(values, 0.9)),
            )
    agree, false, missed = [], [], []
    visible = own.any((2, 3))
    for k, pair in enumerate(read.events.contact_pairs):
        for j, other in enumerate(drawn["contact_pairs"]):
            if set(pair) == set(other):
                both = visible[:, [task.label(n) - 1 for n in pair]].all(1)
                a, b = read.events.contact[both, k], drawn["contact"][both, j]
                agree.append(a == b)
                false.append(a & ~b)
                missed.append(~a & b)
    if agree:
        out["contact_right"] = float(np.concatenate(agree).mean())
        out["contact_false"] = float(np.concatenate(false).mean())
        out["contact_missed"] = float(np.concatenate(missed).mean())
    if drawn["goal"] is not None:
        out["goal_frames"] = int(read.supervision.keyframes[-1]) - int(drawn["goal"])
    return out


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def _angle(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    a, b = (torch.as_tensor(np.ascontiguousarray(x[:, :3, :3])) for x in (A, B))
    return rotation_angle_deg(a, b).numpy()


def _offsets(task: Task, o, A: np.ndarray, B: np.ndarray):
    """Of the middle of a thing's box (T, 3) [m, world], read minus drawn; and where it was drawn."""
    box = np.asarray(task.mesh(o).vertices)
    middle = 0.5 * (box.min(0) + box.max(0))
    read, drawn = (T[:, :3, :3] @ middle + T[:, :3, 3] for T in (A, B))
    return read - drawn, drawn


def _turned(task: Task, o, A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """(T,) [deg]; of what is round, its axis's alone, for no picture shows the rest."""
    mesh = task.mesh(o)
    moments, axes = np.linalg.eigh(mesh.moment_inertia)
    for k in range(3):
        a, b = moments[[j for j in range(3) if j != k]]
        if abs(a - b) < ROUND * max(a, b):
            u, v = A[:, :3, :3] @ axes[:, k], B[:, :3, :3] @ axes[:, k]
            return np.rad2deg(np.arccos(np.clip((u * v).sum(1), -1, 1)))
    return _angle(A, B)
