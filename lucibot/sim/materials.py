"""From a task's objects to Genesis materials, shapes and surfaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from lucibot.core.joint import Joint
from lucibot.task import CREASE_DEG, BackgroundSpec, Look, ObjectSpec, Particles, Rigid, Task

SDF_MAX_CELLS = 128
"""Cells of a body's signed distance field along its longest side."""


def rotation_quat(T: np.ndarray) -> tuple[float, ...]:
    """The rotation of a (4, 4) pose as a unit quaternion (w, x, y, z)."""
    return tuple(float(v) for v in trimesh.transformations.quaternion_from_matrix(T))


def surface(
    gs: Any, task: Task, look: Look | None, *, stored: bool = False, vis_mode: str | None = None
) -> Any:
    """The surface that Genesis's camera draws; `vis_mode` is how it draws particles, and `stored`
    says that the mesh brings colours of its own, which a look without any leaves as they are.

    The rasterizer takes colours as they are shown, so linear colours are encoded as sRGB first.
    """
    options: dict[str, Any] = {}
    if look is not None:
        if look.texture is not None:
            options["diffuse_texture"] = gs.textures.ImageTexture(
                image_path=str(task.path(look.texture))
            )
        elif look.has_color or not stored:
            linear = np.clip(look.color, 0, 1)
            srgb = np.where(
                linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
            )
            options["color"] = tuple(float(v) for v in srgb)
        options["roughness"] = look.roughness
    if vis_mode is not None:
        options["vis_mode"] = vis_mode
    return gs.surfaces.Default(**options)


def mean_look(mesh: trimesh.Trimesh) -> Look:
    """One colour for the particles of a mesh that brings its own: its vertices' mean."""
    if mesh.visual.kind != "vertex":
        return Look()
    srgb = np.asarray(mesh.visual.vertex_colors)[:, :3].mean(0) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return Look(color=tuple(float(v) for v in linear))


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
            return gs.materials.SPH.Liquid(
                rho=rho, stiffness=spec.stiffness_pa, mu=spec.viscosity_m2_s, sampler=spec.sampler
            )


def rigid_material(gs: Any, spec: Rigid, *, compensated: bool, couples: bool) -> Any:
    return gs.materials.Rigid(
        friction=spec.friction,
        gravity_compensation=1.0 if compensated else 0.0,
        needs_coup=couples,
        coup_friction=spec.coup_friction,
        coup_softness=spec.coup_softness_m,
        sdf_cell_size=spec.sdf_cell_size_m,
        sdf_max_res=SDF_MAX_CELLS,
    )


def background_material(gs: Any, item: BackgroundSpec, *, couples: bool) -> Any:
    fine = {"sdf_cell_size": 0.0015, "sdf_max_res": SDF_MAX_CELLS} if item.mesh else {}
    return gs.materials.Rigid(
        friction=item.friction, needs_coup=couples, coup_friction=item.coup_friction,
        coup_softness=item.coup_softness_m, **fine,
    )  # fmt: skip


def rigid_morph(
    gs: Any, task: Task, obj: ObjectSpec, scratch: Path, *, collides: bool, couples: bool
) -> Any:
    """The body's shape in its mesh frame, at its initial pose.

    Bodies that particles couple to keep their exact mesh, as a signed distance field. Bodies that
    touch other rigid bodies get the task's convex pieces (or their hull), and what hangs on a joint
    is a chain of links: a URDF is the one format in which Genesis takes a body's drawn mesh, its
    pieces, its joint and its inertia apart.
    """
    place = _place(obj.T_world_object)
    mesh = task.mesh(obj)
    if not collides and obj.joint is None:
        file = scratch / f"{obj.name}.obj"
        mesh.export(file)
        return gs.morphs.Mesh(file=str(file), convexify=False, decimate=False, align=False, **place)
    folder = scratch / obj.name
    folder.mkdir(parents=True, exist_ok=True)
    # The film shades smoothly wherever faces share vertices: at creases they must not.
    creased = trimesh.graph.smooth_shade(mesh, angle=np.deg2rad(CREASE_DEG), facet_minarea=None)
    creased.export(folder / "visual.obj")
    pieces = _write_pieces(task, obj, mesh, folder) if collides else ["whole.obj"] * couples
    if "whole.obj" in pieces:
        mesh.export(folder / "whole.obj")
    (folder / "body.urdf").write_text(_urdf(obj, mesh, pieces))
    return gs.morphs.URDF(
        file=str(folder / "body.urdf"), convexify=collides, decimate=False, align=False,
        fixed=obj.joint is not None, batch_fixed_verts=obj.joint is not None,
        merge_fixed_links=False, default_armature=0.0, **place,
    )  # fmt: skip


def _write_pieces(task: Task, obj: ObjectSpec, mesh: trimesh.Trimesh, folder: Path) -> list[str]:
    """The object's convex pieces as files in `folder`; its hull if the task names none."""
    names = []
    for n, relative in enumerate(obj.material.collision):
        piece = task.read_mesh(relative, process=True)
        piece.apply_scale(obj.scale)
        piece.export(folder / f"piece_{n}.obj")
        names.append(f"piece_{n}.obj")
    if not names:
        mesh.convex_hull.export(folder / "hull.obj")
        names = ["hull.obj"]
    return names


