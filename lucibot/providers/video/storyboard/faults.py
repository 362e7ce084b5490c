"""Faults that are planted into some candidates, as video models make them."""

from __future__ import annotations

import numpy as np

from lucibot.core.camera import Camera
from lucibot.providers.video.storyboard.plan import Plan, make_plan
from lucibot.providers.video.storyboard.scenery import Scenery
from lucibot.providers.video.storyboard.schema import StoryboardSpec
from lucibot.providers.video.storyboard.shapes import ball_shape, box_shape
from lucibot.task import Task

FAULTS = ("goal_not_reached", "new_object", "camera_drift", "wrong_object_moves")
COLORS = (
    (0.55, 0.05, 0.05),
    (0.05, 0.12, 0.5),
    (0.05, 0.3, 0.08),
    (0.75, 0.55, 0.05),
    (0.8, 0.8, 0.8),
)


def choose_faults(count: int, faulty: int | None, rng: np.random.Generator) -> list[str]:
    """A fault or "" for each of `count` candidates; `faulty` of them carry one, by default between
    one and all but one."""
    if faulty is None:
        faulty = int(rng.integers(1, count)) if count > 1 else 0
    faulty = min(faulty, count)
    kinds = [FAULTS[k % len(FAULTS)] for k in rng.permutation(max(len(FAULTS), faulty))[:faulty]]
    out = [""] * count
    for i, kind in zip(rng.permutation(count)[:faulty], kinds, strict=True):
        out[i] = kind
    return out


def plan_with_fault(
    task: Task, scenery: Scenery, spec: StoryboardSpec, fault: str, rng: np.random.Generator
) -> Plan:
    """One candidate's plan; `fault` is one of `FAULTS` or "" for none."""
    plan = make_plan(task, spec, rng, miss=fault == "goal_not_reached")
    if fault == "new_object":
        plan = _new_object(scenery, plan, rng)
    elif fault == "camera_drift":
        plan = _camera_drift(task.camera, plan, rng)
    elif fault == "wrong_object_moves":
        plan = _wrong_object_moves(spec, plan, rng)
    return plan


def _new_object(scenery: Scenery, plan: Plan, rng: np.random.Generator) -> Plan:
    color = np.array(COLORS[rng.integers(len(COLORS))])
    size = rng.uniform(0.035, 0.06)
    if rng.random() < 0.5:
        shape = ball_shape(size / 2, color)
    else:
        shape = box_shape(size * rng.uniform(0.6, 1.2, 3), color)
    appears = int(len(plan) * rng.uniform(0.25, 0.6))
    T = np.eye(4)
    angle = rng.uniform(0, 2 * np.pi)
    T[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    T[:3, 3] = _free_spot(scenery, rng, size)
    return plan.with_(fault="new_object", extra={"object": (shape, T), "appears": appears})


def _free_spot(scenery: Scenery, rng: np.random.Generator, size: float) -> np.ndarray:
    """A point (3,) [m, world] of a level surface in the picture, clear of the objects."""
    points, normals = scenery.surface["empty"]
    h = len(points)
    clear = (normals[..., 2] > 0.95) & (scenery.half_labels == 0)
    margin = h // 10
    clear[:margin], clear[-margin:], clear[:, :margin], clear[:, -margin:] = (False,) * 4
    places = [T[:3, 3] for T in scenery.rest.values()]
    for k in rng.permutation(np.flatnonzero(clear))[:400]:
        p = points.reshape(-1, 3)[k]
        if min(np.linalg.norm(p[:2] - q[:2]) for q in places) > 0.09 + size / 2:
            return p
    return points.reshape(-1, 3)[rng.choice(np.flatnonzero(clear))]


def _camera_drift(camera: Camera, plan: Plan, rng: np.random.Generator) -> Plan:
    """A slow zoom and pan of the whole picture: (T, 2, 3) affine maps from scene to picture."""
    t = np.linspace(0, 1, len(plan)) ** 1.3
    zoom = 1 + rng.uniform(0.06, 0.12) * t
    angle = rng.uniform(0, 2 * np.pi)
    # The pan stays within what the zoom leaves over, so that no border comes into the picture.
    margin = 0.5 * camera.height * (zoom - 1)
    pan = rng.uniform(0.5, 0.95) * margin[:, None] * [np.cos(angle), np.sin(angle)]
    centre = np.array([camera.width, camera.height]) / 2
    A = np.zeros((len(plan), 2, 3))
    A[:, 0, 0] = A[:, 1, 1] = zoom
    A[:, :, 2] = centre * (1 - zoom[:, None]) + pan
    return plan.with_(fault="camera_drift", extra={"camera": A})


def _wrong_object_moves(spec: StoryboardSpec, plan: Plan, rng: np.random.Generator) -> Plan:
    """A thing that no hand touches slides by itself, before the hand comes or after it has left."""
    held = {h.spec.holds for h in plan.hands}
    candidates = spec.slides or [n for n in plan.names if n not in held] or list(plan.names)
    name = candidates[rng.integers(len(candidates))]
    i = plan.names.index(name)
    angle = rng.uniform(0, 2 * np.pi)
    way = rng.uniform(0.03, 0.06) * np.array([np.cos(angle), np.sin(angle), 0])
    turn = np.deg2rad(rng.uniform(-25, 25))
    present = np.any([h.present for h in plan.hands], axis=0)
    T = len(plan)
    if rng.random() < 0.5:
        start, end = 1, int(np.argmax(present)) + T // 12
    else:
        last = T - 1 - int(np.argmax(present[::-1]))
        start, end = max(last - T // 12, 0), T - 1
    s = np.clip((np.arange(T) - start) / max(end - start, 1), 0, 1)
    s = s * s * (3 - 2 * s)
    poses = plan.T_world_object.copy()
    pivot = poses[:, i, :3, 3].copy()
    c, sn = np.cos(turn * s), np.sin(turn * s)
    R = np.tile(np.eye(3), (T, 1, 1))
    R[:, 0, 0], R[:, 0, 1], R[:, 1, 0], R[:, 1, 1] = c, -sn, sn, c
    poses[:, i, :3, :3] = R @ poses[:, i, :3, :3]
    poses[:, i, :3, 3] = pivot + s[:, None] * way
    return plan.with_(fault="wrong_object_moves", T_world_object=poses,
                      extra={"slides": name, "slides_from": start, "slides_to": end})  # fmt: skip
