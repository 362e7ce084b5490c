"""A task from a photo. The photos are drawn here, by plain projection and filled polygons, through a
camera that is known; nothing of the twin's own code draws them."""

import json
import re
import sys
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from lucibot.authoring import check as task_check
from lucibot.cli import main
from lucibot.core.camera import Camera
from lucibot.core.errors import UserError
from lucibot.core.video import Video, write_video
from lucibot.objective.success.vessels import Bowl, inside_hull
from lucibot.task import load_task
from lucibot.twin import fit, lines
from lucibot.twin.fit import Placed
from lucibot.twin.folder import meshes, read_shapes, toml
from lucibot.twin.ladle import Ladle
from lucibot.twin.look import compare
from lucibot.twin.make import _wanted
from lucibot.twin.marks import read_mask
from lucibot.twin.picture import exif_lens, read_lens, read_picture
from lucibot.twin.request import Thing
from lucibot.twin.shapes import SHAPES

SIZE = (640, 480)
FOV, EYE, AIM = 46.0, (0.05, -0.55, 0.48), (0.02, 0.02, 0.0)
CUP = {"height": 0.11, "top": 0.09, "foot": 0.066, "at": (-0.10, 0.0)}
BOX = {"length": 0.13, "width": 0.07, "height": 0.06, "at": (0.13, 0.03), "yaw": 30.0}


@dataclass
class Scene:
    """A drawn photo and all that is true of it."""

    camera: Camera
    photo: np.ndarray
    empty: np.ndarray
    masks: dict
    depth_m: np.ndarray


def _polygon(camera, points):
    uv, _ = camera.project(np.asarray(points, float))
    return (16 * (uv - 0.5)).round().astype(np.int32)


def _fill(picture, polygon, colour):
    cv2.fillConvexPoly(picture, polygon, colour, cv2.LINE_AA, shift=4)


def _hull(camera, points):
    return cv2.convexHull(_polygon(camera, points))


def _ring(radius, z, at):
    a = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack([at[0] + radius * np.cos(a), at[1] + radius * np.sin(a), np.full(64, z)], -1)


def _cup_rings():
    return _ring(CUP["foot"] / 2, 0, CUP["at"]), _ring(CUP["top"] / 2, CUP["height"], CUP["at"])


