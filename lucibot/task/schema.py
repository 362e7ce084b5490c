"""The schema of `task.toml`.

All lengths are metres, masses kilograms, world z is up. Rotations are extrinsic xyz Euler angles in
degrees.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from lucibot.core.euler import euler_xyz_deg_to_matrix
from lucibot.core.joint import Joint
from lucibot.core.schema import (
    Color,
    Count,
    Direction,
    Distance,
    Extents,
    FileName,
    Flag,
    Fraction,
    Index,
    Length,
    Name,
    NonNegative,
    Number,
    Position,
    Positive,
    Rotation,
    Spec,
    Words,
)

CREASE_DEG = 35.0
"""Faces of a mesh that meet at less than this angle are drawn with a common, smooth normal."""

WHOLE_TURN_DEG = 360.0


class Look(Spec):
    """How a surface looks to the ray tracer and to the storyboard."""

    color: Color = (0.8, 0.8, 0.8)
    """Linear RGB in [0, 1]; multiplies nothing when a texture is given."""
    texture: FileName | None = None
    """An image in the task folder, mapped by the mesh's texture coordinates where it has any, else
    laid flat on each face along the axis that the face looks along most."""
    texture_scale: Length = 1.0
    """Laid flat: metres that one image width covers before it repeats. With texture coordinates: a
    factor on them."""
    roughness: Fraction = 0.6
    metallic: Fraction = 0.0

    @property
    def has_color(self) -> bool:
        """Whether a colour or a texture is given; if not, colours stored in the mesh are used."""
        return self.texture is not None or "color" in self.model_fields_set


class Rigid(Spec):
    kind: Literal["rigid"]
    mass_kg: Positive = Field(0.1, ge=1e-5, le=1e4)
    friction: Positive = Field(0.6, ge=0.01, le=5)
    """Coulomb friction between rigid bodies."""
    coup_friction: NonNegative = Field(0.1, le=100)
    """Friction between the body and particles."""
    coup_softness_m: Distance = Field(0.002, le=1)
    sdf_cell_size_m: Length = Field(0.0015, ge=1e-4, le=1)
    collision: list[FileName] = Field(default_factory=list)
    """Convex pieces (mesh files, object frame) used for rigid contact; the mesh's hull if empty."""


class Particles(Spec):
    kind: Literal["elastoplastic", "elastic", "sand", "liquid"]
    density_kg_m3: Positive = Field(1000.0, ge=1, le=30_000)
    youngs_modulus_pa: Positive = 5e4
    poisson_ratio: Fraction = Field(0.3, le=0.49)
    yield_strain: Positive = Field(0.03, le=10)
    """Elastoplastic: von Mises yield stress over Young's modulus."""
    friction_angle_deg: Positive = Field(35.0, lt=90)
    """Sand."""
    stiffness_pa: Positive = 5e4
    """Liquid: pressure against compression. A softer liquid allows longer substeps; it only has to
    carry its own depth."""
    viscosity_m2_s: NonNegative = Field(0.005, le=100)
    """Liquid: kinematic viscosity."""
    particle_size_m: Length = Field(0.0078, ge=2e-4, le=0.5)
    grip_radius_m: Length = Field(0.010, le=1)
    """An actuator: particles within this distance of where a hand grasps it are held."""
    sampler: Literal["regular", "pbs", "random"] = "regular"
    cloud: FileName | None = None
    """Where the particles are, (N, 3) [m] in the object's own frame, an npy file; the mesh is their
    surface. If not given, the mesh is filled by `sampler`."""


Material = Annotated[Rigid | Particles, Field(discriminator="kind")]


class JointSpec(Spec):
    """What holds a rigid object to the world, or to another object, and leaves it one way to move.

    Axis and origin are in the object's own frame; value 0 is the object's initial pose. A jointed
    actuator needs no search: its values are read from the video and set. A jointed target that is
    no actuator moves as it is pushed.
    """

    kind: Literal["hinge", "slider"]
    axis: Direction
    """The hinge's axis (right-handed), or the direction of sliding."""
    origin_m: Position = (0.0, 0.0, 0.0)
    """A point on the hinge's axis."""
    lower: Number = Field(0.0, le=0)
    """Least value: degrees for a hinge, metres for a slider."""
    upper: Number = Field(ge=0)
    """Largest value, likewise."""
    friction: NonNegative = 0.0
    """Dry friction [N m or N]: less than this moves nothing."""
    parent: Name | None = None
    """The free rigid object that it is held by; the world if absent. What is read from a video takes
    the parent to stay where it is at first."""

    @model_validator(mode="after")
    def _movable(self):
        if self.upper <= self.lower:
            raise ValueError(f"upper ({self.upper:g}) must be above lower ({self.lower:g})")
        if self.kind == "hinge" and self.upper - self.lower > WHOLE_TURN_DEG + 1e-6:
            raise ValueError("a hinge's limits are degrees that span a whole turn at most")
        return self


