"""An arm as a folder of data: a model file, which joints move, limits, a home and a gripper."""

from __future__ import annotations

import importlib.util
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from lucibot.core.errors import UserError, unknown_name
from lucibot.core.schema import Extents, Length, Number, Position, Positive, Spec, Words, parse

HERE = Path(__file__).resolve().parent / "arms"
SHIPPED = "genesis:"
"""Before a model file that Genesis ships."""

PALM_KG, FINGER_KG = 0.6, 0.05
"""Of a gripper that stands for one that the model lacks."""
TURNS_RAD = (-2 * np.pi, 2 * np.pi)
"""Limits of a joint for which the model has none."""

Joints = Annotated[list[str], Field(min_length=4, max_length=9)]
Numbers = Annotated[list[Number], Field(min_length=4, max_length=9)]
Limits = Annotated[list[Positive], Field(min_length=4, max_length=9)]


class GripperSpec(Spec):
    """Two parallel fingers. In the frame of the tip they close along y, and the hand comes along z."""

    tcp_m: Position
    """Where what is grasped is, in the frame of the tip."""
    opening_m: Length
    """Between the open fingers."""
    finger_joints: list[str] = Field(default_factory=list)
    """Joints of the model that move one finger each; without any, boxes stand for the gripper."""
    finger_m: Extents
    """Width, thickness and length of one finger."""
    palm_m: Extents
    """Likewise of what is behind the fingers."""


class ArmSpec(Spec):
    """`arm.toml`."""

    title: Words
    model: Words
    """MJCF or URDF: a file of the arm's folder, or genesis:PATH among the assets that Genesis ships."""
    tip: Words
    """The body that carries the gripper."""
    joints: Joints
    """From the base to the tip."""
    home_rad: Numbers
    velocity_rad_s: Limits
    acceleration_rad_s2: Limits
    jerk_rad_s3: Limits | None = None
    """Not limited if not given."""
    gripper: GripperSpec

    @model_validator(mode="after")
    def _as_many(self) -> ArmSpec:
        for name in ("home_rad", "velocity_rad_s", "acceleration_rad_s2", "jerk_rad_s3"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) != len(self.joints):
                raise ValueError(f"{name} has {len(numbers)} numbers for "
                                 f"{len(self.joints)} joints")  # fmt: skip
        every = [*self.joints, *self.gripper.finger_joints]
        if twice := [n for n in every if every.count(n) > 1]:
            raise ValueError(f"joint {twice[0]} is named twice")
        return self


@dataclass(frozen=True, kw_only=True)
class Chain:
    """J hinges one after the other, from the base's frame to the point between the fingers."""

    fixed: np.ndarray
    """(J + 1, 4, 4): from each joint's frame back to the one before at angle 0, then to the TCP."""
    axes: np.ndarray
    """(J, 3) unit, each in its joint's own frame."""
    lower: np.ndarray
    """(J,) [rad]"""
    upper: np.ndarray
    """(J,) [rad]"""


