"""The schema of `task.toml`.

All lengths are metres, masses kilograms, world z is up. Rotations are extrinsic xyz Euler angles in
degrees.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lucibot.core.euler import euler_xyz_deg_to_matrix
from lucibot.core.joint import Joint

Vec3 = tuple[float, float, float]
Color = tuple[float, float, float]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


CREASE_DEG = 35.0
"""Faces of a mesh that meet at less than this angle are drawn with a common, smooth normal."""


class Look(_Spec):
    """How a surface looks to the ray tracer and to the storyboard."""

    color: Color = (0.8, 0.8, 0.8)
    """Linear RGB in [0, 1]; multiplies nothing when a texture is given."""
    texture: str | None = None
    """An image in the task folder, mapped by the mesh's texture coordinates where it has any, else
    laid flat on each face along the axis that the face looks along most."""
    texture_scale: float = 1.0
    """Laid flat: metres that one image width covers before it repeats. With texture coordinates: a
    factor on them."""
    roughness: float = 0.6
    metallic: float = 0.0

    @property
    def has_color(self) -> bool:
        """Whether a colour or a texture is given; if not, colours stored in the mesh are used."""
        return self.texture is not None or "color" in self.model_fields_set


class Rigid(_Spec):
    kind: Literal["rigid"]
    mass_kg: float = Field(0.1, gt=0)
    friction: float = 0.6
    """Coulomb friction between rigid bodies."""
    coup_friction: float = 0.1
    """Friction between the body and particles."""
    coup_softness_m: float = 0.002
    sdf_cell_size_m: float = 0.0015
    collision: list[str] = []
    """Convex pieces (mesh files, object frame) used for rigid contact; the mesh's hull if empty."""


class Particles(_Spec):
    kind: Literal["elastoplastic", "elastic", "sand", "liquid"]
    density_kg_m3: float = Field(1000.0, gt=0)
    youngs_modulus_pa: float = 5e4
    poisson_ratio: float = 0.3
    yield_strain: float = 0.03
    """Elastoplastic: von Mises yield stress over Young's modulus."""
    friction_angle_deg: float = 35.0
    """Sand."""
    stiffness_pa: float = Field(5e4, gt=0)
    """Liquid: pressure against compression. A softer liquid allows longer substeps; it only has to
    carry its own depth."""
    viscosity_m2_s: float = Field(0.005, ge=0)
    """Liquid: kinematic viscosity."""
    particle_size_m: float = Field(0.0078, gt=0)
    grip_radius_m: float = Field(0.010, gt=0)
    """An actuator: particles within this distance of where a hand grasps it are held."""
    sampler: Literal["regular", "pbs", "random"] = "regular"


Material = Annotated[Rigid | Particles, Field(discriminator="kind")]


class JointSpec(_Spec):
    """What holds a rigid object to the world, or to another object, and leaves it one way to move.

    Axis and origin are in the object's own frame; value 0 is the object's initial pose. A jointed
    actuator needs no search: its values are read from the video and set. A jointed target that is
    no actuator moves as it is pushed.
    """

    kind: Literal["hinge", "slider"]
    axis: Vec3
    """The hinge's axis (right-handed), or the direction of sliding."""
    origin_m: Vec3 = (0.0, 0.0, 0.0)
    """A point on the hinge's axis."""
    lower: float = Field(0.0, le=0)
    """Least value: degrees for a hinge, metres for a slider."""
    upper: float = Field(ge=0)
    """Largest value, likewise."""
    friction: float = Field(0.0, ge=0)
    """Dry friction [N m or N]: less than this moves nothing."""
    parent: str | None = None
    """The free rigid object that it is held by; the world if absent. What is read from a video takes
    the parent to stay where it is at first."""

    @model_validator(mode="after")
    def _movable(self):
        if not any(self.axis):
            raise ValueError("the axis must not be zero")
        if self.upper <= self.lower:
            raise ValueError(f"upper ({self.upper:g}) must be above lower ({self.lower:g})")
        if self.kind == "hinge" and not -180 <= self.lower <= self.upper <= 180:
            raise ValueError("a hinge's limits are degrees within -180 and 180")
        return self


class ObjectSpec(_Spec):
    """A foreground object."""

    name: str
    roles: list[Literal["actuator", "target"]] = []
    mesh: str
    """A watertight mesh in the task folder [m], in the object's own frame."""
    position_m: Vec3
    rotation_deg: Vec3 = (0.0, 0.0, 0.0)
    scale: float = 1.0
    material: Material
    look: Look | None = None
    """Colours stored in the mesh (vertex colours or its own texture) are used when absent."""
    joint: JointSpec | None = None
    """What it hangs on, if it does not move freely."""

    @model_validator(mode="after")
    def _jointed_is_rigid(self):
        if self.joint is not None and not self.is_rigid:
            raise ValueError(f"object {self.name!r} has a joint, so its material must be rigid")
        return self

    @cached_property
    def articulation(self) -> Joint | None:
        """The joint's curve of poses; None for an object that moves freely."""
        j = self.joint
        if j is None:
            return None
        unit = np.pi / 180 if j.kind == "hinge" else 1.0
        return Joint(
            kind=j.kind, axis=np.array(j.axis) / np.linalg.norm(j.axis),
            origin_m=np.array(j.origin_m), lower=j.lower * unit, upper=j.upper * unit,
            T_world_object=self.T_world_object,
        )  # fmt: skip

    @property
    def is_rigid(self) -> bool:
        return isinstance(self.material, Rigid)

    @property
    def is_liquid(self) -> bool:
        return self.material.kind == "liquid"

    @property
    def T_world_object(self) -> np.ndarray:
        """(4, 4) initial pose."""
        return euler_xyz_deg_to_matrix(self.position_m, self.rotation_deg)


