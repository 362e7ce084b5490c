"""Executes a batch of waypoint trajectories (paper, section 3.4: the simulated rollout)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from lucibot.core.geometry import (
    compose_rotvec,
    interpolate_pose,
    minimum_jerk,
    pose_np,
    quat_to_rotvec,
    rotate,
    rotvec_to_quat,
)
from lucibot.core.joint import Joint
from lucibot.sim.grip import carried, patch, patch_now
from lucibot.sim.scene import SimScene
from lucibot.task import ObjectSpec


@dataclass(frozen=True)
class Aim:
    """Where a step is to bring one actuator that is held, in each environment."""

    pose: np.ndarray
    """(B, 6) pose vectors of the mesh frame [m, rad, world]; of a deformable actuator, where the particle
    that is grasped is to be, and the patch's turn since it was taken."""
    particle: np.ndarray | None = None
    """(B,) that particle, of a deformable actuator."""


def run_rollout(
    scene: SimScene,
    waypoints: Tensor,
    held: np.ndarray,
    *,
    grasps: Mapping[str, np.ndarray] | None = None,
    regrasps: Mapping[str, Mapping[int, np.ndarray]] | None = None,
    on_keyframe: Callable[[int], None] | None = None,
    on_step: Callable[[int], None] | None = None,
    on_aim: Callable[[dict[str, Aim]], None] | None = None,
) -> None:
    """Reset the scene and move every actuator through its waypoints, all environments at once.

    On its way to keyframe k a held actuator's servo target moves from its last waypoint to waypoint
    k on a straight line with the shortest turn, starting and ending at rest (minimum jerk). An
    actuator that a hand takes up, at first or again, starts from where it really is. One that is
    not held obeys gravity and contacts; where rigid bodies do not collide nothing would carry it,
    so there it is kept where it is. After the last keyframe every actuator is let go in the same
    sense and `settle_steps` more steps follow.

    An actuator on a joint is moved from value to value in the same manner, but its values are set,
    not followed (paper: the joint positions are set to the estimates).

    A deformable actuator is held by a patch of its particles, which is moved likewise: a waypoint is
    where the particle that was grasped is to be, and the patch's turn since it was taken.

    Args:
        waypoints: (B, K, A, 6) pose vectors of the mesh frames [m, rad, world], actuators in task
            order.
        held: (K, A) bool, as in `Supervision.held`.
        grasps: where deformable actuators are grasped at first, (3,) [m, world] by name; by default
            at their first held waypoint in environment 0.
        regrasps: where they are grasped anew on the way to some keyframes, (3,) [m, world] by name
            and keyframe; what is taken again at no given place is taken as before.
        on_keyframe: called with k when keyframe k has been reached.
        on_step: called after every step with the number of steps done.
        on_aim: called before every step with where it is to bring what is held, by actuator.
    """
    spec = scene.task.spec.simulation
    names = [o.name for o in scene.task.actuators]
    joints = {a: o.articulation for a, o in enumerate(scene.task.actuators) if o.joint is not None}
    soft = {a: o for a, o in enumerate(scene.task.actuators) if not o.is_rigid}
    free = [a for a in range(len(names)) if a not in joints and a not in soft]
    B, K, A, _ = waypoints.shape
    if B != scene.n_envs or A != len(names) or held.shape != (K, A):
        raise ValueError(
            f"waypoints {tuple(waypoints.shape)} and held {held.shape} do not fit "
            f"{scene.n_envs} environments and {len(names)} actuators"
        )
    # Interpolated in double precision: near the Euler angles' pole single precision is too coarse.
    goals = waypoints.to(device=scene.device, dtype=torch.float64)
    lift = gravity_lift(scene)
    scene.reset()
    last = {a: measured_pose(scene, names[a]) for a in free}
    ways: dict[int, _Way] = {}
    hands = {
        a: _Hand(scene, o, (grasps or {}).get(o.name, _first_waypoint(goals, held, a)))
        for a, o in soft.items()
    }
    if not scene.collides:
        for a in free:
            stand_still(scene, names[a], last[a], lift)
    steps_done = 0
    for k in range(K):
        taken = [a for a in free if held[k, a] and (k == 0 or not held[k - 1, a])]
        if taken:
            ways |= _ways(scene, taken, goals, held, k, lift)
        moving = [a for a in free if held[k, a]]
        swung = {
            a: _joint_segment(
                scene.joint_value(names[a]), joints[a], goals[:, k, a], spec.steps_per_waypoint
            )
            for a in joints if held[k, a]
        }  # fmt: skip
        patches = {
            a: hand.way(goals[:, k, a], spec.steps_per_waypoint)
            for a, hand in hands.items()
            if hand.hold(bool(held[k, a]), (regrasps or {}).get(names[a], {}).get(k))
        }  # fmt: skip
        if k > 0:
            for a in free:
                if held[k - 1, a] and not held[k, a]:
                    _let_go(scene, names[a], last[a], lift)
        aims = None
        if on_aim:
            start = {a: measured_pose(scene, names[a]) if a in taken else last[a] for a in moving}
            aims = _aims(scene, start, goals[:, k], swung, patches, hands, spec.steps_per_waypoint)
        for i in range(spec.steps_per_waypoint):
            if aims:
                on_aim(aims[i])
            for a in moving:
                scene.servo(names[a], *ways[a].at(k, i))
            for a, values in swung.items():
                scene.set_joint(names[a], values[i])
            for a, poses in patches.items():
                hands[a].aim(poses[i])
            scene.step()
            steps_done += 1
            if on_step:
                on_step(steps_done)
        for a in moving:
            last[a] = goals[:, k, a]
        if on_keyframe:
            on_keyframe(k)
    for a in free:
        if K and held[K - 1, a]:
            _let_go(scene, names[a], last[a], lift)
    for hand in hands.values():
        hand.hold(False)
    for _ in range(spec.settle_steps):
        if on_aim:
            on_aim({})
        scene.step()
        steps_done += 1
        if on_step:
            on_step(steps_done)