def _box_corners():
    a = np.deg2rad(BOX["yaw"])
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    flat = np.array([[x, y] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) / 2
    flat = flat * [BOX["length"], BOX["width"]] @ turn.T + BOX["at"]
    return [np.column_stack([flat, np.full(4, z)]) for z in (0.0, BOX["height"])]


def draw_scene(noise=2.0) -> Scene:
    camera = Camera.look_at(
        position=EYE, target=AIM, vertical_fov_deg=FOV, width=SIZE[0], height=SIZE[1]
    )
    rng = np.random.default_rng(0)
    empty = np.full((SIZE[1], SIZE[0], 3), (52, 58, 66), np.uint8)
    table = np.array([[-0.36, -0.24, 0], [0.40, -0.24, 0], [0.40, 0.32, 0], [-0.36, 0.32, 0]])
    _fill(empty, _polygon(camera, table), (196, 188, 172))
    for x in np.arange(-0.30, 0.40, 0.08):  # Planks: they run away from the viewer.
        board = [[x, -0.24, 0], [x + 0.002, -0.24, 0], [x + 0.002, 0.32, 0], [x, 0.32, 0]]
        _fill(empty, _polygon(camera, board), (170, 160, 144))
    photo, masks = empty.copy(), {}
    foot, rim = _cup_rings()
    low, high = _box_corners()
    # A soft shadow beside each.
    shade = np.zeros(photo.shape[:2], np.uint8)
    for points in (foot, low):
        cv2.fillConvexPoly(
            shade, _hull(camera, points + np.array([0.02, 0.012, 0])), 255, cv2.LINE_AA, shift=4
        )
    shade = cv2.GaussianBlur(shade, (0, 0), 6)[..., None] / 255
    photo = (photo * (1 - 0.25 * shade)).astype(np.uint8)
    _fill(photo, _hull(camera, np.concatenate([foot, rim])), (40, 74, 168))
    _fill(photo, _polygon(camera, rim), (24, 46, 110))
    for face in ([0, 1], [1, 2], [2, 3], [3, 0]):
        side = np.concatenate([low[face], high[face][::-1]])
        outwards = np.cross(side[1] - side[0], side[3] - side[0])
        if outwards @ (np.array(EYE) - side[0]) > 0:
            _fill(photo, _polygon(camera, side), (150 - 25 * face[0], 60, 44))
    _fill(photo, _polygon(camera, high), (206, 92, 60))
    for name, points in (("cup", [foot, rim]), ("box", [low, high])):
        mask = np.zeros(photo.shape[:2], np.uint8)
        cv2.fillConvexPoly(mask, _hull(camera, np.concatenate(points)), 1, shift=4)
        masks[name] = mask > 0
    ground = camera.T_world_cam[2, 3] / -camera.rays[..., 2]
    depth = np.where((ground > 0) & (ground < 3), ground, 3.0)
    # Of the box the top face is known, of the cup its rim: what a depth camera sees best.
    for mask, height in ((masks["cup"], CUP["height"]), (masks["box"], BOX["height"])):
        top = (camera.T_world_cam[2, 3] - height) / -camera.rays[..., 2]
        depth[mask] = top[mask]
    photo = np.clip(photo + rng.normal(0, noise, photo.shape), 0, 255).astype(np.uint8)
    return Scene(camera=camera, photo=photo, empty=empty, masks=masks, depth_m=depth)


def _centre(mask):
    v, u = np.nonzero(mask)
    return f"{u.mean():.0f},{v.mean():.0f}"


def _flags(scene, folder, photo):
    return [
        "twin", str(photo), "--out", str(folder), "--shape", "cup=cup",
        "--object", f"cup={_centre(scene.masks['cup'])}",
        "--object", f"box={_centre(scene.masks['box'])}", "--shape", "box=box",
        "--goal", "inside box cup", "--move", "box", "--instruction", "Put the block into the cup.",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scene():
    return draw_scene()


@pytest.fixture(scope="module")
def made(scene, tmp_path_factory):
    folder = tmp_path_factory.mktemp("twin")
    cv2.imwrite(str(folder / "photo.png"), scene.photo[..., ::-1])
    argv = _flags(scene, folder / "cup_and_box", folder / "photo.png")
    assert main([*argv, "--length", f"box.length={BOX['length']}"]) == 0
    return folder / "cup_and_box"


def _iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_the_twin_lies_over_what_was_photographed(made, scene):
    task = load_task(made)
    overlaps, _ = compare(task)
    assert min(overlaps.values()) > 0.93
    for name, truth in scene.masks.items():
        drawn = np.zeros(truth.shape, np.uint8)
        mesh, T = task.mesh(task.object(name)), task.object(name).T_world_object
        points = np.asarray(mesh.vertices) @ T[:3, :3].T + T[:3, 3]
        camera = task.camera.resized(*SIZE)
        cv2.fillConvexPoly(drawn, _hull(camera, points), 1, shift=4)
        assert _iou(drawn > 0, truth) > 0.95, name


def test_camera_sizes_and_places_are_the_true_ones(made):
    task, shapes = load_task(made), read_shapes(made)
    assert abs(task.camera.vertical_fov_deg - FOV) < 4
    down = np.rad2deg(np.arcsin(-task.camera.T_world_cam[2, 2]))
    wanted = np.subtract(AIM, EYE)
    assert abs(down - np.rad2deg(np.arcsin(-wanted[2] / np.linalg.norm(wanted)))) < 2.5
    assert abs(task.camera.T_world_cam[2, 3] / EYE[2] - 1) < 0.08
    for k in ("height", "top", "foot"):
        assert abs(shapes["cup"][k] / CUP[k] - 1) < 0.1, k
    sides = sorted([shapes["box"]["length"], shapes["box"]["width"]])
    assert np.allclose(sides, [BOX["width"], BOX["length"]], rtol=0.08)
    assert abs(shapes["box"]["height"] / BOX["height"] - 1) < 0.12
    apart = np.subtract(task.object("box").position_m, task.object("cup").position_m)
    assert abs(np.linalg.norm(apart[:2]) - np.hypot(*np.subtract(BOX["at"], CUP["at"]))) < 0.012
    assert abs(apart[2]) < 1e-9, "both stand on the table"


def test_the_task_says_who_moves_and_what_is_asked(made):
    task = load_task(made)
    assert [o.name for o in task.actuators] == [o.name for o in task.targets] == ["box"]
    assert task.spec.goal == [{"relation": "inside", "object": "box", "container": "cup"}]
    assert {s["predicate"] for s in task.spec.success} == {"nested", "at_rest"}
    assert len(task.object("cup").material.collision) > 12, "a hull would close the cup"
    assert task.instruction == "Put the block into the cup."
    from lucibot.checks import ensure_sound

    ensure_sound(task, storyboard=False)


def test_the_plate_is_the_table_without_what_moves(made, scene):
    plate = cv2.imread(str(made / "empty.png"))[..., ::-1].astype(float)
    off = np.abs(plate - scene.empty).mean(-1)
    inside = cv2.erode(scene.masks["box"].astype(np.uint8), np.ones((5, 5))) > 0
    before = np.abs(scene.photo.astype(float) - scene.empty).mean(-1)
    assert before[inside].mean() > 60 and off[inside].mean() < 16


CAN = '[can]\nshape = "can"\nheight = 0.12\ndiameter = 0.07\nwall_m = 0.002\n'
LADLE = ('[ladle]\nshape = "ladle"\nx_m = [-0.1, -0.05, 0.0, 0.05, 0.1]\nleft_m = [0.01, 0.01, 0.02, 0.03, 0.01]\n'
         "right_m = [-0.01, -0.01, -0.02, -0.03, -0.01]\ndepth_m = 0.02\n")  # fmt: skip


def test_an_edited_number_is_looked_at_again(made, tmp_path, capsys):
    import shutil

    folder = tmp_path / "edited"
    shutil.copytree(made, folder)
    assert main(["twin", str(folder)]) == 0
    assert "IoU" in task_check._twin(load_task(folder))
    text = (folder / "twin.toml").read_text()
    head, _, rest = text.partition("[cup]\n")
    rest = re.sub(r"height = .*", f"height = {0.6 * CUP['height']}", rest, count=1)
    (folder / "twin.toml").write_text(f"{head}[cup]\n{rest}")
    assert main(["twin", str(folder)]) == 1
    assert "below 0.85" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"below 0\.85"):
        task_check._twin(load_task(folder))
    (folder / "photo.png").unlink()
    assert main(["twin", str(folder)]) == 2
    assert "photo.png is missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("edited", "words"),
    [("[mug]\nheight = 0.1", "mug: needs a shape"), ("fps = 20", "fps is no table"),
     (CAN.replace("0.12", '"0.12m"'), "can (can): height: must be a valid number"),
     (CAN.replace("height", "hight"), "unknown key at top level: 'hight'. Did you mean 'height'?"),
     (CAN.replace("height = 0.12", ""), "height is missing"), (CAN.replace('"can"', '"cann"'), "Did you mean 'can'?"),
     (CAN.replace("0.12", "nan"), "height: must be a finite number"), (f"{CAN}colour = [0.5, 0.5]", "colour"),
     (LADLE.replace("depth_m", "depht_m"), "Did you mean 'depth_m'?"),
     (LADLE.replace("-0.01, -0.01", "-0.01"), "equally many"),
     (LADLE.replace("0.0, 0.05", "0.05, 0.0"), "x_m must rise"),
     (f'{CAN}[tea]\nshape = "content"\nof = "cup"\nlevel = 0.5', "unknown vessel of tea"),
     (f'{CAN}[tea]\nshape = "content"\nof = "can"', "either level, or top_m"),
     (f'{LADLE}[tea]\nshape = "content"\nof = "ladle"\nlevel = 0.5', "has not a level"),
     ('[toy]\nshape = "mesh"\nfile = "toy.ply"\nscale = 1.0', "file toy.ply is not there")],
)  # fmt: skip
def test_an_edit_that_is_none_is_said_in_one_line(tmp_path, capsys, edited, words):
    (tmp_path / "twin.toml").write_text(edited)
    assert main(["twin", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "twin.toml: " in said and words in said and said.count("\n") == 1
    assert not (tmp_path / "assets").exists()


def test_what_is_written_right_can_be_read(tmp_path):
    content = '[tea]\nshape = "content"\nof = "can"\nlevel = 1\n'
    (tmp_path / "twin.toml").write_text(CAN + "colour = [0, 0.5, 1]\n" + content + LADLE)
    assert all(m.is_watertight for m, *_ in meshes(read_shapes(tmp_path), tmp_path).values())


@pytest.mark.parametrize("unit", ["metric", pytest.param("relative", marks=pytest.mark.slow)])
def test_a_depth_map_gives_the_scale_or_the_heights(scene, tmp_path, unit):
    """Metric depth settles what typical sizes would not: here a cup and a box half as large as any."""
    small = 0.5
    cv2.imwrite(str(tmp_path / "photo.png"), scene.photo[..., ::-1])
    argv = _flags(scene, tmp_path / "deep", tmp_path / "photo.png")
    argv += ["--fov", str(FOV)]
    if unit == "metric":
        depth = np.round(small * 1000 * scene.depth_m).astype(np.uint16)
        cv2.imwrite(str(tmp_path / "depth.png"), depth)
        argv += ["--depth", str(tmp_path / "depth.png")]
    else:
        np.save(tmp_path / "depth.npy", 7.0 / scene.depth_m - 2.0)
        copy = f'{sys.executable} -c "import shutil, sys; shutil.copy(*sys.argv[1:3])"'
        argv += ["--depth-model.command", f"{copy} {tmp_path / 'depth.npy'} {{depth}} {{photo}}"]
        argv += ["--length", f"box.length={small * BOX['length']}"]
    assert main(argv) == 0
    shapes = read_shapes(tmp_path / "deep")
    for k in ("height", "top"):
        assert abs(shapes["cup"][k] / (small * CUP[k]) - 1) < 0.08, k
    assert abs(shapes["box"]["height"] / (small * BOX["height"]) - 1) < 0.12


def test_a_drawer_hangs_in_its_front(tmp_path):
    """A drawer, a little open, in a row of fronts under a counter."""
    camera = Camera.look_at(
        position=(0.1, -0.9, 0.75),
        target=(0, 0, 0),
        vertical_fov_deg=FOV,
        width=SIZE[0],
        height=SIZE[1],
    )
    width, height, opening = 0.40, 0.15, 0.12
    picture = np.full((SIZE[1], SIZE[0], 3), 205, np.uint8)

    def quad(a, b, c, d, colour):
        _fill(picture, _polygon(camera, [a, b, c, d]), colour)

    y = opening
    for x in np.arange(-1.4, 1.41, 0.4):
        for z in (-0.6, 0.0):
            high = z + (0.59 if z < 0 else height)
            quad(
                [x - 0.195, y, z],
                [x + 0.195, y, z],
                [x + 0.195, y, high],
                [x - 0.195, y, high],
                (228, 226, 222),
            )
    # Under the counter's edge, what has come out of the tray; then the front.
    w, inner, rim = width / 2, 0.87 * width / 2, 0.8 * height
    quad(
        [-inner, 0, rim],
        [inner, 0, rim],
        [inner, opening, rim],
        [-inner, opening, rim],
        (205, 160, 110),
    )
    quad([-w, -0.02, 0], [w, -0.02, 0], [w, -0.02, height], [-w, -0.02, height], (236, 235, 233))
    quad([-w, -0.02, height], [w, -0.02, height], [w, 0, height], [-w, 0, height], (250, 250, 248))
    corners = [[-w, -0.02, 0], [w, -0.02, 0], [w, -0.02, height], [w, 0, height], [inner, 0, rim],
               [inner, opening, rim], [-inner, opening, rim], [-inner, 0, rim], [-w, 0, height],
               [-w, -0.02, height]]  # fmt: skip
    outline = camera.project(np.array(corners))[0]
    # Beyond the front's upper edge the tray goes on at the height of that edge in the picture.
    cv2.imwrite(str(tmp_path / "kitchen.png"), picture[..., ::-1])
    mark = ",".join(f"{v:.0f}" for v in outline.ravel())
    assert main(["twin", str(tmp_path / "kitchen.png"), "--out", str(tmp_path / "kitchen"),
                 "--object", f"drawer={mark}", "--shape", "drawer=drawer", "--fov", str(FOV),
                 "--length", f"drawer.width={width}", "--goal", "moved drawer 0.3"]) == 0  # fmt: skip
    found, task = read_shapes(tmp_path / "kitchen")["drawer"], load_task(tmp_path / "kitchen")
    assert abs(found["height"] / height - 1) < 0.15 and abs(found["opening"] - opening) < 0.03
    joint = task.object("drawer").joint
    assert joint.kind == "slider" and joint.lower < -0.05 and joint.upper > 0.2
    assert task.spec.success == [
        {"predicate": "joint_opening", "object": "drawer", "min_share": 0.5}
    ]


def test_edges_tell_how_the_camera_looks():
    camera = draw_scene().camera
    found = []
    for k in np.linspace(-0.3, 0.3, 5):
        found += [
            [[k, -0.2, 0], [k, 0.3, 0]],
            [[-0.3, k, 0], [0.3, k, 0]],
            [[k, 0.3, 0], [k, 0.3, 0.3]],
        ]
    uv = camera.project(np.array(found))[0].reshape(-1, 4)
    seen = lines.gaze(uv, (SIZE[1], SIZE[0]), None)
    down = np.rad2deg(np.arcsin(-camera.T_world_cam[2, 2]))
    assert abs(seen.vertical_fov_deg - FOV) < 1 and abs(seen.pitch_deg - down) < 0.5
    R = lines.rotation(seen.pitch_deg, seen.roll_deg)
    assert np.allclose(R[2], camera.T_world_cam[2, :3], atol=0.01), "which way is up"
    assert lines.gaze(uv[:2], (SIZE[1], SIZE[0]), None) is None


@pytest.mark.parametrize("principal", [(0.5, 0.65), (0.4, 0.35)])
def test_edges_of_a_cropped_photo_are_taken_about_its_optical_axis(principal):
    shape, view = (480, 640), fit.View(fov_deg=FOV, pitch_deg=40, roll_deg=0, height_m=0.5)
    found = []
    for k in np.linspace(-0.3, 0.3, 5):
        found += [[[k, 0.4, 0], [k, 0.8, 0]], [[-0.3, 0.6 + k, 0], [0.3, 0.6 + k, 0]]]
        found += [[[k, 0.8, 0], [k, 0.8, 0.2]]]
    uv = view.camera(shape, principal).project(np.array(found))[0].reshape(-1, 4)
    seen = lines.gaze(uv, shape, FOV, principal)
    assert abs(seen.pitch_deg - 40) < 0.3 and abs(seen.roll_deg) < 0.3
    sizes = {"height": 0.1, "top": 0.08, "foot": 0.06}
    cup = Placed(x_m=0, y_m=0.6, z_m=0, yaw_deg=0, sizes=sizes)
    mask = fit.silhouette(
        SHAPES["cup"].pieces(sizes), fit.transform(cup), view.camera(shape, principal)
    )
    wanted = [fit.Wanted(name="cup", shape=SHAPES["cup"], mask=mask)]
    told = fit.fit(wanted, shape, segments=uv, fov_deg=FOV, principal=principal)
    assert abs(told.view.pitch_deg - 40) < 0.5


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_closed_and_their_pieces_leave_the_inside_free(name):
    shape = SHAPES[name]
    sizes = {k: s.typical for k, s in shape.sizes.items()}
    mesh = shape.mesh(sizes, 0.004)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert abs(mesh.bounds[0][2]) < 1e-6, "it stands on z = 0"
    seen = np.concatenate(shape.pieces(sizes))
    if shape.upright:
        assert np.allclose(np.ptp(seen, axis=0), mesh.extents, rtol=0.03)
    if shape.collision is None:
        return
    inside = shape.cavity(sizes, 0.004)
    probe = np.column_stack([0.9 * inside[3:, 0], np.zeros(len(inside) - 3), inside[3:, 1] - 1e-4])
    for piece in shape.collision(sizes, 0.004):
        assert piece.is_watertight
        assert not inside_hull(piece, np.eye(4), probe, -2e-4).any()


def test_contents_lie_within_their_vessel():
    cup = {"shape": "cup", "height": 0.1, "top": 0.08, "foot": 0.06, "wall_m": 0.004}
    made = meshes({"cup": cup, "tea": {"shape": "content", "of": "cup", "level": 0.6}}, None)
    tea, inside = made["tea"][0], SHAPES["cup"].cavity(cup, 0.004)
    v = np.asarray(tea.vertices)
    assert v[:, 2].min() > 0.004 and abs(v[:, 2].max() - (0.005 + 0.6 * 0.095)) < 1e-6
    assert (np.hypot(v[:, 0], v[:, 1]) < np.interp(v[:, 2], inside[:, 1], inside[:, 0])).all()
    x = np.linspace(-0.1, 0.1, 30)
    half = 0.008 + 0.02 * np.exp(-(((x - 0.06) / 0.03) ** 2))
    spoon = Ladle(x_m=x.tolist(), left_m=half.tolist(), right_m=(-half).tolist(), depth_m=0.012)
    entry = {"shape": "ladle"} | {k: getattr(spoon, k) for k in spoon.__dataclass_fields__}
    ring = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    outline = np.column_stack([0.06 + 0.015 * np.cos(ring), 0.012 * np.sin(ring)]).tolist()
    peas = {"shape": "content", "of": "spoon", "top_m": 0.002, "outline_m": outline}
    made = meshes({"spoon": entry, "peas": peas}, None)
    v = np.asarray(made["peas"][0].vertices)
    assert (v[:, 2] > spoon.floor_m(v[:, :2]) + 5e-4).all()
    assert made["peas"][0].volume > 3e-6
    assert Bowl.of(made["spoon"][0]).capacity_m3 > 3e-6, "a spoon holds something"


def test_users_own_programs_segment_and_fill(scene, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), scene.photo[..., ::-1])
    for name, mask in scene.masks.items():
        cv2.imwrite(str(tmp_path / f"true_{name}.png"), mask.astype(np.uint8) * 255)
    script = tmp_path / "own_fill.py"
    script.write_text(
        "import sys, cv2\np = cv2.imread(sys.argv[1]); h = cv2.imread(sys.argv[2], 0)\n"
        "p[h > 0] = (1, 2, 3)\ncv2.imwrite(sys.argv[3], p)\n"
    )
    copy = tmp_path / "own_segment.py"
    copy.write_text(
        "import sys, shutil\nx = float(sys.argv[1].split(',')[0])\n"
        f"shutil.copy({str(tmp_path)!r} + ('/true_cup.png' if x < 320 else '/true_box.png'), sys.argv[2])\n"
    )
    out = tmp_path / "own"
    argv = _flags(scene, out, tmp_path / "photo.png")
    argv += ["--segmenter.command", f"{sys.executable} {copy} {{clicks}} {{mask}} {{photo}}",
             "--inpainter.command", f"{sys.executable} {script} {{photo}} {{holes}} {{filled}}"]  # fmt: skip
    assert main(argv) == 0
    kept = cv2.imread(str(out / "twin/masks/cup.png"), 0) > 127
    assert (kept == scene.masks["cup"]).all()
    empty = cv2.imread(str(out / "empty.png"))
    assert (empty[scene.masks["box"]] == (1, 2, 3)).all()


def test_lens_and_first_frame(tmp_path):
    from PIL import Image

    image = Image.new("RGB", (400, 300))
    exif = image.getexif()
    exif.get_ifd(0x8769)[0xA405] = 26
    image.save(tmp_path / "phone.jpg", exif=exif)
    assert abs(exif_lens(tmp_path / "phone.jpg").vertical_fov_deg - 53.1) < 0.3
    image.save(tmp_path / "plain.jpg")
    assert exif_lens(tmp_path / "plain.jpg") is None
    told = {"fx": 600, "fy": 600, "cx": 330, "cy": 240, "width": 640, "height": 480}
    (tmp_path / "k.json").write_text(json.dumps(told))
    lens = read_lens(tmp_path / "k.json", (960, 1280))
    assert abs(lens.vertical_fov_deg - 2 * np.rad2deg(np.arctan(0.4))) < 1e-6
    assert np.allclose(lens.principal_point, (330 / 640, 0.5))
    with pytest.raises(UserError, match="do not fit"):
        read_lens(tmp_path / "k.json", (720, 1280))
    for wrong, words in (
        (told | {"fy": 0}, "fy: expected a number from 1"), (told | {"fx": "wide"}, "fx: expected"),
        (told | {"cx": None}, "cx: expected"), (told | {"height": 0}, "height: expected"),
        (told | {"fx": 20, "fy": 20}, "field of view by fy: expected a number from 5 to 150"),
        ({"vertical_fov_deg": 400}, "vertical_fov_deg: expected a number from 5 to 150"),
        ({"vertical_fov_deg": "wide"}, "vertical_fov_deg: expected"), ({"fx": 600}, "intrinsics are"),
        ([600, 600], "intrinsics are"),
    ):  # fmt: skip
        (tmp_path / "k.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=re.escape(words)):
            read_lens(tmp_path / "k.json", (960, 1280))
    (tmp_path / "k.json").write_text(json.dumps({"vertical_fov_deg": 48}))
    assert read_lens(tmp_path / "k.json", (960, 1280)).vertical_fov_deg == 48
    frames = np.zeros((3, 64, 96, 3), np.uint8)
    frames[0], frames[1:] = (200, 40, 40), (40, 40, 200)
    write_video(tmp_path / "clip.mp4", Video(frames=frames, fps=10))
    assert read_picture(tmp_path / "clip.mp4").mean((0, 1))[0] > 150


@pytest.mark.parametrize(("rotation", "aspect"), [(90, None), (0, Fraction(4, 3))])
def test_a_videos_first_frame_is_the_picture_that_players_show(tmp_path, rotation, aspect):
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(rotation)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        stored = np.zeros((64, 96, 3), np.uint8)
        stored[:, 48:] = 240
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored)))
        container.mux(stream.encode())
    picture = read_picture(path)
    if rotation:
        assert picture.shape == (96, 64, 3) and picture[:40].min() > 200 > 40 > picture[56:].max()
    else:
        assert picture.shape == (64, 128, 3) and picture[:, 70:].min() > 200


