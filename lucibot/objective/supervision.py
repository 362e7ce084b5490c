"""`Supervision`: everything that the search reads from the video (paper, section 3.4).

Written once by perception, in the layout in which the evaluator reads it. Images are on the
observation grid (H, W), a resized view of the task's camera. K keyframes, A actuators, N foreground
objects, Q parts of the target.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from lucibot.core.camera import Camera


@dataclass(frozen=True, kw_only=True)
class Supervision:
    camera: Camera
    """The observation camera, H x W."""
    actuators: tuple[str, ...]
    """(A,) names, in task order."""
    targets: tuple[str, ...]
    contact_pairs: tuple[tuple[str, str], ...]
    """Pairs (object, target) that the contact flags speak of."""

    keyframes: np.ndarray
    """(K,) int64 frame indices into the video, increasing; the last is the goal frame."""
    waypoints: np.ndarray
    """(K, A, 6) float32 estimated actuator poses: position [m], rotation vector [rad], world."""
    waypoint_confidence: np.ndarray
    """(K, A) float32 in [0, 1]; 0 where the track was lost."""
    held: np.ndarray
    """(K, A) bool: a hand holds the actuator on its way to this keyframe. An actuator that is not
    held is at rest (before its first hold) or released (after its last)."""
    actuator_masks: np.ndarray
    """(K, A, H, W) bool, visible pixels."""
    target_masks: np.ndarray
    """(K, H, W) bool, visible pixels of all targets together."""
    valid: np.ndarray
    """(K, H, W) bool, False where a hand hides the scene: such pixels speak neither for nor against."""
    actuator_clouds: np.ndarray
    """(A, M, 3) float32 [m, world] of each actuator at the last keyframe where it is seen; NaN pads."""
    target_cloud: np.ndarray
    """(M, 3) float32 [m, world] of the targets' visible surface at the goal; NaN pads."""
    contact: np.ndarray
    """(K, pairs) bool, seen in the video."""
    around_pairs: tuple[tuple[str, str], ...]
    """Pairs (target, thing that stands still) that `around` speaks of."""
    around: np.ndarray
    """(pairs,) bool: at the goal the target goes around the thing."""
    affordance: np.ndarray
    """(M, 3) float32 [m] points under the finger tips, in the FIRST actuator touched, its own frame."""
    affordance_actuator: str
    part_masks: np.ndarray
    """(Q, H, W) bool: the target's connected parts in the goal frame, tool and hand gone."""
    part_clouds: np.ndarray
    """(Q, M, 3) float32 [m, world], NaN pads."""
    part_valid: np.ndarray
    """(H, W) bool: pixels of the goal frame that can be judged."""

    @property
    def expected_around(self) -> tuple[tuple[str, str], ...]:
        """The pairs of `around_pairs` that hold at the goal."""
        return tuple(p for p, yes in zip(self.around_pairs, self.around, strict=True) if yes)

    def save(self, path: Path) -> None:
        meta = {
            "camera": self.camera.to_dict(), "actuators": self.actuators, "targets": self.targets,
            "contact_pairs": self.contact_pairs, "around_pairs": self.around_pairs,
            "affordance_actuator": self.affordance_actuator,
        }  # fmt: skip
        arrays = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in meta}
        np.savez_compressed(path, meta=np.array(json.dumps(meta)), **arrays)

    @classmethod
    def load(cls, path: Path) -> Supervision:
        with np.load(path) as z:
            meta = json.loads(str(z["meta"]))
            arrays = {k: z[k] for k in z.files if k != "meta"}
        return cls(
            camera=Camera.from_dict(meta["camera"]), actuators=tuple(meta["actuators"]),
            targets=tuple(meta["targets"]),
            contact_pairs=tuple(tuple(p) for p in meta["contact_pairs"]),
            around_pairs=tuple(tuple(p) for p in meta["around_pairs"]),
            affordance_actuator=meta["affordance_actuator"], **arrays,
        )  # fmt: skip
