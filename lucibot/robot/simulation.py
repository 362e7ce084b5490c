"""The arm in the task's own simulation: physics goes on, and the actuators are moved by the arm alone.

What is grasped is welded to the hand when the gripper has closed, and let go when it opens. While the arm
follows the trajectory, what the actuator is measured to be off it is added up, and corrected.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lucibot.core.camera import Camera
from lucibot.core.errors import RunFailed
from lucibot.core.geometry import matrix_np, minimum_jerk, pose_np
from lucibot.core.progress import Progress, silent
from lucibot.robot.arm import Arm
from lucibot.robot.kinematics import TURN_M, Kinematics
from lucibot.robot.motion import Motion, Phase
from lucibot.sim.arm import ArmModel
from lucibot.sim.grip import carried, patch
from lucibot.sim.process import SimProcess
from lucibot.sim.record import RolloutRecorder
from lucibot.sim.rollout import Aim, gravity_lift, measured_pose, stand_still
from lucibot.sim.scene import SimScene
from lucibot.sim.state import FinalState, StateRecorder
from lucibot.store.rollout import Rollout
from lucibot.task import Task

CORRECTED_A_S = 12.0
"""What the actuator is off is corrected by such a share a second."""
MOST_CORRECTED_RAD = 0.15
"""Of each joint."""
DAMPING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Performed:
    """What the arm did."""

    rollout: Rollout
    state: FinalState
    pictures: list[np.ndarray]
    """(H, W, 3) uint8 every so many steps from the start on."""
    diverged: bool
    wanted: np.ndarray
    """(S + 1, 4, 4) where the actuator that was held was to be, NaN where none was."""
    measured: np.ndarray
    """(S + 1, 4, 4) where it was."""
    phases: tuple[str, ...]
    """(S,) the kind of phase of each step."""


def perform(
    task: Task, arm: Arm, motion: Motion, grasps_m: dict[str, np.ndarray], camera: Camera,
    every: int, *, feedback: bool = True, progress: Progress = silent,
) -> Performed:  # fmt: skip
    """Let the arm do it, in a fresh simulation in a process of its own.

    Args:
        grasps_m: where deformable actuators are grasped, (3,) [m, world] by name.
        every: steps from picture to picture.
        feedback: whether what the actuator is off is corrected.

    Raises:
        RunFailed: the process died.
    """
    with tempfile.TemporaryDirectory(prefix="lucibot_arm_") as scratch:
        model = arm_model(arm, motion.T_world_base, Path(scratch))
        return _performed(task, arm, model, motion, grasps_m, camera, every, feedback, progress)


def _performed(
    task,
    arm,
    model: ArmModel,
    motion: Motion,
    grasps_m,
    camera,
    every,
    feedback,
    progress: Progress,
) -> Performed:
    process = SimProcess(_performer, task, model, camera)
    try:
        progress("building the scene with the arm in it")
        built = process.receive()
        if built is not None:
            progress(f"the arm at work: {motion.steps} steps")
            process.send((arm.chain, motion, grasps_m, every, feedback))
            found = process.receive()
            if found is not None:
                return found
    except BaseException:
        process.close(at_once=True)
        raise
    process.close()
    raise RunFailed(f"the simulation with the arm died (exit code {process.exit_code}); too little "
                    "memory is the usual reason")  # fmt: skip


def arm_model(arm: Arm, T_world_base: np.ndarray, folder: Path) -> ArmModel:
    """What the simulation needs to know of an arm at one place; a model that has to be made for it is
    written into `folder`."""
    file, fingers = arm.simulated(folder)
    T_tip_tcp = np.eye(4)
    T_tip_tcp[:3, 3] = arm.spec.gripper.tcp_m
    return ArmModel(
        name=arm.name, own_folder=arm.own_folder, file=file, T_world_base=T_world_base, tip=arm.spec.tip,
        T_tip_tcp=T_tip_tcp, joints=tuple(arm.spec.joints),
        fingers=fingers, home_rad=np.array(arm.spec.home_rad),
        inertia_kg_m2=arm.inertia(file), opening_m=arm.spec.gripper.opening_m,
    )  # fmt: skip


def _performer(task: Task, model: ArmModel, camera: Camera):
    """In the process: takes what `perform` sends."""
    scene = SimScene(task, n_envs=1, camera=camera, arm=model)

    def answer(message) -> Performed:
        chain, motion, grasps_m, every, feedback = message
        return _Performance(scene, Kinematics(chain), motion, grasps_m, every, feedback).go()

    return answer


class _Performance:
    """One motion in a built scene."""

    def __init__(
        self,
        scene: SimScene,
        solver: Kinematics,
        motion: Motion,
        grasps_m,
        every: int,
        feedback: bool,
    ):
        self.scene, self.arm, self.motion = scene, scene.arm, motion
        self._solver, self._grasps_m, self._every = solver, grasps_m, every
        self._feedback = feedback
        self._recorder, self._states = RolloutRecorder(scene, every), StateRecorder(scene)
        self._pictures: list[np.ndarray] = []
        self._step, self._diverged = 0, False
        self._off = np.zeros(len(scene.arm.model.joints))
        self._wanted, self._measured = [np.full((4, 4), np.nan)], [np.full((4, 4), np.nan)]
        self._kinds: list[str] = []
        self._lift = gravity_lift(scene)

    def go(self) -> Performed:
        scene, motion = self.scene, self.motion
        scene.reset()
        self._states.start()
        if not scene.collides:
            for obj in scene.task.actuators:
                if obj.is_rigid and obj.joint is None:
                    self._stays(obj.name)
        self._look()
        followed = [i for i, p in enumerate(motion.phases) if p.kind == "follow"]
        for i, phase in enumerate(motion.phases):
            if phase.kind == "follow":
                self._take(phase)
            elif phase.kind == "open":
                self._let_go(phase)
            self._run(phase)
            if i == followed[-1]:
                # What success is asked of: the last moment at which something is moved, and the end.
                self._states.look()
        self._states.look()
        planned = np.vstack([self.arm.model.home_rad, *(p.angles for p in motion.phases)])
        return Performed(
            rollout=replace(self._recorder.rollout(), arm_planned=planned), state=self._states.states()[0], pictures=self._pictures,
            diverged=self._diverged, wanted=np.stack(self._wanted), measured=np.stack(self._measured),
            phases=tuple(self._kinds),
        )  # fmt: skip

    def _run(self, phase: Phase) -> None:
        n = len(phase)
        begun = self._off
        for i in range(n):
            wanted = None
            if phase.kind == "follow":
                if i and self._feedback:
                    self._correct(phase, phase.wanted[i - 1])
                wanted = phase.wanted[i]
            elif phase.kind in ("approach", "retreat"):
                # What was corrected for the thing in the hand is taken back on the way.
                self._off = begun * (1 - float(minimum_jerk(torch.tensor((i + 1) / n))))
            self.arm.drive(phase.angles[i] + self._off, phase.speeds[i], float(phase.opening_m[i]))
            self._advance(phase, wanted)

    def _advance(self, phase: Phase, wanted: np.ndarray | None) -> None:
        aims = {}
        name = self.motion.holds[phase.hold]
        if wanted is not None:
            aims[name] = Aim(pose=pose_np(wanted)[None], particle=np.array([self._particle]))
        if self._patch is not None:
            pose = torch.as_tensor(pose_np(self._hand_of(phase)), dtype=torch.float64)[None]
            self.scene.grips[name].aim(carried(self._offsets, pose.to(self._offsets.device)))
        self._recorder.aim(aims)
        self.scene.step()
        self._step += 1
        self._kinds.append(phase.kind)
        nothing = np.full((4, 4), np.nan)
        self._wanted.append(nothing if wanted is None else wanted)
        self._measured.append(nothing if wanted is None else self._frame(phase))
        self._look()

    def _look(self) -> None:
        self._recorder.look(self._step)
        if self._step % self._every == 0:
            try:
                self._pictures.append(self.scene.film_frame())
            except RunFailed:
                self._pictures.append(self._pictures[-1])
            self._diverged |= bool(self.scene.diverged()[0])

    # Holding --------------------------------------------------------------------------------------

    _patch: torch.Tensor | None = None
    _offsets: torch.Tensor | None = None
    _particle = -1

    def _take(self, phase: Phase) -> None:
        scene, name = self.scene, self.motion.holds[phase.hold]
        obj = scene.task.object(name)
        if obj.is_rigid:
            if obj.joint is None:
                scene.release(name)
            self.arm.hold(name)
            return
        particles = scene.particles(name)
        place = self._grasps_m.get(name, self.arm.tcp[:3, 3])
        index = patch(obj, particles[:, 0].cpu().numpy(), place)
        self._particle = int(index[0])
        self._patch = torch.as_tensor(index, device=particles.device)
        taken = scene.grips[name].take(self._patch).double()
        self._offsets = taken - taken[0]
        # The hand's frame is tied to the particle that is grasped, as it is to the hand now.
        here = np.eye(4)
        here[:3, 3] = taken[0, 0].cpu().numpy()
        self._T_tcp_held = np.linalg.inv(self.arm.tcp) @ here

    def _let_go(self, phase: Phase) -> None:
        scene, name = self.scene, self.motion.holds[phase.hold]
        obj = scene.task.object(name)
        if not obj.is_rigid:
            scene.grips[name].let_go()
            self._patch = None
            return
        self.arm.let_go()
        if obj.joint is None and not scene.collides:
            self._stays(name)

    def _stays(self, name: str) -> None:
        stand_still(self.scene, name, measured_pose(self.scene, name), self._lift)

    # Following ------------------------------------------------------------------------------------

    def _hand_of(self, phase: Phase) -> np.ndarray:
        """(4, 4) what the hand brings a deformable's grasped particle to, and its turn."""
        return self.arm.tcp @ self._T_tcp_held

    def _frame(self, phase: Phase) -> np.ndarray:
        """(4, 4) where what is held is now."""
        name = self.motion.holds[phase.hold]
        if not self.scene.task.object(name).is_rigid:
            T = self._hand_of(phase)
            T[:3, 3] = self.scene.particles(name)[self._particle, 0].cpu().numpy()
            return T
        return matrix_np(measured_pose(self.scene, name)[0].cpu().numpy())

    def _correct(self, phase: Phase, wanted: np.ndarray) -> None:
        """Add to the joints' targets what brings the actuator nearer to where it was to be."""
        here, R = self._frame(phase), self.motion.T_world_base[:3, :3]
        turn = wanted[:3, :3] @ here[:3, :3].T
        # The TCP goes where the actuator's error takes it.
        tcp = self.arm.tcp
        moved = turn @ (tcp[:3, 3] - here[:3, 3]) + wanted[:3, 3] - tcp[:3, 3]
        twist = np.concatenate([R.T @ moved, TURN_M * (R.T @ _rotvec(turn))])
        _, J = self._solver.jacobian(torch.as_tensor(self.arm.angles)[None])
        J = J[0].numpy() * np.array([1, 1, 1, TURN_M, TURN_M, TURN_M])[:, None]
        step = J.T @ np.linalg.solve(J @ J.T + DAMPING**2 * np.eye(6), twist)
        self._off = np.clip(
            self._off + CORRECTED_A_S * self.motion.dt_s * step,
            -MOST_CORRECTED_RAD, MOST_CORRECTED_RAD,
        )  # fmt: skip