def test_a_mask_is_read_however_white_is_written(tmp_path):
    truth = np.zeros((48, 64), bool)
    truth[10:30, 20:40] = True
    white, grey = truth.astype(np.uint8) * 255, np.full((48, 64), 90, np.uint8)
    files = {
        "grey": white, "ones": truth.astype(np.uint8), "deep": truth.astype(np.uint16) * 65535,
        "opaque": np.dstack([white, white, white, np.full_like(white, 255)]),
        "cut_out": np.dstack([grey, grey, grey, white]),
    }  # fmt: skip
    for name, values in files.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), values)
        assert (read_mask(tmp_path / f"{name}.png", truth.shape) == truth).all(), name
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros_like(grey))
    with pytest.raises(UserError, match="black all over"):
        read_mask(tmp_path / "black.png", truth.shape)


def test_what_stands_on_something_stands_on_its_fitted_top():
    view = fit.View(fov_deg=FOV, pitch_deg=35, roll_deg=0, height_m=0.45)
    box, cup = {"length": 0.22, "width": 0.16}, {"height": 0.1, "top": 0.08, "foot": 0.06}
    pile = {
        "low": Placed(x_m=0, y_m=0.6, z_m=0, yaw_deg=10, sizes={**box, "height": 0.14}),
        "mid": Placed(x_m=0.01, y_m=0.6, z_m=0.14, yaw_deg=10, sizes={**box, "height": 0.04}),
        "cup": Placed(x_m=0.01, y_m=0.6, z_m=0.18, yaw_deg=0, sizes=cup),
    }
    masks, below = {}, None
    things = []
    for name, p in pile.items():
        shape = "cup" if name == "cup" else "box"
        camera = view.camera((SIZE[1], SIZE[0]))
        drawn = fit.silhouette(SHAPES[shape].pieces(p.sizes), fit.transform(p), camera)
        for lower in masks.values():
            lower &= ~drawn
        masks[name] = drawn
        told = box if shape == "box" else {}
        things.insert(0, Thing(name=name, shape=shape, told=told, on=below))
        below = name
    wanted = _wanted(things, masks, dict.fromkeys(masks), None)
    segments = np.zeros((0, 4))
    found = fit.fit(wanted, (SIZE[1], SIZE[0]), segments=segments, fov_deg=FOV, view=view).placed
    assert found["mid"].z_m == pytest.approx(found["low"].sizes["height"])
    assert found["cup"].z_m == pytest.approx(found["mid"].z_m + found["mid"].sizes["height"])
    for name in ("mid", "cup"):
        assert found[name].z_m == pytest.approx(pile[name].z_m, abs=0.01)


