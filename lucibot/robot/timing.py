"""When an arm is where on its way: as fast as its joints' limits of speed and acceleration allow, by TOPP-RA
(Pham and Pham, 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lucibot.robot.arm import ArmSpec

FOLLOWING = 0.7
"""Of the joints' limits of acceleration, while something is held."""
GRID = 400
"""Places of a way at which limits are kept, at least."""
FREE = 1e6
"""A limit that is none."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """N moments, from rest to rest."""

    times_s: np.ndarray
    """(N,) evenly apart."""
    angles: np.ndarray
    """(N, J) [rad]"""
    speeds: np.ndarray
    """(N, J) [rad/s]"""
    places: np.ndarray
    """(N,) where on the way it is, in the unit in which the way is given."""


def timed(
    places: np.ndarray, angles: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, dt_s: float,
    *, fastest: float = FREE,
) -> Timed | None:  # fmt: skip
    """
    Args:
        places: (P,) rising, e.g. seconds of a simulation.
        angles: (P, J) [rad] there; a cubic spline leads through them.
        velocity, acceleration: (J,) limits [rad/s, rad/s^2].
        dt_s: between two moments.
        fastest: places a second that it goes at most.

    Returns:
        None where the limits cannot be kept.
    """
    import toppra
    from toppra import algorithm, constraint

    toppra.setup_logging("ERROR")
    # Where it is on the way is one more joint: its limit of speed is that of the way.
    columns = np.column_stack([angles, places])
    limits, rates = np.append(velocity, fastest), np.append(acceleration, FREE)
    path = toppra.SplineInterpolator(places, columns)
    kept = [
        constraint.JointVelocityConstraint(np.stack([-limits, limits], 1)),
        constraint.JointAccelerationConstraint(np.stack([-rates, rates], 1)),
    ]
    n = max(GRID, 2 * len(places))
    grid = np.linspace(places[0], places[-1], n)
    found = algorithm.TOPPRA(kept, path, gridpoints=grid, parametrizer="ParametrizeConstAccel")
    way = found.compute_trajectory(0, 0)
    if way is None:
        return None
    steps = max(1, int(np.ceil(way.duration / dt_s)))
    times = dt_s * np.arange(steps + 1)
    clipped = np.minimum(times, way.duration)
    q, v = way(clipped), way(clipped, 1)
    v[-1] = 0
    return Timed(times_s=times, angles=q[:, :-1], speeds=v[:, :-1], places=q[:, -1])


def followed(times_s: np.ndarray, angles: np.ndarray, spec: ArmSpec, dt_s: float) -> Timed | None:
    """When an arm is where on a way that it follows with something in its hand: (P,) moments of the simulation
    and (P, J) angles then [rad]. No faster than the simulation."""
    velocity, acceleration = np.array(spec.velocity_rad_s), np.array(spec.acceleration_rad_s2)
    return timed(times_s, angles, velocity, FOLLOWING * acceleration, dt_s, fastest=1.0)
