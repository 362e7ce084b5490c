"""A fitted twin as the values of a `task.toml`: who moves, what it is made of, what is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from lucibot.core.camera import Camera
from lucibot.providers.renderer.surfaces import srgb_to_linear
from lucibot.twin import folder
from lucibot.twin.make import Twin
from lucibot.twin.request import Request, Thing
from lucibot.twin.shapes import BOARD_M, DRAWER_M, SHAPES

ROOM_M = 0.06
"""Around all things, in the box that particles can reach."""
ABOVE_M = 0.22
GAP_M = 0.003
"""Between a drawer or a door and the fronts beside it."""
COUNTER_M, OVERHANG_M = 0.04, 0.02
"""Thickness of a counter over drawers and doors, and how far it stands out."""
SIMULATION: dict[str, dict[str, Any]] = {
    "rigid": {"dt_s": 0.005, "substeps": 2, "rigid_collision": True, "steps_per_waypoint": 30,
              "settle_steps": 480},
    "jointed": {"dt_s": 0.01, "substeps": 1, "steps_per_waypoint": 20, "settle_steps": 10},
    "liquid": {"dt_s": 0.012, "substeps": 16, "steps_per_waypoint": 16, "settle_steps": 30,
               "servo_bandwidth_rad_s": 100.0},
    "mpm": {"dt_s": 0.012, "substeps": 8, "steps_per_waypoint": 16, "settle_steps": 30,
            "servo_bandwidth_rad_s": 100.0},
}  # fmt: skip
"""As the shipped tasks of each kind have it; of a liquid a column of ten centimetres stands."""
MATERIAL: dict[str, dict[str, Any]] = {
    "rigid": {"mass_kg": 0.1},
    "liquid": {"stiffness_pa": 4000.0, "viscosity_m2_s": 0.003, "particle_size_m": 0.008},
    "sand": {"density_kg_m3": 1200.0, "youngs_modulus_pa": 3e4, "poisson_ratio": 0.2,
             "friction_angle_deg": 35.0, "particle_size_m": 0.006},
    "elastic": {"youngs_modulus_pa": 5e4, "particle_size_m": 0.006},
    "elastoplastic": {"youngs_modulus_pa": 5e4, "yield_strain": 0.03, "particle_size_m": 0.006},
}  # fmt: skip


def task_values(
    twin: Twin, request: Request, *, title: str, width: int, fps: float
) -> dict[str, Any]:
    """Everything that `task.toml` holds, collision pieces apart."""
    kind = _kind(twin, request)
    objects, background = [], [_table(twin)]
    if twin.wall_y_m is not None:
        background.append({
            "name": "wall", "size_m": [6.0, 0.04, 2.0], "position_m": [0.0, twin.wall_y_m + 0.02, 1.0],
            "solid": False,
        })  # fmt: skip
    for t in _ordered(request):
        pose = _pose(twin.poses[t.name])
        if _is_object(t, request, kind):
            objects.append(_object(t, pose, twin, request, kind))
        else:
            thing = {"name": t.name, "mesh": f"assets/{t.name}.obj", **pose}
            if kind in ("liquid", "mpm"):
                thing["coup_friction"] = 0.0 if kind == "liquid" else 0.5
            background.append(thing | {"look": {"color": _linear(twin.entries[t.name]["colour"])}})
        if t.shape in ("drawer", "door"):
            background = _cabinet(t, twin) + [b for b in background if b["name"] != "table"]
    values = {
        "title": title, "camera": _camera(twin.camera, width, fps),
        "simulation": _simulation(kind, objects, twin), "background": background, "objects": objects,
        "goal": request.goals, "success": _success(request, twin, kind),
    }  # fmt: skip
    return {k: v for k, v in values.items() if v != []}


def _ordered(request: Request) -> list[Thing]:
    """What moves first; what fills a thing after it."""
    return sorted(
        request.things.values(), key=lambda t: (t.name not in request.moved, t.filling is not None)
    )


def _kind(twin: Twin, request: Request) -> str:
    made_of = {t.material for t in request.things.values()}
    if "liquid" in made_of:
        return "liquid"
    if made_of - {"rigid"}:
        return "mpm"
    moved = [request.things[n] for n in request.moved]
    return "jointed" if all(t.shape in ("drawer", "door") for t in moved) else "rigid"


def _is_object(t: Thing, request: Request, kind: str) -> bool:
    """Where bodies collide even what nobody touches can be pushed; elsewhere it stands still."""
    acts = t.name in request.moved or t.name in request.targets or t.material != "rigid"
    return acts or (kind == "rigid" and t.shape not in ("slab",))


def _object(t: Thing, pose: dict, twin: Twin, request: Request, kind: str) -> dict[str, Any]:
    roles = [
        r
        for r, names in (("actuator", request.moved), ("target", request.targets))
        if t.name in names
    ]
    material = {"kind": t.material, **MATERIAL[t.material]}
    if t.material == "rigid" and kind in ("liquid", "mpm"):
        material |= {"coup_friction": 0.0 if kind == "liquid" else 0.4, "coup_softness_m": 0.0015}
    made: dict[str, Any] = {"name": t.name, "roles": roles, "mesh": f"assets/{t.name}.obj", **pose}
    if t.shape == "drawer":
        out = _counter_y(t.name, twin) + OVERHANG_M
        made["joint"] = {"kind": "slider", "axis": [0.0, -1.0, 0.0], "lower": -out,
                         "upper": DRAWER_M - out - 0.02}  # fmt: skip
    elif t.shape == "door":
        side = -1.0 if t.hinge == "left" else 1.0
        made["joint"] = {"kind": "hinge", "axis": [0.0, 0.0, side], "upper": 110.0,
                         "origin_m": [side * twin.entries[t.name]["width"] / 2, 0.0, 0.0]}  # fmt: skip
    return made | {"material": material}


def _pose(T: np.ndarray) -> dict[str, list[float]]:
    turn = Rotation.from_matrix(T[:3, :3]).as_euler("xyz", degrees=True)
    pose = {"position_m": [float(v) for v in T[:3, 3]]}
    if np.abs(turn).max() > 1e-3:
        pose["rotation_deg"] = [float(v) for v in turn]
    return pose


def _camera(camera: Camera, width: int, fps: float) -> dict[str, Any]:
    """The camera at about `width` pixels: a size that keeps the photo's shape and is even."""
    width = min(width, camera.width) // 2 * 2
    height = round(camera.height * width / camera.width / 2) * 2
    eye, forward = camera.T_world_cam[:3, 3], camera.T_world_cam[:3, 2]
    reach = float(np.clip(eye[2] / max(-forward[2], 0.1), 0.2, 3.0))
    values: dict[str, Any] = {
        "width": width, "height": height, "fps": fps, "vertical_fov_deg": camera.vertical_fov_deg,
        "photo": "photo.png", "photo_background": "empty.png",
        "position_m": [float(v) for v in eye], "look_at_m": [float(v) for v in eye + reach * forward],
        "up": [float(v) for v in -camera.T_world_cam[:3, 1]],
    }  # fmt: skip
    middle = [camera.cx / camera.width, camera.cy / camera.height]
    if np.abs(np.array(middle) - 0.5).max() > 1e-3:
        values["principal_point"] = middle
    return values


