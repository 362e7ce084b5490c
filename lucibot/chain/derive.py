"""A task folder that begins where a run has ended.

Bodies stand where they came to rest, joints have the values that they were left at, and particles are
where they were, drawn as the surface around them. Everything begins at rest and, particles, without
stress: what the folder says is a scene like any other, and every stage reads it as one.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from lucibot.chain.schema import StepSpec
from lucibot.chain.surface import carried_colours, surface_of
from lucibot.core.errors import RunFailed, UserError
from lucibot.core.euler import matrix_to_euler_xyz_deg
from lucibot.core.geometry import matrix_np
from lucibot.sim.state import BodyState, FinalState, ParticleState
from lucibot.task import ObjectSpec, Task, load_task
from lucibot.task.files import read_text
from lucibot.task.schema import WHOLE_TURN_DEG
from lucibot.twin.folder import toml

LEFT_BEHIND = ("task.toml", "instruction.md", "storyboard.toml", "README.md", "picture.jpg")
"""Files of the scene's folder that speak of its own task."""
DIGITS = 12
"""Of numbers in a derived task file: a pose is kept to less than what a step of physics rounds."""


def derive(
    scene: Task, step: StepSpec, *, state: FinalState | None, folder: Path, chain: Path,
    step_task: Task | None = None,
) -> Task:  # fmt: skip
    """Write the task folder of one step.

    Args:
        scene: what stands there: the chain's scene, or the folder of the step before.
        state: where that step ended; None for the first one.
        folder: where to; what is there is replaced.
        chain: the chain's file, beside which the step's own files lie.
        step_task: the task that the step names.

    Raises:
        UserError: the step speaks of things that the scene has not.
        RunFailed: nothing of a thing is left that could be drawn.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(scene.folder, part, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    spec = scene.spec.model_dump(mode="json", exclude_unset=True)
    for name in ("photo", "photo_background"):
        if state is not None:
            spec["camera"].pop(name, None)  # They show another moment.
    if state is not None:
        for told, obj in zip(spec["objects"], scene.objects, strict=True):
            told |= _begun(scene, obj, state, part)
    spec |= _asked(scene, step, step_task)
    _cast(spec["objects"], step, step_task, scene)
    (part / "instruction.md").write_text(_instruction(step, step_task) + "\n")
    _storyboard(step, step_task, chain, part)
    order = {k: spec[k] for k in ("title", *(k for k in spec if k != "title"))}
    (part / "task.toml").write_text(toml(order, digits=DIGITS) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return load_task(folder)


def _instruction(step: StepSpec, task: Task | None) -> str:
    return step.instruction or task.instruction


def _asked(scene: Task, step: StepSpec, task: Task | None) -> dict[str, Any]:
    """What is to be done: title, goal, success and hands."""
    found: dict[str, Any] = {
        "title": " ".join(step.name.split("_")).capitalize(),
        "goal": step.goal or (task.spec.goal if task else []),
        "success": step.success or (task.spec.success if task else []),
        "hands": step.hands or (task.spec.hands if task else scene.spec.hands),
    }
    return found


def _cast(told: list[dict], step: StepSpec, task: Task | None, scene: Task) -> None:
    """Give the objects this step's roles."""
    cast = {
        "actuator": step.actuators or [o.name for o in task.actuators],
        "target": step.targets or [o.name for o in task.targets],
    }
    for names in cast.values():
        for name in names:
            scene.object(name)  # Says which there are, if not this one.
    for o in told:
        o["roles"] = [role for role, names in cast.items() if o["name"] in names]


def _begun(scene: Task, obj: ObjectSpec, state: FinalState, folder: Path) -> dict[str, Any]:
    """What an object's entry says otherwise than before."""
    if obj.is_rigid:
        return _body(obj, state.bodies[obj.name])
    return _matter(scene, obj, state.particles[obj.name], folder)


def _body(obj: ObjectSpec, state: BodyState) -> dict[str, Any]:
    T = matrix_np(state.pose)
    value, joint = float(state.joint), obj.articulation
    found: dict[str, Any] = {}
    if joint is not None:
        T = joint.poses(np.array(value)) if obj.joint.parent is None else T
        unit = 180 / np.pi if joint.is_hinge else 1.0
        told = obj.joint.model_dump(mode="json", exclude_unset=True)
        # Values count from where the object begins now.
        lower, upper = ((limit - value) * unit for limit in (joint.lower, joint.upper))
        most = WHOLE_TURN_DEG if joint.is_hinge else np.inf  # It may be a little beyond a limit.
        found["joint"] = {
            **told,
            "lower": max(min(lower, 0.0), -most),
            "upper": min(max(upper, 0.0), most),
        }
    position, rotation = matrix_to_euler_xyz_deg(T)
    return {**found, "position_m": position, "rotation_deg": rotation}


def _matter(scene: Task, obj: ObjectSpec, state: ParticleState, folder: Path) -> dict[str, Any]:
    """Particles as an npy file, and their surface as a mesh; in the object's own frame, which stays
    where it was."""
    T = obj.T_world_object

    def own(points: np.ndarray) -> np.ndarray:
        return (points - T[:3, 3]) @ T[:3, :3]

    now, first = own(state.final.astype(float)), own(state.initial.astype(float))
    try:
        mesh = surface_of(now, float(state.size_m))
    except ValueError as e:
        raise RunFailed(f"{obj.name!r}: {e}; the next step has nothing to begin with") from None
    if obj.look is None or not obj.look.has_color:
        mesh.visual.vertex_colors = carried_colours(mesh, now, first, scene.mesh(obj))
    names = {"mesh": f"assets/{obj.name}_begin.ply", "cloud": f"assets/{obj.name}_begin.npy"}
    (folder / "assets").mkdir(exist_ok=True)
    mesh.export(folder / names["mesh"])
    np.save(folder / names["cloud"], now.astype(np.float32))
    material = obj.material.model_dump(mode="json", exclude_unset=True)
    return {"mesh": names["mesh"], "scale": 1.0, "material": {**material, "cloud": names["cloud"]}}


def _storyboard(step: StepSpec, task: Task | None, chain: Path, folder: Path) -> None:
    """The step's storyboard, if it has one, with the files that it names."""
    source = None
    if step.storyboard is not None:
        source = chain.parent / step.storyboard
        if not source.is_file():
            raise UserError(f"{chain}: step {step.name!r}: no such storyboard: {source}")
    elif task is not None and (task.folder / "storyboard.toml").is_file():
        source = task.folder / "storyboard.toml"
    if source is None:
        return
    text = read_text(source)
    (folder / "storyboard.toml").write_text(text)
    try:
        told = tomllib.loads(text)
    except ValueError:
        return  # Whoever reads the storyboard says what is wrong with it.
    for name in _strings(told):
        file, there = source.parent / name, folder / name
        inside = file.resolve().is_relative_to(source.parent.resolve())
        if inside and file.is_file() and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, there)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [s for v in value for s in _strings(v)]
    return [value] if isinstance(value, str) else []
