"""The one door to Genesis's insides: its substep, and views of its memory.

Genesis's public interface copies what it gives out, and has no place for what is to happen between
its solvers. So its substep is taken over here, and its memory is looked at here, and nowhere else.
What that rests on is one version's: it is checked when a scene is built, and told in one error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from lucibot_kernels import mpm, mpm_materials, sph
from lucibot_kernels.bodies import BLOCK, Bodies
from torch import Tensor

from lucibot.core.errors import UserError
from lucibot.sim.engine import view

GENESIS = "1.4.5"
"""The version whose insides these are."""
KINDS = {
    "Elastic": mpm_materials.ELASTIC,
    "ElastoPlastic": mpm_materials.ELASTOPLASTIC,
    "Sand": mpm_materials.SAND,
}
"""Genesis's names of the materials that our own kernels know."""
Part = Callable[[int], None]
"""Of a substep; called with the frame of Genesis's memory in which the substep begins."""


class Links(NamedTuple):
    """L links in B environments."""

    pos: Tensor  # (L, B, 3) [m, world]
    quat: Tensor  # (L, B, 4) (w, x, y, z)
    force: Tensor  # (L, B, 3) [N] minus what particles exert
    torque: Tensor  # (L, B, 3) [N m] minus theirs


class Dofs(NamedTuple):
    """D degrees of freedom in B environments."""

    position: Tensor  # (D, B) [m or rad]
    velocity: Tensor  # (D, B)
    mode: Tensor  # (D, B) int32, how it is controlled
    target_position: Tensor  # (D, B)
    target_velocity: Tensor  # (D, B)
    target_force: Tensor  # (D, B)


