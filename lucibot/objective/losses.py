"""The loss terms (paper, section 3.4, "Supervisions"), and what the paper's terms cannot see.

Each term is a pure function from a batch of observations to (P,), named and unweighted; lower is
better; weights live in `lucibot.objective.weights`. Images are on the supervision's observation grid.

The terms of the paper compare masks and clouds of whole objects. For a target that changes its
shape they can point the wrong way: an untouched block of dough is nearer to two imagined halves
than a block that was cut and slid. So the last keyframe's picture is also read part by part, with
tool and hand out of the picture: how many parts the video shows, where each is, how far apart, and
what the target goes around.

All of this belongs to the last keyframe (paper, section 3.4). Afterwards the hands let go of what they
still hold, and the world comes to rest, of which the video may show nothing. Where its goal frame shows
nothing held, what is on it has to stay so: the terms of the target are read once more, as `settled_*`.
Where it goes on to show the targets there, in or on what is still held, they have to stay as well, as far as
the simulation keeps what was held where it is: `target_lasts`. What is thrown is at its place for a moment.
"""

from __future__ import annotations

import numpy as np
import torch
from lucibot_kernels import Wanted, chamfer, label_iou, unproject
from torch import Tensor

from lucibot.objective.objective import FAR_M, MAX_PARTS, Parts, Picture
from lucibot.objective.supervision import Supervision

SETTLED = "settled_"
"""Before the names of the target's terms when all has been let go and has come to rest."""


