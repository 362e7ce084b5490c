"""The process in which Mitsuba lives: `mitsuba_worker.py probe VARIANT | draw VARIANT FOLDER`.

Run as a file; it imports nothing of LuciBot. `draw` reads scene.json and the arrays that it names
from FOLDER, and writes buffers.npz there.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np

LIGHT_DISTANCE_M = 6.0
NEAR_M = 0.01


def probe(mi) -> None:
    """A few pixels, drawn and read, show that the back end compiles and runs."""
    sensor = {"type": "perspective", "film": {"type": "hdrfilm", "width": 8, "height": 8}}
    scene = mi.load_dict({
        "type": "scene", "integrator": {"type": "path"}, "sensor": sensor,
        "light": {"type": "constant"},
    })  # fmt: skip
    image = np.array(mi.render(scene, spp=1))
    if not np.isfinite(image).all() or image.max() <= 0:
        raise SystemExit("the probe's picture is black or not finite")
    print("ok")


def draw(mi, folder: Path) -> None:
    spec = json.loads((folder / "scene.json").read_text())
    scene_dict = {"type": "scene", **lights(mi, spec["light"])}
    for i, shape in enumerate(spec["shapes"]):
        scene_dict[f"shape_{i:03d}"] = load_shape(mi, folder, i, shape)
    # One after another: in parallel, shapes are not counted in one order every time.
    scene = mi.load_dict(scene_dict, parallel=False)

    smooth = sensor(mi, spec["camera"], {"type": "independent", "sample_count": spec["spp"]})
    # Apart, for a path tracer inside of "aov" is run twice.
    beauty = mi.load_dict({"type": "path", "max_depth": spec["max_depth"]})
    first_hit = mi.load_dict({"type": "aov", "aovs": "alb:albedo,nn:sh_normal,dd:depth"})
    image, guides = (
        np.array(mi.render(scene, sensor=smooth, integrator=i, spp=spec["spp"], seed=spec["seed"]))
        for i in (beauty, first_hit)
    )
    # One ray a pixel through its centre: what is seen there, exactly.
    exact = mi.load_dict({"type": "aov", "aovs": "dd:depth,ii:shape_index"})
    centred = sensor(mi, spec["camera"], {"type": "stratified", "sample_count": 1, "jitter": False})
    at_centres = np.array(mi.render(scene, sensor=centred, integrator=exact, spp=1))
    length, index = at_centres[..., -2], np.round(at_centres[..., -1]).astype(int)

    # Mitsuba counts shapes from 1; 0 is a ray that meets nothing.
    label_of = np.zeros(len(scene.shapes()) + 1, np.uint8)
    for k, found in enumerate(scene.shapes()):
        if found.id().startswith("shape_"):
            label_of[k + 1] = spec["shapes"][int(found.id()[6:9])]["label"]
    np.savez(
        folder / "buffers.npz", color=image[..., :3].astype(np.float32),
        albedo=guides[..., :3].astype(np.float32), normal=guides[..., 3:6].astype(np.float32),
        ray_length_m=guides[..., 6].astype(np.float32), labels=label_of[index],
        depth_m=np.where(index > 0, camera_z(length, spec["camera"]), np.inf).astype(np.float32),
    )  # fmt: skip


def camera_z(length: np.ndarray, camera: dict) -> np.ndarray:
    """Mitsuba's depth is the length of the ray, counted from the near plane; ours is the coordinate
    along the optical axis."""
    h, w = length.shape
    x = (np.arange(w) + 0.5 - camera["cx"]) / camera["fx"]
    y = (np.arange(h) + 0.5 - camera["cy"]) / camera["fy"]
    return NEAR_M + length / np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)


def lights(mi, spec: dict) -> dict:
    """A far disk that gives the irradiance `intensity` to a surface that faces it, and a uniform
    sky of radiance `ambient`."""
    travel = np.asarray(spec["direction"], float)
    travel /= np.linalg.norm(travel)
    radius = LIGHT_DISTANCE_M * np.tan(np.deg2rad(spec["angular_diameter_deg"]) / 2)
    solid_angle = np.pi * radius**2 / LIGHT_DISTANCE_M**2
    centre = -LIGHT_DISTANCE_M * travel
    up = [0, 1, 0] if abs(travel[2]) > 0.9 else [0, 0, 1]
    place = mi.ScalarTransform4f().look_at(origin=list(centre), target=[0, 0, 0], up=up)
    radiance = float(spec["intensity"] / solid_angle)
    return {
        "sky": {"type": "constant", "radiance": {"type": "rgb", "value": spec["ambient"]}},
        "sun": {
            "type": "disk", "to_world": place @ mi.ScalarTransform4f().scale(float(radius)),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": radiance}},
        },
    }  # fmt: skip


def sensor(mi, camera: dict, sampler: dict):
    """Mitsuba's camera looks along +z too, but its x points left and its y up."""
    assert abs(camera["fx"] - camera["fy"]) < 1e-6 * camera["fx"], "pixels must be square"
    w, h = camera["width"], camera["height"]
    pose = np.asarray(camera["T_world_cam"]) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    return mi.load_dict({
        "type": "perspective", "fov_axis": "y", "near_clip": NEAR_M, "far_clip": 100.0,
        "fov": float(np.rad2deg(2 * np.arctan(0.5 * h / camera["fy"]))),
        "principal_point_offset_x": 0.5 - camera["cx"] / w,
        "principal_point_offset_y": 0.5 - camera["cy"] / h,
        "to_world": mi.ScalarTransform4f(pose.tolist()), "sampler": sampler,
        "film": {
            "type": "hdrfilm", "width": w, "height": h, "pixel_format": "rgb",
            "component_format": "float32", "rfilter": {"type": "box"},
        },
    })  # fmt: skip


