"""Demonstrations as HDF5 in robomimic's layout: `data/demo_i` with actions, states and observations."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lucibot.core.errors import UserError
from lucibot.export.episode import FREE, Episode


def write(episodes: Iterable[Episode], path: Path) -> int:
    """Write one file; returns how many frames it has. Episodes may be of several tasks.

    Actions are not scaled: `data` has the attributes `action_low` and `action_high`, by which they are
    brought to [-1, 1], where all episodes have the same actuators. About what never changes they are
    1 away, so that it is brought to 0.

    Raises:
        UserError: h5py is missing.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(
            "an HDF5 file needs the package h5py: pip install 'lucibot[export]'"
        ) from None
    total, names, actions = 0, [], []
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as f:
        data = f.create_group("data")
        for i, e in enumerate(episodes):
            demo = data.create_group(f"demo_{i}")
            _write_one(demo, e)
            total += len(e.state)
            names.append(e.state_names)
            actions.append(e.action)
            env = {"env_name": e.task, "type": 0, "env_kwargs": {"fps": e.fps}}
            data.attrs.setdefault("env_args", json.dumps(env))
        data.attrs["total"] = total
        if len(set(names)) == 1:
            every = np.concatenate(actions)
            low, high = every.min(0), every.max(0)
            away = np.where(high > low, 0, 1).astype(every.dtype)
            data.attrs["action_low"], data.attrs["action_high"] = low - away, high + away
        demos = np.array([f"demo_{i}" for i in range(len(names))], dtype="S")
        valid = max(1, len(demos) // 10) if len(demos) > 1 else 0
        f.create_dataset("mask/train", data=demos[: len(demos) - valid])
        f.create_dataset("mask/valid", data=demos[len(demos) - valid :])
    return total


def _write_one(demo, e: Episode) -> None:
    n = len(e.state)
    demo.attrs["num_samples"] = n
    for name, value in (
        ("task", e.task), ("instruction", e.instruction), ("seed", e.seed), ("success", e.success),
        ("state_names", json.dumps(e.state_names)), ("action_names", json.dumps(e.state_names)),
        ("environment_names", json.dumps(e.environment_names)),
    ):  # fmt: skip
        demo.attrs[name] = value
    demo["actions"] = e.action
    demo["states"] = np.concatenate([e.state, e.environment], 1)
    last = np.arange(n) == n - 1
    demo["dones"] = last.astype(np.int64)
    demo["rewards"] = (last & e.success).astype(np.float32)
    seen = {
        "camera_image": e.pictures, "actuators" if e.robot == FREE else "robot": e.state, "environment": e.environment,
        **{f"particles_{name}": cloud for name, cloud in e.particles.items()},
    }  # fmt: skip
    for name, values in seen.items():
        after = np.concatenate([values[1:], values[-1:]])
        for group, array in (("obs", values), ("next_obs", after)):
            chunks = (1, *array.shape[1:]) if array.size else None
            packed = {"compression": "gzip", "chunks": chunks} if chunks else {}
            demo.create_dataset(f"{group}/{name}", data=array, **packed)