class Losses:
    """The terms of one task and one `Supervision` on one device."""

    def __init__(
        self, labels: dict[str, int], supervision: Supervision, device: str = "cpu", *,
        lets_drop: bool = True,
    ):  # fmt: skip
        """
        Args:
            labels: object names to their label.
            lets_drop: the simulation drops what was held at the last keyframe; else it stays there.
        """
        self._device = torch.device(device)
        self._actuators = [labels[n] for n in supervision.actuators]
        self._targets = [labels[n] for n in supervision.targets]
        t = self._tensor
        self._target_masks = t(supervision.target_masks)
        self._valid = t(supervision.valid)
        self.wanted = Wanted(self._actuators, t(supervision.actuator_masks), self._valid)
        """Where the video shows the actuators at each keyframe."""
        self._seen = [np.flatnonzero(c > 0).tolist() for c in supervision.waypoint_confidence]
        self._contact = t(supervision.contact)
        self._held_at_goal = bool(supervision.held[-1].any())
        self._lasts = supervision.goal_lasts and self._held_at_goal and not lets_drop
        self._actuator_clouds = [_finite(t(c)) for c in supervision.actuator_clouds]
        self._target_cloud = _finite(t(supervision.target_cloud))
        self._part_masks = t(supervision.part_masks)
        self._part_valid = t(supervision.part_valid)
        self._part_clouds = [_finite(t(c)) for c in supervision.part_clouds]
        self._cloud_points = supervision.target_cloud.shape[0]
        self._rays = t(supervision.camera.rays).float().contiguous()
        self._origin = t(supervision.camera.T_world_cam[:3, 3]).float()

    def _tensor(self, a) -> Tensor:
        return torch.as_tensor(a, device=self._device)

    def at_keyframe(self, k: int, overlap: Tensor, contact: Tensor) -> dict[str, Tensor]:
        """Terms that are averaged over the keyframes: `actuator_iou` and `contact`, (P,) each.

        A keyframe that says nothing of a term (the actuator was lost, no contact is expected)
        gives NaN, which the mean leaves out.

        Args:
            overlap: IoU (P, A) of the visible actuators with the masks `wanted` of this keyframe.
            contact: (P, pairs) bool, the pairs of `Supervision.contact_pairs` that touch.
        """
        nothing = torch.full((len(contact),), torch.nan, device=self._device)
        ious, expected = [overlap[:, i] for i in self._seen[k]], self._contact[k]
        return {
            "actuator_iou": 1 - torch.stack(ious).mean(0) if ious else nothing,
            "contact": (~contact[:, expected]).float().mean(1) if expected.any() else nothing,
        }

    def at_goal(self, seen: Picture) -> dict[str, Tensor]:
        """Terms of the last keyframe, (P,) each."""
        actuators = [
            self._chamfer(seen.label == a, seen.depth, cloud)
            for a, cloud in zip(self._actuators, self._actuator_clouds, strict=True)
        ]
        return {"actuator_chamfer": torch.stack(actuators).mean(0)} | self._of_target(seen)

    def settled(self, seen: Picture) -> dict[str, Tensor]:
        """Terms of the end, when all has been let go and has settled, (P,) each; 0 where the video's
        goal frame shows something held, so that it says nothing of what follows; and `target_lasts`."""
        terms = self._of_target(seen)
        says, lasts = float(not self._held_at_goal), float(self._lasts)
        return {
            **{f"{SETTLED}{n}": says * v for n, v in terms.items()},
            "target_lasts": lasts * terms["target_iou"],
        }

    def _of_target(self, seen: Picture) -> dict[str, Tensor]:
        """How the targets differ from the video's goal frame, (P,) each."""
        target_seen = _is_any(seen.label, self._targets)
        missed = (~seen.around).float()
        return {
            "target_iou": 1 - label_iou(
                seen.label, self._targets, self._target_masks[-1], self._valid[-1]
            ),
            "target_chamfer": self._chamfer(target_seen, seen.depth, self._target_cloud),
            "around": missed.mean(1) if missed.shape[1] else torch.zeros_like(missed.sum(1)),
            **self._part_terms(seen.parts),
        }  # fmt: skip

    def _part_terms(self, parts: Parts) -> dict[str, Tensor]:
        Q, P = len(self._part_masks), len(parts.number)
        if Q == 0:  # The video's goal frame shows no target: nothing to compare with.
            zero = torch.zeros(P, device=self._device)
            return {n: zero for n in ("part_count", "part_iou", "part_chamfer", "part_distance")}
        # Part numbers that no rollout has keep IoU 0 and are never the best of a part that is met.
        iou = torch.zeros(P, Q, MAX_PARTS, device=self._device)
        for q, mask in enumerate(self._part_masks):
            for c in range(min(MAX_PARTS, int(parts.count.max()))):
                iou[:, q, c] = label_iou(parts.number, c + 1, mask, self._part_valid)
        best_iou, best = iou.max(dim=2)
        clouds = [
            self._cloud(parts.number == best[:, q, None, None] + 1, parts.depth) for q in range(Q)
        ]
        distances = torch.stack(
            [self._cloud_chamfer(clouds[q], self._part_clouds[q]) for q in range(Q)]
        )
        centres = torch.stack([c.nanmean(dim=1) for c in clouds], 1)  # (P, Q, 3)
        wanted = torch.stack([c.mean(0) for c in self._part_clouds])  # (Q, 3)
        # Where the video does not show how far away a part is, nothing is asked of it.
        shown = [q for q in range(Q) if len(self._part_clouds[q])]
        pairs = [(i, j) for i in shown for j in shown if j < i]
        gaps = [
            ((centres[:, i] - centres[:, j]).norm(dim=1) - (wanted[i] - wanted[j]).norm())
            .abs()
            .nan_to_num(FAR_M)
            for i, j in pairs
        ]
        return {
            "part_count": (parts.count - Q).abs().float() / Q,
            "part_iou": 1 - best_iou.mean(1),
            "part_chamfer": distances.mean(0),
            "part_distance": torch.stack(gaps).mean(0) if gaps else torch.zeros_like(distances[0]),
        }

    def _chamfer(self, mask: Tensor, depth: Tensor, wanted: Tensor) -> Tensor:
        return self._cloud_chamfer(self._cloud(mask, depth), wanted)

    def _cloud_chamfer(self, cloud: Tensor, wanted: Tensor) -> Tensor:
        """Half the sum of both directions' mean nearest distances [m], (P,)."""
        P = len(cloud)
        if len(wanted) == 0:  # The video never showed it: the term has nothing to say.
            return torch.zeros(P, device=self._device)
        return chamfer(cloud, wanted).mean.nan_to_num(FAR_M, posinf=FAR_M).clamp(max=FAR_M)

    def _cloud(self, mask: Tensor, depth: Tensor) -> Tensor:
        """World points (P, M, 3) of the pixels in `mask`, as many and chosen by the same rule as the
        video's; NaN pads."""
        return unproject(mask, depth, self._rays, self._origin, self._cloud_points)


def _finite(cloud: Tensor) -> Tensor:
    return cloud[torch.isfinite(cloud).all(1)].float().contiguous()


def _is_any(label: Tensor, wanted: list[int]) -> Tensor:
    found = label == wanted[0]
    for w in wanted[1:]:
        found = found | (label == w)
    return found
