"""The objects that the embedded tracker follows, with what each looks like."""

from __future__ import annotations

import numpy as np

from lucibot.providers.tracker.deformable import DeformableTrack
from lucibot.providers.tracker.evidence import Evidence
from lucibot.providers.tracker.jointed import JointTrack
from lucibot.providers.tracker.mesh import Mesh, face_parts
from lucibot.providers.tracker.rigid import RigidTrack
from lucibot.task import ObjectSpec, Task
from lucibot.vision.appearance import UNIFORM, ColourModel
from lucibot.vision.labelling import erode


class RigidObject:
    """A rigid object: its track and one colour model a part."""

    def __init__(self, obj: ObjectSpec, task: Task, K, far, config, rng, bins, mask, T_cam_world):
        mesh = task.mesh(obj)
        prepared = Mesh(mesh.vertices, mesh.faces, face_parts(mesh), closed=mesh.is_watertight)
        if obj.articulation is None:
            T = T_cam_world @ obj.T_world_object
            self.track = RigidTrack(prepared, T, K, far, config.search, rng)
        else:
            self.track = JointTrack(prepared, obj.articulation, T_cam_world, K, far, config.search)
        self.whole = ColourModel(bins[mask], shading=0.2)
        self.models = []
        for p in range(prepared.n_parts):
            seen = mask & (self.track.part == p)
            inner = erode(seen, 1)
            seen = inner if inner.sum() >= 20 else seen
            # A part that the first frame does not show may look like any other part.
            self.models.append(
                ColourModel(bins[seen], shading=0.2) if seen.sum() >= 20 else self.whole
            )
        self.visible = mask
        self.confidence = 1.0
        self.claimed = mask.astype(np.float32)

    def part_densities(self, bins: np.ndarray) -> np.ndarray:
        """(P, H, W); a little of the whole object's colours is in each, for shading and labels."""
        whole = self.whole.density(bins)
        return np.stack([0.93 * m.density(bins) + 0.07 * whole for m in self.models])


Followed = RigidObject | DeformableTrack
"""One object of the task."""


def learn_colours(o: Followed, belief: np.ndarray, parts: np.ndarray, seen: Evidence) -> None:
    """Colours change slowly: only what the models explain already, and better than a hand, is
    learned. Else the shaded fingers around a handle would become the handle's colour.

    Args:
        belief: (h, w) probability that the object is seen.
        parts: (P, h, w) densities of its parts' colours.
    """
    sure = erode(belief > 0.95, 2)
    if not isinstance(o, RigidObject):
        if sure.sum() > 100:
            o.model.learn(seen.bins[sure])
        return
    if o.confidence < 0.8:
        return
    for p, model in enumerate(o.models):
        known = (parts[p] > 3 * UNIFORM) & (parts[p] > seen.hand)
        here = sure & known & erode(o.track.part == p, 1)
        if model is not o.whole and here.sum() > 40:
            model.learn(seen.bins[here], keep=0.6)
