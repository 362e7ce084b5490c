"""The functions of `lucibot_kernels.gradients` for JAX: its arrays, `jax.grad` and `jax.jit`.

A call shares the arrays' memory with torch by DLPack, both ways, on whatever device they are. Under
`jit`, where there are no arrays yet, XLA calls back and copies what comes out. The backward pass
computes the forward pass again, for JAX keeps arrays alone between the two. Reverse mode only; `vmap`
goes one after another, and a batch is what the functions take anyway.

To import this turns `jax_cpu_enable_async_dispatch` off: what XLA hands to a call back is copied by the very
threads on which others wait, and where these are few (one a core) all would wait for ever. JAX looks at that
option as it first computes anything on a CPU, so import this before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch

from lucibot_kernels import gradients
from lucibot_kernels.clouds import Chamfer
from lucibot_kernels.gradients.pictures import SoftPicture
from lucibot_kernels.observe import Observer

jax.config.update("jax_cpu_enable_async_dispatch", False)

Torch = Callable[..., Sequence[torch.Tensor]]
Shapes = tuple[jax.ShapeDtypeStruct, ...]


def chamfer(a: jax.Array, b: jax.Array) -> Chamfer:
    """`gradients.chamfer`, of arrays."""
    out = jax.ShapeDtypeStruct(a.shape[:1], a.dtype)
    return Chamfer(*_call(gradients.chamfer, (0, 1), (out, out), a, b))


def contact_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """`gradients.contact_distance`, of arrays in the world; see `posed`."""
    out = jax.ShapeDtypeStruct(a.shape[:1], a.dtype)
    return _call(_one(gradients.contact_distance), (0, 1), (out,), a, b)[0]


def posed(points: jax.Array, position: jax.Array, quaternion: jax.Array) -> jax.Array:
    """`gradients.posed`, of arrays."""
    out = jax.ShapeDtypeStruct((len(position), *points.shape), points.dtype)
    return _call(_one(gradients.posed), (0, 1, 2), (out,), points, position, quaternion)[0]


def tip_distance(
    area: jax.Array, counted: jax.Array, position: jax.Array, quaternion: jax.Array,
    tips: jax.Array, eye: jax.Array, **settings: float,
) -> jax.Array:  # fmt: skip
    """`gradients.tip_distance`, of arrays."""
    function = _one(partial(gradients.tip_distance, **settings))
    out = jax.ShapeDtypeStruct(position.shape[:2], position.dtype)
    given = area, counted, position, quaternion, tips, eye
    return _call(function, (2, 3), (out,), *given)[0]


def soft_iou(silhouette: jax.Array, mask: jax.Array, valid: jax.Array | None = None) -> jax.Array:
    """`gradients.soft_iou`, of arrays."""
    given = (silhouette, mask) if valid is None else (silhouette, mask, valid)
    out = jax.ShapeDtypeStruct(silhouette.shape[:1], silhouette.dtype)
    return _call(_one(gradients.soft_iou), (0,), (out,), *given)[0]


def soft_observe(
    observer: Observer, position_m: jax.Array | None = None, quaternion: jax.Array | None = None,
    particles_m: jax.Array | None = None, **settings,
) -> SoftPicture:  # fmt: skip
    """`gradients.soft_observe`, of arrays."""
    given = {"position_m": position_m, "quaternion": quaternion, "particles_m": particles_m}
    given = {n: x for n, x in given.items() if x is not None}

    def function(*arrays):
        return gradients.soft_observe(observer, **dict(zip(given, arrays, strict=True)), **settings)

    some = next(iter(given.values()))
    out = jax.ShapeDtypeStruct((len(some), observer.height, observer.width), some.dtype)
    every = tuple(range(len(given)))
    return SoftPicture(*_call(function, every, (out, out), *given.values()))


def to_torch(x: jax.Array) -> torch.Tensor:
    """The same memory as a tensor."""
    if x.dtype == jnp.bool_:  # which DLPack hands over as bytes
        return torch.from_dlpack(x.view(jnp.uint8)).view(torch.bool)
    return torch.from_dlpack(x)


def to_jax(x: torch.Tensor) -> jax.Array:
    """The same memory as an array."""
    return jnp.from_dlpack(x.detach().contiguous())


def _one(function: Callable[..., torch.Tensor]) -> Torch:
    return lambda *x: (function(*x),)


def _call(function: Torch, argnums: tuple[int, ...], out: Shapes, *arrays: jax.Array):
    """Outputs of a torch function of arrays, differentiable with respect to those of `argnums`."""

    # The function and its shapes are no arguments of JAX's: they are the same for all that is traced.
    @jax.custom_vjp
    def apply(*arrays):
        return _run(lambda *x: [y.detach() for y in function(*x)], out, *arrays)

    def forward(*arrays):
        return apply(*arrays), arrays

    def backward(arrays, gradient):
        def pull(*tensors):
            given = [x.detach() for x in tensors[: len(arrays)]]
            wanted = [given[i].requires_grad_() for i in argnums]
            with torch.enable_grad():
                found = function(*given)
            outer = tensors[len(arrays) :]
            pulled = torch.autograd.grad(found, wanted, outer, allow_unused=True)
            return [torch.zeros_like(x) if g is None else g
                    for g, x in zip(pulled, wanted, strict=True)]  # fmt: skip

        shapes = tuple(jax.ShapeDtypeStruct(arrays[i].shape, arrays[i].dtype) for i in argnums)
        found = dict(zip(argnums, _run(pull, shapes, *arrays, *gradient), strict=True))
        return tuple(
            found[i] if i in found else np.zeros(x.shape, jax.dtypes.float0)
            if not jnp.issubdtype(x.dtype, jnp.floating) else jnp.zeros_like(x)
            for i, x in enumerate(arrays)
        )  # fmt: skip

    apply.defvjp(forward, backward)
    return apply(*(jnp.asarray(x) for x in arrays))


def _run(function: Torch, out: Shapes, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    if not any(isinstance(x, jax.core.Tracer) for x in arrays):
        return tuple(to_jax(y) for y in function(*map(to_torch, arrays)))

    def back(*given):
        tensors = [torch.from_numpy(np.array(x)) for x in given]
        return tuple(y.numpy() for y in function(*tensors))

    return jax.pure_callback(back, out, *arrays, vmap_method="sequential")
