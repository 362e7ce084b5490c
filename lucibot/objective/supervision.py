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

TIPS = 5
"""Finger tips of a hand."""
AFFORDANCE = "affordance_"
"""Before the names of an `Affordance`'s arrays, where they are kept."""


@dataclass(frozen=True, kw_only=True)
class Affordance:
    """Where hands hold the actuators; by actuator and hold, which count from the video's start."""

    points: np.ndarray
    """(A, M, 3) float32 [m] the areas under the finger tips, in each actuator's own frame; NaN
    pads."""
    normals: np.ndarray
    """(A, M, 3) float32 unit, outward, in the same frame; NaN pads."""
    point_hold: np.ndarray
    """(A, M) int64: the hold that each point was read at; -1 pads."""
    hold: np.ndarray
    """(K, A) int64: the hold that each keyframe belongs to, the last one that has begun; -1 before
    the first."""
    tips_px: np.ndarray
    """(K, A, 5, 2) float32 where finger tips on the actuator are seen, (u, v) on the observation
    grid; NaN where none is."""
    tips_m: np.ndarray
    """(K, A, 5, 3) float32 [m, world]: on the line of sight of `tips_px`, as far away as the
    actuator's surface under them is estimated to be; NaN where none is."""
    hand_m: np.ndarray
    """(3,) float32 [m] width, thickness and length of the hand or gripper that shall find room."""

    @classmethod
    def none(
        cls, keyframes: int, actuators: int, points: int = 0, hand_m=(0.10, 0.06, 0.15)
    ) -> Affordance:
        """That no hand is seen; room for `points` of each actuator."""
        K, A = keyframes, actuators

        def unknown(*shape: int) -> np.ndarray:
            return np.full(shape, np.nan, np.float32)

        return cls(
            points=unknown(A, points, 3), normals=unknown(A, points, 3),
            point_hold=np.full((A, points), -1), hold=np.full((K, A), -1),
            tips_px=unknown(K, A, TIPS, 2), tips_m=unknown(K, A, TIPS, 3),
            hand_m=np.array(hand_m, np.float32),
        )  # fmt: skip

    def area(self, actuator: int, hold: int) -> tuple[np.ndarray, np.ndarray]:
        """Points and normals (P, 3) of one hold of one actuator; none where no tip was seen."""
        mine = self.point_hold[actuator] == hold
        return self.points[actuator, mine], self.normals[actuator, mine]

    def areas(self) -> list[np.ndarray]:
        """Of each actuator, (M, 3) where hands grasp it in any hold, in its own frame; may be empty."""
        found = [[self.area(a, h)[0] for h in self.holds(a)] for a in range(len(self.points))]
        return [np.concatenate(f) if f else np.zeros((0, 3)) for f in found]

    def holds(self, actuator: int) -> list[int]:
        """The holds of an actuator that have an area."""
        return np.unique(self.point_hold[actuator][self.point_hold[actuator] >= 0]).tolist()


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
    affordance: Affordance
    part_masks: np.ndarray
    """(Q, H, W) bool: the target's connected parts in the goal frame, tool and hand gone."""
    part_clouds: np.ndarray
    """(Q, M, 3) float32 [m, world], NaN pads."""
    part_valid: np.ndarray
    """(H, W) bool: pixels of the goal frame that can be judged."""
    goal_lasts: bool = False
    """After the goal frame hands hold on to what they hold there, and the targets stay where they are."""

    @property
    def expected_around(self) -> tuple[tuple[str, str], ...]:
        """The pairs of `around_pairs` that hold at the goal."""
        return tuple(p for p, yes in zip(self.around_pairs, self.around, strict=True) if yes)

    def save(self, path: Path) -> None:
        meta = {
            "camera": self.camera.to_dict(), "actuators": self.actuators, "targets": self.targets,
            "contact_pairs": self.contact_pairs, "around_pairs": self.around_pairs,
        }  # fmt: skip
        own = [f.name for f in fields(self) if f.name not in (*meta, "affordance")]
        arrays = {n: getattr(self, n) for n in own}
        held = {f.name: getattr(self.affordance, f.name) for f in fields(Affordance)}
        arrays |= {f"{AFFORDANCE}{n}": x for n, x in held.items()}
        np.savez_compressed(path, meta=np.array(json.dumps(meta)), **arrays)

    @classmethod
    def load(cls, path: Path) -> Supervision:
        with np.load(path) as z:
            meta = json.loads(str(z["meta"]))
            arrays = {k: z[k] for k in z.files if k != "meta"}
        held = {f.name: arrays.pop(f"{AFFORDANCE}{f.name}") for f in fields(Affordance)}
        return cls(
            camera=Camera.from_dict(meta["camera"]), actuators=tuple(meta["actuators"]),
            targets=tuple(meta["targets"]),
            contact_pairs=tuple(tuple(p) for p in meta["contact_pairs"]),
            around_pairs=tuple(tuple(p) for p in meta["around_pairs"]),
            affordance=Affordance(**held), goal_lasts=bool(arrays.pop("goal_lasts")), **arrays,
        )  # fmt: skip
