"""Quadrants kernels of `overlap`. Import through `runtime.kernels` only.

A pair is one IoU to be counted. `lanes` threads share a pair (1 on the CPU, where a pair is a
serial, vectorised loop); the counts are integers, so atomic adds keep them deterministic.
"""

import quadrants as qd

I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)
U8 = qd.types.ndarray(dtype=qd.u8, ndim=1)
WORDS = qd.types.ndarray(ndim=1)  # i64 (eight pixels) or u8 (one pixel), each byte 0 or 1


@qd.func
def ones(word, wide: qd.template()):
    """How many bytes of a word are 1."""
    count = 0
    if qd.static(wide):
        count = qd.cast(qd.math.popcnt(word), qd.i32)
    else:
        count = qd.cast(word, qd.i32)
    return count


@qd.func
def store(out: qd.template(), index, count, lanes: qd.template()):
    """The count of one lane into the pair's total, which is zero at first."""
    if qd.static(lanes == 1):
        out[index] = count
    else:
        qd.atomic_add(out[index], count)


@qd.kernel
def count_masks(
    # In: a (pairs, words), b (shared, words), valid (valid_shared, words).
    a: WORDS,
    b: WORDS,
    valid: WORDS,
    words: qd.i32,
    shared: qd.i32,
    valid_shared: qd.i32,
    # Out: (pairs,).
    inter: I32,
    union: I32,
    with_valid: qd.template(),
    wide: qd.template(),
    lanes: qd.template(),
):
    for item in range(inter.shape[0] * lanes):
        pair = item // lanes
        lane = item % lanes
        a0 = pair * words
        b0 = (pair % shared) * words
        v0 = (pair % valid_shared) * words
        both = 0
        either = 0
        for k in range((words - lane + lanes - 1) // lanes):
            w = lane + k * lanes
            x = a[a0 + w]
            y = b[b0 + w]
            if qd.static(with_valid):
                x = x & valid[v0 + w]
                y = y & valid[v0 + w]
            both += ones(x & y, wide)
            either += ones(x | y, wide)
        store(inter, pair, both, lanes)
        store(union, pair, either, lanes)


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
