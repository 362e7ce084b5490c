"""What a target goes around, in all environments, asked of the picture as a video is."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.sim.drawing import Drawing
from lucibot.sim.moment import Moment
from lucibot.sim.scene import SimScene
from lucibot.vision.around import Posts


class GoingAround:
    """Answers for fixed pairs (target, thing that stands still)."""

    def __init__(self, scene: SimScene, camera: Camera, pairs: tuple[tuple[str, str], ...]):
        self._scene, self._pairs = scene, pairs
        if not pairs:
            return
        self._posts = Posts(scene.task, camera, sorted({thing for _, thing in pairs}))
        # One target at a time, and nothing before it. What a post hides counts as closed anyway, and
        # particles that are pressed against a post sink into it, as no real loop does.
        height, width = self._posts.camera.height, self._posts.camera.width
        nothing = torch.zeros(height, width, dtype=torch.int32, device=scene.device)
        background = nothing, torch.full_like(nothing, torch.inf, dtype=torch.float32)
        self._drawings = {
            name: Drawing(scene, self._posts.camera, background, {name: 1})
            for name in dict.fromkeys(target for target, _ in pairs)
        }

    def look(self, moment: Moment) -> Tensor:
        """(P, pairs) bool."""
        out = np.zeros((len(moment.error), len(self._pairs)), bool)
        masks = {n: self._seen(n, moment) for n in dict.fromkeys(t for t, _ in self._pairs)}
        for r, (target, thing) in enumerate(self._pairs):
            out[:, r] = [self._posts.goes_around(mask, thing) for mask in masks[target]]
        return torch.from_numpy(out).to(self._scene.device)

    def _seen(self, name: str, moment: Moment) -> np.ndarray:
        """(P, H, W) bool: where a target is, gaps between particles that hang together
        closed."""
        label, depth = (x.cpu().numpy() for x in self._drawings[name].draw(moment))
        masks = label > 0
        if self._scene.task.object(name).is_rigid:
            return masks
        for b in np.flatnonzero(masks.any((1, 2))):
            away_m = np.median(depth[b][masks[b]])
            reach_px = self._posts.camera.fx * self._scene.link_m(name) / away_m
            ball = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(reach_px / 2) + 1,) * 2)
            masks[b] = cv2.morphologyEx(masks[b].astype(np.uint8), cv2.MORPH_CLOSE, ball) > 0
        return masks
