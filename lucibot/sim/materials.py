"""From a task's objects to Genesis materials, shapes and surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from lucibot.task import BackgroundSpec, Look, ObjectSpec, Particles, Rigid, Task


def rotation_quat(T: np.ndarray) -> tuple[float, ...]:
    """The rotation of a (4, 4) pose as a unit quaternion (w, x, y, z)."""
    return tuple(float(v) for v in trimesh.transformations.quaternion_from_matrix(T))


def surface(gs: Any, task: Task, look: Look | None, *, recon: bool = False) -> Any:
    """The surface that Genesis's camera draws; `recon` meshes particles anew in each picture.

    The rasterizer takes colours as they are shown, so linear colours are encoded as sRGB first.
    """
    options: dict[str, Any] = {}
    if look is not None:
        if look.texture is not None:
            options["diffuse_texture"] = gs.textures.ImageTexture(
                image_path=str(task.path(look.texture))
            )
        else:
            linear = np.clip(look.color, 0, 1)
            srgb = np.where(
                linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
            )
            options["color"] = tuple(float(v) for v in srgb)
        options["roughness"] = look.roughness
    if recon:
        options["vis_mode"] = "recon"
    return gs.surfaces.Default(**options)


def particle_material(gs: Any, spec: Particles) -> Any:
    rho, E, nu = spec.density_kg_m3, spec.youngs_modulus_pa, spec.poisson_ratio
    match spec.kind:
        case "elastoplastic":
            return gs.materials.MPM.ElastoPlastic(
                E=E, nu=nu, rho=rho, sampler=spec.sampler, use_von_mises=True,
                von_mises_yield_stress=spec.yield_strain * E,
            )  # fmt: skip
        case "elastic":
            return gs.materials.MPM.Elastic(E=E, nu=nu, rho=rho, sampler=spec.sampler)
        case "sand":
            return gs.materials.MPM.Sand(
                E=E, nu=nu, rho=rho, sampler=spec.sampler, friction_angle=spec.friction_angle_deg
            )
        case "liquid":
            return gs.materials.SPH.Liquid(rho=rho, sampler=spec.sampler)


def rigid_material(gs: Any, spec: Rigid, *, compensated: bool, couples: bool) -> Any:
    return gs.materials.Rigid(
        friction=spec.friction,
        gravity_compensation=1.0 if compensated else 0.0,
        needs_coup=couples,
        coup_friction=spec.coup_friction,
        coup_softness=spec.coup_softness_m,
        sdf_cell_size=spec.sdf_cell_size_m,
        sdf_max_res=128,
    )


def rigid_morph(gs: Any, task: Task, obj: ObjectSpec, scratch: Path, *, collides: bool) -> Any:
    """The body's shape in its mesh frame, at its initial pose.

    Bodies that particles couple to keep their exact mesh, as a signed distance field. Bodies that
    touch other rigid bodies get the task's convex pieces (or their hull): a URDF is the one format
    in which Genesis takes a body's drawn mesh, its pieces and its inertia apart.
    """
    T = obj.T_world_object
    place = {"pos": tuple(float(v) for v in T[:3, 3]), "quat": rotation_quat(T)}
    mesh = task.mesh(obj)
    if not collides:
        file = scratch / f"{obj.name}.obj"
        mesh.export(file)
        return gs.morphs.Mesh(file=str(file), convexify=False, decimate=False, align=False, **place)
    return gs.morphs.URDF(
        file=str(_write_urdf(task, obj, mesh, scratch)), convexify=True, decimate=False,
        align=False, fixed=False, default_armature=0.0, **place,
    )  # fmt: skip


def _write_urdf(task: Task, obj: ObjectSpec, mesh: trimesh.Trimesh, scratch: Path) -> Path:
    folder = scratch / obj.name
    folder.mkdir(parents=True, exist_ok=True)
    mesh.export(folder / "visual.obj")
    pieces = []
    for n, relative in enumerate(obj.material.collision):
        piece = trimesh.load(task.path(relative), force="mesh")
        piece.apply_scale(obj.scale)
        piece.export(folder / f"piece_{n}.obj")
        pieces.append(f"piece_{n}.obj")
    if not pieces:
        mesh.convex_hull.export(folder / "hull.obj")
        pieces = ["hull.obj"]
    com, inertia = mass_properties(mesh, obj.material.mass_kg)
    x, y, z = com
    collisions = "".join(
        f'<collision><geometry><mesh filename="{p}"/></geometry></collision>' for p in pieces
    )
    i = inertia
    (folder / "body.urdf").write_text(
        f'<robot name="{obj.name}"><link name="{obj.name}"><inertial>'
        f'<origin xyz="{x:.9g} {y:.9g} {z:.9g}" rpy="0 0 0"/>'
        f'<mass value="{obj.material.mass_kg:.9g}"/>'
        f'<inertia ixx="{i[0, 0]:.9g}" ixy="{i[0, 1]:.9g}" ixz="{i[0, 2]:.9g}" '
        f'iyy="{i[1, 1]:.9g}" iyz="{i[1, 2]:.9g}" izz="{i[2, 2]:.9g}"/></inertial>'
        f'<visual><geometry><mesh filename="visual.obj"/></geometry></visual>'
        f"{collisions}</link></robot>"
    )
    return folder / "body.urdf"


def mass_properties(mesh: trimesh.Trimesh, mass_kg: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre of mass (3,) [m] and inertia (3, 3) [kg m^2] about it, of a body of even density."""
    properties = mesh.mass_properties
    return (
        np.asarray(properties["center_mass"]),
        np.asarray(properties["inertia"]) * (mass_kg / properties["mass"]),
    )


def background_morph(gs: Any, task: Task, item: BackgroundSpec, scratch: Path) -> Any:
    T = item.T_world_object
    place = {"pos": tuple(float(v) for v in T[:3, 3]), "quat": rotation_quat(T), "fixed": True}
    if item.size_m is not None:
        return gs.morphs.Box(size=item.size_m, collision=item.solid, **place)
    file = scratch / f"{item.name}.obj"
    task.mesh(item).export(file)
    return gs.morphs.Mesh(
        file=str(file), convexify=False, decimate=False, align=False, collision=item.solid, **place
    )
