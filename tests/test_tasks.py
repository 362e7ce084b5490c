"""Task folders: the shipped ones are sound, bad ones are refused with a clear line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from lucibot.authoring import check_task, command, list_tasks, new_task
from lucibot.core.errors import UserError
from lucibot.task import Rigid, find_task, load_task, task_names, tasks_folder

TASKS = task_names()


def test_list_names_every_task():
    rows = {r["name"]: r for r in list_tasks()}
    assert set(rows) == set(TASKS) >= {"cut_dough", "stack_cups"}
    assert rows["cut_dough"]["actuators"] == ["knife"]
    assert rows["cut_dough"]["targets"] == ["dough"]


@pytest.mark.parametrize("name", TASKS)
def test_meshes_are_closed_metric_and_heavy_where_they_should_be(name):
    task = load_task(name)
    for o in task.objects:
        mesh = task.mesh(o)
        assert mesh.is_watertight and mesh.is_winding_consistent, o.name
        assert mesh.volume > 0
        assert 0.01 < mesh.extents.max() < 0.5
        inertia = np.linalg.eigvalsh(mesh.moment_inertia)
        assert inertia.min() > 0
        # No body is so thin that its largest moment of inertia exceeds the sum of the others.
        assert inertia[2] <= inertia[0] + inertia[1] + 1e-12
        assert mesh.visual.kind == "vertex" or o.look is not None


def test_knife_balances_on_its_handle_and_is_thin_at_the_edge():
    task = load_task("cut_dough")
    knife = task.mesh(task.object("knife"))
    assert knife.center_mass[0] < -0.05
    edge = knife.vertices[(np.abs(knife.vertices[:, 0]) < 0.03) & (knife.vertices[:, 2] < 1e-4)]
    spine = knife.vertices[(np.abs(knife.vertices[:, 0]) < 0.03) & (knife.vertices[:, 2] > 0.043)]
    assert np.abs(edge[:, 1]).max() < 0.0005
    assert 0.001 < np.abs(spine[:, 1]).max() < 0.005


def test_nothing_starts_inside_something_else():
    for name in TASKS:
        task = load_task(name)
        lowest = {}
        for o in task.objects:
            T = o.T_world_object
            v = np.asarray(task.mesh(o).vertices) @ T[:3, :3].T + T[:3, 3]
            lowest[o.name] = v[:, 2].min()
            for b in task.spec.background:
                R, t = b.T_world_object[:3, :3], b.T_world_object[:3, 3]
                own = (v - t) @ R
                # A mesh is taken as the boxes of its parts; a hollow one may hold something.
                for part in task.mesh(b).split():
                    if not part.is_convex:
                        continue
                    low, high = part.bounds
                    inside = ((own > low + 1e-4) & (own < high - 1e-4)).all(1)
                    assert not inside.any(), f"{o.name} is inside {b.name}"
            if o.is_rigid and o.joint is None:
                assert -1e-4 < lowest[o.name] < 0.03, o.name


def test_cup_pieces_are_convex_and_leave_the_inside_open():
    task = load_task("stack_cups")
    cup = task.mesh(task.object("red_cup"))
    material = task.object("red_cup").material
    assert isinstance(material, Rigid) and len(material.collision) == 11
    pieces = [trimesh.load(task.path(p), force="mesh") for p in material.collision]
    for p in pieces:
        assert p.volume > 0.99 * p.convex_hull.volume
    walls = np.concatenate([p.vertices for p in pieces])
    np.testing.assert_allclose(walls[:, 2].max(), cup.bounds[1, 2], atol=1e-4)
    # Just inside the inner cone there is no piece; just inside the outer one there is.
    angle = np.linspace(0, 2 * np.pi, 41)
    for z in (0.02, 0.06, 0.10):
        outer = 0.0313 + (0.0446 - 0.0313) * z / 0.12
        for radius, expected in ((outer - 0.0026, False), (outer - 0.0003, True)):
            p = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(41, z)], -1)
            hit = np.any([_inside(piece, p) for piece in pieces], axis=0)
            assert (hit == expected).all(), (z, expected)


def _inside(convex: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    apart = np.einsum("pfk,fk->pf", points[:, None] - convex.triangles[:, 0], convex.face_normals)
    return (apart <= 1e-5).all(1)


@pytest.mark.parametrize("script", TASKS)
def test_scripts_make_the_committed_meshes(script, tmp_path):
    task = load_task(script)
    shutil.copy(task.folder / "assets" / "make.py", tmp_path / "make.py")
    subprocess.run([sys.executable, str(tmp_path / "make.py")], check=True, capture_output=True)
    made = sorted(tmp_path.glob("*.obj"))
    assert len(made) >= 2
    for path in made:
        a, b = trimesh.load(path), trimesh.load(task.folder / "assets" / path.name)
        np.testing.assert_allclose(a.vertices, b.vertices, atol=2e-6)


def test_new_task_is_valid_and_never_overwrites(tmp_path):
    made = new_task("push_box", tmp_path)
    task = load_task(made)
    assert [o.name for o in task.actuators] == ["pusher"]
    assert all(task.mesh(o).is_watertight for o in task.objects)
    with pytest.raises(UserError, match="exists already"):
        new_task("push_box", tmp_path)
    with pytest.raises(UserError, match="cannot name a task"):
        new_task("Push Box!", tmp_path)


def test_check_fails_on_what_is_wrong_and_goes_on(tmp_path, capsys):
    made = new_task("broken", tmp_path)
    mesh = trimesh.load(made / "assets" / "block.obj", force="mesh")
    mesh.update_faces(np.arange(len(mesh.faces)) > 0)
    mesh.export(made / "assets" / "block.obj")
    text = (made / "storyboard.toml").read_text()
    (made / "storyboard.toml").write_text(text.replace('holds = "pusher"', 'holds = "pushr"'))
    task = (made / "task.toml").read_text()
    (made / "task.toml").write_text(task.replace('"upright"', '"uprigth"'))
    found = {c.name: c for c in check_task(made, tmp_path)}
    assert "upright" in found["goal and success"].message and not found["goal and success"].passed
    assert found["schema"].passed and found["mesh pusher"].passed
    assert not found["mesh block"].passed and "watertight" in found["mesh block"].message
    assert not found["storyboard"].passed and "pusher" in found["storyboard"].message
    assert command(["check", str(made)]) == 2
    assert "FAIL  mesh block" in capsys.readouterr().out


def test_check_reports_a_mistyped_key_and_a_mesh_in_millimetres(tmp_path):
    made = new_task("typo", tmp_path)
    path = made / "task.toml"
    text = path.read_text()
    path.write_text(text.replace("steps_per_waypoint", "steps_per_waipoint"))
    (only,) = check_task(made, tmp_path)
    assert not only.passed and "steps_per_waypoint" in only.message
    path.write_text(
        text.replace('mesh = "assets/block.obj"', 'mesh = "assets/block.obj"\nscale = 1000')
    )
    found = {c.name: c for c in check_task(made, tmp_path)}
    assert "metres" in found["mesh block"].message


@pytest.mark.slow
@pytest.mark.parametrize("name", [*TASKS, "new"])
def test_every_check_passes_on_every_task(name, tmp_path):
    """In a process of its own, because a process can start only one Genesis."""
    task = str(new_task("fresh", tmp_path)) if name == "new" else name
    code = "import sys; from lucibot.authoring import command; sys.exit(command(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "check", task, "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.glob("*.png"))


def test_the_package_links_to_the_shipped_tasks_so_that_a_wheel_holds_them():
    import lucibot

    link = Path(lucibot.__file__).parent / "tasks"
    assert link.resolve() == tasks_folder().resolve()


def test_a_shipped_name_is_found_from_where_its_runs_lie(tmp_path, monkeypatch):
    """`runs/cut_dough` is no task, and none is asked for."""
    shipped = find_task("cut_dough")
    (tmp_path / "cut_dough" / "20260101-000000_abcd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_task("cut_dough") == shipped
    with pytest.raises(UserError, match=r"holds no task\.toml"):
        find_task("./cut_dough/20260101-000000_abcd")
    shutil.copy(shipped / "task.toml", tmp_path / "cut_dough")
    assert find_task("cut_dough") == tmp_path / "cut_dough"