@dataclass(frozen=True)
class _Way:
    """Servo targets of one actuator from where it was taken up until it is let go."""

    first: int
    """The keyframe to which the first segment leads."""
    target: list[tuple[Tensor, ...]]
    """Of each segment and step (6, B) float32 position [m] and Euler angles [rad], in the
    simulator's layout. Cut apart once: an index of a tensor costs as much as using what it gives."""
    velocity: list[tuple[Tensor, ...]]
    """Likewise (6, B) float32 [m/s, rad/s]."""

    def at(self, k: int, i: int) -> tuple[Tensor, Tensor]:
        """Target and velocity (6, B) of step i on the way to keyframe k."""
        return self.target[k - self.first][i], self.velocity[k - self.first][i]


def _ways(
    scene: SimScene, taken: list[int], goals: Tensor, held: np.ndarray, k: int, lift: Tensor
) -> dict[int, _Way]:
    """The ways of actuators that are taken up before keyframe k. All of their segments are known
    then, and are computed together, because each of many small operations costs its call."""
    spec = scene.task.spec.simulation
    names = [o.name for o in scene.task.actuators]
    end = k + int(np.logical_and.accumulate(held[k:, taken]).any(1).sum())
    here = torch.stack([measured_pose(scene, names[a]) for a in taken], dim=1)
    stations = torch.cat([here[:, None], goals[:, k:end, taken]], dim=1)
    targets, velocities = _segments(
        stations, spec.steps_per_waypoint, spec.dt_s, spec.servo_bandwidth_rad_s, lift
    )

    def cut(steps: Tensor) -> list[tuple[Tensor, ...]]:
        return [segment.unbind() for segment in steps]

    return {
        a: _Way(k, cut(targets[:, :, j]), cut(velocities[:, :, j])) for j, a in enumerate(taken)
    }


