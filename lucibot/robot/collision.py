"""Whether an arm that carries something is in itself or in its surroundings, by MuJoCo's collision core.

What is carried may touch what it likes but the arm: how the task is done was found in the simulation. The
arm may not. Neighbouring links, and what is carried and the last two links, are not looked at: there the hand's
room was asked for when the grasp was taken. A thing is made of its convex pieces, or else of the convex hulls
of what hangs together in its mesh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import trimesh

from lucibot.robot.arm import Arm
from lucibot.task import BackgroundSpec, ObjectSpec, Task

ARM, SCENE, TOOL = 1, 2, 4
"""Bits of what may touch what: the arm all, the others the arm alone."""
TOUCH_M = 1e-3
"""Shapes that are in each other by less do not count: convex hulls are a little larger than things."""

FINGERS = ((-1, "left finger box"), (1, "right finger box"))
"""Of a gripper that the model lacks: the side, and the name."""


class CollisionWorld:
    """One arm among the things of a task. Compiling it takes a second or so, `place` next to nothing.

    Args:
        T_world_base: (4, 4) of the arm's base.
        carried: the object in the hand, and (4, 4) the TCP in its frame; None for empty fingers.
        opening_m: between the fingers; all that the gripper has, if not given.
    """

    def __init__(
        self, arm: Arm, T_world_base: np.ndarray, task: Task,
        carried: tuple[ObjectSpec, np.ndarray] | None = None, opening_m: float | None = None,
    ):  # fmt: skip
        import mujoco

        self._mujoco, spec = mujoco, arm.model()
        base = spec.worldbody.first_body()
        for i, body in enumerate(spec.bodies):
            body.name = body.name or f"link {i}"
        # MuJoCo leaves neighbours out, but not those of what stands still.
        still = _in_one_piece(base)
        for first in (child for body in still for child in body.bodies if child.joints):
            for one, other in product(still, _in_one_piece(first)):
                spec.add_exclude(bodyname1=one.name, bodyname2=other.name)
        for geom in spec.geoms:
            geom.contype, geom.conaffinity = ARM, ARM | SCENE | TOOL
        self._gripper, tip = arm.spec.gripper, spec.body(arm.spec.tip)
        self.arm_bodies = {body.name for body in spec.bodies} - {"world"}
        if not self._gripper.finger_joints:
            self._add_gripper(tip)
        self._others: dict[str, int] = {}
        # A wall that the task's physics leaves out is still a wall.
        for thing in (*task.spec.background, *task.objects):
            if isinstance(thing, ObjectSpec) and not thing.is_rigid:
                continue
            if carried is not None and thing.name == carried[0].name:
                continue
            moves = isinstance(thing, ObjectSpec)
            T = thing.T_world_object
            body = spec.worldbody.add_body(
                name=f"scene {thing.name}", pos=T[:3, 3], quat=_quaternion(T), mocap=moves
            )
            for i, piece in enumerate(pieces_of(task, thing)):
                _add_hull(spec, body, f"{thing.name} {i}", piece, SCENE, ARM)
        if carried is not None:
            body = tip.add_body(name="carried")
            for i, piece in enumerate(pieces_of(task, carried[0])):
                _add_hull(spec, body, f"carried {i}", piece, TOOL, ARM)
            for child in (tip, *tip.bodies):
                if child.name != "carried":
                    spec.add_exclude(bodyname1="carried", bodyname2=child.name)
        self._model = spec.compile()
        self._data = mujoco.MjData(self._model)
        self._own = np.flatnonzero(self._model.geom_contype == ARM).tolist()
        self._base, self._tip = self._model.body(base.name).id, self._model.body(arm.spec.tip).id
        # A model may turn its first body itself, in one of many ways; compiled, all are a quaternion.
        self._turned = matrix_of(
            self._model.body_pos[self._base], self._model.body_quat[self._base]
        )
        self._angles = [self._model.joint(n).qposadr[0] for n in arm.spec.joints]
        for thing in task.objects:
            body = f"scene {thing.name}"
            if thing.is_rigid and (carried is None or thing.name != carried[0].name):
                self._others[thing.name] = self._model.body(body).mocapid[0]
        self.place(T_world_base, None if carried is None else carried[1], opening_m)

    def place(
        self, T_world_base: np.ndarray, T_obj_tcp: np.ndarray | None = None,
        opening_m: float | None = None,
    ) -> None:  # fmt: skip
        """Put the arm elsewhere, what it carries elsewhere into its hand, and its fingers so far apart."""
        m, gripper = self._model, self._gripper
        T = T_world_base @ self._turned
        m.body_pos[self._base], m.body_quat[self._base] = T[:3, 3], _quaternion(T)
        if T_obj_tcp is not None:
            T_tip_tcp = np.eye(4)
            T_tip_tcp[:3, 3] = gripper.tcp_m
            T = T_tip_tcp @ np.linalg.inv(T_obj_tcp)
            carried = m.body("carried").id
            m.body_pos[carried], m.body_quat[carried] = T[:3, 3], _quaternion(T)
        self._open(opening_m)

    def _open(self, opening_m: float | None) -> None:
        m, gripper = self._model, self._gripper
        width = gripper.opening_m if opening_m is None else min(opening_m, gripper.opening_m)
        for name in gripper.finger_joints:
            joint = m.joint(name)
            share = width / gripper.opening_m
            self._data.qpos[joint.qposadr[0]] = joint.range[0] + share * np.ptp(joint.range)
        if not gripper.finger_joints:
            for side, name in FINGERS:
                across = gripper.tcp_m[1] + side * (width + gripper.finger_m[1]) / 2
                m.geom(name).pos[1] = across

    def hits(
        self, angles: Sequence[float], poses: Mapping[str, np.ndarray] | None = None
    ) -> list[tuple[str, str]]:
        """Pairs of bodies that are in each other.

        Args:
            angles: (J,) [rad].
            poses: (7,) position and quaternion (w, x, y, z) of other things by name; where they begin
                if not given.
        """
        d = self._data
        d.qpos[self._angles] = angles
        for name, pose in (poses or {}).items():
            if name in self._others:
                d.mocap_pos[self._others[name]] = pose[:3]
                d.mocap_quat[self._others[name]] = pose[3:]
        self._mujoco.mj_kinematics(self._model, d)
        self._mujoco.mj_collision(self._model, d)
        found = set()
        for c in range(d.ncon):
            contact = d.contact[c]
            if contact.dist < -TOUCH_M:
                pair = [self._model.body(self._model.geom_bodyid[g]).name for g in contact.geom]
                found.add(tuple(sorted(n.removeprefix("scene ") for n in pair)))
        return sorted(found)

    def covered(self, angles: Sequence[float], eye: np.ndarray, points: np.ndarray) -> float:
        """What share of (N, 3) points the arm hides from an eye (3,) [m, world]."""
        m, d, g = self._model, self._data, np.zeros(1, np.int32)
        d.qpos[self._angles] = angles
        self._mujoco.mj_kinematics(m, d)
        hidden = 0
        for way in points - eye:
            share = self._mujoco.mj_ray(m, d, eye, way, None, 1, -1, g)
            hidden += 0 <= share < 1 and m.geom_contype[g[0]] == ARM
        return hidden / len(points)

    def shapes(self, angles: Sequence[float]) -> list[trimesh.Trimesh]:
        """The arm's own shapes as they stand in the world, to look at."""
        poses = self.shape_poses(angles)
        return [shape.apply_transform(poses[g]) for g, shape in self.own_shapes().items()]

    def own_shapes(self) -> dict[int, trimesh.Trimesh]:
        """The arm's own shapes by number, each in its own frame."""
        own = {g: _shape(self._mujoco, self._model, g) for g in self._own}
        return {g: shape for g, shape in own.items() if shape is not None}

    def shape_poses(
        self, angles: Sequence[float], opening_m: float | None = None
    ) -> dict[int, np.ndarray]:
        """(4, 4) of each of them in the world, with the fingers as they are or so far apart."""
        m, d = self._model, self._data
        d.qpos[self._angles] = angles
        if opening_m is not None:
            self._open(opening_m)
        self._mujoco.mj_kinematics(m, d)
        poses = {}
        for g in self._own:
            T = poses[g] = np.eye(4)
            T[:3, :3], T[:3, 3] = d.geom_xmat[g].reshape(3, 3), d.geom_xpos[g]
        return poses

    def hand(self, opening_m: float) -> np.ndarray:
        """(K, 4) corners of the hulls of what carries the gripper and of its fingers, in the TCP's frame [m]."""
        m, d = self._model, self._data
        self._open(opening_m)
        self._mujoco.mj_kinematics(m, d)
        R, place = d.xmat[self._tip].reshape(3, 3), d.xpos[self._tip]
        corners = []
        for g in range(m.ngeom):
            body = m.geom_bodyid[g]
            if m.geom_contype[g] != ARM or self._tip not in (body, m.body_parentid[body]):
                continue
            shape = _shape(self._mujoco, m, g)
            if shape is not None:
                v = shape.convex_hull.vertices @ d.geom_xmat[g].reshape(3, 3).T + d.geom_xpos[g]
                corners.append((v - place) @ R - self._gripper.tcp_m)
        corners = np.concatenate(corners)
        return np.column_stack([corners, np.ones(len(corners))])

    def _add_gripper(self, tip) -> None:
        """Boxes in place of a gripper that the model lacks; `place` puts the fingers where they are."""
        box, gripper = self._mujoco.mjtGeom.mjGEOM_BOX, self._gripper
        fw, ft, fl = gripper.finger_m
        pw, pt, pl = gripper.palm_m
        x, y, z = gripper.tcp_m
        bits = {"contype": ARM, "conaffinity": ARM | SCENE | TOOL}
        tip.add_geom(type=box, size=[pw / 2, pt / 2, pl / 2], pos=[x, y, z - fl - pl / 2], **bits)
        size = [fw / 2, ft / 2, fl / 2 + 0.15 * fw]
        for _, name in FINGERS:
            tip.add_geom(name=name, type=box, size=size, pos=[x, y, z + 0.15 * fw - fl / 2], **bits)


