"""Quadrants kernels of `components`. Import through `runtime.kernels` only."""

import quadrants as qd

I32 = qd.types.ndarray(dtype=qd.i32, ndim=1)
U8 = qd.types.ndarray(dtype=qd.u8, ndim=1)


@qd.func
def find(parent: qd.template(), base, pixel):
    """The root of a pixel; halves the path on the way, so that later searches are short."""
    p = pixel
    while parent[base + p] != p:
        parent[base + p] = parent[base + parent[base + p]]
        p = parent[base + p]
    return p


@qd.func
def merge(parent: qd.template(), base, p, q):
    """Join two trees under the smaller root, which is the component's first pixel."""
    a = find(parent, base, p)
    b = find(parent, base, q)
    if a < b:
        parent[base + b] = a
    elif b < a:
        parent[base + a] = b


@qd.kernel
def components(
    # In: mask (B, H, W), each byte 0 or 1.
    mask: U8,
    height: qd.i32,
    width: qd.i32,
    # Scratch: (B, H, W).
    parent: I32,
    # Out: label (B, H, W), numbered by first pixel; area (B, H, W), the first `count` of each
    # image in use; count (B,).
    label: I32,
    area: I32,
    count: I32,
):
    for image in range(count.shape[0]):
        base = image * height * width
        for v in range(height):
            for u in range(width):
                p = v * width + u
                if mask[base + p] != 0:
                    parent[base + p] = p
                    # The four neighbours that the raster order has visited.
                    if u > 0 and mask[base + p - 1] != 0:
                        parent[base + p] = parent[base + p - 1]
                    if v > 0:
                        above = base + p - width
                        if mask[above] != 0:
                            merge(parent, base, p, p - width)
                        else:
                            # A set pixel above already joins its two neighbours to this one.
                            if u > 0 and mask[above - 1] != 0:
                                merge(parent, base, p, p - width - 1)
                            if u + 1 < width and mask[above + 1] != 0:
                                merge(parent, base, p, p - width + 1)
        found = 0
        for p in range(height * width):
            if mask[base + p] != 0:
                root = find(parent, base, p)
                if root == p:
                    # A root is its component's first pixel, so its label is set before any use.
                    label[base + p] = found + 1
                    area[base + found] = 1
                    found += 1
                else:
                    number = label[base + root]
                    label[base + p] = number
                    area[base + number - 1] += 1
            else:
                label[base + p] = 0
        count[image] = found


@qd.kernel
def relabel(label: I32, rank: I32, pixels: qd.i32, chunk: qd.i32, stride: qd.i32):
    """Replace label i + 1 of an image by rank[i] + 1, in place. rank: (B, stride)."""
    for item in range(label.shape[0] // chunk):
        for j in range(chunk):
            p = item * chunk + j
            if label[p] > 0:
                label[p] = rank[(p // pixels) * stride + label[p] - 1] + 1
