"""Quadrants kernels of `observe`. Import through `runtime.kernels` only.

Two kernels draw with the same functions (`_raster`) and give the same bits: `draw_serial` for the
CPU, where a thread draws one environment after another in a z-buffer that stays in its cache and
needs no atomics, and `draw_parallel` for the GPU, where each pass runs over all environments and
primitives at once. `overlap_serial` draws like `draw_serial`, but only where a wanted label can be,
and counts pixels instead of writing pictures.
"""

import quadrants as qd

from lucibot_kernels._raster import (
    AHEAD,
    NEAR_M,
    ahead,
    draw_face,
    draw_particle,
    grown,
    place_body,
    place_vertex,
    resolve,
    sphere_box,
)

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
    # In: particle positions (B, N, 3) at these strides; radius (N,); label (B, N) at this stride;
    # whether drawn (N,).
    particle: F32,
    stride_env: qd.i32,
    stride_particle: qd.i32,
    radius: F32,
    particle_label: I32,
    label_stride: qd.i32,
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
        whole = qd.Vector([0, 0, width, height])
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
                    zbuffer, base, height, width, cull, whole, 0, 1, True,
                )  # fmt: skip
            for n in range(particles):
                if particle_drawn[n] != 0:
                    draw_particle(
                        camera, particle, env * stride_env + n * stride_particle, radius[n],
                        ((faces + n) << 8) | particle_label[env * label_stride + n],
                        zbuffer, base, height, width, whole, 0, 1, True,
                    )  # fmt: skip
            for p in range(pixels):
                resolve(
                    zbuffer, base + p, label, depth, face_seen, env * pixels + p, faces, with_face
                )


@qd.func
def one_of(label, wanted: qd.template(), count):
    found = False
    for w in range(count):
        found = found or wanted[w] == label
    return found


@qd.kernel
def overlap_serial(
    camera: Camera,
    # In: the meshes (V, 3), (V,), (F, 3), labels of each face (F,) and body (Nb,); which bodies
    # (Nb,) to draw.
    rest: F32,
    vertex_body: I32,
    face: I32,
    face_label: I32,
    body_label: I32,
    body_drawn: U8,
    # In: poses (B, Nb, 3) and (B, Nb, 4).
    position: F32,
    quaternion: F32,
    # In: particle positions (B, N, 3) at these strides, then radius and label: (N,).
    particle: F32,
    stride_env: qd.i32,
    stride_particle: qd.i32,
    radius: F32,
    particle_label: I32,
    # In: background words (H, W), labels (L,), masks (K, L, H, W), valid (K, H, W), and how many
    # valid pixels each mask has (K, L).
    background: I64,
    wanted: I32,
    mask: U8,
    valid: U8,
    mask_total: I32,
    # Scratch: (slots, Nb, 12), (slots, V, 6) and (slots, H, W).
    transform: F32,
    vertex: F32,
    zbuffer: I64,
    # Out: (B, L).
    inter: I32,
    union: I32,
    batch: qd.i32,
    slots: qd.i32,
    height: qd.i32,
    width: qd.i32,
    bodies: qd.i32,
    vertices: qd.i32,
    faces: qd.i32,
    particles: qd.i32,
    masks: qd.i32,
    envs_of_set: qd.i32,
    cull: qd.i32,
):
    pixels = height * width
    for slot in range(slots):
        base = slot * pixels
        for turn in range((batch - slot + slots - 1) // slots):
            env = slot + turn * slots
            for i in range(bodies):
                place_body(
                    camera, position, quaternion, env * bodies + i, body_drawn[i],
                    transform, (slot * bodies + i) * 12,
                )  # fmt: skip
            # The window in which a wanted label can be seen.
            window = qd.Vector([width, height, 0, 0])
            cut = False
            for i in range(vertices):
                o = (slot * vertices + i) * 6
                place_vertex(
                    camera, rest, i, transform, (slot * bodies + vertex_body[i]) * 12, vertex, o
                )
                if one_of(body_label[vertex_body[i]], wanted, masks):
                    if vertex[o + AHEAD] < NEAR_M:
                        cut = True
                    else:
                        x = qd.cast(qd.max(qd.min(vertex[o + 2], 1e6), -1e6), qd.i32)
                        y = qd.cast(qd.max(qd.min(vertex[o + 4], 1e6), -1e6), qd.i32)
                        window = grown(window, qd.Vector([x - 1, y - 1, x + 2, y + 2]))
            for n in range(particles):
                if one_of(particle_label[n], wanted, masks):
                    x, y, z = ahead(camera, particle, env * stride_env + n * stride_particle)
                    if z + radius[n] > NEAR_M:
                        window = grown(
                            window, sphere_box(camera, x, y, z, radius[n], width, height)
                        )
            if cut and window[2] > window[0]:
                # A body that reaches behind the near plane may cover any pixel.
                window = qd.Vector([0, 0, width, height])
            window = qd.Vector([
                qd.max(window[0], 0), qd.max(window[1], 0),
                qd.min(window[2], width), qd.min(window[3], height),
            ])  # fmt: skip
            for y in range(window[1], window[3]):
                for x in range(window[0], window[2]):
                    zbuffer[base + y * width + x] = background[y * width + x]
            for f in range(faces):
                draw_face(
                    camera, face, f, face_label[f], vertex, slot * vertices,
                    zbuffer, base, height, width, cull, window, 0, 1, True,
                )  # fmt: skip
            for n in range(particles):
                draw_particle(
                    camera, particle, env * stride_env + n * stride_particle, radius[n],
                    ((faces + n) << 8) | particle_label[n],
                    zbuffer, base, height, width, window, 0, 1, True,
                )  # fmt: skip
            v0 = env // envs_of_set * pixels
            for m in range(masks):
                label = wanted[m]
                m0 = v0 * masks + m * pixels
                seen = 0
                both = 0
                for y in range(window[1], window[3]):
                    row = y * width
                    for x in range(window[0], window[2]):
                        found = (qd.cast(zbuffer[base + row + x], qd.i32) & 0xFF) == label
                        good = qd.cast(found, qd.i32) & qd.cast(valid[v0 + row + x], qd.i32)
                        seen += good
                        both += good & qd.cast(mask[m0 + row + x], qd.i32)
                inter[env * masks + m] = both
                union[env * masks + m] = seen + mask_total[env // envs_of_set * masks + m] - both


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
    # In: particle positions (B, N, 3) at these strides; radius (N,); label (B, N) at this stride;
    # whether drawn (N,).
    particle: F32,
    stride_env: qd.i32,
    stride_particle: qd.i32,
    radius: F32,
    particle_label: I32,
    label_stride: qd.i32,
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
            zbuffer, slot * pixels, height, width, cull, qd.Vector([0, 0, width, height]),
            item % LANES, LANES, False,
        )  # fmt: skip
    for item in range(count * particles * LANES):
        slot = item // (particles * LANES)
        n = item // LANES % particles
        if particle_drawn[n] != 0:
            draw_particle(
                camera, particle, (first + slot) * stride_env + n * stride_particle, radius[n],
                ((faces + n) << 8) | particle_label[(first + slot) * label_stride + n],
                zbuffer, slot * pixels, height, width, qd.Vector([0, 0, width, height]),
                item % LANES, LANES, False,
            )  # fmt: skip
    for item in range(count * pixels):
        resolve(zbuffer, item, label, depth, face_seen, first * pixels + item, faces, with_face)
