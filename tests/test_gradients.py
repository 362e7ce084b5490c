"""Gradients: against finite differences, against the twins under autograd, in JAX, and where they lead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import lucibot_kernels as lk
import numpy as np
import pytest
import torch
from lucibot_kernels import gradients, runtime, soft_twins, twins
from torch.autograd import gradcheck

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["few threads", "many"])
def threads(request, monkeypatch):
    """As a CPU works, and the way through the code that a GPU takes, here by one thread."""
    if request.param == "many":
        monkeypatch.setattr(runtime, "few_threads", lambda device: False)


def leaf(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return (scale * torch.randn(*shape, dtype=F64)).requires_grad_()


@pytest.mark.parametrize(("B", "N", "M"), [(1, 1, 1), (1, 5, 70), (3, 40, 9), (0, 3, 4)])
def test_chamfer(B, N, M, threads):
    a, b = leaf(B, N, 3), leaf(B, M, 3)
    assert gradcheck(lambda a, b: tuple(gradients.chamfer(a, b)), (a, b))
    shared = leaf(M, 3)
    assert gradcheck(lambda a, b: gradients.chamfer(a, b).sum, (a, shared))
    ours, twin = gradients.chamfer(a, b), soft_twins.chamfer(a, b)
    weight = torch.randn(B, dtype=F64)
    for x, y in zip(ours, twin, strict=True):
        torch.testing.assert_close(x, y)
        mine = torch.autograd.grad((weight * x).sum(), (a, b), retain_graph=True)
        torch.testing.assert_close(mine, torch.autograd.grad((weight * y).sum(), (a, b)))
        weight = weight.flip(0)
        twin = soft_twins.chamfer(a, b)


def test_chamfer_is_the_kernels_and_ignores_what_does_not_exist():
    a, b = torch.rand(4, 300, 3), torch.rand(4, 500, 3)
    a[1, 7], a[2], b[3] = torch.nan, torch.nan, torch.inf
    a.requires_grad_()
    found, known = gradients.chamfer(a, b), lk.chamfer(a.detach(), b)
    torch.testing.assert_close(torch.stack(found), torch.stack(known))
    found.sum[:2].sum().backward()
    assert torch.isfinite(a.grad).all() and (a.grad[1, 7] == 0).all() and (a.grad[2:] == 0).all()
    assert (a.grad[:2].norm(dim=-1) > 0).sum() == 599


@pytest.mark.parametrize(("B", "N", "M"), [(1, 4, 3), (3, 30, 20)])
def test_contact_distance(B, N, M, threads):
    a, b, c = leaf(N, 3), leaf(M, 3), leaf(B, M, 3)
    poses = [leaf(B, 3, scale=2), leaf(B, 4), leaf(B, 3, scale=2), leaf(B, 4)]
    assert gradcheck(
        lambda a, b, *p: gradients.contact_distance(a, b, p[:2], p[2:]), (a, b, *poses)
    )
    assert gradcheck(lambda a, c, *p: gradients.contact_distance(a, c, p), (a, c, *poses[:2]))
    placed = [twins.posed_points(a, *poses[:2]), twins.posed_points(b, *poses[2:])]
    ours = gradients.contact_distance(a, b, tuple(poses[:2]), tuple(poses[2:]))
    twin = soft_twins.contact_distance(*placed)
    torch.testing.assert_close(ours, twin)
    torch.testing.assert_close(
        torch.autograd.grad(ours.sum(), poses), torch.autograd.grad(twin.sum(), poses)
    )


def test_contact_distance_of_nothing():
    a = torch.full((2, 3, 3), torch.nan, requires_grad=True)
    d = gradients.contact_distance(a, torch.zeros(2, 4, 3))
    assert torch.isinf(d).all()
    d.sum().backward()
    assert (a.grad == 0).all()


@pytest.mark.parametrize(("K", "B", "M", "F"), [(1, 1, 1, 1), (3, 4, 20, 5)])
def test_tip_distance(K, B, M, F):
    position, quaternion = leaf(K, B, 3, scale=0.03), leaf(K, B, 4)
    tips = 0.05 * torch.randn(K, F, 3, dtype=F64)
    counted = torch.rand(K, M) > 0.3
    counted[0] = True
    if K > 1:
        tips[0, 1], tips[1] = torch.nan, torch.nan
    fixed = 0.03 * torch.randn(M, 3, dtype=F64), counted
    eye = torch.tensor([0.0, -1.0, 0.5], dtype=F64)

    def ours(p, q):
        return gradients.tip_distance(*fixed, p, q, tips, eye, depth_share=0.3)

    def known(p, q):
        return ours(p, q).nan_to_num(0)

    assert gradcheck(known, (position, quaternion))
    twin = twins.tip_distance(*fixed, position, quaternion, tips, eye, depth_share=0.3)
    torch.testing.assert_close(ours(position, quaternion), twin, equal_nan=True)
    as_now = lk.tip_distance(
        fixed[0].float(), counted, position.detach().float(),
        torch.nn.functional.normalize(quaternion.detach(), dim=-1).float(), tips.float(),
        eye.float(), depth_share=0.3,
    )  # fmt: skip
    torch.testing.assert_close(twin.detach().float(), as_now, equal_nan=True, atol=1e-6, rtol=1e-4)
    wanted = torch.autograd.grad(twin.nan_to_num(0).sum(), (position, quaternion))
    found = torch.autograd.grad(known(position, quaternion).sum(), (position, quaternion))
    torch.testing.assert_close(found, wanted)


CAMERA = {"width": 34, "height": 26, "fx": 40.0, "fy": 44.0, "cx": 16.25, "cy": 13.625}


def drawn_things(batch: int, particles: int):
    """An observer of two bodies and particles before a slanted background, and what its twin needs."""
    i32 = {"dtype": torch.int32}
    meshes = {
        "vertices_m": torch.tensor([
            [0.1, 0.1, 0.1], [0.1, -0.1, -0.1], [-0.1, 0.1, -0.1], [-0.1, -0.1, 0.1],
            [-0.3, -0.2, 0.0], [0.35, 0.0, 0.0], [0.0, 0.3, 0.0],
        ]),
        "faces": torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2], [4, 5, 6]], **i32),
        "vertex_body": torch.tensor([0, 0, 0, 0, 1, 1, 1], **i32),
    }  # fmt: skip
    u = torch.arange(CAMERA["width"]).float()
    depth = (0.9 + 0.02 * u).expand(CAMERA["height"], -1).contiguous()
    depth[:5] = torch.inf
    radius = 0.03 + 0.02 * torch.rand(particles)
    T = torch.eye(4, dtype=F64)
    observer = lk.Observer(
        **CAMERA, T_cam_world=T, **meshes, body_label=torch.tensor([1, 2], **i32),
        particle_radius_m=radius, particle_label=torch.ones(particles, **i32),
        background_depth_m=depth,
    )  # fmt: skip
    state = (
        (0.1 * torch.randn(batch, 2, 3, dtype=F64) + torch.tensor([0, 0, 1.0], dtype=F64)),
        torch.randn(batch, 2, 4, dtype=F64),
        0.15 * torch.randn(batch, particles, 3, dtype=F64) + torch.tensor([0, 0, 1.0], dtype=F64),
    )
    twin = CAMERA | meshes | {
        "T_cam_world": T, "particle_radius_m": radius.double(), "background_depth_m": depth
    }  # fmt: skip
    return observer, [x.requires_grad_() for x in state], twin


@pytest.mark.parametrize(("batch", "particles"), [(1, 0), (1, 6), (3, 4), (2, 40)])
def test_soft_observe(batch, particles, threads):
    observer, state, twin = drawn_things(batch, particles)
    soft = {"blur_px": 1.5, "blur_m": 0.05}

    def ours(*state):
        return tuple(gradients.soft_observe(observer, *state, **soft))

    found = ours(*state)
    wanted = soft_twins.soft_observe(
        **twin, **soft, position_m=state[0], quaternion=state[1], particles_m=state[2]
    )
    weight = torch.rand(found[0].shape, dtype=F64)
    for x, y in zip(found, wanted, strict=True):
        torch.testing.assert_close(x, y)
        used = [s for s in state if s.numel()]
        mine = torch.autograd.grad((weight * x).sum(), used, retain_graph=True)
        twins_own = torch.autograd.grad((weight * y).sum(), used, retain_graph=True)
        torch.testing.assert_close(mine, twins_own)

    def sums(*state):
        return tuple((weight * x).sum((1, 2)) for x in ours(*state))

    assert gradcheck(sums, tuple(state), eps=1e-7)


def test_soft_observe_is_the_observers_picture_where_nothing_is_blurred():
    observer, state, _ = drawn_things(2, 4)
    hard = observer.observe(*(x.detach().float() for x in state), background=False)
    state = [x.detach().float() for x in state]
    soft = gradients.soft_observe(observer, *state, blur_px=1e-3, background=False)
    shown = torch.isfinite(hard.depth)
    assert (soft.silhouette[shown] >= 0.5).all() and (soft.silhouette[~shown] <= 0.5).all()
    assert ((soft.silhouette - shown.float()).abs() < 0.01).float().mean() > 0.97
    torch.testing.assert_close(soft.depth[shown], hard.depth[shown], atol=1e-5, rtol=1e-4)


def test_what_is_apart_is_drawn_together():
    """A triangle that does not overlap its mask at all, in a corner of the picture, finds it."""
    i32 = {"dtype": torch.int32}
    observer = lk.Observer(
        **CAMERA, T_cam_world=torch.eye(4, dtype=F64),
        vertices_m=torch.tensor([[-0.07, -0.07, 0.0], [0.09, -0.07, 0.0], [0.0, 0.09, 0.0]]),
        faces=torch.tensor([[0, 2, 1]], **i32), vertex_body=torch.zeros(3, **i32),
        body_label=torch.ones(1, **i32),
    )  # fmt: skip
    quaternion = torch.tensor([[[1.0, 0, 0, 0]]])
    goal, position = torch.tensor([[[-0.2, -0.15, 1.0]]]), torch.tensor([[[0.25, 0.15, 1.0]]])
    mask = observer.observe(goal, quaternion).label == 1
    assert not (mask & (observer.observe(position, quaternion).label == 1)).any()
    wanted = gradients.soften(mask)
    position.requires_grad_()
    descent = torch.optim.Adam([position], lr=0.01)
    for _ in range(250):
        descent.zero_grad()
        drawn = gradients.soft_observe(observer, position, quaternion)
        (1 - gradients.soft_iou(drawn.silhouette, wanted)).sum().backward()
        descent.step()
    ahead, wanted_at = (x.detach()[0, 0] for x in (position, goal))
    assert (ahead[:2] / ahead[2] - wanted_at[:2] / wanted_at[2]).norm() * CAMERA["fx"] < 0.5
    assert lk.label_iou(observer.observe(position.detach(), quaternion).label, 1, mask[0]) > 0.8


@pytest.mark.parametrize(("B", "H", "W"), [(1, 3, 5), (4, 8, 7)])
def test_soft_iou(B, H, W, threads):
    s = torch.rand(B, H, W, dtype=F64, requires_grad=True)
    valid = torch.rand(H, W) > 0.2
    for mask in (torch.rand(H, W) > 0.5, torch.rand(B, H, W, dtype=F64)):
        for v in (None, valid):
            assert gradcheck(lambda s, m=mask, v=v: gradients.soft_iou(s, m, v), (s,))
            torch.testing.assert_close(
                gradients.soft_iou(s, mask, v), soft_twins.soft_iou(s, mask, v)
            )
    hard = (torch.rand(B, H, W) > 0.5).float()
    torch.testing.assert_close(gradients.soft_iou(hard, hard > 0), torch.ones(B))
    assert (gradients.soft_iou(torch.zeros(2, 3, 3), torch.zeros(3, 3)) == 1).all()


def test_soften_knows_the_distance_to_the_contour():
    mask = torch.zeros(1, 9, 12, dtype=torch.bool)
    mask[0, 2:5, 3:9] = True
    soft = gradients.soften(mask, 2.0)[0]
    assert soft[3, 5] == 1 - 0.5 / (1 + 1.5 / 2) ** 2
    assert soft[7, 5] == 0.5 / (1 + 2.5 / 2) ** 2
    assert (gradients.soften(torch.zeros(1, 4, 4, dtype=torch.bool)) == 0).all()
    assert (gradients.soften(torch.ones(1, 4, 4, dtype=torch.bool)) == 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradients.chamfer(torch.zeros(2, 3, 3), torch.zeros(3, 4, 3)), "b: expected"),
        (
            lambda: gradients.chamfer(torch.zeros(2, 3, 3), torch.zeros(4, 3).double()),
            "b: expected",
        ),
        (lambda: gradients.soft_iou(torch.zeros(2, 3, 3), torch.zeros(4, 3)), "mask: expected"),
        (lambda: gradients.soft_observe(drawn_things(1, 0)[0]), "expected float32 or float64"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_jax_has_the_same_values_and_gradients():
    import jax
    import jax.numpy as jnp
    from jax.test_util import check_grads
    from lucibot_kernels.gradients import jax as lj

    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        real = partial(jnp.asarray, dtype=jnp.float64)
        for B, N, M in ((1, 4, 3), (3, 20, 30)):
            a, b = real(rng.normal(size=(B, N, 3))), real(rng.normal(size=(B, M, 3)))
            p, q = real(rng.normal(size=(B, 3))), real(rng.normal(size=(B, 4)))
            once = {"order": 1, "modes": ("rev",), "eps": 1e-6}
            check_grads(lambda a, b: sum(lj.chamfer(a, b)), (a, b), **once)
            check_grads(lambda a, b: lj.contact_distance(a, b), (a, b), **once)
            check_grads(
                lambda a, p, q, b: lj.contact_distance(lj.posed(a, p, q), b),
                (a[0], p, q, b),
                **once,
            )
            mask = jnp.asarray(rng.random((5, 6)) > 0.5)
            s = real(rng.random((B, 5, 6)))
            check_grads(lambda s, m=mask: lj.soft_iou(s, m), (s,), **once)
            area, eye = real(0.03 * rng.normal(size=(N, 3))), real([0, -1, 0.5])
            tips = real(0.05 * rng.normal(size=(1, 5, 3)))
            counted = jnp.ones((1, N), bool)
            check_grads(
                lambda p, q, x=(area, counted), y=(tips, eye): lj.tip_distance(*x, p, q, *y),
                (0.03 * p[None], q[None]), **once,
            )  # fmt: skip
        observer, state, _ = drawn_things(2, 4)
        weight = rng.random((2, CAMERA["height"], CAMERA["width"]))
        arrays = [real(x.detach().numpy()) for x in state]

        def drawn(*arrays):
            picture = lj.soft_observe(observer, *arrays, blur_px=1.5, blur_m=0.05)
            return (weight * (picture.silhouette + picture.depth)).sum()

        by_jax = jax.jit(jax.grad(drawn, argnums=(0, 1, 2)))(*arrays)
        picture = gradients.soft_observe(observer, *state, blur_px=1.5, blur_m=0.05)
        by_torch = torch.autograd.grad(
            (torch.from_numpy(weight) * (picture.silhouette + picture.depth)).sum(), state
        )
        for x, y in zip(by_jax, by_torch, strict=True):
            np.testing.assert_allclose(x, y.numpy())
        for x, y in zip(jax.grad(drawn, argnums=(0, 1, 2))(*arrays), by_torch, strict=True):
            np.testing.assert_allclose(x, y.numpy())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no core can be chosen here")
def test_jitted_calls_do_not_wait_for_each_other_on_one_core():
    code = """
