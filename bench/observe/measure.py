"""Labels and depth of a mesh and 5,000 particles at 256 x 256: the kernel against Genesis's camera."""

from __future__ import annotations

import torch

from lucibot.benchmark import Bench
from lucibot.core.camera import Camera
from lucibot.core.geometry import rotate
from lucibot.sim.drawing import SPLAT_RADIUS
from lucibot.sim.observer import SceneObserver
from lucibot.sim.scene import SimScene
from lucibot.task import Task, load_task

SIZE = 256
PARTICLE_SIZE_M = 0.0040
"""cut_dough's block in 5,000 particles."""
ENVIRONMENTS = {"cpu": 8, "cuda": 128}


def measure(bench: Bench) -> None:
    task = finer(load_task("cut_dough"))
    camera = task.camera.resized(SIZE, SIZE)
    n_envs = ENVIRONMENTS[bench.device]
    scene = SimScene(task, n_envs=n_envs, device=bench.device, camera=camera,
                     particles_as="spheres")  # fmt: skip
    observer = SceneObserver(scene, camera)
    scatter = Scatter(scene, task, camera)
    bench.value("particles", len(scene.particles("dough")))
    bench.value("environments", n_envs)
    times = bench.race({
        "ours": lambda: observer.observe(scene.moment()),
        # Its camera draws one environment after the other: one is timed.
        "genesis_one_environment": lambda: scene.camera_labels(),
        "torch_scatter": lambda: scatter.draw(),
    })  # fmt: skip
    genesis = n_envs * times["genesis_one_environment"].median
    bench.value("genesis_over_ours", genesis / times["ours"].median, unit="x",
                target="at least 10")  # fmt: skip
    bench.ratio("torch_scatter_over_ours", times["torch_scatter"], times["ours"])
    # A label and a depth a pixel have to be written; a GPU's z-buffer is filled and read, too.
    bytes_a_pixel = 8 if bench.device == "cpu" else 24
    bench.roofline("ours", times["ours"], moved_bytes=n_envs * SIZE**2 * bytes_a_pixel)
    bench.gpu_busy("ours.gpu", lambda: observer.observe(scene.moment()), target="at most 1")


def finer(task: Task) -> Task:
    """The task with its target in more particles."""
    objects = [
        o if o.is_rigid else o.model_copy(
            update={"material": o.material.model_copy(update={"particle_size_m": PARTICLE_SIZE_M})}
        )
        for o in task.spec.objects
    ]  # fmt: skip
    return Task(task.folder, task.spec.model_copy(update={"objects": objects}), task.instruction)


class Scatter:
    """The same picture by torch alone: points of the mesh and squares for particles, scattered into
    a depth buffer. It has no holes, but neither has it exact outlines."""

    def __init__(self, scene: SimScene, task: Task, camera: Camera):
        self.scene, self.camera = scene, camera
        (knife,) = scene.rigid_objects
        mesh = task.mesh(knife)
        points, _ = mesh.sample(20_000, return_index=True, seed=0)
        device = scene.device
        self.points = torch.tensor(points, dtype=torch.float32, device=device)
        self.T = torch.tensor(camera.T_cam_world, dtype=torch.float32, device=device)
        self.name, self.knife, self.dough = "dough", task.label("knife"), task.label("dough")
        self.radius_m = scene.particle_sizes_m["dough"] * SPLAT_RADIUS

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        knife = self.scene.rigid_objects[0].name
        position, quaternion = (
            x[:, None] for x in (self.scene.position(knife), self.scene.quaternion(knife))
        )
        p = self.points.expand(len(position), -1, -1)
        mesh = rotate(quaternion, p) + position[:, :1]
        particles = self.scene.particles(self.name).transpose(0, 1)
        near = float(self.camera.fx * self.radius_m / 0.4)
        n = len(position)
        buffer = torch.full((n, SIZE * SIZE), torch.inf, device=position.device)
        self._scatter(buffer, mesh, 0)
        knife = buffer.clone()
        self._scatter(buffer, particles, round(near))
        label = torch.where(buffer < knife, self.dough, torch.where(
            knife.isfinite(), self.knife, 0))  # fmt: skip
        return label.view(n, SIZE, SIZE), buffer.view(n, SIZE, SIZE)

    def _scatter(self, buffer: torch.Tensor, world: torch.Tensor, reach: int) -> None:
        x = world @ self.T[:3, :3].T + self.T[:3, 3]
        u = (self.camera.fx * x[..., 0] / x[..., 2] + self.camera.cx).long()
        v = (self.camera.fy * x[..., 1] / x[..., 2] + self.camera.cy).long()
        for dv in range(-reach, reach + 1):
            for du in range(-reach, reach + 1):
                a, b = (u + du).clamp(0, SIZE - 1), (v + dv).clamp(0, SIZE - 1)
                buffer.scatter_reduce_(1, b * SIZE + a, x[..., 2], "amin")
