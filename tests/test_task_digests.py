"""A task's digests: each part changes with what it is read from, and with nothing else."""

from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
import trimesh

from lucibot.authoring import new_task
from lucibot.core.errors import UserError
from lucibot.task import load_task, task_names
from lucibot.task.digests import PARTS

BOX = trimesh.creation.box(extents=(0.06, 0.06, 0.06))


@pytest.fixture
def made(tmp_path):
    return new_task("push_box", tmp_path)


def changed_by(folder, change) -> set[str]:
    """The parts whose digests `change()` changes; the whole changes with any of them."""
    before = load_task(folder)
    told = {p: before.digest_of(p) for p in PARTS}
    whole = before.digest
    change()
    after = load_task(folder)
    parts = {p for p in PARTS if after.digest_of(p) != told[p]}
    assert (after.digest != whole) == bool(parts)
    return parts


def edited(folder, old: str, new: str, file: str = "task.toml"):
    def change():
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("max_deg = 10.0", "max_deg = 11.0", {"success"}),
        ("least = 0.8", "least = 0.7", {"goal"}),
        ("fps = 20", "fps = 25", {"scene"}),
        ("roughness = 0.4", "roughness = 0.5", {"scene"}),
        ("mass_kg = 0.1", "mass_kg = 0.3", {"simulation"}),
        ("solid = false", "solid = false\nfriction = 0.4", {"simulation"}),
        ("dt_s = 0.005", "dt_s = 0.004", {"simulation"}),
        ('roles = ["actuator"]', 'roles = ["actuator", "target"]', {"roles"}),
        ("[camera]", 'hands = "none"\n[camera]', {"hands"}),
        ("[camera]", "# A remark.\n[camera]", set()),
    ],
)
def test_a_value_changes_its_part_alone(made, old, new, parts):
    assert changed_by(made, edited(made, old, new)) == parts


def test_words_storyboard_and_what_nobody_reads(made):
    assert changed_by(made, edited(made, "Push", "Shove", "instruction.md")) == {"instruction"}
    assert changed_by(made, edited(made, "duration_s = ", "duration_s = 1", "storyboard.toml")) == {
        "storyboard"
    }
    assert changed_by(made, lambda: (made / "README.md").write_text("new")) == set()
    assert changed_by(made, lambda: (made / "assets" / "unused.png").write_bytes(b"x")) == set()
    assert changed_by(made, lambda: (made / "storyboard.toml").unlink()) == {"storyboard"}


def test_key_meshes_of_a_storyboard_are_hashed(tmp_path):
    folder = tmp_path / "lift_mochi"
    shutil.copytree(load_task("lift_mochi").folder, folder)
    keys = folder / "assets" / "brown_keys.npz"
    assert changed_by(folder, lambda: keys.write_bytes(keys.read_bytes() + b"\0")) == {"storyboard"}


@pytest.mark.parametrize("ending", [".jpeg", ".JPG", ".PNG", ".webp"])
def test_textures_of_any_name_are_hashed(made, ending):
    picture = made / "assets" / f"looks{ending}"
    cv2.imwrite(str(made / "assets" / "looks.png"), np.zeros((8, 8, 3), np.uint8))
    (made / "assets" / "looks.png").rename(picture)
    edited(made, "assets/table.jpg", f"assets/looks{ending}")()

    def repaint():
        picture.write_bytes(cv2.imencode(".png", np.full((8, 8, 3), 255, np.uint8))[1].tobytes())

    assert changed_by(made, repaint) == {"scene"}


def test_what_an_obj_refers_to_is_hashed_also_beside_its_own_folder(made):
    (made / "looks").mkdir()
    picture = made / "looks" / "paint.png"
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    (made / "assets" / "paint.mtl").write_text("newmtl paint\nmap_Kd ../looks/paint.png\n")
    mesh = made / "assets" / "block.obj"
    mesh.write_text("mtllib paint.mtl\nusemtl paint\n" + mesh.read_text())

    def repaint():
        cv2.imwrite(str(picture), np.full((8, 8, 3), 255, np.uint8))

    assert changed_by(made, repaint) == {"scene"}
    assert changed_by(made, edited(made, "newmtl paint", "newmtl paint\nKd 1 0 0",
                                   "assets/paint.mtl")) == {"scene"}  # fmt: skip
    # A library that comes later is read from then on.
    (made / "assets" / "paint.mtl").rename(made / "assets" / "away.mtl")
    assert changed_by(
        made, lambda: (made / "assets" / "away.mtl").rename(made / "assets" / "paint.mtl")
    ) == {"scene"}


def test_the_buffers_of_a_gltf_are_hashed(made):
    for name, data in trimesh.exchange.gltf.export_gltf(trimesh.Scene(BOX)).items():
        (made / "assets" / name).write_bytes(data)
    (made / "assets" / "model.gltf").rename(made / "assets" / "BLOCK.GLTF")
    edited(made, "assets/block.obj", "assets/BLOCK.GLTF")()
    buffer = next(iter((made / "assets").glob("*.bin")))

    def shift():
        told = bytearray(buffer.read_bytes())
        told[-1] ^= 1
        buffer.write_bytes(told)

    assert changed_by(made, shift) == {"scene"}


def test_convex_pieces_belong_to_the_simulation(tmp_path):
    folder = tmp_path / "stack_cups"
    shutil.copytree(load_task("stack_cups").folder, folder)
    piece = folder / load_task(folder).object("red_cup").material.collision[0]
    mesh = trimesh.load(piece, force="mesh")
    mesh.apply_translation([0, 0, 1e-3])
    assert changed_by(folder, lambda: mesh.export(piece)) == {"simulation"}


def test_a_mesh_that_draws_on_files_elsewhere_is_refused(made, tmp_path):
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((8, 8, 3), np.uint8))
    (made / "assets" / "paint.mtl").write_text("newmtl paint\nmap_Kd ../../secret.png\n")
    mesh = made / "assets" / "block.obj"
    mesh.write_text("mtllib paint.mtl\nusemtl paint\n" + mesh.read_text())
    with pytest.raises(UserError, match=r"block\.obj refers to .*secret\.png, which is not in"):
        load_task(made).mesh(load_task(made).object("block"))


@pytest.mark.parametrize("name", task_names())
def test_every_file_of_a_shipped_task_that_is_read_is_hashed(name, tmp_path):
    """Each mesh, picture and key mesh in the folder changes some part, but the README's picture."""
    folder = tmp_path / name
    shutil.copytree(load_task(name).folder, folder)
    text = (folder / "task.toml").read_text() + (folder / "storyboard.toml").read_text()
    for path in sorted((folder / "assets").iterdir()):
        if f"assets/{path.name}" not in text:
            continue
        end = b"\n# more\n" if path.suffix == ".obj" else b"\0"
        assert changed_by(folder, lambda p=path, e=end: p.write_bytes(p.read_bytes() + e)), path
