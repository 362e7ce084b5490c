"""What there is to see of every environment at once, in the simulator's own tensors."""

from __future__ import annotations

from lucibot_kernels import Wanted
from torch import Tensor

from lucibot.core.camera import Camera
from lucibot.objective.objective import Picture
from lucibot.sim.drawing import Drawing, draw_background
from lucibot.sim.going_around import GoingAround
from lucibot.sim.moment import Moment
from lucibot.sim.parts import DrawnParts
from lucibot.sim.scene import SimScene


class SceneObserver:
    """Looks at all environments over the static background: at everything, or at targets only."""

    def __init__(
        self, scene: SimScene, camera: Camera, around_pairs: tuple[tuple[str, str], ...] = ()
    ):
        background = draw_background(scene.task, camera, str(scene.device))
        labels = {o.name: scene.task.label(o.name) for o in scene.task.objects}
        self._all = Drawing(scene, camera, background, labels)
        self._parts = DrawnParts(scene, camera, background)
        self._around = GoingAround(scene, camera, around_pairs)

    def overlap(self, wanted: Wanted, moments: Moment) -> Tensor:
        """IoU (K, B, L) of visible objects, by label, with masks (K, L, H, W) at K moments."""
        found = self._all.overlap(wanted, moments)
        return found.view(len(wanted.mask), -1, len(wanted.labels))

    def observe(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """Labels (B, H, W) int32, object i of the task as i + 1, and depth (B, H, W) float32 [m];
        the next call draws over them."""
        return self._all.draw(moment)

    def picture(self, moment: Moment, name: str, *, parts: bool) -> Picture:
        """All that there is to see; the next call with the same name draws over it.

        Args:
            parts: draw the targets part by part as well, see `DrawnParts`.
        """
        label, depth = self._all.draw(moment, into=name)
        return Picture(
            label=label, depth=depth, parts=self._parts.draw(moment, name) if parts else None,
            around=self._around.look(moment),
        )  # fmt: skip
