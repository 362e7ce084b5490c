"""Genesis's particle solvers on a CPU, with their substeps computed by our own kernels.

Genesis's CPU code adds atomically and computes one number at a time; `lucibot_kernels.mpm` and
`lucibot_kernels.sph` do the same physics on the same memory several times as fast. On a GPU
Genesis's kernels stay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lucibot_kernels import mpm, mpm_materials, sph
from lucibot_kernels.bodies import Bodies

from lucibot.sim.engine import view

KINDS = {
    "Elastic": mpm_materials.ELASTIC,
    "ElastoPlastic": mpm_materials.ELASTOPLASTIC,
    "Sand": mpm_materials.SAND,
}


def take_over(scene: Any, *, cpic: bool) -> QuickMPM | QuickSPH | None:
    """Let our own kernels compute what particles do in a built Genesis scene, if they can do all of
    it: on the CPU, with the materials they know, and with either MPM or SPH particles, because what
    the two do to each other would be left out. Otherwise None, and nothing is changed.

    Args:
        cpic: see `QuickMPM`.
    """
    import genesis as gs

    solids, liquids = scene.sim.mpm_solver, scene.sim.sph_solver
    if gs.device.type != "cpu" or solids.is_active == liquids.is_active:
        return None
    if liquids.is_active:
        return QuickSPH(scene) if liquids._pressure_solver == "WCSPH" else None
    known = all(type(m).__name__ in KINDS for m in solids._materials)
    return QuickMPM(scene, cpic=cpic) if known else None


class QuickMPM:
    """Takes over the MPM substeps of a built Genesis scene.

    Particles stay in the first of the frames that Genesis keeps for a step's substeps.

    Args:
        cpic: whether moving bodies keep particles on two sides of them apart. Fixed ones never do:
            a plane has one side, walls are thick enough for the grid's own coupling, and in a
            hollow CPIC does harm where one wall ends to be the nearest and the opposite one begins.
    """

    def __init__(self, scene: Any, *, cpic: bool):
        solver, rigid, coupler = scene.sim.mpm_solver, scene.sim.rigid_solver, scene.sim.coupler
        fields = solver.particles
        self._particles = mpm.Particles(
            *(_array(getattr(fields, n))[0] for n in mpm.Particles._fields)
        )
        self._matter = _matter(solver)
        self._space = mpm.Space(
            cells=np.asarray(solver._grid_res, np.int32),
            offset=np.asarray(solver._lower_bound_cell, np.int32),
            dx=np.float32(solver.dx), dt=np.float32(solver.substep_dt),
            gravity=_array(solver._gravity),
            lower=solver.boundary.lower.astype(np.float32),
            upper=solver.boundary.upper.astype(np.float32),
        )  # fmt: skip
        self._bodies = bodies_of(rigid)
        coupled = [g for link in rigid.links for g in link.geoms if g.needs_coup]
        moving = [g.idx for g in coupled if cpic and not g.link.is_fixed]
        self._coupled = np.array([g.idx for g in coupled], np.int32)
        self._separating = np.array(moving, np.int32)
        N, B, _ = self._particles.pos.shape
        self._normals = np.zeros((len(moving), N, B, 3), np.float32)
        self._scratch = mpm.scratch(N, B, tuple(solver._grid_res), len(moving))
        solver.substep_pre_coupling = solver.substep_post_coupling = _nothing
        solver.save_ckpt = _nothing
        coupler.preprocess, coupler.couple = self._before_bodies_move, self._substep

    def reset(self) -> None:
        """Call after each reset of the scene."""
        self._normals[:] = 0

    def _before_bodies_move(self, f: int) -> None:
        if len(self._separating):
            mpm.particle_normals(self._particles.pos, self._bodies, self._separating, self._normals)

    def _substep(self, f: int) -> None:
        mpm.substep(
            self._particles, self._matter, self._space, self._bodies, self._coupled,
            self._separating, self._normals, self._scratch,
        )  # fmt: skip


class QuickSPH:
    """Takes over the WCSPH substeps of a built Genesis scene."""

    def __init__(self, scene: Any):
        solver, rigid, coupler = scene.sim.sph_solver, scene.sim.rigid_solver, scene.sim.coupler
        info = solver.particles_info
        self._particles = sph.Particles(
            pos=_array(solver.particles.pos), vel=_array(solver.particles.vel)
        )
        self._matter = sph.Matter(
            density=_array(info.rho), mass=_array(info.mass), stiffness=_array(info.stiffness),
            exponent=_array(info.exponent), viscosity=_array(info.mu), tension=_array(info.gamma),
            volume=np.float32(solver.particle_volume),
        )  # fmt: skip
        self._space = sph.Space(
            support=np.float32(solver.support_radius), size=np.float32(solver.particle_size),
            dt=np.float32(solver.substep_dt), gravity=_array(solver._gravity),
            lower=solver.boundary.lower.astype(np.float32),
            upper=solver.boundary.upper.astype(np.float32),
        )  # fmt: skip
        self._bodies = bodies_of(rigid)
        coupled = [g for link in rigid.links for g in link.geoms if g.needs_coup]
        self._coupled = np.array([g.idx for g in coupled], np.int32)
        self._pressed = np.array([not g.link.is_fixed for g in coupled], np.bool_)
        self._scratch = sph.scratch(len(self._particles.pos))
        solver.substep_pre_coupling = solver.substep_post_coupling = _nothing
        coupler.couple = self._substep

    def reset(self) -> None:
        """Call after each reset of the scene; nothing is remembered here."""

    def _substep(self, f: int) -> None:
        sph.substep(
            self._particles, self._matter, self._space, self._bodies, self._coupled,
            self._pressed, self._scratch,
        )  # fmt: skip


def bodies_of(rigid: Any) -> Bodies:
    """The shapes and links of a built rigid solver, as views of its memory."""
    geoms, state, links = rigid.dyn_info.geoms, rigid.dyn_state.geoms, rigid.dyn_state.links
    field = rigid.collider.sdf.sdf_info
    G, B = state.pos.shape
    return Bodies(
        kind=_array(geoms.type), data=_array(geoms.data), link=_array(geoms.link_idx),
        softness=_array(geoms.coup_softness), friction=_array(geoms.coup_friction),
        restitution=_array(geoms.coup_restitution), pos=_array(state.pos), quat=_array(state.quat),
        to_field=_array(field.geoms_info.T_mesh_to_sdf), size=_array(field.geoms_info.sdf_res),
        start=_array(field.geoms_info.sdf_cell_start), cell=_array(field.geoms_info.sdf_cell_size),
        furthest=_array(field.geoms_info.sdf_max), distance=_array(field.geoms_sdf_val),
        gradient=_array(field.geoms_sdf_grad), blocks=_array(field.geoms_info.sdf_coarse_res),
        block_start=_array(field.geoms_info.sdf_coarse_cell_start),
        block_least=_array(field.geoms_sdf_coarse_val), velocity=_array(links.cd_vel),
        spin=_array(links.cd_ang), centre=_array(links.root_COM),
        force=_array(links.cfrc_coupling_vel), torque=_array(links.cfrc_coupling_ang),
        into=np.zeros((G, B, 3, 4), np.float32), out=np.zeros((G, B, 3, 3), np.float32),
    )  # fmt: skip


def _matter(solver: Any) -> mpm_materials.Matter:
    materials = {m.idx: m for m in solver._materials}
    materials = [materials[i] for i in range(len(materials))]
    kinds = [type(m).__name__ for m in materials]
    strength = {
        "Elastic": lambda m: 0.0,
        "ElastoPlastic": lambda m: m.von_mises_yield_stress,
        "Sand": lambda m: m.alpha,
    }
    return mpm_materials.Matter(
        material=_array(solver.particles_info.material_idx),
        mass=_array(solver.particles_info.mass),
        volume=np.float32(solver._particle_volume),
        kind=np.array([KINDS[k] for k in kinds], np.int32),
        mu=np.array([m.mu for m in materials], np.float32),
        lam=np.array([m.lam for m in materials], np.float32),
        strength=np.array([strength[k](m) for k, m in zip(kinds, materials, strict=True)], np.float32),
    )  # fmt: skip


def _array(field: Any) -> np.ndarray:
    return view(field).numpy()


def _nothing(_: Any) -> None:
    """In place of what a `_substep` above does at once, or what it does without."""
