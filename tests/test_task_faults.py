"""Broken task folders: each gives one clear line that names the file and what to do, exit status 2,
and no traceback, from `tasks check` and from `run` alike, before any work is done."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from lucibot.authoring import new_task
from lucibot.checks import checks, ensure_sound
from lucibot.checks.overlaps import winding_numbers
from lucibot.cli import main
from lucibot.core.errors import UserError
from lucibot.task import load_task, task_names

TEMPLATE: dict[str, bytes] = {}


@pytest.fixture
def made(tmp_path, tmp_path_factory) -> Path:
    """A new task's folder, fresh for each test."""
    if not TEMPLATE:
        whole = new_task("push_box", tmp_path_factory.mktemp("template"))
        for p in whole.rglob("*"):
            if p.is_file():
                TEMPLATE[p.relative_to(whole).as_posix()] = p.read_bytes()
    folder = tmp_path / "push_box"
    for name, data in TEMPLATE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def edit(old: str, new: str, file: str = "task.toml") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text, old
        (folder / file).write_text(text.replace(old, new, 1))

    return change


def story(old: str, new: str) -> Callable[[Path], None]:
    return edit(old, new, "storyboard.toml")


def scaled(factor: float, mesh: str = "block") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "assets" / f"{mesh}.obj"
        thing = trimesh.load(path, force="mesh")
        thing.apply_scale(factor)
        thing.export(path, digits=6)

    return change


