"""How far what perception read lies from what the storyboard drew, for measurement only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from lucibot.core.geometry import matrix_np, rotation_angle_deg
from lucibot.perception.result import Perception
from lucibot.providers.video.storyboard import read_planted


def newest(run: Path, pattern: str) -> Path:
    return max(run.glob(pattern), key=lambda p: p.stat().st_mtime)


def perception_errors(run: Path, task) -> dict:
    """Errors of the chosen candidate; {} for a video that nobody here drew.

    Returns:
        mask_iou {object: mean over frames}, last_mask_iou {deformable target: at the goal},
        position_mm and rotation_deg {actuator: median over frames}, contact_accuracy (share of
        the frames and pairs of which both are to be seen), goal_frames (read minus drawn).
    """
    perceived = newest(run, "40_perceive/*/manifest.json").parent
    chosen = json.loads(newest(run, "30_select/*/verdicts.json").read_text())["chosen"]
    folder = newest(run, "20_imagine/*/manifest.json").parent / "planted"
    if not (folder / f"candidate_{chosen}.json").is_file():
        return {}
    planted, read = read_planted(folder, chosen), Perception.load(perceived)
    masks, drawn = read.tracks.masks, planted["masks"]
    goal = int(read.supervision.keyframes[-1])
    out: dict = {"mask_iou": {}, "last_mask_iou": {}, "position_mm": {}, "rotation_deg": {}}
    for i, o in enumerate(task.objects):
        over = [iou(a, b) for a, b in zip(masks[:, i], drawn[:, i], strict=True) if b.any()]
        out["mask_iou"][o.name] = round(float(np.mean(over)), 3)
        if not o.is_rigid and "target" in o.roles:
            out["last_mask_iou"][o.name] = round(iou(masks[goal, i], drawn[goal, i]), 3)
        if o.is_rigid and "actuator" in o.roles:
            A, B = matrix_np(read.poses[:, i]), matrix_np(planted["poses"][:, i])
            turn = rotation_angle_deg(torch.as_tensor(A[:, :3, :3]), torch.as_tensor(B[:, :3, :3]))
            far = np.linalg.norm(A[:, :3, 3] - B[:, :3, 3], axis=1)
            out["position_mm"][o.name] = round(1e3 * float(np.median(far)), 1)
            out["rotation_deg"][o.name] = round(float(turn.median()), 1)
    seen = drawn.any((2, 3))
    agree = [
        (read.events.contact[:, k] == planted["contact"][:, j])[
            seen[:, [task.label(n) - 1 for n in pair]].all(1)
        ]
        for k, pair in enumerate(read.events.contact_pairs)
        for j, other in enumerate(planted["contact_pairs"]) if set(pair) == set(other)
    ]  # fmt: skip
    if agree:
        out["contact_accuracy"] = round(float(np.mean(np.concatenate(agree))), 3)
    if planted["goal"] is not None:
        out["goal_frames"] = goal - int(planted["goal"])
    return out


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))