def _table(twin: Twin) -> dict[str, Any]:
    return {"name": "table", "size_m": [3.0, 3.0, 0.04], "position_m": [0.0, 0.0, -0.02],
            "coup_friction": 5.0, "look": {"color": _linear(twin.table_rgb)}}  # fmt: skip


def _linear(rgb) -> list[float]:
    return [float(v) for v in srgb_to_linear(np.array(rgb))]


def _counter_y(name: str, twin: Twin) -> float:
    """Where a counter begins that hides of an opened drawer what the photo does not show, y [m] in the
    drawer's frame: its lower edge lies on the line of sight to the last of the rim that is seen."""
    e = twin.entries[name]
    rim, under = e["height"] * min(e["rim"], 1.0), e["height"] + GAP_M
    eye = (np.linalg.inv(twin.poses[name]) @ np.r_[twin.camera.T_world_cam[:3, 3], 1.0])[:3]
    return float(e["opening"] + (eye[1] - e["opening"]) * (under - rim) / (eye[2] - rim))


def _cabinet(t: Thing, twin: Twin) -> list[dict[str, Any]]:
    """What a drawer or a door hangs in: the fronts beside it, a counter above, a floor."""
    e, T = twin.entries[t.name], twin.poses[t.name]
    edge = _counter_y(t.name, twin) if t.shape == "drawer" else BOARD_M / 2 - OVERHANG_M
    high = e["height"] + GAP_M

    half, front = e["width"] / 2 + GAP_M, edge + OVERHANG_M

    def slab(name: str, x0, x1, y0, y1, z0, z1) -> dict[str, Any]:
        middle = T @ np.array([(x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2, 1.0])
        return {"name": name, "size_m": [x1 - x0, y1 - y0, z1 - z0], "solid": False,
                "position_m": [float(v) for v in middle[:3]]}  # fmt: skip

    below, far, wide = (-0.65 if t.shape == "drawer" else -0.08), edge + 0.65, 2.0
    return [
        slab("fronts_left", -wide, -half, front, far, below, high),
        slab("fronts_right", half, wide, front, far, below, high),
        slab("fronts_below", -half, half, front, far, below, -GAP_M),
        slab("counter", -wide, wide, edge, far, high, high + COUNTER_M),
        slab("floor", -wide, wide, edge - 2.5, far, below - 0.05, below - 0.01),
    ]


def _simulation(kind: str, objects: list[dict], twin: Twin) -> dict[str, Any]:
    values: dict[str, Any] = dict(SIMULATION[kind])
    if kind in ("liquid", "mpm"):
        made = folder.meshes(twin.entries, folder.Path("."))
        corners = np.concatenate([
            np.asarray(group[0].vertices) @ twin.poses[n][:3, :3].T + twin.poses[n][:3, 3]
            for n, group in made.items()
        ])  # fmt: skip
        low, high = corners.min(0) - ROOM_M, corners.max(0) + ROOM_M
        low[2], high[2] = -0.012, corners.max(0)[2] + ABOVE_M
        box = {
            "lower_m": [round(float(v), 3) for v in low],
            "upper_m": [round(float(v), 3) for v in high],
        }
        values["sph" if kind == "liquid" else "mpm"] = (
            box if kind == "liquid" else {"grid_density": 110.0, "cpic": True, **box}
        )
    return values


def _success(request: Request, twin: Twin, kind: str) -> list[dict[str, Any]]:
    """Predicates for what the goals say. What they do not cover is left to the user."""
    found: list[dict[str, Any]] = []
    for g in request.goals:
        name, thing = g["object"], request.things[g["object"]]
        if g["relation"] == "inside" and thing.material == "rigid":
            found += [
                {"predicate": "nested", "object": name, "container": g["container"],
                 "max_offset_m": round(0.5 * _opening_m(g["container"], twin), 4)},
                {"predicate": "at_rest", "object": name, "max_speed_m_s": 0.03},
            ]  # fmt: skip
        elif g["relation"] == "inside":
            found += [
                {
                    "predicate": "inside",
                    "object": name,
                    "container": g["container"],
                    "min_fraction": 0.9,
                },
                {"predicate": "inside_domain", "object": name},
            ]
        elif g["relation"] == "moved" and thing.shape == "drawer":
            found.append({"predicate": "joint_opening", "object": name, "min_share": 0.5})
        elif g["relation"] == "moved" and thing.shape == "door":
            found.append({"predicate": "joint_angle", "object": name, "min_deg": 45.0})
        elif g["relation"] == "lifted" and thing.material != "rigid":
            found.append({"predicate": "lifted", "object": name, "min_m": 0.05, "hold_s": 0.1})
        elif g["relation"] == "pieces":
            found.append({"predicate": "pieces", "object": name, "count": g["count"]})
    return found


def _opening_m(name: str, twin: Twin) -> float:
    """How wide a vessel is at its rim."""
    e = twin.entries[name]
    shape = SHAPES.get(e["shape"])
    if shape is None or shape.cavity is None:
        return float(folder.meshes({name: e}, folder.Path("."))[name][0].extents[:2].min())
    return 2 * float(shape.cavity({k: e[k] for k in shape.sizes}, e["wall_m"])[-1, 0])
