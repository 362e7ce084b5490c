"""Checks of a task folder: everything that a run will need, tried on a small scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lucibot.core.errors import LuciBotError
from lucibot.core.progress import Progress, silent
from lucibot.task import ObjectSpec, Task, load_task

SMALLEST_M, LARGEST_M = 0.002, 2.0
"""Extents outside of this say that a mesh is not in metres."""
CONVEX_SHARE = 0.98
"""Least share of its hull's volume that a collision piece must fill."""
ENVIRONMENTS = 4
THUMBNAIL_WIDTH = 400


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    passed: bool
    message: str
    """What was found, in one line."""


class _Failed(Exception):
    """A check's own finding."""


def check_task(
    name: str | Path,
    out_dir: Path,
    progress: Progress = silent,
    *,
    on_check: Callable[[Check], None] | None = None,
) -> list[Check]:
    """Check a task by name or folder; write a picture of it to `out_dir/<name>.png`.

    A task that cannot be loaded gives a single failed check; otherwise every check is made, whether
    or not an earlier one failed. `on_check` sees each as it is done.
    """
    done: list[Check] = []

    def add(title: str, act: Callable[[], str]) -> bool:
        progress(f"checking {title}")
        try:
            check = Check(name=title, passed=True, message=act())
        except (_Failed, LuciBotError) as e:
            check = Check(name=title, passed=False, message=str(e))
        done.append(check)
        if on_check:
            on_check(check)
        return check.passed

    loaded: list[Task] = []

    def schema() -> str:
        loaded.append(load_task(name))
        return f"task.toml and instruction.md are valid ({len(loaded[0].objects)} objects)"

    if not add("schema", schema):
        return done
    task = loaded[0]
    add("goal and success", lambda: _goal_and_success(task))
    meshes = all([add(f"mesh {o.name}", lambda o=o: _mesh(task, o)) for o in task.objects])
    textures = add("textures", lambda: _textures(task))
    add("storyboard", lambda: _storyboard(task))
    if meshes:
        add("domain", lambda: _domain(task))
        # The simulation comes first: it starts the runtime that the observer then shares.
        add("simulation", lambda: _simulation(task, progress))
        add("camera", lambda: _camera(task))
        if textures:
            add("thumbnail", lambda: _thumbnail(task, Path(out_dir), progress))
    return done


def _goal_and_success(task: Task) -> str:
    from lucibot.objective.success import predicates
    from lucibot.providers.verifier.goals import relations

    found = predicates(task)
    if not found:
        raise _Failed(
            "no [[success]] predicate: no run of this task could ever be called a success"
        )
    return f"{len(found)} success predicates, {len(relations(task))} goal relations"


def _mesh(task: Task, obj: ObjectSpec) -> str:
    mesh = task.mesh(obj)
    if not mesh.is_watertight:
        raise _Failed(f"{obj.mesh} is not watertight: close its holes")
    if not mesh.is_winding_consistent or mesh.volume <= 0:
        raise _Failed(f"{obj.mesh}: its faces do not all look outwards")
    size = mesh.extents
    if size.min() < SMALLEST_M or size.max() > LARGEST_M:
        raise _Failed(f"{obj.mesh} measures {_cm(size)} with scale {obj.scale:g}: is it in metres?")
    if np.linalg.eigvalsh(mesh.moment_inertia).min() <= 0:
        raise _Failed(f"{obj.mesh}: its inertia is not positive")
    words = f"watertight, {_cm(size)}, {mesh.volume * 1e6:.0f} cm3, {len(mesh.faces)} faces"
    pieces = getattr(obj.material, "collision", [])
    for piece in pieces:
        _collision_piece(task, piece)
    return words + (f", {len(pieces)} convex pieces" if pieces else "")


def _collision_piece(task: Task, piece: str) -> None:
    mesh = task.read_mesh(piece, process=True)
    if not mesh.is_watertight or mesh.volume < CONVEX_SHARE * mesh.convex_hull.volume:
        raise _Failed(f"{piece} is not a closed convex piece")


