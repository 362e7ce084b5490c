"""The first moment of a task: ray-traced picture, depth and masks (paper, sections 3.1 and 3.2).

Picture and geometry share one camera to the pixel: the picture is path-traced, or a photo of the real
scene; masks and depth are drawn by the observer that also draws the simulation.
"""

from __future__ import annotations

import numpy as np

from lucibot.core.errors import UserError
from lucibot.core.progress import Progress, silent
from lucibot.core.scene_view import SceneView
from lucibot.providers.renderer import (
    MitsubaRenderer,
    PhotoRenderer,
    Renderer,
    RendererConfig,
)
from lucibot.providers.renderer.surfaces import look_through, task_surfaces
from lucibot.task import Task

FAR_M = 100.0
"""Depth of pixels where nothing is."""
FEWEST_PIXELS = 30
"""An object with a smaller mask cannot be followed through a video."""


def build_view(task: Task, renderer: Renderer, progress: Progress = silent) -> SceneView:
    """Draw the task's initial scene.

    Raises:
        UserError: the camera does not see one of the objects.
    """
    labels, depth = _geometry(task, foreground=True)
    _, background_depth = _geometry(task, foreground=False)
    for o in task.objects:
        pixels = int((labels == task.label(o.name)).sum())
        if pixels < FEWEST_PIXELS:
            raise UserError(
                f"task {task.name!r}: the camera sees {pixels} pixels of {o.name!r}; move the "
                "object or the camera"
            )
    progress("drawing the first frame", 0.1)
    first_frame = renderer.render(task, foreground=True, progress=progress)
    progress("drawing the background plate", 0.55)
    background = renderer.render(task, foreground=False, progress=progress)
    progress("drawn", 1.0)
    return SceneView(
        camera=task.camera, names=tuple(o.name for o in task.objects), first_frame=first_frame,
        background_frame=background, labels=labels, depth_m=depth,
        background_depth_m=background_depth,
    )  # fmt: skip


def chosen_renderer(task: Task, config: RendererConfig | None) -> RendererConfig:
    """What draws the first frame where nothing was chosen: the task's photo, if it has one."""
    if config is not None:
        return config
    return MitsubaRenderer() if task.spec.camera.photo is None else PhotoRenderer()


def _geometry(task: Task, *, foreground: bool) -> tuple[np.ndarray, np.ndarray]:
    """Labels (H, W) uint8 and depth (H, W) float32 [m]."""
    labels, depth, _ = look_through(task_surfaces(task, foreground=foreground), task.camera)
    return labels, np.minimum(depth, FAR_M).astype(np.float32)


def run(context) -> None:
    """Write the `SceneView` into the stage's folder."""
    renderer = chosen_renderer(context.task, context.config.renderer).create()
    view = build_view(context.task, renderer, context.progress)
    for text in renderer.notes:
        context.note(text)
    view.save(context.folder)