def put(file: str, data: bytes | str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_bytes(data.encode() if isinstance(data, str) else data)

    return change


def both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for c in changes:
            c(folder)

    return change


def outside(folder: Path) -> None:
    cv2.imwrite(str(folder.parent / "secret.png"), np.zeros((8, 8, 3), np.uint8))


def linked(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        outside(folder)
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(folder.parent / "secret.png")

    return change


def holed(folder: Path) -> None:
    path = folder / "assets" / "block.obj"
    mesh = trimesh.load(path, force="mesh")
    mesh.update_faces(np.arange(len(mesh.faces)) > 0)
    mesh.export(path)


TABLE = "size_m = [2.4, 1.6, 0.04]"
FIRST_NUMBERS = {
    "fps = 20": "fps", "width = 640": "width", "vertical_fov_deg = 48.0": "vertical_fov_deg",
    "dt_s = 0.005": "dt_s", "substeps = 2": "substeps", "settle_steps = 60": "settle_steps",
    "steps_per_waypoint = 100": "steps_per_waypoint", "mass_kg = 0.1": "mass_kg",
    "texture_scale = 0.5": "texture_scale", "roughness = 0.4": "roughness", TABLE: "size_m",
    "position_m = [-0.05, -0.42, 0.35]": "position_m", "least = 0.8": "least",
    "max_m = 0.03": "max_m", "max_deg = 10.0": "max_deg", "max_speed_m_s = 0.02": "max_speed_m_s",
}  # fmt: skip


def numbers() -> list:
    """Every kind of number that no schema takes, in every kind of place."""
    cases = []
    for line, field in FIRST_NUMBERS.items():
        for wrong in ("nan", "inf", "-inf", "-1.0", '"two"', "true", "1e300", "[]"):
            if wrong == "-1.0" and field == "position_m":
                continue
            name, _, value = line.partition(" = ")
            told = re.sub(r"-?[\d.]+", wrong, value, count=1)
            cases.append(pytest.param(edit(line, f"{name} = {told}"), field, id=f"{field}={wrong}"))
    return cases


MPM = "[simulation.mpm]\ngrid_density = {}\nlower_m = [-0.15, -0.10, 0.0]\nupper_m = [0.15, 0.10, 0.15]\n"
SOFT = 'material = { kind = "elastic" }'
RIGID = 'material = { kind = "rigid", mass_kg = 0.1 }'


def soft(folder: Path) -> None:
    """The block of particles."""
    text = (folder / "task.toml").read_text()
    at = text.rindex(RIGID)
    text = text[:at] + SOFT + text[at + len(RIGID) :]
    text = text.replace("[[background]]", MPM.format(64) + "\n[[background]]", 1)
    (folder / "task.toml").write_text(text[: text.index("[[success]]")] + (
        '[[success]]\npredicate = "at"\nobject = "block"\nposition_m = [0, 0, 0]\nmax_m = 0.1\n'
    ))  # fmt: skip


SCHEMA = [
    # Files.
    (put("task.toml", b"\xff\xfe" + "title = 'x'".encode("utf-16-le")), "task.toml.*UTF-8"),
    (put("task.toml", bytes(range(256))), "task.toml.*UTF-8"),
    (put("task.toml", b"title = \x00"), r"task.toml: .*line 1"),
    (put("task.toml", "a = " + "[" * 5000), "task.toml.*deeply"),
    (put("task.toml", "a = " + "9" * 5000), "task.toml: .*digits"),
    (put("task.toml", ""), "task.toml: .* is missing"),
    (put("instruction.md", "caf\xe9".encode("latin-1")), "instruction.md.*UTF-8"),
    (put("instruction.md", " \n"), "instruction.md is empty"),
    (lambda f: (f / "instruction.md").unlink(), "no instruction.md"),
    (linked("instruction.md"), "instruction.md is not in the task folder"),
    # Names and words.
    *[(edit('name = "block"', f'name = "{name}"'), "objects.1.name")
      for name in ("a/b", "[/b]", "<script>", "..", "", "Block", "two words", "x" * 80, "9")],
    (edit('name = "wall"', 'name = "block"'), "occurs twice"),
    (edit('name = "wall"', 'name = "world"'), "meaning of its own"),
    (edit('title = "Push box"', 'title = " "'), "title"),
    # Paths.
    *[(edit("assets/table.jpg", path), "background.0.look.texture")
      for path in ("../secret.png", "/etc/hostname", "assets/../../x", "~/x.png", "a\\u0000b")],
    (edit("assets/block.obj", "../block.obj"), "objects.1.mesh"),
    # Keys.
    (edit("substeps", "substep"), "Did you mean 'substeps'"),
    (edit("[camera]", "[camera]\nlens = 3"), "unknown key at camera: 'lens'"),
    (edit('look = { color = [0.05, 0.15, 0.6] }', "look = { colour = [0, 0, 0] }"), "'color'"),
    (edit("color = [0.05, 0.15, 0.6]", "color = [0.05, 0.15, 6]"), "color.2.*between 0 and 1"),
    (edit("color = [0.05, 0.15, 0.6]", "color = [0.05, 0.15]"), "look.color.2 is missing"),
    # Camera.
    (edit("width = 640", "width = 641"), "width: must be a multiple of 2"),
    (edit("height = 480", "height = 1000000"), "height"),
    (edit("look_at_m = [0.0, 0.0, 0.0]", "look_at_m = [-0.05, -0.42, 0.35]"), "another point"),
    (edit("look_at_m = [0.0, 0.0, 0.0]", "look_at_m = [-0.05, -0.42, 0.0]"), "line of sight"),
    (edit("[simulation]", "[light]\ndirection = [0, 0, 0]\n[simulation]"), "light.direction"),
    # Simulation and materials.
    (edit("[[background]]", MPM.format(20000) + "[[background]]"), "cells of this domain"),
    (edit("[[background]]", MPM.format(64).replace("0.15]", "-0.15]") + "[[background]]"),
     "upper_m must be above lower_m"),
    (edit(RIGID, SOFT), r"needs \[simulation.mpm\]"),
    (edit(RIGID, 'material = { kind = "wood" }'), "material"),
    (edit(RIGID, 'material = { kind = "rigid", friction = 0.0 }'), "friction"),
    (edit("solid = false", 'solid = "no"'), "solid: must be a valid boolean"),
    # Roles.
    (edit('roles = ["actuator"]', "roles = []"), "no object has the role 'actuator'"),
    (edit('roles = ["target"]', "roles = []"), "no object has the role 'target'"),
    (edit('roles = ["target"]', 'roles = ["targett"]'), "roles.0"),
    (edit('roles = ["target"]', 'roles = "target"'), "roles"),
]  # fmt: skip

SOUND = [
    # Goal and success.
    (edit('relation = "moved"', 'relation = "movd"'), "Did you mean 'moved'"),
    (edit("least = 0.8", "lest = 0.8"), "Did you mean 'least'"),
    (edit("least = 0.8", 'least = "much"'), "least: must be a valid number, got 'much'"),
    (edit('"moved"\nobject = "block"', '"moved"\nobject = "blok"'), "Did you mean 'block'"),
    (edit('relation = "moved"', "relation = 3"), "relation"),
    (edit('predicate = "upright"', 'predicate = "uprigth"'), "Did you mean 'upright'"),
    (edit("max_deg = 10.0", "max_dg = 10.0"), "Did you mean 'max_deg'"),
    (edit('predicate = "upright"', 'predicate = "pieces"\ncount = "two"'), "'max_deg'|count"),
    (edit('predicate = "upright"\nobject = "block"\nmax_deg = 10.0',
          'predicate = "pieces"\nobject = "block"\ncount = 2'), "not made of particles"),
    (edit('predicate = "upright"\nobject = "block"\nmax_deg = 10.0',
          'predicate = "joint_angle"\nobject = "block"\nmin_deg = 2'), "not on a hinge"),
    (lambda f: edit((f / "task.toml").read_text().partition("[[success]]")[2], "")(f), "success"),
    # Meshes.
    (put("assets/block.obj", b"\x00\x01\xff" * 100), "block.obj"),
    (put("assets/block.obj", ""), "block.obj"),
    (put("assets/block.obj", "v 0 0 0\nf 1 2 3\n"), "block.obj"),
    (put("assets/block.obj", "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"), "block.obj"),
    (lambda f: (f / "assets/block.obj").unlink(), "block.obj is missing"),
    (both(put("assets/block.stl", "solid"), edit("block.obj", "block.stl")), "block.stl"),
    (both(put("assets/block.glb", "glTF"), edit("block.obj", "block.glb")), "block.glb"),
    (both(put("assets/block.step", "x"), edit("block.obj", "block.step")), "ending of a mesh"),
    (both(put("assets/block", "x"), edit("block.obj", "block")), "ending of a mesh"),
    (linked("assets/block.obj"), "block.obj is not in the task folder"),
    (holed, "not watertight"),
    (scaled(1000), "in metres"),
    (scaled(0.001), "in metres"),
    (scaled(10), "scale"),
    (scaled(10, "pusher"), "scale"),
    (scaled(0.1), "too little to follow|scale"),
    (edit('mesh = "assets/block.obj"', 'mesh = "assets/block.obj"\nscale = 1000'), "in metres"),
    (edit(RIGID, 'material = { kind = "rigid", collision = ["assets/none.obj"] }'),
     "none.obj is missing"),
    (both(edit(TABLE, 'mesh = "assets/table.obj"'), put("assets/table.obj", "v")), "table.obj"),
    # Pictures.
    (put("assets/table.jpg", "no picture"), "table.jpg is no picture"),
    (put("assets/table.jpg", b"GIF89a" + bytes(40)), "table.jpg is no picture"),
    (lambda f: (f / "assets/table.jpg").unlink(), "table.jpg is missing"),
    (linked("assets/table.jpg"), "table.jpg is not in the task folder"),
    # Places.
    (edit("position_m = [-0.03, 0.0, 0.0]", "position_m = [-0.10, 0.0, 0.0]"), "deep in each other"),
    (edit("position_m = [-0.03, 0.0, 0.0]", "position_m = [-0.03, 0.0, -0.02]"), "'table'.*deep"),
    (edit("position_m = [-0.03, 0.0, 0.0]", "position_m = [3.0, 0.0, 0.0]"), "outside"),
    (both(soft, edit("position_m = [-0.03, 0.0, 0.0]", "position_m = [0.14, 0.0, 0.0]")),
     "beyond the particles' domain"),
    (both(soft, edit(SOFT, SOFT.replace(" }", ", particle_size_m = 0.0002 }"))), "particles of"),
    # The storyboard.
    (put("storyboard.toml", bytes(range(256))), "storyboard.toml.*UTF-8"),
    (put("storyboard.toml", "duration_s = "), "storyboard.toml"),
    (linked("storyboard.toml"), "storyboard.toml is not in the task folder"),
    (story("duration_s = 4.2", "duration_s = nan"), "duration_s"),
    (story("duration_s = 4.2", "duration_s = 1e9"), "duration_s"),
    (story("duration_s = 4.2", "duration_s = 3.0"), "comes after duration_s"),
    (story("duration_s = 4.2", "duration_s = 4.2\nfps = 3"), "unknown key at top level: 'fps'"),
    (story("at_s = 1.0 ", "at_s = 2.4 "), "one after the other"),
    (story("at_s = 1.0 ", "at_s = 3.0 "), "one after the other"),
    (story("at_s = 1.0 ", "at_s = -1.0 "), "at_s"),
    (story('group = "push"', 'group = "pussh"'), "Did you mean 'push'"),
    (story('group = "push"', "group = 3"), "group"),
    (story("[jitter.push]", "[jitter.pusch]"), "Did you mean 'pusch'"),
    (story("position_m = [0.005, 0.003, 0.0]", "positon_m = [0, 0, 0]"), "Did you mean 'position_m'"),
    (story("position_m = [0.005, 0.003, 0.0]", "position_m = [-0.005, 0.0, 0.0]"), "jitter.push"),
    (story('[miss]\nobject = "block"', '[miss]\nobject = "blok"'), "Did you mean 'block'|miss"),
    (story('[miss]\nobject = "block"\ngroup = "push"', '[miss]\nobject = "block"'), "missed"),
    (story('object = "pusher"', 'object = "block"'), "more than one"),
    (story('holds = "pusher"', 'holds = "pushr"'), "Did you mean 'pusher'"),
    (story("grasp_s = 0.95", "grasp_s = 0.1"), "one after the other"),
    (story("grip_x = [0.0, 1.0, 0.0]", "grip_x = [-0.3, 0.0, 0.95]"), "along one line"),
    (story("grip_radius_m = 0.02", "grip_radius_m = 0"), "grip_radius_m"),
    (story("key = [\n    { at_s = 0.0 },\n    { at_s = 1.6 },", "key = []\nkeys = ["),
     "unknown key|Invalid"),
    (both(story("[[hand]]", "[[track]]\nobject = \"block\"\nkey = []\n[[hand]]")), "track.2.key"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """What is accepted by mistake is not run, and what is written by mistake does no harm."""
    monkeypatch.chdir(tmp_path)

    def accepted(*_, **__):
        raise AssertionError("a run was started")

    monkeypatch.setattr("lucibot.commands.run_stages", accepted)
    monkeypatch.setattr("lucibot.authoring.check._simulation", accepted)


def refused(folder: Path, message: str, capsys) -> None:
    """`run` ends with status 2 and one line, before it makes anything, and so does `tasks check`."""
    assert main(["run", str(folder), "--out", str(folder.parent / "runs")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lucibot: ") and said.count("\n") == 1, said
    assert re.search(message, said) and "push_box" in said, said
    assert not (folder.parent / "runs").exists()
    assert main(["tasks", "check", str(folder)]) == 2
    failed = [x for x in capsys.readouterr().out.splitlines() if x.startswith("FAIL")]
    assert any(re.search(message, line) for line in failed), failed


@pytest.mark.parametrize(("change", "message"), [*SCHEMA, *SOUND])
def test_a_broken_folder_is_refused_by_run_and_check_alike(made, change, message, capsys):
    change(made)
    refused(made, message, capsys)


@pytest.mark.parametrize(("change", "field"), numbers())
def test_a_number_that_is_none_or_out_of_bounds(made, change, field):
    change(made)
    with pytest.raises(UserError, match=field) as e:
        ensure_sound(load_task(made), storyboard=False)
    assert "task.toml" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("name", task_names())
def test_the_shipped_tasks_are_sound(name):
    failed = [c for c in checks(load_task(name)) if not c.passed]
    assert not failed


def test_a_new_task_is_sound_and_a_byte_order_mark_does_no_harm(made):
    ensure_sound(load_task(made), storyboard=True)
    for name in ("task.toml", "instruction.md", "storyboard.toml"):
        (made / name).write_bytes(b"\xef\xbb\xbf" + (made / name).read_bytes())
    ensure_sound(load_task(made), storyboard=True)
    assert load_task(made).instruction.startswith("Push")


def test_a_broken_storyboard_is_no_matter_where_a_video_is_given(made):
    (made / "storyboard.toml").write_text("nothing")
    ensure_sound(load_task(made), storyboard=False)
    (made / "storyboard.toml").unlink()
    with pytest.raises(UserError, match="--video"):
        ensure_sound(load_task(made), storyboard=True)


def test_keys_a_tenth_of_a_second_apart_keep_their_times(made):
    """Moments that are near each other are stretched alike, and stay different moments."""
    text = (made / "storyboard.toml").read_text()
    keys = ", ".join(f"{{ at_s = {0.09 * i:.2f} }}" for i in range(46))
    at = text.index("key = [")
    (made / "storyboard.toml").write_text(
        text[:at] + f"key = [{keys}, {{ at_s = 4.2, group = 'push' }}]\n" + text[text.index("]\n\n", at) + 2 :]
    )  # fmt: skip
    ensure_sound(load_task(made), storyboard=True)


def test_what_is_in_a_box_is_found_and_what_is_in_a_shell_is_not():
    box = trimesh.creation.box(extents=(1, 1, 1))
    points = np.array([[0, 0, 0], [0.49, 0.49, 0.49], [0.51, 0, 0], [0, 0, 3.0]])
    np.testing.assert_allclose(winding_numbers(points, box.triangles), [1, 1, 0, 0], atol=1e-9)
    hollow = trimesh.creation.annulus(r_min=0.4, r_max=0.5, height=1.0)
    np.testing.assert_allclose(
        winding_numbers(np.array([[0.0, 0, 0], [0.45, 0, 0]]), hollow.triangles), [0, 1], atol=1e-6
    )
