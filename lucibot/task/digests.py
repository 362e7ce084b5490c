"""What a task says, hashed in parts, so that who reads one part need not be made anew for another.

Everything that is read is hashed by content: values as the schema understands them, files by their
bytes with all that they refer to. Comments, the order of keys, and files that nothing refers to
change nothing. Nor does a value that the task leaves to the schema: whoever changes a default in
the schema bumps the versions of the stages that rest on it.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lucibot.core.errors import UserError
from lucibot.task.files import read_mesh, read_text, within

if TYPE_CHECKING:
    from lucibot.task.schema import BackgroundSpec, ObjectSpec
    from lucibot.task.task import Task

PHYSICAL = {"material", "roles", "friction", "coup_friction", "coup_softness_m"}
"""Fields of objects and background that are not seen."""


def digest(task: Task, part: str) -> str:
    """sha256 of one of `PARTS`.

    Raises:
        UserError: a file cannot be read.
    """
    told = json.dumps(PARTS[part](task), sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def _scene(task: Task) -> Any:
    """What stands where and looks how: geometry, joints, kinds of material, camera and light."""
    spec = task.spec
    return {
        "camera": _given(spec.camera), "light": _given(spec.light),
        "photos": [
            _file(task, photo) for photo in (spec.camera.photo, spec.camera.photo_background)
            if photo is not None
        ],
        "background": [_seen(task, b) for b in spec.background],
        "objects": [{**_seen(task, o), "kind": o.material.kind} for o in spec.objects],
    }  # fmt: skip


def _seen(task: Task, thing: ObjectSpec | BackgroundSpec) -> dict:
    files = {}
    if thing.mesh is not None:
        files["mesh"] = read_mesh(task.folder, thing.mesh)[1]
    if thing.look is not None and thing.look.texture is not None:
        files["texture"] = _file(task, thing.look.texture)
    told = {k: v for k, v in _given(thing).items() if k not in PHYSICAL}
    if joint := told.get("joint"):
        told["joint"] = {k: v for k, v in joint.items() if k != "friction"}
    return {**told, "files": files}


def _roles(task: Task) -> Any:
    """Who acts and who is acted on, and how near is touching."""
    touching = {k: v for k, v in _given(task.spec).items() if k == "contact_m"}
    return {"objects": {o.name: sorted(o.roles) for o in task.objects}, **touching}


def _hands(task: Task) -> Any:
    return {k: v for k, v in _given(task.spec).items() if k == "hands"}


def _simulation(task: Task) -> Any:
    """Numbers of the solvers, materials, and shapes of contact; with `scene`, all of the physics."""
    return {
        "simulation": _given(task.spec.simulation),
        "objects": [
            {
                "material": _given(o.material),
                "joint": o.joint and o.joint.friction,
                **(
                    {"cloud": _file(task, cloud)}
                    if (cloud := getattr(o.material, "cloud", None))
                    else {}
                ),
                "collision": [
                    read_mesh(task.folder, piece)[1]
                    for piece in getattr(o.material, "collision", [])
                ],
            }
            for o in task.objects
        ],
        "background": [
            {k: v for k, v in _given(b).items() if k in PHYSICAL} for b in task.spec.background
        ],
    }


def _storyboard(task: Task) -> Any:
    """Its values, and every file of the folder that one of them names; None without one."""
    if not (task.folder / "storyboard.toml").is_file():
        return None
    text = read_text(within(task.folder, "storyboard.toml"))
    try:
        told = tomllib.loads(text)
    except (ValueError, RecursionError):
        return text
    named = {s for s in _strings(told) if _is_file(task, s)}
    return {"told": told, "files": {s: _file(task, s) for s in sorted(named)}}


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [s for v in value for s in _strings(v)]
    return [value] if isinstance(value, str) else []


def _is_file(task: Task, name: str) -> bool:
    try:
        within(task.folder, name)
    except (UserError, ValueError, OSError):  # Other words than names: too long, odd letters.
        return False
    return True


def _file(task: Task, relative: str) -> str:
    return hashlib.sha256(within(task.folder, relative).read_bytes()).hexdigest()


def _given(spec: Any) -> dict:
    """What the task file itself says."""
    return spec.model_dump(mode="json", exclude_unset=True)


PARTS: dict[str, Callable[[Task], Any]] = {
    "title": lambda task: task.spec.title,
    "instruction": lambda task: task.instruction,
    "scene": _scene,
    "roles": _roles,
    "hands": _hands,
    "goal": lambda task: task.spec.goal,
    "storyboard": _storyboard,
    "simulation": _simulation,
    "success": lambda task: task.spec.success,
}