def load_shape(mi, folder: Path, i: int, shape: dict) -> dict:
    path = folder / f"shape_{i:03d}.ply"
    with np.load(folder / shape["arrays"]) as z:
        write_ply(path, z["corners"], z["normals"], z["uv"], z["colors"])
    if shape["texture"] is not None:
        color = {"type": "bitmap", "filename": shape["texture"], "wrap_mode": "repeat"}
    else:
        color = {"type": "mesh_attribute", "name": "vertex_color"}
    bsdf = {
        "type": "principled", "base_color": color, "specular": 0.5,
        "roughness": shape["roughness"], "metallic": shape["metallic"],
    }  # fmt: skip
    return {"type": "ply", "filename": str(path), "bsdf": {"type": "twosided", "bsdf": bsdf}}


def write_ply(path: Path, corners, normals, uv, colors) -> None:
    """A triangle soup (F, 3, ...) as binary PLY with the names that Mitsuba knows."""
    n = 3 * len(corners)
    columns = [corners.reshape(n, 3), normals.reshape(n, 3), uv.reshape(n, 2), colors.reshape(n, 3)]
    names = ["x", "y", "z", "nx", "ny", "nz", "u", "v", "r", "g", "b"]
    faces = np.empty(len(corners), dtype=[("n", "u1"), ("i", "<i4", 3)])
    faces["n"], faces["i"] = 3, np.arange(n).reshape(-1, 3)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {n}",
              *[f"property float {k}" for k in names], f"element face {len(corners)}",
              "property list uchar int vertex_indices", "end_header"]  # fmt: skip
    body = np.concatenate(columns, axis=1).astype("<f4").tobytes() + faces.tobytes()
    path.write_bytes(("\n".join(header) + "\n").encode() + body)


def main(arguments: list[str]) -> None:
    import mitsuba as mi

    mi.set_variant(arguments[1])
    mi.set_log_level(mi.LogLevel.Error)
    if arguments[0] == "probe":
        probe(mi)
    else:
        draw(mi, Path(arguments[2]))


def end_with_parent() -> None:
    """Whoever waits for the picture has gone: Linux ends this process at once."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1:])