class ObjectSpec(Spec):
    """A foreground object."""

    name: Name
    roles: list[Literal["actuator", "target"]] = Field(default_factory=list)
    mesh: FileName
    """A watertight mesh in the task folder [m], in the object's own frame."""
    position_m: Position
    rotation_deg: Rotation = (0.0, 0.0, 0.0)
    scale: Positive = Field(1.0, ge=1e-4, le=1e4)
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


class BackgroundSpec(Spec):
    """A stationary object. `size_m` gives a box centred on `position_m`; `mesh` a mesh instead."""

    name: Name
    size_m: Extents | None = None
    mesh: FileName | None = None
    position_m: Position
    rotation_deg: Rotation = (0.0, 0.0, 0.0)
    coup_friction: NonNegative = Field(1.0, le=100)
    friction: Positive = Field(0.8, ge=0.01, le=5)
    coup_softness_m: Distance = Field(0.002, le=1)
    solid: Flag = True
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


class CameraSpec(Spec):
    width: Count = Field(640, ge=64, le=4096, multiple_of=2)
    """Even, as the height is: videos store one colour for two by two pixels."""
    height: Count = Field(480, ge=64, le=4096, multiple_of=2)
    vertical_fov_deg: Positive = Field(48.0, ge=1, le=170)
    principal_point: tuple[Fraction, Fraction] = (0.5, 0.5)
    """Where the optical axis meets the picture, as shares of width and height from the upper left
    corner; off the middle in a photo that was cut out of a larger one."""
    photo: FileName | None = None
    """A photo of the real scene at its first moment, through this camera: what videos start from."""
    photo_background: FileName | None = None
    """A photo of the same without the foreground objects, if there is one."""
    position_m: Position
    look_at_m: Position
    up: Direction = (0.0, 0.0, 1.0)
    fps: Positive = Field(20.0, ge=1, le=240)
    """Frame rate that videos are resampled to."""

    @model_validator(mode="after")
    def _looks_somewhere(self):
        way = np.subtract(self.look_at_m, self.position_m)
        if np.linalg.norm(way) < 1e-3:
            raise ValueError("look_at_m must be another point than position_m")
        if np.linalg.norm(np.cross(way, self.up)) < 1e-3 * np.linalg.norm(way) * np.linalg.norm(
            self.up
        ):
            raise ValueError("up must not be along the line of sight; give another up")
        return self


class LightSpec(Spec):
    """A distant area light and a uniform sky, for the ray tracer and the storyboard's shading."""

    direction: Direction = (0.3, 0.4, -1.0)
    """The way the light travels."""
    intensity: NonNegative = Field(1.6, le=1000)
    angular_diameter_deg: Positive = Field(20.0, ge=0.1, le=170)
    """Size of the light as seen from the scene: larger gives softer shadows."""
    ambient: NonNegative = Field(0.55, le=1000)


MOST_CELLS = 2**24
"""Of a solver's grid: about a gigabyte in each environment."""
MOST_PARTICLES = 2**20
"""Of one object: about a gigabyte in each environment."""


class Domain(Spec):
    """The box that particles can reach."""

    lower_m: Position
    """One corner; a grid is padded beyond it."""
    upper_m: Position

    @property
    def sides_m(self) -> np.ndarray:
        """(3,)"""
        return np.subtract(self.upper_m, self.lower_m)

    @model_validator(mode="after")
    def _has_room(self):
        if (self.sides_m < 1e-3).any():
            raise ValueError("upper_m must be above lower_m along every axis")
        return self


class MPMSpec(Domain):
    grid_density: Positive = Field(64.0, ge=1, le=1e6)
    """Grid cells per metre."""
    cpic: Flag = True

    @model_validator(mode="after")
    def _fits_in_memory(self):
        cells = float(np.prod(self.sides_m * self.grid_density))
        if cells > MOST_CELLS:
            raise ValueError(
                f"grid_density {self.grid_density:g} makes {cells:.3g} cells of this domain, and "
                f"{MOST_CELLS:.3g} fit in memory; take a coarser grid or a tighter domain"
            )
        return self


class SPHSpec(Domain): ...