class _Hand:
    """A hand on a deformable actuator."""

    def __init__(self, scene: SimScene, obj: ObjectSpec, grasp_m: np.ndarray):
        self._grip = scene.grips[obj.name]
        self._particles = scene.particles(obj.name)
        index = patch(obj, self._particles[:, 0].cpu().numpy(), grasp_m)
        self._index = torch.as_tensor(index, device=self._particles.device)
        self._offsets: Tensor | None = None
        self._pose: Tensor | None = None

    def hold(self, held: bool, place_m: np.ndarray | None = None) -> bool:
        """Take hold, at (3,) [m, world] if that is told, go on or let go; returns `held`."""
        if place_m is not None:
            # From hand to hand: what was held is let go.
            self._offsets = None
            at = torch.as_tensor(
                place_m, dtype=self._particles.dtype, device=self._particles.device
            )
            self._index = patch_now(self._particles, at, len(self._index))
        if held and self._offsets is None:
            taken = self._grip.take(self._index).double()
            grasp = taken[0]
            self._offsets = taken - grasp
            self._pose = torch.cat([grasp, torch.zeros_like(grasp)], dim=-1)
        elif not held and self._offsets is not None:
            self._grip.let_go()
            self._offsets = None
        return held

    def way(self, goal: Tensor, n: int) -> Tensor:
        """Poses (n, B, 6) of the n steps to `goal` (B, 6), minimum jerk."""
        t = torch.arange(1, n + 1, dtype=torch.float64, device=goal.device) / n
        s = minimum_jerk(t)[:, None]
        start, self._pose = self._pose, goal
        return interpolate_pose(start, goal, s)

    @property
    def particles(self) -> np.ndarray:
        """(B,) the one that is grasped, in each environment."""
        return self._index[0].expand(self._particles.shape[1]).cpu().numpy()

    def aim(self, pose: Tensor) -> None:
        self._grip.aim(carried(self._offsets, pose))


def _aims(
    scene: SimScene, start: dict[int, Tensor], goal: Tensor, swung: dict[int, Tensor],
    patches: dict[int, Tensor], hands: dict[int, _Hand], n: int,
) -> list[dict[str, Aim]]:  # fmt: skip
    """Where each of the n steps to a keyframe is to bring what is held, without what the servos' targets
    run ahead by.

    Args:
        start: (B, 6) poses of free actuators by their index; goal: (B, A, 6).
        swung: (n, B) values of those on joints.
        patches: (n, B, 6) poses of what is grasped of deformable ones.
    """
    found: list[dict[str, Aim]] = [{} for _ in range(n)]
    t = torch.arange(1, n + 1, dtype=torch.float64, device=goal.device) / n
    for a, obj in enumerate(scene.task.actuators):
        particle = None
        if a in start:
            s = minimum_jerk(t)[:, None]
            poses = interpolate_pose(start[a], goal[:, a], s).cpu().numpy()
        elif a in swung:
            poses = pose_np(obj.articulation.poses(swung[a].cpu().numpy()))
        elif a in patches:
            poses, particle = patches[a].cpu().numpy(), hands[a].particles
        else:
            continue
        for i in range(n):
            found[i][obj.name] = Aim(pose=poses[i], particle=particle)
    return found


def _first_waypoint(goals: Tensor, held: np.ndarray, a: int) -> np.ndarray:
    return goals[0, int(np.argmax(held[:, a])), a, :3].cpu().numpy()


def gravity_lift(scene: SimScene) -> Tensor:
    """(3,) [m]: how far a servo target must lie against gravity for the body not to sag."""
    spec = scene.task.spec.simulation
    g = torch.tensor(spec.gravity_m_s2, dtype=torch.float64, device=scene.device)
    return -g / spec.servo_bandwidth_rad_s**2 if scene.collides else torch.zeros_like(g)


def measured_pose(scene: SimScene, name: str) -> Tensor:
    """(B, 6) float64 pose vectors of a body's mesh frame as it is now."""
    p, q = scene.position(name).double(), scene.quaternion(name).double()
    q = q / torch.linalg.vector_norm(q, dim=-1, keepdim=True)
    return torch.cat([p, quat_to_rotvec(q)], dim=-1)


def _let_go(scene: SimScene, name: str, pose: Tensor, lift: Tensor) -> None:
    if scene.collides:
        scene.release(name)
    else:
        stand_still(scene, name, pose, lift)


