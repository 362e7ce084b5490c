"""`FinalState`: what the success predicates need to know of one rollout. Measurement only."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class BodyState:
    """A rigid object's mesh frame before and after."""

    initial_pose: np.ndarray
    """(6,) position [m], rotation vector [rad], world."""
    pose: np.ndarray
    """(6,)."""
    velocity: np.ndarray
    """(6,) linear [m/s] and angular [rad/s], world axes."""
    joint: np.ndarray = field(default_factory=lambda: np.array(np.nan))
    """() value [rad or m] of a body on a joint, 0 at its initial pose; NaN for a free body."""


@dataclass(frozen=True, kw_only=True)
class ParticleState:
    """A particle object before and after."""

    initial: np.ndarray
    """(N, 3) float32 [m, world]."""
    final: np.ndarray
    """(N, 3) float32 [m, world]."""
    speed: np.ndarray
    """(N,) float32 [m/s] at the end."""
    size_m: np.ndarray
    """() particle size."""
    lower_m: np.ndarray
    """(3,) corner of the box that particles cannot leave."""
    upper_m: np.ndarray
    """(3,)."""
    reached_lower_m: np.ndarray
    """(3,) lowest coordinates any particle had at a keyframe or at the end."""
    reached_upper_m: np.ndarray
    """(3,)."""
    last_keyframe: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    """(N, 3) float32 [m, world] at the last keyframe, before the rollout settled."""


@dataclass(frozen=True, kw_only=True)
class FinalState:
    bodies: dict[str, BodyState]
    particles: dict[str, ParticleState]

    def save(self, path: Path) -> None:
        arrays = {}
        for kind in ("bodies", "particles"):
            for name, state in getattr(self, kind).items():
                for f in fields(state):
                    arrays[f"{kind}/{name}/{f.name}"] = getattr(state, f.name)
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> FinalState:
        found: dict[str, dict[str, dict]] = {"bodies": {}, "particles": {}}
        with np.load(path) as z:
            for key in z.files:
                kind, name, field = key.split("/")
                found[kind].setdefault(name, {})[field] = z[key]
        return cls(
            bodies={n: BodyState(**s) for n, s in found["bodies"].items()},
            particles={n: ParticleState(**s) for n, s in found["particles"].items()},
        )


class StateRecorder:
    """Collects the final states of all environments of a rollout."""

    def __init__(self, scene):
        self._scene = scene
        self._reached: dict[str, tuple] = {}
        self._initial: dict[str, np.ndarray] = {}
        self._looks: list[dict[str, np.ndarray]] = []

    def start(self) -> None:
        """Call with the scene freshly reset."""
        self._reached, self._looks = {}, []
        self.look()
        self._initial = self._looks[0]

    def look(self) -> None:
        """Call at each keyframe and at the end."""
        for obj in self._scene.particle_objects:
            p = self._scene.particles(obj.name)
            low, high = p.amin(0), p.amax(0)
            if obj.name in self._reached:
                low = low.minimum(self._reached[obj.name][0])
                high = high.maximum(self._reached[obj.name][1])
            self._reached[obj.name] = (low, high)
        now = {
            o.name: self._scene.particles(o.name).cpu().numpy().copy()
            for o in self._scene.particle_objects
        }
        self._looks = [*self._looks[-1:], now]

    def states(self) -> list[FinalState]:
        """One `FinalState` per environment."""
        from lucibot.sim.rollout import measured_pose

        scene = self._scene
        bodies, particles = {}, {}
        for obj in scene.rigid_objects:
            bodies[obj.name] = (
                measured_pose(scene, obj.name).cpu().numpy(),
                scene.velocity(obj.name).cpu().numpy(),
                np.full(scene.n_envs, np.nan) if obj.joint is None
                else scene.joint_value(obj.name).cpu().numpy(),
            )  # fmt: skip
        for obj in scene.particle_objects:
            particles[obj.name] = (
                scene.particles(obj.name).cpu().numpy(),
                scene.particle_velocity(obj.name).norm(dim=-1).cpu().numpy(),
                [r.cpu().numpy() for r in self._reached[obj.name]],
            )
        return [self._state(b, bodies, particles) for b in range(scene.n_envs)]

    def _state(self, b: int, bodies: dict, particles: dict) -> FinalState:
        from lucibot.core.geometry import pose_np

        scene = self._scene
        clouds = {}
        for name, (p, speed, (low, high)) in particles.items():
            lower, upper = scene.particle_bounds(name)
            clouds[name] = ParticleState(
                initial=self._initial[name][:, b].copy(), final=p[:, b].copy(),
                speed=speed[:, b].copy(), size_m=np.asarray(scene.particle_sizes_m[name]),
                lower_m=lower, upper_m=upper, reached_lower_m=low[b], reached_upper_m=high[b],
                last_keyframe=self._looks[0][name][:, b].copy(),
            )  # fmt: skip
        return FinalState(
            bodies={
                name: BodyState(
                    initial_pose=pose_np(scene.T_world_object(name, b)),
                    pose=pose[b].copy(), velocity=velocity[b].copy(), joint=np.asarray(joint[b]),
                )
                for name, (pose, velocity, joint) in bodies.items()
            },
            particles=clouds,
        )  # fmt: skip