def _textures(task: Task) -> str:
    import cv2

    looks = [x.look for x in [*task.objects, *task.spec.background] if x.look is not None]
    names = sorted({look.texture for look in looks if look.texture is not None})
    for name in names:
        if cv2.imread(str(task.path(name))) is None:
            raise _Failed(f"{name} is no picture that can be read")
    return f"{', '.join(names)} can be read" if names else "none are used"


def _storyboard(task: Task) -> str:
    from lucibot.providers.video.storyboard.plan import make_plan
    from lucibot.providers.video.storyboard.schema import load_storyboard

    if not (task.folder / "storyboard.toml").is_file():
        return "none; runs need --video FILE or a video model"
    plan = make_plan(task, load_storyboard(task), np.random.default_rng(0))
    return f"valid, {len(plan)} frames"


def _domain(task: Task) -> str:
    found = []
    for obj in task.objects:
        if obj.is_rigid:
            continue
        sim = task.spec.simulation
        box = sim.sph if obj.is_liquid else sim.mpm
        T = obj.T_world_object
        corners = np.asarray(task.mesh(obj).vertices) @ T[:3, :3].T + T[:3, 3]
        low, high = corners.min(0), corners.max(0)
        if (low < box.lower_m).any() or (high > box.upper_m).any():
            raise _Failed(
                f"{obj.name} spans {low.round(3)} to {high.round(3)} m, beyond the particles' "
                f"domain {box.lower_m} to {box.upper_m}"
            )
        found.append(obj.name)
    return f"{', '.join(found)} within the domain" if found else "no particles"


def _simulation(task: Task, progress: Progress) -> str:
    """A few environments in which every actuator is moved about a little, each differently."""
    import torch

    from lucibot.core.geometry import pose_np
    from lucibot.sim.rollout import run_rollout
    from lucibot.sim.scene import SimScene

    scene = SimScene(task, n_envs=ENVIRONMENTS, progress=progress)
    rest = np.stack([pose_np(o.T_world_object) for o in task.actuators])
    K, A = 2, len(rest)
    waypoints = np.tile(rest, (ENVIRONMENTS, K, 1, 1))
    rng = np.random.default_rng(0)
    waypoints[..., :3] += rng.normal(scale=0.004, size=(ENVIRONMENTS, K, A, 3))
    waypoints[..., 2] += 0.03
    steps = 0

    def count(_: int) -> None:
        nonlocal steps
        steps += 1

    held = np.ones((K, A), bool)
    run_rollout(scene, torch.as_tensor(waypoints, dtype=torch.float32), held, on_step=count)
    bad = scene.diverged().nonzero().flatten().tolist()
    if bad:
        raise _Failed(f"environments {bad} of {ENVIRONMENTS} diverged within {steps} steps")
    return f"{ENVIRONMENTS} environments, {steps} steps, none diverged"


def _camera(task: Task) -> str:
    from lucibot.providers.renderer.surfaces import look_through, task_surfaces

    labels, _, _ = look_through(task_surfaces(task, foreground=True), task.camera)
    share = {o.name: float((labels == task.label(o.name)).mean()) for o in task.objects}
    for name, seen in share.items():
        if seen < 5e-4:
            raise _Failed(f"{name} fills {100 * seen:.3f}% of the picture: too little to follow")
    return "sees " + ", ".join(f"{n} ({100 * s:.1f}%)" for n, s in share.items())


def _thumbnail(task: Task, out_dir: Path, progress: Progress) -> str:
    import cv2

    from lucibot.providers.renderer import MitsubaRenderer

    camera = task.spec.camera
    size = {"width": THUMBNAIL_WIDTH, "height": THUMBNAIL_WIDTH * camera.height // camera.width}
    spec = task.spec.model_copy(update={"camera": camera.model_copy(update=size)})
    small = Task(task.folder, spec, task.instruction)
    picture = MitsubaRenderer().create().render(small, foreground=True, progress=progress)
    out_dir.mkdir(parents=True, exist_ok=True)
    path = out_dir / f"{task.name}.png"
    cv2.imwrite(str(path), picture[..., ::-1])
    return str(path)


def _cm(size_m: np.ndarray) -> str:
    return " x ".join(f"{100 * s:.1f}" for s in size_m) + " cm"
