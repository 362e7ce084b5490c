"""What a hand holds goes where the hand goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lucibot.task import load_task


@pytest.mark.slow
@pytest.mark.parametrize("own_kernels", [True, False])
def test_held_particles_arrive_where_they_are_to_be(own_kernels):
    """An arc of the rubber band is led up and towards the camera at 0.3 and 0.15 m/s: after each step
    what is held is where it was to be, but for its two ends, at which the rest of the band pulls."""
    from lucibot.sim.grip import patch
    from lucibot.sim.scene import SimScene

    task = load_task("rubber_band")
    scene = SimScene(task, n_envs=2, own_kernels=own_kernels)
    band, grip = scene.particles("band"), scene.grips["band"]
    end_m = np.array([0.06, -0.0913, 0.003])
    held = torch.as_tensor(patch(task.object("band"), band[:, 0].numpy(), end_m))
    start = grip.take(held).clone()
    speed_m_s = torch.tensor([[0.0, -0.18, 0.24], [0.0, -0.09, 0.12]])
    for step in range(1, 31):
        target = start + step * scene.dt_s * speed_m_s
        grip.aim(target)
        scene.step()
        apart_mm = 1e3 * torch.linalg.vector_norm(band[held] - target, dim=-1)
        assert apart_mm[0].max() < 0.1  # The particle that was grasped.
        assert apart_mm.quantile(0.95) < 0.5 and apart_mm.mean() < 0.1
    assert torch.linalg.vector_norm(band[held] - start, dim=-1).min() > 0.015
