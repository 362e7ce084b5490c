"""Arms that move things: a gripper or a hand at the end of a chain of capsules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh


@dataclass(frozen=True, kw_only=True)
class Style:
    gripper: bool
    own: tuple[float, float, float]
    """Linear RGB of fingers and palm."""
    arm: tuple[float, float, float]
    sleeve: tuple[float, float, float]

    @classmethod
    def of(cls, seed: int) -> Style:
        """A grey gripper on a pale arm, a dark hand in a sleeve, a hand in a glove: by turns."""
        return (
            cls(gripper=True, own=(0.16, 0.165, 0.175), arm=(0.62, 0.63, 0.65), sleeve=(0.10, 0.11, 0.13)),
            cls(gripper=False, own=(0.17, 0.085, 0.055), arm=(0.17, 0.085, 0.055), sleeve=(0.06, 0.09, 0.14)),
            cls(gripper=False, own=(0.05, 0.22, 0.36), arm=(0.05, 0.22, 0.36), sleeve=(0.5, 0.5, 0.48)),
        )[(seed - 100) % 3]  # fmt: skip


def hand_parts(style: Style, T_world_hand: np.ndarray, opening_m: float, shoulder_m: np.ndarray):
    """Meshes in the world, each with its colour."""
    inner = _gripper(style, opening_m) if style.gripper else _fingers(style, opening_m)
    for mesh, _ in inner:
        mesh.apply_transform(T_world_hand)
    wrist = T_world_hand[:3, :3] @ [0, 0, -0.15 if style.gripper else -0.16] + T_world_hand[:3, 3]
    elbow = 0.55 * wrist + 0.45 * shoulder_m + [0, 0, 0.025]
    middle = 0.5 * (wrist + elbow)
    beyond = shoulder_m + 0.6 * (shoulder_m - elbow)
    thick = 0.026 if style.gripper else 0.024
    return [
        *inner,
        (_capsule(wrist, middle, thick), style.arm),
        (_capsule(middle, elbow, thick * 1.15), style.sleeve),
        (_capsule(elbow, beyond, thick * 1.25), style.sleeve if not style.gripper else style.arm),
    ]  # fmt: skip


def _gripper(style: Style, opening: float):
    half = opening / 2 + 0.007
    out = []
    for side in (-1, 1):
        finger = trimesh.creation.box((0.012, 0.022, 0.062))
        finger.apply_translation((side * half, 0, -0.019))
        out.append((finger, style.own))
    palm = trimesh.creation.box((0.105, 0.045, 0.05))
    palm.apply_translation((0, 0, -0.0775))
    flange = _capsule(np.array([0, 0, -0.10]), np.array([0, 0, -0.15]), 0.029)
    return [*out, (palm, style.own), (flange, style.sleeve)]


def _fingers(style: Style, opening: float):
    half, out = opening / 2 + 0.008, []
    for k in range(4):
        y = (k - 1.5) * 0.019
        knuckle = np.array([0.022, y * 1.1, -0.085 + 0.004 * abs(k - 1.5)])
        bend = np.array([max(half, 0.03) + 0.012, y, -0.042])
        tip = np.array([half, 0.8 * y, 0.006 - 0.006 * (k == 3)])
        out += [_capsule(knuckle, bend, 0.0095), _capsule(bend, tip, 0.0085)]
    root, bend, tip = np.array([-0.03, 0.022, -0.10]), np.array([-half - 0.022, 0.012, -0.045]), np.array(
        [-half, 0.0, 0.002])  # fmt: skip
    out += [_capsule(root, bend, 0.0125), _capsule(bend, tip, 0.0105)]
    palm = trimesh.creation.icosphere(subdivisions=2)
    palm.apply_scale((0.026, 0.046, 0.052))
    palm.apply_translation((0.012, 0, -0.118))
    return [(m, style.own) for m in [*out, palm]]


def _capsule(a: np.ndarray, b: np.ndarray, radius: float) -> trimesh.Trimesh:
    """From `a` to `b` (3,) [m]."""
    way = b - a
    length = float(np.linalg.norm(way))
    mesh = trimesh.creation.capsule(height=max(length, 1e-4), radius=radius, count=(12, 20))
    mesh.apply_transform(trimesh.geometry.align_vectors((0, 0, 1), way / max(length, 1e-9)))
    low = mesh.vertices.mean(0) - 0.5 * way
    mesh.apply_translation(a - low)
    return mesh