BLOCK = {"length": 0.22, "width": 0.16, "height": 0.14}


@pytest.mark.parametrize("yaw_deg", [10, 30])
def test_a_high_box_is_not_taken_for_a_long_one(yaw_deg):
    """Laid on the table, its outline is longest away from the viewer."""
    view, sizes = fit.View(fov_deg=48, pitch_deg=35, roll_deg=0, height_m=0.45), BLOCK
    shape, place = (480, 640), Placed(x_m=0, y_m=0.6, z_m=0, yaw_deg=yaw_deg, sizes=sizes)
    pieces = SHAPES["box"].pieces(sizes)
    mask = fit.silhouette(pieces, fit.transform(place), view.camera(shape))
    told = {k: sizes[k] for k in ("length", "width")}
    wanted = [fit.Wanted(name="box", shape=SHAPES["box"], mask=mask, told=told)]
    found = fit.fit(wanted, shape, segments=np.zeros((0, 4)), fov_deg=48)
    assert abs(found.view.pitch_deg - 35) < 2 and abs(found.view.height_m - 0.45) < 0.02
    assert abs(found.placed["box"].sizes["height"] - 0.14) < 0.005


def test_silhouettes_are_whole_pixels_of_what_is_inside():
    camera = draw_scene().camera
    sizes = {k: CUP[k] for k in ("height", "top", "foot")}
    T = np.eye(4)
    T[:2, 3] = CUP["at"]
    drawn = fit.silhouette(SHAPES["cup"].pieces(sizes), T, camera)
    assert _iou(drawn, draw_scene().masks["cup"]) > 0.97