def _rotvec(R: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(R).as_rotvec()


def tracking(performed: Performed, motion: Motion) -> dict[str, float | int]:
    """What actuators were off where they were to be, while they were held: mean and most, at the place
    where they are grasped [mm], and turned [deg]."""
    held = np.isfinite(performed.wanted[:, 0, 0])
    if not held.any():
        return {"steps": 0}
    grasp = np.zeros((len(held), 4))
    grasp[:, 3] = 1
    of = np.concatenate([[0], *(np.full(len(p), p.hold) for p in motion.phases)])
    for h, name in enumerate(motion.holds):
        if name in performed.rollout.bodies:
            grasp[of == h] = motion.grasps[h][:, 3]
    wanted, measured = performed.wanted[held], performed.measured[held]
    off = np.einsum("nij,nj->ni", wanted - measured, grasp[held])[:, :3]
    off = 1000 * np.linalg.norm(off, axis=1)
    turn = wanted[:, :3, :3] @ measured[:, :3, :3].transpose(0, 2, 1)
    deg = np.rad2deg(np.linalg.norm([_rotvec(R) for R in turn], axis=1))
    return {
        "steps": int(held.sum()), "mean_mm": float(off.mean()), "most_mm": float(off.max()),
        "mean_deg": float(deg.mean()), "most_deg": float(deg.max()),
    }  # fmt: skip