import os
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import jax, jax.numpy as jnp
from lucibot_kernels.gradients import jax as lj
mask = jnp.ones((16, 240, 320), bool)
slope = jax.jit(jax.value_and_grad(lambda x: lj.soft_iou(jnp.sin(x) ** 2, mask).sum()))
x = jnp.full(mask.shape, 0.5)
print(float(sum(found for found, _ in [slope(x + 0.01 * k) for k in range(20)])))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True
    )
    wanted = 16 * sum(np.sin(0.5 + 0.01 * k) ** 2 for k in range(20))
    assert float(done.stdout) == pytest.approx(wanted, rel=1e-4)


def test_jax_and_torch_share_memory():
    import jax.numpy as jnp
    from lucibot_kernels.gradients import jax as lj

    x = jnp.arange(6.0)
    there = lj.to_torch(x)
    assert there.data_ptr() == x.unsafe_buffer_pointer()
    assert lj.to_jax(there).unsafe_buffer_pointer() == there.data_ptr()


def test_the_documentations_examples():
    text = (Path(__file__).parents[1] / "docs" / "gradients.md").read_text()
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert names["iou"] > 0.85
    start = torch.tensor([[[0.25, 0.15, 1.0]]], requires_grad=True)
    drawn = gradients.soft_observe(names["observer"], start, names["upright"], blur_px=3.0)
    (1 - gradients.soft_iou(drawn.silhouette, names["wanted"])).sum().backward()
    np.testing.assert_allclose(names["slope"], start.grad, rtol=1e-5)