class Adapter:
    """Over a Genesis scene that is just being built.

    A substep is `before`, then `physics`, `couple` and `after`. They may be replaced or added to
    until the scene makes its first step, in any order: each has its place.
    """

    before: list[Callable[[int], None]]
    """Called in turn before anything moves, with the number of the substep within its step, from 0."""
    physics: Part
    """Bodies move. Genesis's own particles go to their grid, or become neighbours."""
    couple: Part
    """Particles and bodies exchange momentum."""
    after: Part
    """Genesis's own particles move."""

    def __init__(self, scene: Any):
        """
        Raises:
            UserError: another version of Genesis, or one that keeps things elsewhere.
        """
        if version("genesis-world") != GENESIS:
            raise UserError(
                f"genesis-world {version('genesis-world')} is installed, LuciBot works with "
                f"{GENESIS}: pip install genesis-world=={GENESIS}"
            )
        self._sim, self._visualizer = scene.sim, scene.visualizer
        self.before = []
        coupler, particles = self._get("coupler"), self._get("mpm_solver")
        self._get("substep"), self._get("save_ckpt"), self._get("rigid_solver.check_errno")
        if self._get("substeps_local") != 1:
            raise _changed("substeps_local", f"is {self._sim.substeps_local}, not 1")

        def physics(f: int) -> None:
            coupler.preprocess(f)
            self._sim.substep_pre_coupling(f)

        self.physics, self.couple = physics, coupler.couple
        self.after = self._sim.substep_post_coupling
        self._sim.substep = self._substep
        # Genesis ends the whole batch when one environment goes wrong. Here that environment is
        # marked as diverged, and the others go on.
        self._sim.rigid_solver.check_errno = lambda: None
        if particles.is_active:
            self._get("mpm_solver._is_state_valid")
            particles._is_state_valid = lambda f: True

    # The substep ---------------------------------------------------------------------------------

    def _substep(self, f: int) -> None:
        number = self._sim.cur_substep_global % self._sim.substeps
        for hook in self.before:
            hook(number)
        self.physics(f)
        self.couple(f)
        self.after(f)

    def take_over_particles(self, couple: Part) -> None:
        """`couple` does all that Genesis would do with particles, in the first frame of its memory."""
        particles = [s for s in (self._sim.mpm_solver, self._sim.sph_solver) if s.is_active]
        others = [s for s in self._sim.active_solvers if s not in particles]

        def physics(f: int) -> None:
            for solver in others:
                solver.substep_pre_coupling(f)

        def after(f: int) -> None:
            for solver in others:
                solver.substep_post_coupling(f)

        self.physics, self.couple, self.after = physics, couple, after
        # Which would copy particles from the frame after the first.
        self._sim.save_ckpt = lambda: None

    def light(self, direction: Sequence[float], *, intensity: float, ambient: float) -> None:
        """Put another light in the place of what lights the camera's pictures."""
        import genesis as gs

        context = self._visualizer.context
        for node in list(context._scene.light_nodes):
            context.remove_node(node)
        context._scene.ambient_light = np.full(3, ambient, np.float32)
        context.add_light(gs.options.vis.DirectionalLight(
            dir=tuple(direction), color=(1.0, 1.0, 1.0), intensity=intensity
        ))  # fmt: skip

    @property
    def substeps(self) -> int:
        return self._sim.substeps

    @property
    def substep_s(self) -> float:
        return self._sim.substep_dt

    # Rigid bodies --------------------------------------------------------------------------------

    def coupled(self) -> list[Any]:
        """Genesis's geoms that particles meet; `idx` and `link.is_fixed` are used of them."""
        rigid = self._get("rigid_solver")
        return [g for link in rigid.links for g in link.geoms if g.needs_coup]

    def coupled_flags(self) -> Tensor:
        """(G,) int32: whether particles meet a shape; may be written."""
        return self._view("rigid_solver.dyn_info.geoms.needs_coup", (self._shapes,), torch.int32)

    def remember_sides_by(self, kernel: Callable[..., None]) -> None:
        """`kernel` brings CPIC's memory of the particles' sides up to date in Genesis's stead: called
        with the frame, the MPM particles, whether they are active, the memory, and what Genesis tells
        its own of the shapes."""
        self._get("coupler.mpm_surface_to_particle")
        particles, active = (self._get(f"mpm_solver.{n}") for n in ("particles", "particles_ng"))
        coupler, memory = self._get("coupler"), self._get("coupler.mpm_rigid_normal")
        coupler.mpm_surface_to_particle = lambda f, *shapes: kernel(
            f, particles, active, memory, *shapes
        )

    def links(self) -> Links:
        L, state = (self._get("rigid_solver.n_links"), self._B), "rigid_solver.dyn_state.links."
        return Links(
            pos=self._view(state + "pos", (*L, 3)), quat=self._view(state + "quat", (*L, 4)),
            force=self._view(state + "cfrc_coupling_vel", (*L, 3)),
            torque=self._view(state + "cfrc_coupling_ang", (*L, 3)),
        )  # fmt: skip

    def dofs(self) -> Dofs:
        D, state = (
            (max(1, self._get("rigid_solver.n_dofs")), self._B),
            "rigid_solver.dyn_state.dofs.",
        )
        names = ("pos", "vel", "ctrl_mode", "ctrl_pos", "ctrl_vel", "ctrl_force")
        return Dofs(*(
            self._view(state + n, D, torch.int32 if n == "ctrl_mode" else torch.float32)
            for n in names
        ))  # fmt: skip

    def errors(self) -> Tensor:
        """(B,) int32: not 0 where the rigid solver has failed."""
        return self._view("rigid_solver._errno", (self._B,), torch.int32)

    def bodies(self) -> Bodies:
        """The shapes, their fields and their links, as our own kernels take them."""
        G, B, L = self._shapes, self._B, self._get("rigid_solver.n_links")
        info, state = "rigid_solver.dyn_info.geoms.", "rigid_solver.dyn_state.geoms."
        links, sdf = "rigid_solver.dyn_state.links.", "rigid_solver.collider.sdf.sdf_info."
        nodes = len(view(self._get(sdf + "geoms_sdf_val")))
        blocks = len(view(self._get(sdf + "geoms_sdf_coarse_val")))

        def floats(path: str, *shape: int) -> np.ndarray:
            return self._view(path, shape).numpy()

        def numbers(path: str, *shape: int) -> np.ndarray:
            return self._view(path, shape, torch.int32).numpy()

        found = Bodies(
            kind=numbers(info + "type", G), data=floats(info + "data", G, 7),
            link=numbers(info + "link_idx", G), softness=floats(info + "coup_softness", G),
            friction=floats(info + "coup_friction", G),
            restitution=floats(info + "coup_restitution", G),
            pos=floats(state + "pos", G, B, 3), quat=floats(state + "quat", G, B, 4),
            to_field=floats(sdf + "geoms_info.T_mesh_to_sdf", G, 4, 4),
            size=numbers(sdf + "geoms_info.sdf_res", G, 3),
            start=numbers(sdf + "geoms_info.sdf_cell_start", G),
            cell=floats(sdf + "geoms_info.sdf_cell_size", G, 3),
            furthest=floats(sdf + "geoms_info.sdf_max", G),
            distance=floats(sdf + "geoms_sdf_val", nodes),
            gradient=floats(sdf + "geoms_sdf_grad", nodes, 3),
            blocks=numbers(sdf + "geoms_info.sdf_coarse_res", G, 3),
            block_start=numbers(sdf + "geoms_info.sdf_coarse_cell_start", G),
            block_least=floats(sdf + "geoms_sdf_coarse_val", blocks),
            velocity=floats(links + "cd_vel", L, B, 3), spin=floats(links + "cd_ang", L, B, 3),
            centre=floats(links + "root_COM", L, B, 3),
            force=floats(links + "cfrc_coupling_vel", L, B, 3),
            torque=floats(links + "cfrc_coupling_ang", L, B, 3),
            into=np.zeros((G, B, 3, 4), np.float32), out=np.zeros((G, B, 3, 3), np.float32),
        )  # fmt: skip
        # A block's cells are those between the nodes of a field, which are one more.
        if not np.array_equal(found.blocks, ((found.size - 2) >> BLOCK) + 1):
            raise _changed(
                sdf + "geoms_info.sdf_coarse_res", f"is not in blocks of {2**BLOCK} cells"
            )
        return found

    # Particles -----------------------------------------------------------------------------------

    def has_solids(self) -> bool:
        """Whether there are MPM particles."""
        return self._get("mpm_solver.is_active")

    def has_liquids(self) -> bool:
        """Whether there are SPH particles."""
        return self._get("sph_solver.is_active")

    def own_kernels_know(self) -> bool:
        """Whether our own kernels compute such particles as there are."""
        liquids = self.has_liquids()
        if liquids == self.has_solids():
            return False
        if liquids:
            return self._get("sph_solver._pressure_solver") == "WCSPH"
        return all(type(m).__name__ in KINDS for m in self._get("mpm_solver._materials"))

    def particle_field(self, liquid: bool, field: str) -> Tensor:
        """(N, B, 3) "pos" [m, world] or "vel" [m/s, world] of all SPH or all MPM particles."""
        if liquid:
            N = self._get("sph_solver.n_particles")
            return self._view(f"sph_solver.particles.{field}", (N, self._B, 3))
        return self._solids(field, 3)

    def particle_size_m(self, liquid: bool) -> float:
        return float(self._get("sph_solver" if liquid else "mpm_solver").particle_size)

    def particle_bounds(self, liquid: bool) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (3,) [m] of the box that particles cannot leave."""
        boundary = self._get(("sph_solver" if liquid else "mpm_solver") + ".boundary")
        return np.array(boundary.lower), np.array(boundary.upper)

    def solids(self) -> tuple[mpm.Particles, mpm_materials.Matter, mpm.Space]:
        """The MPM particles, as our own kernels take them."""
        solver = self._get("mpm_solver")
        N, B = self._get("mpm_solver.n_particles"), self._B
        particles = mpm.Particles(
            pos=self._solids("pos", 3).numpy(), vel=self._solids("vel", 3).numpy(),
            C=self._solids("C", 3, 3).numpy(), F=self._solids("F", 3, 3).numpy(),
            Jp=self._solids("Jp").numpy(),
        )  # fmt: skip
        materials = {m.idx: m for m in self._get("mpm_solver._materials")}
        materials = [materials[i] for i in range(len(materials))]
        kinds = [type(m).__name__ for m in materials]
        strength = {
            "Elastic": lambda m: 0.0,
            "ElastoPlastic": lambda m: m.von_mises_yield_stress,
            "Sand": lambda m: m.alpha,
        }
        info = "mpm_solver.particles_info."
        matter = mpm_materials.Matter(
            material=self._view(info + "material_idx", (N,), torch.int32).numpy(),
            mass=self._view(info + "mass", (N,)).numpy(),
            volume=np.float32(self._get("mpm_solver.particle_volume")),
            kind=np.array([KINDS[k] for k in kinds], np.int32),
            mu=np.array([m.mu for m in materials], np.float32),
            lam=np.array([m.lam for m in materials], np.float32),
            strength=np.array(
                [strength[k](m) for k, m in zip(kinds, materials, strict=True)], np.float32
            ),
        )  # fmt: skip
        if not np.isclose(self._get("mpm_solver.particle_volume_scale"), mpm.VOLUME_SCALE):
            raise _changed("mpm_solver.particle_volume_scale", f"is not {mpm.VOLUME_SCALE:g}")
        space = mpm.Space(
            cells=np.asarray(solver.grid_res, np.int32),
            offset=np.asarray(solver.lower_bound_cell, np.int32),
            dx=np.float32(solver.dx), dt=np.float32(solver.substep_dt),
            gravity=self._view("mpm_solver._gravity", (B, 3)).numpy(),
            lower=solver.boundary.lower.astype(np.float32),
            upper=solver.boundary.upper.astype(np.float32),
        )  # fmt: skip
        return particles, matter, space

    def liquids(self) -> tuple[sph.Particles, sph.Matter, sph.Space]:
        """The SPH particles, as our own kernels take them."""
        solver, B = self._get("sph_solver"), self._B
        N, info = self._get("sph_solver.n_particles"), "sph_solver.particles_info."
        particles = sph.Particles(
            pos=self.particle_field(True, "pos").numpy(),
            vel=self.particle_field(True, "vel").numpy(),
        )
        names = {
            "density": "rho", "mass": "mass", "stiffness": "stiffness", "exponent": "exponent",
            "viscosity": "mu", "tension": "gamma",
        }  # fmt: skip
        matter = sph.Matter(
            **{ours: self._view(info + theirs, (N,)).numpy() for ours, theirs in names.items()},
            volume=np.float32(self._get("sph_solver.particle_volume")),
        )
        space = sph.Space(
            support=np.float32(self._get("sph_solver.support_radius")),
            size=np.float32(solver.particle_size), dt=np.float32(solver.substep_dt),
            gravity=self._view("sph_solver._gravity", (B, 3)).numpy(),
            lower=solver.boundary.lower.astype(np.float32),
            upper=solver.boundary.upper.astype(np.float32),
        )  # fmt: skip
        return particles, matter, space

    # Checks --------------------------------------------------------------------------------------

    @property
    def _B(self) -> int:
        return self._get("_B")

    @property
    def _shapes(self) -> int:
        return self._get("rigid_solver.n_geoms")

    def _solids(self, field: str, *shape: int) -> Tensor:
        """An MPM particles' field, where each substep begins: without gradients Genesis keeps two
        frames, and copies the second back to the first after each substep."""
        N, name = self._get("mpm_solver.n_particles"), f"mpm_solver.particles.{field}"
        return self._view(name, (2, N, self._B, *shape))[0]

    def _view(
        self, path: str, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """A field of Genesis's as a tensor over the same memory."""
        found = view(self._get(path))
        if tuple(found.shape) != shape or found.dtype != dtype or not found.is_contiguous():
            raise _changed(path, f"is {tuple(found.shape)} {found.dtype}, not {shape} {dtype}")
        return found

    def _get(self, path: str) -> Any:
        try:
            return attrgetter(path)(self._sim)
        except AttributeError:
            raise _changed(path, "is not there") from None


