"""Quadrants kernels of `observe`. Import through `runtime.kernels` only.

Two kernels draw with the same functions (`_raster`) and give the same bits: `draw_serial` for the
CPU, where a thread draws one environment after another in a z-buffer that stays in its cache and
needs no atomics, and `draw_parallel` for the GPU, where each pass runs over all environments and
primitives at once. `overlap_serial` draws like `draw_serial`, but only where a wanted label can be,
and counts pixels instead of writing pictures.
"""

from dataclasses import dataclass

import quadrants as qd

from lucibot_kernels._raster import (
    I32,
    NEAR_M,
    U8,
    VERTEX,
    Pictures,
    Scene,
    Scratch,
    U,
    V,
    Z,
    ahead,
    draw_face,
    draw_particle,
    grown,
    place_body,
    place_vertex,
    resolve,
    sphere_box,
)

LANES = 4  # threads of a GPU that share the rows of one primitive


@qd.kernel
def draw_serial(
    scene: Scene,
    scratch: Scratch,
    pictures: Pictures,
    # Environments first .. first + count are drawn, in so many slots.
    first: qd.i32,
    count: qd.i32,
    slots: qd.i32,
    with_face: qd.template(),
):
    pixels = scene.height * scene.width
    for slot in range(slots):
        base = slot * pixels
        whole = qd.Vector([0, 0, scene.width, scene.height])
        for turn in range((count - slot + slots - 1) // slots):
            env = first + slot + turn * slots
            for p in range(pixels):
                scratch.zbuffer[base + p] = scene.background[p]
            for i in range(scene.bodies):
                place_body(scene, scratch, env, slot, i)
            for i in range(scene.vertices):
                place_vertex(scene, scratch, slot, i)
            for f in range(scene.faces):
                draw_face(scene, scratch, slot, f, whole, 0, 1, True)
            for n in range(scene.particles):
                draw_particle(scene, scratch, env, slot, n, whole, 0, 1, True)
            for p in range(pixels):
                resolve(scratch, base + p, pictures, env * pixels + p, scene.faces, with_face)


@dataclass
class Masks:
    """Masks of L labels that environments are compared with: K sets, one for `envs_of_set` each."""

    labels: I32  # (L,)
    count: qd.i32  # L
    envs_of_set: qd.i32
    mask: U8  # (K, L, H, W)
    valid: U8  # (K, H, W)
    total: I32  # (K, L) valid pixels of each mask


@qd.func
def wants(masks: Masks, label):
    found = False
    for w in range(masks.count):
        found = found or masks.labels[w] == label
    return found


@qd.kernel
def overlap_serial(
    scene: Scene,
    scratch: Scratch,
    masks: Masks,
    batch: qd.i32,
    slots: qd.i32,
    # Out: (B, L).
    inter: I32,
    union: I32,
):
    height = scene.height
    width = scene.width
    pixels = height * width
    for slot in range(slots):
        base = slot * pixels
        for turn in range((batch - slot + slots - 1) // slots):
            env = slot + turn * slots
            for i in range(scene.bodies):
                place_body(scene, scratch, env, slot, i)
            # The window in which a wanted label can be seen.
            window = qd.Vector([width, height, 0, 0])
            cut = False
            for i in range(scene.vertices):
                place_vertex(scene, scratch, slot, i)
                if wants(masks, scene.body_label[scene.vertex_body[i]]):
                    o = (slot * scene.vertices + i) * VERTEX
                    if scratch.vertex[o + Z] < NEAR_M:
                        cut = True
                    else:
                        x = qd.cast(qd.max(qd.min(scratch.vertex[o + U], 1e6), -1e6), qd.i32)
                        y = qd.cast(qd.max(qd.min(scratch.vertex[o + V], 1e6), -1e6), qd.i32)
                        window = grown(window, qd.Vector([x - 1, y - 1, x + 2, y + 2]))
            for n in range(scene.particles):
                if wants(masks, scene.particle_label[env * scene.label_stride + n]):
                    x, y, z = ahead(scene, env, n)
                    if z + scene.radius[n] > NEAR_M:
                        window = grown(window, sphere_box(scene, x, y, z, scene.radius[n]))
            if cut and window[2] > window[0]:
                # A body that reaches behind the near plane may cover any pixel.
                window = qd.Vector([0, 0, width, height])
            window = qd.Vector([
                qd.max(window[0], 0), qd.max(window[1], 0),
                qd.min(window[2], width), qd.min(window[3], height),
            ])  # fmt: skip
            for y in range(window[1], window[3]):
                for x in range(window[0], window[2]):
                    scratch.zbuffer[base + y * width + x] = scene.background[y * width + x]
            for f in range(scene.faces):
                draw_face(scene, scratch, slot, f, window, 0, 1, True)
            for n in range(scene.particles):
                draw_particle(scene, scratch, env, slot, n, window, 0, 1, True)
            k = env // masks.envs_of_set
            v0 = k * pixels
            for m in range(masks.count):
                label = masks.labels[m]
                m0 = v0 * masks.count + m * pixels
                seen = 0
                both = 0
                for y in range(window[1], window[3]):
                    row = y * width
                    for x in range(window[0], window[2]):
                        word = qd.cast(scratch.zbuffer[base + row + x], qd.i32)
                        found = qd.cast((word & 0xFF) == label, qd.i32)
                        good = found & qd.cast(masks.valid[v0 + row + x], qd.i32)
                        seen += good
                        both += good & qd.cast(masks.mask[m0 + row + x], qd.i32)
                inter[env * masks.count + m] = both
                union[env * masks.count + m] = seen + masks.total[k * masks.count + m] - both


@qd.kernel
def draw_parallel(
    scene: Scene,
    scratch: Scratch,
    pictures: Pictures,
    first: qd.i32,
    count: qd.i32,
    slots: qd.i32,
    with_face: qd.template(),
):
    # Here slots == count: every environment of the chunk has a z-buffer of its own.
    pixels = scene.height * scene.width
    for item in range(count * pixels):
        scratch.zbuffer[item] = scene.background[item % pixels]
    for item in range(count * scene.bodies):
        slot = item // scene.bodies
        place_body(scene, scratch, first + slot, slot, item % scene.bodies)
    for item in range(count * scene.vertices):
        place_vertex(scene, scratch, item // scene.vertices, item % scene.vertices)
    for item in range(count * scene.faces * LANES):
        draw_face(
            scene, scratch, item // (scene.faces * LANES), item // LANES % scene.faces,
            qd.Vector([0, 0, scene.width, scene.height]), item % LANES, LANES, False,
        )  # fmt: skip
    for item in range(count * scene.particles * LANES):
        slot = item // (scene.particles * LANES)
        draw_particle(
            scene, scratch, first + slot, slot, item // LANES % scene.particles,
            qd.Vector([0, 0, scene.width, scene.height]), item % LANES, LANES, False,
        )  # fmt: skip
    for item in range(count * pixels):
        resolve(scratch, item, pictures, first * pixels + item, scene.faces, with_face)
