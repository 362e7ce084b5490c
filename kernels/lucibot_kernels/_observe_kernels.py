"""Quadrants kernels of `observe`. Import through `runtime.kernels` only.

Two kernels draw with the same functions (`_raster`) and give the same bits: `draw_serial` for the
CPU, where a thread draws one environment after another in a z-buffer that stays in its cache and
needs no atomics, and `draw_parallel` for the GPU, where each pass runs over all environments and
primitives at once.
"""

import quadrants as qd

from lucibot_kernels._raster import draw_face, draw_particle, place_body, place_vertex, resolve

F32 = qd.types.ndarray(dtype=qd.f32, ndim=1)
I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)
I64 = qd.types.ndarray(dtype=qd.i64, ndim=1)
U8 = qd.types.ndarray(dtype=qd.u8, ndim=1)
Camera = qd.types.vector(16, qd.f32)  # fx, fy, cx, cy, then T_cam_world's upper three rows

LANES = 4  # threads of a GPU that share the rows of one primitive


@qd.kernel
def draw_serial(
    camera: Camera,
    # In: the meshes (V, 3), (V,), (F, 3), label of each face (F,), which bodies (Nb,) to draw.
    rest: F32,
    vertex_body: I32,
    face: I32,
    face_label: I32,
    body_drawn: U8,
    # In: poses (B, Nb, 3) and (B, Nb, 4).
    position: F32,
    quaternion: F32,
    # In: particle positions (B, N, 3) at these strides, then radius, label, whether drawn: (N,).
    particle: F32,
    stride_env: qd.i32,
    stride_particle: qd.i32,
    radius: F32,
    particle_label: I32,
    particle_drawn: U8,
    # In: background words (H, W).
    background: I64,
    # Scratch: (slots, Nb, 12), (slots, V, 6) and (slots, H, W).
    transform: F32,
    vertex: F32,
    zbuffer: I64,
    # Out: (B, H, W); face_seen is not touched without `with_face`.
    label: I32,
    depth: F32,
    face_seen: I32,
    # Sizes. Environments first .. first + count are drawn.
    first: qd.i32,
    count: qd.i32,
    slots: qd.i32,
    height: qd.i32,
    width: qd.i32,
    bodies: qd.i32,
    vertices: qd.i32,
    faces: qd.i32,
    particles: qd.i32,
    cull: qd.i32,
    with_face: qd.template(),
):
    pixels = height * width
    for slot in range(slots):
        base = slot * pixels
        for turn in range((count - slot + slots - 1) // slots):
            env = first + slot + turn * slots
            for p in range(pixels):
                zbuffer[base + p] = background[p]
            for i in range(bodies):
                place_body(
                    camera, position, quaternion, env * bodies + i, body_drawn[i],
                    transform, (slot * bodies + i) * 12,
                )  # fmt: skip
            for i in range(vertices):
                place_vertex(
                    camera, rest, i, transform, (slot * bodies + vertex_body[i]) * 12,
                    vertex, (slot * vertices + i) * 6,
                )  # fmt: skip
            for f in range(faces):
                draw_face(
                    camera, face, f, face_label[f], vertex, slot * vertices,
                    zbuffer, base, height, width, cull, 0, 1, True,
                )  # fmt: skip
            for n in range(particles):
                if particle_drawn[n] != 0:
                    draw_particle(
                        camera, particle, env * stride_env + n * stride_particle, radius[n],
                        ((faces + n) << 8) | particle_label[n],
                        zbuffer, base, height, width, 0, 1, True,
                    )  # fmt: skip
            for p in range(pixels):
                resolve(
                    zbuffer, base + p, label, depth, face_seen, env * pixels + p, faces, with_face
                )


@qd.kernel
def draw_parallel(
    camera: Camera,
    # In: the meshes (V, 3), (V,), (F, 3), label of each face (F,), which bodies (Nb,) to draw.
    rest: F32,
    vertex_body: I32,
    face: I32,
    face_label: I32,
    body_drawn: U8,
    # In: poses (B, Nb, 3) and (B, Nb, 4).
    position: F32,
    quaternion: F32,
    # In: particle positions (B, N, 3) at these strides, then radius, label, whether drawn: (N,).
    particle: F32,
    stride_env: qd.i32,
    stride_particle: qd.i32,
    radius: F32,
    particle_label: I32,
    particle_drawn: U8,
    # In: background words (H, W).
    background: I64,
    # Scratch: (slots, Nb, 12), (slots, V, 6) and (slots, H, W).
    transform: F32,
    vertex: F32,
    zbuffer: I64,
    # Out: (B, H, W); face_seen is not touched without `with_face`.
    label: I32,
    depth: F32,
    face_seen: I32,
    # Sizes. Environments first .. first + count are drawn.
    first: qd.i32,
    count: qd.i32,
    slots: qd.i32,
    height: qd.i32,
    width: qd.i32,
    bodies: qd.i32,
    vertices: qd.i32,
    faces: qd.i32,
    particles: qd.i32,
    cull: qd.i32,
    with_face: qd.template(),
):
    # Here slots == count: every environment of the chunk has a z-buffer of its own.
    pixels = height * width
    for item in range(count * pixels):
        zbuffer[item] = background[item % pixels]
    for item in range(count * bodies):
        place_body(
            camera, position, quaternion, first * bodies + item, body_drawn[item % bodies],
            transform, item * 12,
        )  # fmt: skip
    for item in range(count * vertices):
        i = item % vertices
        place_vertex(
            camera, rest, i, transform, (item // vertices * bodies + vertex_body[i]) * 12,
            vertex, item * 6,
        )  # fmt: skip
    for item in range(count * faces * LANES):
        slot = item // (faces * LANES)
        f = item // LANES % faces
        draw_face(
            camera, face, f, face_label[f], vertex, slot * vertices,
            zbuffer, slot * pixels, height, width, cull, item % LANES, LANES, False,
        )  # fmt: skip
    for item in range(count * particles * LANES):
        slot = item // (particles * LANES)
        n = item // LANES % particles
        if particle_drawn[n] != 0:
            draw_particle(
                camera, particle, (first + slot) * stride_env + n * stride_particle, radius[n],
                ((faces + n) << 8) | particle_label[n],
                zbuffer, slot * pixels, height, width, item % LANES, LANES, False,
            )  # fmt: skip
    for item in range(count * pixels):
        resolve(zbuffer, item, label, depth, face_seen, first * pixels + item, faces, with_face)