def _changed(path: str, how: str) -> UserError:
    return UserError(
        f"Genesis's {path} {how}: its insides are not those of genesis-world {GENESIS}, which "
        "LuciBot works with; pip install --force-reinstall "
        f"genesis-world=={GENESIS}"
    )


def build(scene: Any, n_envs: int, prepare: Callable[[Adapter], None], *, drawn: bool) -> Adapter:
    """Build a Genesis scene; `prepare` changes its substep before Genesis compiles a step of it.

    Args:
        drawn: whether a camera will draw it: otherwise no OpenGL context is needed, nor a driver
            that gives one.
    """
    made: list[Adapter] = []
    build_simulator = scene.sim.build

    def build_and_prepare() -> None:
        build_simulator()
        made.append(Adapter(scene))
        prepare(made[0])

    scene.sim.build = build_and_prepare
    if not drawn:
        scene.visualizer.rasterizer.build = lambda: None
    scene.build(n_envs=n_envs)
    return made[0]


def fill(entity: Any, particles_m: np.ndarray) -> None:
    """Let a particle entity that was just added to a scene have these particles (N, 3) [m, world], in
    place of those with which Genesis has filled its mesh."""
    import genesis as gs

    place = torch.as_tensor(particles_m, dtype=gs.tc_float, device=gs.device)
    origin = torch.as_tensor(np.asarray(entity._morph.pos), dtype=gs.tc_float, device=gs.device)
    entity._particles = np.ascontiguousarray(particles_m, dtype=gs.np_float)
    entity._init_particles_offset = place - origin
    entity._n_particles = len(particles_m)