def _urdf(obj: ObjectSpec, mesh: trimesh.Trimesh, pieces: list[str]) -> str:
    """The body as a link of the object's name; before it, for a joint, a fixed link and a massless
    one that moves, since a URDF's link turns about its own origin only."""
    com, inertia = mass_properties(mesh, obj.material.mass_kg)
    x, y, z = com
    collisions = "".join(
        f'<collision><geometry><mesh filename="{p}"/></geometry></collision>' for p in pieces
    )
    i = inertia
    body = (
        f'<link name="{obj.name}"><inertial>'
        f'<origin xyz="{x:.9g} {y:.9g} {z:.9g}" rpy="0 0 0"/>'
        f'<mass value="{obj.material.mass_kg:.9g}"/>'
        f'<inertia ixx="{i[0, 0]:.9g}" ixy="{i[0, 1]:.9g}" ixz="{i[0, 2]:.9g}" '
        f'iyy="{i[1, 1]:.9g}" iyz="{i[1, 2]:.9g}" izz="{i[2, 2]:.9g}"/></inertial>'
        f'<visual><geometry><mesh filename="visual.obj"/></geometry></visual>'
        f"{collisions}</link>"
    )
    if obj.articulation is not None:
        body = _hung(obj.name, obj.articulation, obj.joint.friction) + body
    return f'<robot name="{obj.name}">{body}</robot>'


def _hung(name: str, joint: Joint, friction: float) -> str:
    a, o = joint.axis, joint.origin_m
    kind = "revolute" if joint.is_hinge else "prismatic"
    return (
        f'<link name="frame"/><link name="moved"/>'
        f'<joint name="{name}" type="{kind}"><parent link="frame"/><child link="moved"/>'
        f'<origin xyz="{o[0]:.9g} {o[1]:.9g} {o[2]:.9g}" rpy="0 0 0"/>'
        f'<axis xyz="{a[0]:.9g} {a[1]:.9g} {a[2]:.9g}"/>'
        f'<limit lower="{joint.lower:.9g}" upper="{joint.upper:.9g}" effort="1e6" velocity="1e3"/>'
        f'<dynamics damping="0" friction="{friction:.9g}"/>'
        f'</joint><joint name="to_body" type="fixed"><parent link="moved"/><child link="{name}"/>'
        f'<origin xyz="{-o[0]:.9g} {-o[1]:.9g} {-o[2]:.9g}" rpy="0 0 0"/></joint>'
    )


def mass_properties(mesh: trimesh.Trimesh, mass_kg: float) -> tuple[np.ndarray, np.ndarray]:
    """Centre of mass (3,) [m] and inertia (3, 3) [kg m^2] about it, of a body of even density."""
    properties = mesh.mass_properties
    return (
        np.asarray(properties["center_mass"]),
        np.asarray(properties["inertia"]) * (mass_kg / properties["mass"]),
    )


def background_morph(
    gs: Any, task: Task, item: BackgroundSpec, scratch: Path, *, takes_part: bool
) -> Any:
    """A static body that is simulated, if it takes part, and drawn, if no texture is laid
    flat on it."""
    place = _place(item.T_world_object) | {
        "fixed": True,
        "visualization": not _laid_flat(task, item),
    }
    if item.size_m is not None:
        return gs.morphs.Box(size=item.size_m, collision=takes_part, **place)
    file = scratch / f"{item.name}.obj"
    task.mesh(item).export(file)
    return gs.morphs.Mesh(
        file=str(file), convexify=False, decimate=False, align=False, collision=takes_part, **place
    )


def background_picture(gs: Any, task: Task, item: BackgroundSpec, scratch: Path) -> Any | None:
    """What a texture is laid flat on, as it is drawn, with no part in the simulation; None for all
    others."""
    if not _laid_flat(task, item):
        return None
    mesh = task.mesh(item)
    corners = np.asarray(mesh.vertices)[mesh.faces]
    with Image.open(task.path(item.look.texture)) as image:
        # Genesis's material needs a picture of its own; the surface brings the real one.
        uv = laid_flat_uv(corners, image.width / image.height, item.look.texture_scale)
        visual = trimesh.visual.TextureVisuals(uv=uv.reshape(-1, 2), image=Image.new("RGB", (1, 1)))
    soup = trimesh.Trimesh(
        corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), visual=visual,
        process=False,
    )  # fmt: skip
    folder = scratch / f"{item.name}_picture"
    folder.mkdir()
    soup.export(folder / "picture.obj")
    return gs.morphs.Mesh(
        file=str(folder / "picture.obj"), collision=False, convexify=False, decimate=False,
        align=False, fixed=True, **_place(item.T_world_object),
    )  # fmt: skip


def laid_flat_uv(corners: np.ndarray, aspect: float, width_m: float) -> np.ndarray:
    """Texture coordinates (F, 3, 2) of triangles (F, 3, 3) [m], as `Look.texture` defines them:
    the image laid flat along the axis that the face looks along most, centred on the origin, one
    width of it covering `width_m`."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    across = np.array([[1, 2], [0, 2], [0, 1]])[np.abs(normal).argmax(1)]
    flat = np.take_along_axis(corners, across[:, None, :], axis=2)
    return 0.5 + flat / width_m * [1.0, aspect]


def _laid_flat(task: Task, item: BackgroundSpec) -> bool:
    """Whether its texture does not follow coordinates of the mesh's own."""
    return item.look.texture is not None and getattr(task.mesh(item).visual, "uv", None) is None


def _place(T: np.ndarray) -> dict[str, Any]:
    return {"pos": tuple(float(v) for v in T[:3, 3]), "quat": rotation_quat(T)}
