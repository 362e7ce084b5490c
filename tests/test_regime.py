"""Steps that are too long for what is simulated are told, without building anything."""

import numpy as np
import pytest

from lucibot.sim.memory import environment_bytes
from lucibot.sim.regime import sound_cells, warnings
from lucibot.task import Task, load_task, task_names


def changed(name: str, *, stiffer: float = 1.0, **simulation) -> Task:
    task = load_task(name)
    objects = [o if o.is_rigid else o.model_copy(update={"material": o.material.model_copy(update={
        "youngs_modulus_pa": stiffer * o.material.youngs_modulus_pa})}) for o in task.objects]  # fmt: skip
    sim = task.spec.simulation.model_copy(update=simulation)
    spec = task.spec.model_copy(update={"objects": objects, "simulation": sim})
    return Task(task.folder, spec, task.instruction)


def test_sound_is_as_fast_as_the_material_is_stiff():
    """Dough of 50 kPa, 1000 kg/m^3 and a Poisson ratio of 0.3: 8.2 m/s, 4/3 ms, 64 cells a metre."""
    dough = changed("cut_dough", dt_s=0.004, substeps=3)
    assert sound_cells(dough) == {"dough": pytest.approx(8.204 * 0.004 / 3 * 64, rel=1e-3)}
    four = sound_cells(changed("cut_dough", dt_s=0.004, substeps=3, stiffer=4.0))
    assert four["dough"] == pytest.approx(2 * sound_cells(dough)["dough"])


def test_what_is_said_can_be_done():
    too_long = changed("cut_dough", dt_s=0.004, substeps=2)
    (said,) = warnings(too_long)
    assert said.startswith("dough: sound crosses 1.05 cells")
    needed = int(said.split("simulation.substeps = ")[1].split(",")[0])
    assert not warnings(changed("cut_dough", dt_s=0.004, substeps=needed))
    assert warnings(changed("cut_dough", dt_s=0.004, substeps=needed - 1))


def test_a_viscous_liquid_needs_shorter_steps():
    assert any("viscosity" in w for w in warnings(changed("pour_liquid", substeps=4)))


def test_of_two_sizes_of_particles_the_smaller_one_is_everybodys():
    task = load_task("lift_mochi")
    larger = {
        "material": task.object("brown_mochi").material.model_copy(
            update={"particle_size_m": 0.012}
        )
    }
    objects = [o.model_copy(update=larger) if o.name == "brown_mochi" else o for o in task.objects]
    two = Task(task.folder, task.spec.model_copy(update={"objects": objects}), task.instruction)
    (said,) = warnings(two)
    assert said.startswith("brown_mochi: particle_size_m = 0.012 is not used") and "0.006" in said
    assert environment_bytes(two) == environment_bytes(task)


def test_the_particles_of_a_cloud_are_counted(small_task, tmp_path):
    task = small_task("cut_dough", tmp_path / "cut_dough", width=160, height=120, fps=10)
    np.save(task.folder / "dough.npy", np.zeros((12_345, 3), np.float32))
    text = (task.folder / "task.toml").read_text()
    text = text.replace('kind = "elastoplastic",', 'kind = "elastoplastic", cloud = "dough.npy",')
    (task.folder / "task.toml").write_text(text)
    filled, kept = task, load_task(task.folder)
    assert kept.particle_count(kept.object("dough")) == 12_345
    more = 12_345 - filled.particle_count(filled.object("dough"))
    assert environment_bytes(kept) - environment_bytes(filled) == pytest.approx(1024 * more)


@pytest.mark.parametrize("name", task_names())
def test_nothing_is_to_be_said_of_shipped_tasks(name):
    assert not warnings(load_task(name))
