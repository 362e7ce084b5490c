"""Quadrants kernels of `overlap`. Import through `runtime.kernels` only.

A pair is one IoU to be counted. `lanes` threads share a pair (1 on the CPU, where a pair is a
serial, vectorised loop); the counts are integers, so atomic adds keep them deterministic.
"""

import quadrants as qd

I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)
U8 = qd.types.ndarray(dtype=qd.u8, ndim=1)


@qd.func
def store(out: qd.template(), index, count, lanes: qd.template()):
    """The count of one lane into the pair's total, which is zero at first."""
    if qd.static(lanes == 1):
        out[index] = count
    else:
        qd.atomic_add(out[index], count)


@qd.kernel
def count_labels(
    # In: label (B, pixels), wanted (masks, members), mask (masks, pixels), valid (vm, pixels).
    label: I32,
    wanted: I32,
    mask: U8,
    valid: U8,
    pixels: qd.i32,
    masks: qd.i32,
    valid_masks: qd.i32,
    # Out: (B, masks).
    inter: I32,
    union: I32,
    members: qd.template(),
    with_valid: qd.template(),
    lanes: qd.template(),
):
    for item in range(inter.shape[0] * lanes):
        pair = item // lanes
        lane = item % lanes
        m = pair % masks
        l0 = (pair // masks) * pixels
        m0 = m * pixels
        v0 = (m % valid_masks) * pixels
        both = 0
        either = 0
        for k in range((pixels - lane + lanes - 1) // lanes):
            p = lane + k * lanes
            x = 0
            for j in qd.static(range(members)):
                x = x | qd.cast(label[l0 + p] == wanted[m * members + j], qd.i32)
            y = qd.cast(mask[m0 + p], qd.i32)
            if qd.static(with_valid):
                x = x & qd.cast(valid[v0 + p], qd.i32)
                y = y & qd.cast(valid[v0 + p], qd.i32)
            both += x & y
            either += x | y
        store(inter, pair, both, lanes)
        store(union, pair, either, lanes)