WRONG = [
    (["--object", "cup"], "expected NAME=VALUE"),
    (["--object", "cup=1,2,3"], "expected x,y for a click"),
    (["--object", "cup=9000,20"], "lies outside of the photo"),
    (["--object", "Cup=9,20"], "small letters"),
    (["--object", "cup=100,100", "--shape", "cup=bowll"], "Did you mean 'bowl'"),
    (["--object", "cup=100,100", "--length", "cup.hight=0.1", "--shape", "cup=cup"], "Did you mean 'height'"),
    (["--object", "cup=100,100", "--length", "cup=abc"], "expected a number"),
    (["--object", "cup=100,100", "--material", "cup=steel"], "unknown material"),
    (["--object", "cup=100,100", "--goal", "inside cup"], "expected `inside OBJECT CONTAINER`"),
    (["--object", "cup=100,100", "--goal", "inside cup jar"], "unknown object"),
    (["--object", "cup=100,100", "--move", "jar"], "unknown object"),
    (["--object", "cup=100,100", "--on", "cup=cup"], "nothing rests on itself: cup on cup"),
    (["--object", "a=9,9", "--object", "b=9,9", "--on", "a=b", "--on", "b=a"], "a on b on a"),
    (["--object", "a=9,9", "--fill", "tea=a"], "a is a box, which has not an inside"),
    (["--object", "a=9,9", "--shape", "a=ladle", "--fill", "tea=a"], "a is a ladle, which has not a level"),
    (["--object", "a=9,9", "--shape", "a=cup", "--fill", "tea=a", "--fill", "foam=tea"], "tea is a content"),
    (["--object", "a=9,9", "--fill", "a=a"], "nothing rests on itself"),
    (["--mask", "cup=no.png"], "no picture that can be read"),
    (["--object", "cup=600,20"], "nothing stands out there"),
    ([], "name at least one thing"),
    (["--object", "cup=100,100", "--depth", "photo.png"], "no depth map"),
    (["--object", "cup=100,100", "--fov", "nan"], "--fov: expected a number"),
    (["--object", "cup=100,100", "--segmenter.command", "x"], "needs the place holder {photo}"),
    (["--object", "cup=100,100", "--segmenter.command", "x {photo} {mask} {size}"], "no place holder {size}"),
    (["--object", "cup=100,100", "--shape", "cup=model"], "needs --modeller.command"),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "said"), WRONG)
def test_a_wrong_flag_is_one_line(scene, tmp_path, monkeypatch, capsys, flags, said):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("photo.png", np.full((120, 640, 3), 180, np.uint8))
    assert main(["twin", "photo.png", "--out", "made", *flags]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "made").exists() and not list(tmp_path.glob(".made*"))


def test_toml_of_a_task_reads_back():
    import tomllib

    values = {"title": 'a "b"\\', "camera": {"fov": 1e-7, "at": [0.0, -1.5, 2]},
              "objects": [{"name": "x", "material": {"kind": "rigid", "on": True}}, {"name": "y"}],
              "goal": []}  # fmt: skip
    assert tomllib.loads(toml(values)) == values