class Arm:
    """A loaded arm.

    Raises:
        UserError: the folder or its model lacks something.
    """

    def __init__(self, folder: Path):
        path = folder / "arm.toml"
        try:
            self.spec = parse(ArmSpec, tomllib.loads(path.read_text()), str(path))
        except FileNotFoundError:
            raise UserError(f"{folder} is no arm: it has no arm.toml") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
            raise UserError(f"{path}: {e}") from None
        self.folder = folder.resolve()
        self.name = self.folder.name

    @property
    def own_folder(self) -> str:
        """What is kept beside its name to find it again, from wherever; empty if it comes with the package."""
        return "" if self.folder.parent == HERE else str(self.folder)

    @cached_property
    def model_path(self) -> Path:
        if not self.spec.model.startswith(SHIPPED):
            path = self.folder / self.spec.model
        else:
            found = importlib.util.find_spec("genesis")
            if found is None or not found.submodule_search_locations:
                raise UserError(f"{self.name}: its model comes with genesis-world, which is absent")
            path = (
                Path(found.submodule_search_locations[0])
                / "assets"
                / self.spec.model[len(SHIPPED) :]
            )
        if not path.is_file():
            raise UserError(f"{self.folder / 'arm.toml'}: model {self.spec.model}: no such file")
        return path

    def model(self) -> Any:
        """A fresh `mujoco.MjSpec` without what is only to be looked at."""
        spec = self._whole_model()
        for geom in list(spec.geoms):
            if not geom.classname.name.startswith("visual") and (geom.contype or geom.conaffinity):
                continue
            spec.delete(geom)
        return spec

    def _whole_model(self) -> Any:
        import mujoco

        try:
            spec = mujoco.MjSpec.from_file(str(self.model_path))
        except ValueError as e:
            raise UserError(f"{self.model_path}: {' '.join(str(e).split())[:200]}") from None
        # Of a URDF the base and a tip on a fixed joint would be no bodies of their own.
        spec.compiler.fusestatic = False
        return spec

    def simulated(self, folder: Path) -> tuple[Path, tuple[str, ...]]:
        """A model to simulate, and its fingers' joints. Where the arm's own has no gripper, boxes on two
        slides stand for it, in a file in `folder`."""
        import mujoco

        gripper = self.spec.gripper
        if gripper.finger_joints:
            return self.model_path, tuple(gripper.finger_joints)
        spec = self._whole_model()
        spec.meshdir = str((self.model_path.parent / (spec.meshdir or "")).resolve())
        tip, box = spec.body(self.spec.tip), mujoco.mjtGeom.mjGEOM_BOX
        fw, ft, fl = gripper.finger_m
        pw, pt, pl = gripper.palm_m
        x, y, z = gripper.tcp_m
        tip.add_geom(type=box, size=[pw / 2, pt / 2, pl / 2], pos=[x, y, z - fl - pl / 2],
                     mass=PALM_KG, rgba=[0.2, 0.2, 0.22, 1])  # fmt: skip
        for side, name in ((-1, "left_finger"), (1, "right_finger")):
            place = [x, y + side * ft / 2, z + 0.15 * fw - fl / 2]
            finger = tip.add_body(name=name, pos=place)
            finger.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, side, 0],
                             range=[0, gripper.opening_m / 2], armature=0.1)  # fmt: skip
            finger.add_geom(type=box, size=[fw / 2, ft / 2, fl / 2 + 0.15 * fw], mass=FINGER_KG,
                            rgba=[0.35, 0.35, 0.37, 1])  # fmt: skip
        path = folder / f"{self.name}.xml"
        spec.compile()
        path.write_text(spec.to_xml())
        return path, ("left_finger", "right_finger")

    def inertia(self, file: Path, poses: int = 64) -> np.ndarray:
        """(J,) [kg m^2] the most that each joint has to move in a model of `simulated`, of many poses."""
        import mujoco

        model = mujoco.MjModel.from_xml_path(str(file))
        data, M = mujoco.MjData(model), np.zeros((model.nv, model.nv))
        joints = [model.joint(n) for n in self.spec.joints]
        at, most = [j.dofadr[0] for j in joints], np.zeros(len(joints))
        lower, upper = np.clip([self.chain.lower, self.chain.upper], -np.pi, np.pi)
        for share in np.random.default_rng(0).random((poses, len(joints))):
            for j, angle in zip(joints, lower + share * (upper - lower), strict=True):
                data.qpos[j.qposadr[0]] = angle
            mujoco.mj_forward(model, data)
            mujoco.mj_fullM(model, data, M)
            most = np.maximum(most, np.diagonal(M)[at])
        return most

    @cached_property
    def chain(self) -> Chain:
        """Read from the model, whatever its base stands on."""
        import mujoco

        try:
            model = self.model().compile()
        except ValueError as e:
            raise UserError(f"{self.model_path}: {' '.join(str(e).split())[:200]}") from None
        try:
            for name in self.spec.gripper.finger_joints:
                model.joint(name)
            body = model.body(self.spec.tip).id
            joints = [model.joint(n).id for n in self.spec.joints]
        except KeyError as e:
            raise UserError(
                f"{self.folder / 'arm.toml'}: {self.model_path.name} has no such body or joint ({e})"
            ) from None
        tcp = np.eye(4)
        tcp[:3, 3] = self.spec.gripper.tcp_m
        fixed, axes, found, after = [], [], [], tcp
        while body:
            here = np.eye(4)
            turn = np.zeros(9)
            mujoco.mju_quat2Mat(turn, model.body_quat[body])
            here[:3, :3], here[:3, 3] = turn.reshape(3, 3), model.body_pos[body]
            moved = [j for j in joints if model.jnt_bodyid[j] == body]
            if moved:
                if len(moved) > 1:
                    raise UserError(f"{self.name}: two of its joints move the same body")
                (j,) = moved
                if model.jnt_type[j] != mujoco.mjtJoint.mjJNT_HINGE:
                    raise UserError(f"{self.name}: joint {model.joint(j).name} is no hinge")
                # The joint's frame lies at its own anchor.
                anchor = np.eye(4)
                anchor[:3, 3] = model.jnt_pos[j]
                back = np.eye(4)
                back[:3, 3] = -model.jnt_pos[j]
                fixed.append(back @ after)
                axes.append(model.jnt_axis[j] / np.linalg.norm(model.jnt_axis[j]))
                found.append(j)
                after = here @ anchor
            else:
                after = here @ after
            body = model.body_parentid[body]
        fixed.append(after)
        if found[::-1] != joints:
            raise UserError(
                f"{self.folder / 'arm.toml'}: joints are not those from the base to {self.spec.tip}"
            )
        limits = np.where(model.jnt_limited[joints, None], model.jnt_range[joints], TURNS_RAD)
        return Chain(fixed=np.stack(fixed[::-1]), axes=np.stack(axes[::-1]), lower=limits[:, 0],
                     upper=limits[:, 1])  # fmt: skip


def arm_names() -> list[str]:
    """Arms that come with the package."""
    return sorted(p.parent.name for p in HERE.glob("*/arm.toml"))


def load_arm(name: str | Path) -> Arm:
    """An arm by its name, which comes first, or by its folder.

    Raises:
        UserError: there is none.
    """
    if name in arm_names():
        return Arm(HERE / name)
    if Path(name).is_dir():
        return Arm(Path(name))
    raise unknown_name("arm", str(name), arm_names())


def kept_arm(name: str, own_folder: str) -> Arm:
    """The arm of which something was kept.

    Raises:
        UserError: its folder is gone, or no arm of that name comes with the package.
    """
    if own_folder and not Path(own_folder).is_dir():
        raise UserError(f"arm {name}: its folder {own_folder} is gone")
    return load_arm(Path(own_folder) if own_folder else name)
