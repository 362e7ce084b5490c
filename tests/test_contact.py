"""One distance and one measure tell what touches, in videos and in rollouts."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from lucibot.core.camera import Camera
from lucibot.perception.events import _contact
from lucibot.sim.contact import Contacts
from lucibot.task import Task, load_task
from lucibot.vision.draw import DrawMesh, draw_depth

TASK = """
title = "Two blocks and a lump"
{contact}

[camera]
width = 320
height = 240
position_m = [0.0, -0.5, 0.25]
look_at_m = [0.0, 0.0, 0.05]

[simulation.mpm]
lower_m = [-0.2, -0.2, 0.0]
upper_m = [0.2, 0.2, 0.2]

[[background]]
name = "table"
size_m = [1.2, 0.8, 0.04]
position_m = [0.0, 0.0, -0.02]

[[objects]]
name = "tool"
roles = ["actuator"]
mesh = "block.obj"
position_m = [-0.1, 0.0, 0.05]
material = {{ kind = "rigid" }}

[[objects]]
name = "block"
roles = ["target"]
mesh = "block.obj"
position_m = [0.0, 0.0, 0.05]
material = {{ kind = "rigid" }}

[[objects]]
name = "lump"
roles = ["target"]
mesh = "block.obj"
position_m = [0.12, 0.0, 0.05]
material = {{ kind = "elastoplastic", particle_size_m = {size} }}
"""
SIDE_M = 0.05


def made(folder, contact="", size=0.005) -> Task:
    folder.mkdir(parents=True)
    trimesh.creation.box(extents=(SIDE_M,) * 3).export(folder / "block.obj")
    (folder / "task.toml").write_text(TASK.format(contact=contact, size=size))
    (folder / "instruction.md").write_text("Push.\n")
    return load_task(str(folder))


def in_rollouts(task: Task, gaps_m, other: str) -> list[bool]:
    """Whether the tool touches another thing from which these gaps part it."""
    P, size = len(gaps_m), task.object("lump").material.particle_size_m
    place = torch.tensor([[-(SIDE_M + g), 0.0, 0.05] for g in gaps_m])
    origin = torch.tensor([[0.0, 0.0, 0.05]]).repeat(P, 1)
    at = torch.arange(size / 2, SIDE_M, size) - SIDE_M / 2
    lump = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).reshape(-1, 1, 3)
    scene = SimpleNamespace(
        task=task, device=torch.device("cpu"), collides=False, particle_sizes_m={"lump": size}
    )
    moment = SimpleNamespace(
        position={"tool": place, "block": origin}, error=torch.zeros(P, dtype=torch.bool),
        quaternion=dict.fromkeys(("tool", "block"), torch.tensor([[1.0, 0, 0, 0]]).repeat(P, 1)),
        particles={"lump": (lump + origin[0]).repeat(1, P, 1)},
    )  # fmt: skip
    return Contacts(scene, (("tool", other),)).touching(moment)[:, 0].tolist()


def in_a_video(task: Task, gaps_m, other: str) -> list[bool]:
    """The same, from poses and from what is seen of the lump; each gap lasts some frames."""
    camera = Camera.look_at(
        position=(0, -0.5, 0.25), target=(0, 0, 0.05), vertical_fov_deg=40, width=320, height=240
    )
    corners = trimesh.creation.box(extents=(SIDE_M,) * 3)
    corners.apply_translation((0, 0, 0.05))
    drawn = DrawMesh(
        vertices_m=np.asarray(corners.vertices), faces=np.asarray(corners.faces, np.int32),
        anchor_m=np.zeros(3),
    )  # fmt: skip
    depth = draw_depth(drawn, np.eye(4)[None], camera)[0]
    held, T = 6, 6 * len(gaps_m)
    masks = np.zeros((T, 3, 240, 320), bool)
    masks[:, 2] = np.isfinite(depth)
    poses = np.zeros((T, 3, 6))
    poses[:, :, 2] = 0.05
    poses[:, 0, 0] = np.repeat([-(SIDE_M + g) for g in gaps_m], held)
    found = _contact(
        task, _Frames(camera, T), camera, masks, poses, SimpleNamespace(masks=masks), (("tool", other),),
        lambda frames: [depth] * len(frames), 2,
    )  # fmt: skip
    return found[held // 2 :: held, 0].tolist()


class _Frames:
    """A grid of which only the camera, the number of frames and the hands, none, are asked."""

    def __init__(self, camera: Camera, frames: int):
        self.camera, self._frames = camera, frames
        self.hand = np.zeros((frames, camera.height, camera.width), bool)

    def __len__(self) -> int:
        return self._frames


@pytest.mark.parametrize("other", ["block", "lump"])
@pytest.mark.parametrize("told", [None, 0.015, 0.08])
@pytest.mark.parametrize("size", [0.005, 0.010])
def test_a_gap_touches_in_both_or_in_neither(other, told, size, tmp_path):
    contact = "" if told is None else f"contact_m = {told}"
    task = made(tmp_path / f"{other}_{size}", contact, size)
    limit = told or 0.008
    gaps = [0.0005, 0.7 * limit, 1.3 * limit, 2.5 * limit]
    assert in_rollouts(task, gaps, other) == [True, True, False, False]
    # From afar: what touches at first is only parted when the picture shows it.
    assert in_a_video(task, gaps[::-1], other) == [False, False, True, True]