class SimulationSpec(Spec):
    dt_s: Positive = Field(0.004, ge=1e-5, le=0.1)
    substeps: Count = Field(3, le=1000)
    gravity_m_s2: Position = (0.0, 0.0, -9.81)
    rigid_collision: Flag = False
    """Contacts between rigid bodies; off for particle tasks, where it only costs time."""
    mpm: MPMSpec | None = None
    sph: SPHSpec | None = None
    steps_per_waypoint: Count = Field(16, le=10_000)
    """Simulation steps from one waypoint to the next."""
    settle_steps: Index = Field(16, le=10_000)
    """Simulation steps after the last waypoint, before the result is judged."""
    servo_bandwidth_rad_s: Positive = Field(200.0, ge=1, le=10_000)


class CollectSpec(Spec):
    """Within what `lucibot collect` varies a scene; evenly, to either side."""

    position_m: Distance = Field(0.02, le=1)
    """How far objects are displaced along each axis of the table's plane."""
    rotation_deg: NonNegative = Field(10.0, le=180)
    """How far they are turned on it, each about its own middle."""
    still: list[Name] = Field(default_factory=list)
    """Objects that stay where they are. What hangs on a joint of the world does so anyway, and what lies in
    a vessel of the background."""
    together: list[list[Name]] = Field(default_factory=list)
    """What is displaced as one: objects, and parts of the background, such as a chest with its drawer.
    What lies in or on another object, or hangs on it, goes with it anyway."""
    camera_m: Distance = Field(0.03, le=1)
    """How far the camera is displaced along each axis."""
    look_m: Distance = Field(0.01, le=1)
    """How far the point that it looks at is."""
    light_deg: NonNegative = Field(10.0, le=60)
    """How far the light's direction is tilted."""
    light_share: Fraction = Field(0.2, lt=1)
    """By which share the light and the sky are brighter or darker."""
    material_share: Fraction = Field(0.2, lt=1)
    """By which share masses, frictions, stiffness, yield and viscosity differ, each on its own."""


class TaskSpec(Spec):
    """The schema of `task.toml`."""

    title: Words
    camera: CameraSpec
    light: LightSpec = LightSpec()
    simulation: SimulationSpec
    contact_m: Length = Field(0.008, ge=1e-4, le=0.5)
    """Surfaces nearer to each other than this touch, in videos and in rollouts: nothing is seen
    between them, and poses are not read from a video more exactly."""
    hands: Literal["expected", "optional", "none"] = "expected"
    """Whether videos show the hands that do it. "none": none is asked for, and objects move alone;
    "optional": neither a hand nor that there is none is a fault."""
    background: list[BackgroundSpec] = Field(max_length=100)
    objects: list[ObjectSpec] = Field(min_length=1, max_length=100)
    collect: CollectSpec = CollectSpec()
    goal: list[dict[str, Any]] = Field(default_factory=list)
    """The instruction's goal as relations in the picture, read by the video verifier."""
    success: list[dict[str, Any]] = Field(default_factory=list)
    """Success predicates over the simulator's state, read by the report and the benchmark only."""

    @model_validator(mode="after")
    def _consistent(self):
        names = [o.name for o in self.objects] + [b.name for b in self.background]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"names must be unique; {twice[0]!r} occurs twice")
        taken = sorted({"rest", "world"} & {*names})
        if taken:
            raise ValueError(f"the name {taken[0]!r} has a meaning of its own; take another")
        for role, meaning in {"actuator": "is moved", "target": "is to change"}.items():
            if not any(role in o.roles for o in self.objects):
                raise ValueError(f"no object has the role {role!r}; give it to what {meaning}")
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
        known = {o.name for o in self.objects}
        for group in ([self.collect.still] if self.collect.still else []) + self.collect.together:
            unknown = [
                n
                for n in group
                if n not in names or (group is self.collect.still and n not in known)
            ]
            if unknown:
                raise ValueError(f"[collect] speaks of {unknown[0]!r}, which is not there")
            if not known & {*group}:
                raise ValueError(
                    "[collect] together names no object, and background alone is not moved"
                )
        kinds = {o.material.kind for o in self.objects}
        if kinds & {"elastoplastic", "elastic", "sand"} and self.simulation.mpm is None:
            raise ValueError("an MPM material needs [simulation.mpm] with lower_m and upper_m")
        if "liquid" in kinds and self.simulation.sph is None:
            raise ValueError("a liquid needs [simulation.sph] with lower_m and upper_m")
        for o in self.objects:
            if o.is_liquid:
                size = o.material.particle_size_m
                cells = float(np.prod(self.simulation.sph.sides_m / (2 * size)))
                if cells > MOST_CELLS:
                    raise ValueError(
                        f"object {o.name!r}: particles of {size:g} m make {cells:.3g} cells of "
                        f"[simulation.sph], and {MOST_CELLS:.3g} fit in memory; take larger "
                        "particles or a tighter domain"
                    )
        return self
