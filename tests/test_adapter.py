"""What is relied on of Genesis's insides is checked, and said in one line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from lucibot.core.errors import UserError
from lucibot.sim import adapter as door
from lucibot.sim.adapter import Adapter
from lucibot.task import load_task


def simulator(**changes) -> SimpleNamespace:
    """As much of Genesis's simulator as a scene without particles is asked for."""
    nothing = SimpleNamespace(is_active=False)
    rigid = SimpleNamespace(check_errno=None, n_links=2, dyn_state=SimpleNamespace(links=None))
    made = {
        "coupler": SimpleNamespace(preprocess=None, couple=None), "mpm_solver": nothing,
        "rigid_solver": rigid, "substep": None, "save_ckpt": None, "substeps_local": 1,
        "substep_post_coupling": None, "_B": 3,
    }  # fmt: skip
    return SimpleNamespace(sim=SimpleNamespace(**made | changes), visualizer=None)


def test_another_version_of_genesis_is_refused(monkeypatch):
    Adapter(simulator())
    monkeypatch.setattr(door, "version", lambda name: "9.9.9")
    with pytest.raises(UserError, match=r"9\.9\.9 is installed.*pip install genesis-world==1\.4"):
        Adapter(simulator())


@pytest.mark.parametrize("changes", [{"substeps_local": 4}, {"coupler": None, "substep": None}])
def test_another_inside_is_refused(changes, monkeypatch):
    scene = simulator(**changes)
    if "coupler" in changes:
        del scene.sim.coupler
    with pytest.raises(UserError, match=r"(is 4, not 1|coupler is not there).*genesis-world 1\.4"):
        Adapter(scene)


@pytest.mark.parametrize(
    "field, how",
    [
        (torch.zeros(2, 3, 4), r"\(2, 3, 4\) torch.float32, not \(2, 3, 3\)"),
        (torch.zeros(2, 3, 3, dtype=torch.float64), "torch.float64, not"),
        (torch.zeros(3, 3, 2).permute(2, 0, 1), "links.pos is"),
        (None, "links.pos is not there"),
    ],
)
def test_memory_of_another_shape_is_refused(field, how, monkeypatch):
    scene = simulator()
    found = SimpleNamespace() if field is None else SimpleNamespace(pos=field)
    scene.sim.rigid_solver.dyn_state.links = found
    monkeypatch.setattr(door, "view", lambda field: field)
    with pytest.raises(UserError, match=how):
        Adapter(scene).links()


@pytest.mark.slow
def test_parts_of_a_substep_come_in_their_order_and_are_counted():
    from lucibot.sim.scene import SimScene

    scene = SimScene(load_task("cut_dough"), n_envs=1, own_kernels=False)
    adapter, seen = scene._adapter, []
    for name in ("physics", "couple", "after"):
        part = getattr(adapter, name)
        setattr(adapter, name, lambda f, n=name, p=part: (seen.append(n), p(f)))
    adapter.before.append(lambda number: seen.append(number))
    for _ in range(2):
        scene.step()
    each = [[i, "physics", "couple", "after"] for i in range(adapter.substeps)]
    assert seen == [part for substep in each * 2 for part in substep]
