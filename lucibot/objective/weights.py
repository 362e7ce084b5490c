"""Weights of the named, unweighted loss terms."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lucibot.core.config import Config


@dataclass(frozen=True, kw_only=True)
class LossWeights(Config):
    """Weight of each term in the sum; a weight of 0 leaves the term logged but without a say."""

    actuator_iou: float = 1.0
    """1 - IoU of the actuators' masks, mean over keyframes (paper)."""
    target_iou: float = 1.0
    """1 - IoU of the targets' mask at the last keyframe (paper)."""
    actuator_chamfer: float = 10.0
    """Chamfer distance [m] of the actuators' visible surfaces at the last keyframe (paper)."""
    target_chamfer: float = 10.0
    """Chamfer distance [m] of the targets' visible surfaces at the last keyframe (paper)."""
    contact: float = 1.0
    """Share of the contacts that the video shows and the rollout misses (paper)."""
    part_count: float = 0.0
    """Missing or extra parts of the target, relative to the number in the video."""
    part_iou: float = 0.0
    """1 - IoU of each part with the rollout's part that fits it best."""
    part_chamfer: float = 0.0
    """Chamfer distance [m] of each part to the rollout's part that fits it best."""
    part_distance: float = 0.0
    """Difference [m] of the distances between the parts' centres."""
    around: float = 0.0
    """Share of what the video's target goes around and the rollout's does not."""
    affordance_reach: float = 0.0
    """Distance [m] of the grasped areas from where the video shows finger tips, mean over keyframes."""
    affordance_clearance: float = 0.0
    """How deep [m] a hand on the grasped areas would be in something else, mean over keyframes."""
    target_lasts: float = 0.0
    """`target_iou` again a while after the last keyframe, where the video goes on to show the targets
    there, in or on what is still held; else 0."""
    settled_target_iou: float = 0.0
    """`target_iou` again when all has been let go and has settled, as the other `settled` terms; where
    the video's goal frame shows something held, they are 0."""
    settled_target_chamfer: float = 0.0
    settled_part_count: float = 0.0
    settled_part_iou: float = 0.0
    settled_part_chamfer: float = 0.0
    settled_part_distance: float = 0.0
    settled_around: float = 0.0

    def total(self, terms):
        """Weighted sum (P,) of unweighted terms."""
        return sum(getattr(self, f.name) * terms[f.name] for f in fields(self))


PAPER_WEIGHTS = LossWeights()
"""The paper's plain sum; Chamfer distances count in decimetres to be of the order of an IoU."""
FULL_WEIGHTS = LossWeights(
    part_count=1.0, part_iou=1.0, part_chamfer=10.0, part_distance=10.0, around=1.0,
    affordance_reach=10.0, target_lasts=1.0,
)  # fmt: skip
"""The paper's terms, the target's parts, what it goes around, where the fingers are, and that what is
held up stays up: as much of these as goes with success and takes nothing from the sum (`bench/terms`). The room that a hand has
does not tell success, so it is logged alone."""
TERMS = tuple(f.name for f in fields(LossWeights))