class BackgroundSpec(_Spec):
    """A stationary object. `size_m` gives a box centred on `position_m`; `mesh` a mesh instead."""

    name: str
    size_m: Vec3 | None = None
    mesh: str | None = None
    position_m: Vec3
    rotation_deg: Vec3 = (0.0, 0.0, 0.0)
    coup_friction: float = 1.0
    friction: float = 0.8
    coup_softness_m: float = 0.002
    solid: bool = True
    """Whether it takes part in the simulation; a wall that nothing can reach need not."""
    look: Look = Look()

    @model_validator(mode="after")
    def _one_shape(self):
        if (self.size_m is None) == (self.mesh is None):
            raise ValueError(f"background {self.name!r} needs either size_m or mesh")
        return self

    @property
    def T_world_object(self) -> np.ndarray:
        return euler_xyz_deg_to_matrix(self.position_m, self.rotation_deg)


class CameraSpec(_Spec):
    width: int = Field(640, ge=64)
    height: int = Field(480, ge=64)
    vertical_fov_deg: float = Field(48.0, gt=1, lt=170)
    position_m: Vec3
    look_at_m: Vec3
    up: Vec3 = (0.0, 0.0, 1.0)
    fps: float = Field(20.0, gt=0)
    """Frame rate that videos are resampled to."""


class LightSpec(_Spec):
    """A distant area light and a uniform sky, for the ray tracer and the storyboard's shading."""

    direction: Vec3 = (0.3, 0.4, -1.0)
    """The way the light travels."""
    intensity: float = 1.6
    angular_diameter_deg: float = 20.0
    """Size of the light as seen from the scene: larger gives softer shadows."""
    ambient: float = 0.55


class MPMSpec(_Spec):
    grid_density: float = 64.0
    """Grid cells per metre."""
    lower_m: Vec3
    """Corner of the box that particles can reach; the grid is padded beyond it."""
    upper_m: Vec3
    cpic: bool = True


class SPHSpec(_Spec):
    lower_m: Vec3
    upper_m: Vec3


class SimulationSpec(_Spec):
    dt_s: float = Field(0.004, gt=0)
    substeps: int = Field(3, ge=1)
    gravity_m_s2: Vec3 = (0.0, 0.0, -9.81)
    rigid_collision: bool = False
    """Contacts between rigid bodies; off for particle tasks, where it only costs time."""
    mpm: MPMSpec | None = None
    sph: SPHSpec | None = None
    steps_per_waypoint: int = Field(16, ge=1)
    """Simulation steps from one waypoint to the next."""
    settle_steps: int = Field(16, ge=0)
    """Simulation steps after the last waypoint, before the result is judged."""
    servo_bandwidth_rad_s: float = 200.0


class TaskSpec(_Spec):
    """The schema of `task.toml`."""

    title: str
    camera: CameraSpec
    light: LightSpec = LightSpec()
    simulation: SimulationSpec
    background: list[BackgroundSpec]
    objects: list[ObjectSpec]
    goal: list[dict[str, Any]] = []
    """The instruction's goal as relations in the picture, read by the video verifier."""
    success: list[dict[str, Any]] = []
    """Success predicates over the simulator's state, read by the report and the benchmark only."""

    @model_validator(mode="after")
    def _consistent(self):
        names = [o.name for o in self.objects] + [b.name for b in self.background]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"names must be unique; {twice[0]!r} occurs twice")
        if not any("target" in o.roles for o in self.objects):
            raise ValueError("no object has the role 'target'")
        free = [o.name for o in self.objects if o.is_rigid and o.joint is None]
        for o in self.objects:
            if o.joint is not None and o.joint.parent not in (None, *free):
                raise ValueError(
                    f"object {o.name!r} hangs on {o.joint.parent!r}, which is no free rigid object; "
                    f"those are {', '.join(free) or 'none'}"
                )
        for o in self.objects:
            if o.is_liquid and "actuator" in o.roles:
                raise ValueError(f"object {o.name!r} is a liquid, which no hand can hold")
        kinds = {o.material.kind for o in self.objects}
        if kinds & {"elastoplastic", "elastic", "sand"} and self.simulation.mpm is None:
            raise ValueError("an MPM material needs [simulation.mpm] with lower_m and upper_m")
        if "liquid" in kinds and self.simulation.sph is None:
            raise ValueError("a liquid needs [simulation.sph] with lower_m and upper_m")
        return self