def _in_one_piece(body) -> list:
    """A body and all that moves with it."""
    fixed = [b for child in body.bodies if not child.joints for b in _in_one_piece(child)]
    return [body, *fixed]


def pieces_of(task: Task, thing: ObjectSpec | BackgroundSpec) -> list[trimesh.Trimesh]:
    """Convex pieces of a thing, in its own frame."""
    named = getattr(getattr(thing, "material", thing), "collision", None) or []
    if not named:
        # Bars on a front are not the front.
        parts = task.mesh(thing).split(only_watertight=False)
        return [p for p in parts if len(p.vertices) > 3] or [task.mesh(thing)]
    pieces = []
    for file in named:
        piece = task.read_mesh(file)
        piece.apply_scale(getattr(thing, "scale", 1.0))
        pieces.append(piece)
    return pieces


def _add_hull(spec, body, name: str, mesh: trimesh.Trimesh, contype: int, conaffinity: int) -> None:
    import mujoco

    hull = mesh.convex_hull
    spec.add_mesh(name=name, uservert=np.asarray(hull.vertices, np.float32).reshape(-1),
                  userface=np.asarray(hull.faces, np.int32).reshape(-1))  # fmt: skip
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, contype=contype,
                  conaffinity=conaffinity, mass=0.0)  # fmt: skip


def _shape(mujoco, m, g: int) -> trimesh.Trimesh | None:
    kind, size = m.geom_type[g], m.geom_size[g]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        i = m.geom_dataid[g]
        v = slice(m.mesh_vertadr[i], m.mesh_vertadr[i] + m.mesh_vertnum[i])
        f = slice(m.mesh_faceadr[i], m.mesh_faceadr[i] + m.mesh_facenum[i])
        return trimesh.Trimesh(m.mesh_vert[v].copy(), m.mesh_face[f].copy(), process=False)
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return trimesh.creation.box(2 * size)
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        return trimesh.creation.capsule(height=2 * size[1], radius=size[0], count=[16, 16])
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return trimesh.creation.cylinder(radius=size[0], height=2 * size[1])
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return trimesh.creation.icosphere(radius=size[0], subdivisions=2)
    return None


def matrix_of(position, quaternion) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(np.roll(quaternion, -1)).as_matrix()
    T[:3, 3] = position
    return T


def _quaternion(T: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return np.roll(Rotation.from_matrix(T[:3, :3]).as_quat(), 1)