def stand_still(scene: SimScene, name: str, pose: Tensor, lift: Tensor) -> None:
    """Let a free body's servo keep it at (B, 6) from now on."""
    target = _servo_targets(pose, lift).T
    scene.servo(name, target, torch.zeros_like(target))


def _segments(
    stations: Tensor, n: int, dt_s: float, bandwidth_rad_s: float, lift: Tensor
) -> tuple[Tensor, Tensor]:
    """Servo targets and velocities (S, n, A, 6, B) float32 of n steps from each of the stations
    (B, S + 1, A, 6) to the next."""
    poses, velocities = led(stations, n, dt_s, bandwidth_rad_s)
    # A free joint turns about the body's own axes.
    back = rotvec_to_quat(-poses[..., 3:])
    own = torch.cat([velocities[..., :3], rotate(back, velocities[..., 3:])], dim=-1)
    return tuple(
        rearrange(x, "b s n a c -> s n a c b").contiguous()
        for x in (_servo_targets(poses, lift), own.float())
    )


def led(stations: Tensor, n: int, dt_s: float, bandwidth_rad_s: float) -> tuple[Tensor, Tensor]:
    """Where a servo is led, pose vectors (B, S, n, A, 6), and at which velocity, likewise [m/s, rad/s],
    in n steps from each of the stations (B, S + 1, A, 6) to the next."""
    t = (torch.arange(n, dtype=torch.float64, device=stations.device) + 1) / n
    # A servo of bandwidth w lags by acceleration / w^2, so its target runs ahead by as much.
    s = minimum_jerk(t)
    rate = 30 * t * t * (1 - t) ** 2 / (n * dt_s)
    s = s + 60 * t * (1 - t) * (1 - 2 * t) / (n * dt_s * bandwidth_rad_s) ** 2
    start, goal = stations[:, :-1, None], stations[:, 1:, None]
    turn = compose_rotvec(goal[..., 3:], -start[..., 3:])
    way = torch.cat([goal[..., :3] - start[..., :3], turn], dim=-1)
    return interpolate_pose(start, goal, s[:, None]), way * rate[:, None, None]


def _joint_segment(start: Tensor, joint: Joint, goal: Tensor, n: int) -> Tensor:
    """Values (n, B) [rad or m] of the steps from `start` (B,) to the one nearest to `goal` (B, 6),
    minimum jerk."""
    end = torch.as_tensor(joint.values(goal.cpu().numpy()), device=start.device)
    t = torch.arange(1, n + 1, dtype=torch.float64, device=start.device)[:, None] / n
    s = minimum_jerk(t)
    return start.double() + (end - start.double()) * s


def _servo_targets(pose: Tensor, lift: Tensor) -> Tensor:
    """Pose vectors (..., 6) to positions and the intrinsic xyz Euler angles of Genesis's free
    joints, (..., 6) float32."""
    euler = intrinsic_xyz(rotvec_to_quat(pose[..., 3:]))
    return torch.cat([pose[..., :3] + lift, euler], dim=-1).float().contiguous()


def intrinsic_xyz(quat_wxyz: Tensor) -> Tensor:
    """Angles (..., 3) [rad] with R = Rx(a) Ry(b) Rz(c).

    The servo turns them back into a quaternion, so flips past 90 degrees do no harm; at the pole
    the first angle is set to zero.
    """
    w, x, y, z = quat_wxyz.unbind(-1)
    r00, r01 = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z)
    r02, r12 = 2 * (x * z + w * y), 2 * (y * z - w * x)
    r22 = 1 - 2 * (x * x + y * y)
    r10, r11 = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z)
    c = torch.sqrt(r12 * r12 + r22 * r22)
    pole = c < 1e-7
    a = torch.where(pole, torch.zeros_like(c), torch.atan2(-r12, r22))
    b = torch.atan2(r02, c)
    g = torch.where(pole, torch.atan2(r10, r11), torch.atan2(-r01, r00))
    return torch.stack([a, b, g], dim=-1)
