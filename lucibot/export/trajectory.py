"""What was learned, as a trajectory at the simulation's own rate: JSON, CSV, and ROS 2 messages in MCAP."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from lucibot.core.errors import UserError, resume_hint
from lucibot.export.episode import POSE, Episode, planned
from lucibot.store.run import write_json

SCHEMA = "lucibot trajectory 2"

_HEADER = """\
std_msgs/Header header
"""
_NESTED = """\
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
================================================================================
MSG: builtin_interfaces/Duration
int32 sec
uint32 nanosec
"""
MULTI_DOF = f"""\
{_HEADER}string[] joint_names
trajectory_msgs/MultiDOFJointTrajectoryPoint[] points
================================================================================
MSG: trajectory_msgs/MultiDOFJointTrajectoryPoint
geometry_msgs/Transform[] transforms
geometry_msgs/Twist[] velocities
geometry_msgs/Twist[] accelerations
builtin_interfaces/Duration time_from_start
================================================================================
MSG: geometry_msgs/Transform
geometry_msgs/Vector3 translation
geometry_msgs/Quaternion rotation
================================================================================
MSG: geometry_msgs/Twist
geometry_msgs/Vector3 linear
geometry_msgs/Vector3 angular
================================================================================
MSG: geometry_msgs/Vector3
float64 x
float64 y
float64 z
================================================================================
MSG: geometry_msgs/Quaternion
float64 x
float64 y
float64 z
float64 w
{_NESTED}"""
JOINT = f"""\
{_HEADER}string[] joint_names
trajectory_msgs/JointTrajectoryPoint[] points
================================================================================
MSG: trajectory_msgs/JointTrajectoryPoint
float64[] positions
float64[] velocities
float64[] accelerations
float64[] effort
builtin_interfaces/Duration time_from_start
{_NESTED}"""


def write(e: Episode, folder: Path) -> int:
    """Write `<task>_seed<seed>.json`, `.csv` and `.mcap` into a folder; returns how many steps there are.
    A further run of the same task and seed has its number in the name.

    The poses are the planned ones, where the actuators were to be; where one is not held, where it was. An
    arm's joints are the planned ones as well, which keep its limits.

    Raises:
        UserError: mcap-ros2-support is missing; another version let the arm do it.
    """
    if e.rollout.arm and not len(e.rollout.arm_planned):
        raise UserError(f"{e.run}: another version has let its arm do it, without its plan: "
                        f"{resume_hint(e.run, '--from robot')}")  # fmt: skip
    poses = planned(e.rollout)
    folder.mkdir(parents=True, exist_ok=True)
    name, i = f"{e.task}_seed{e.seed}", 1
    while (folder / f"{name}.json").exists():
        i += 1
        name = f"{e.task}_seed{e.seed}_{i}"
    _write_json(e, poses, folder / f"{name}.json")
    _write_csv(e, poses, folder / f"{name}.csv")
    _write_mcap(e, poses, folder / f"{name}.mcap")
    return len(poses)


def _write_json(e: Episode, poses: np.ndarray, path: Path) -> None:
    r = e.rollout
    write_json(path, {
        "schema": SCHEMA, "task": e.task, "instruction": e.instruction, "seed": e.seed,
        "success": e.success,
        "frames": "positions [m] and quaternions of the actuators' mesh frames in the world",
        "pose": list(POSE), "times_s": r.times_s.tolist(),
        "actuators": {
            n: {"poses": poses[:, a].astype(float).tolist(), "held": r.held[:, a].tolist()}
            for a, n in enumerate(r.actuators)
        },
        "joints": {n: r.joint_values[:, j].astype(float).tolist() for j, n in enumerate(r.joints)},
        **({} if not r.arm else {"arm": {
            "name": r.arm, "folder": r.arm_folder, "joints": list(r.arm_joints), "T_world_base": r.T_world_base.tolist(),
            "planned": r.arm_planned.tolist(),
            "positions": r.arm_angles.astype(float).tolist(),
            "targets": r.arm_targets.astype(float).tolist(),
            "opening_m": r.arm_opening_m.astype(float).tolist(),
        }}),
        "keyframes": {"waypoints": e.waypoints.astype(float).tolist(), "held": e.held.tolist()},
    })  # fmt: skip


def _write_csv(e: Episode, poses: np.ndarray, path: Path) -> None:
    r = e.rollout
    with open(path, "w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow([
            "time_s", *(f"{n}.{c}" for n in r.actuators for c in (*POSE, "held")),
            *(f"{n}.joint" for n in r.joints), *(f"{r.arm}.{n}" for n in r.arm_joints),
        ])  # fmt: skip
        arm = r.arm_planned if r.arm else np.zeros((len(r.times_s), 0))
        every = zip(r.times_s, poses, r.held, r.joint_values, arm, strict=True)
        for t, pose, held, joints, targets in every:
            row = [v for p, h in zip(pose, held, strict=True) for v in (*p.tolist(), int(h))]
            rows.writerow([f"{t:.6f}", *row, *joints.tolist(), *targets.tolist()])


def _write_mcap(e: Episode, poses: np.ndarray, path: Path) -> None:
    try:
        from mcap_ros2.writer import Writer
    except ImportError:
        raise UserError(
            "an MCAP file needs the package mcap-ros2-support: pip install 'lucibot[export]'"
        ) from None
    r = e.rollout
    stamp = {"sec": 0, "nanosec": 0}
    header = {"stamp": stamp, "frame_id": "world"}
    since = [_duration(t) for t in r.times_s]
    points = [
        {
            "transforms": [_transform(p) for p in pose], "velocities": [], "accelerations": [],
            "time_from_start": t,
        }
        for pose, t in zip(poses, since, strict=True)
    ]  # fmt: skip
    with open(path, "wb") as f:
        writer = Writer(f)
        schema = writer.register_msgdef("trajectory_msgs/msg/MultiDOFJointTrajectory", MULTI_DOF)
        message = {"header": header, "joint_names": list(r.actuators), "points": points}
        writer.write_message("/actuators", schema, message)
        moved = {"/joints": (r.joints, r.joint_values), "/arm": (r.arm_joints, r.arm_planned)}
        if any(names for names, _ in moved.values()):
            schema = writer.register_msgdef("trajectory_msgs/msg/JointTrajectory", JOINT)
        for topic, (names, values) in moved.items():
            if not names:
                continue
            values = values.astype(float)
            speeds = np.gradient(values, r.times_s, axis=0)
            message = {
                "header": header, "joint_names": list(names),
                "points": [
                    {"positions": v.tolist(), "velocities": s.tolist(), "accelerations": [],
                     "effort": [], "time_from_start": t}
                    for v, s, t in zip(values, speeds, since, strict=True)
                ],
            }  # fmt: skip
            writer.write_message(topic, schema, message)
        writer.finish()


def _duration(t: float) -> dict[str, int]:
    ns = round(t * 1e9)
    return {"sec": ns // 10**9, "nanosec": ns % 10**9}


def _transform(pose: np.ndarray) -> dict[str, dict[str, float]]:
    x, y, z, qw, qx, qy, qz = (float(v) for v in pose)
    return {
        "translation": {"x": x, "y": y, "z": z},
        "rotation": {"x": qx, "y": qy, "z": qz, "w": qw},
    }
