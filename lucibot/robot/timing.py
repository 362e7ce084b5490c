"""When an arm is where on its way: as fast as its joints' limits of speed and acceleration allow, by TOPP-RA
(Pham and Pham, 2018), and by a moving average over its answer, which keeps the limits of jerk."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicHermiteSpline, CubicSpline, PPoly

from lucibot.robot.arm import ArmSpec

FOLLOWING = 0.7
"""Of the joints' limits of acceleration and jerk, while something is held."""
GRID = 400
"""Places of a way at which limits are kept, at least."""
FREE = 1e6
"""A limit that is none."""
OFF_WAY_RAD = 5e-4
"""By so much a joint may leave the way where the average rounds it."""
STEP_S = 5e-4
"""Between two looks at the limits."""


@dataclass(frozen=True, kw_only=True)
class JointLimits:
    """What J joints keep."""

    velocity: np.ndarray
    """(J,) [rad/s]"""
    acceleration: np.ndarray
    """(J,) [rad/s^2]"""
    jerk: np.ndarray
    """(J,) [rad/s^3]; infinite where it is not limited."""

    @classmethod
    def of(cls, spec: ArmSpec, *, velocity: float = 1.0, rest: float = 1.0) -> JointLimits:
        """An arm's, `velocity` of its speeds and `rest` of its accelerations and jerks."""
        return cls(
            velocity=velocity * np.array(spec.velocity_rad_s),
            acceleration=rest * np.array(spec.acceleration_rad_s2),
            jerk=rest * np.array(spec.jerk_rad_s3 or [np.inf] * len(spec.joints)),
        )


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
    places: np.ndarray,
    angles: np.ndarray,
    limits: JointLimits,
    dt_s: float,
    *,
    fastest: float = FREE,
) -> Timed | None:
    """
    Args:
        places: (P,) rising, e.g. seconds of a simulation.
        angles: (P, J) [rad] there; a cubic spline leads through them.
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
    acceleration, window_s = _rounding(limits)
    speeds, rates = np.append(limits.velocity, fastest), np.append(acceleration, FREE)
    path = toppra.SplineInterpolator(places, columns)
    kept = [
        constraint.JointVelocityConstraint(np.stack([-speeds, speeds], 1)),
        constraint.JointAccelerationConstraint(np.stack([-rates, rates], 1)),
    ]
    grid = np.linspace(places[0], places[-1], max(GRID, 2 * len(places)))
    found = algorithm.TOPPRA(kept, path, gridpoints=grid)
    along = found.compute_parameterization(0, 0)[1]
    if along is None or not np.isfinite(along).all():
        return None
    t, q, v, a, j = _averaged(path.cspl, _fastest(grid, along), window_s)
    # Between the grid's places, and where an average needs it, limits are kept by taking longer.
    reached = [(v, speeds, 1), (a[:, :-1], limits.acceleration, 2), (j[:, :-1], limits.jerk, 3)]
    longer = max(1.0, *(float((np.abs(x) / most).max()) ** (1 / n) for x, most, n in reached))
    times = dt_s * np.arange(max(1, int(np.ceil(longer * t[-1] / dt_s))) + 1)
    found = CubicHermiteSpline(t, q, v)
    at = np.minimum(times / longer, t[-1])
    q, v = found(at), found(at, 1) / longer
    v[[0, -1]] = 0
    return Timed(times_s=times, angles=q[:, :-1], speeds=v[:, :-1], places=q[:, -1])


def followed(times_s: np.ndarray, angles: np.ndarray, spec: ArmSpec, dt_s: float) -> Timed | None:
    """When an arm is where on a way that it follows with something in its hand: (P,) moments of the simulation
    and (P, J) angles then [rad]. No faster than the simulation."""
    return timed(times_s, angles, JointLimits.of(spec, rest=FOLLOWING), dt_s, fastest=1.0)


def _rounding(limits: JointLimits) -> tuple[np.ndarray, float]:
    """Accelerations (J,) [rad/s^2] and the seconds of an average after which no jerk is above its limit and no joint
    farther than `OFF_WAY_RAD` from its way: what accelerates by at most a has, averaged over w, a jerk of at
    most 2 a / w, and is at most a w^2 / 24 from where it was w / 2 before."""
    a = np.minimum(limits.acceleration, np.cbrt(6 * OFF_WAY_RAD * limits.jerk**2))
    window_s = float((2 * a / limits.jerk).max())
    return (np.minimum(a, 24 * OFF_WAY_RAD / window_s**2) if window_s else a), window_s


def _fastest(places: np.ndarray, along: np.ndarray) -> PPoly:
    """The place at every time, of (N,) places and the speeds along the way there: evenly faster or slower in
    between."""
    seconds = 2 * np.diff(places) / np.maximum(along[1:] + along[:-1], 1e-9)
    rising = np.diff(along) / seconds
    times = np.concatenate([[0], np.cumsum(seconds)])
    return PPoly(np.stack([rising / 2, along[:-1], places[:-1]]), times)


def _averaged(way: CubicSpline, place: PPoly, window_s: float) -> tuple[np.ndarray, ...]:
    """Times (N,) evenly apart, angles (N, J), and what they change by: speed, acceleration and jerk. Where the way is
    not averaged its jerk is told as 0."""
    n = int(np.ceil(window_s / STEP_S))
    step = window_s / n if n else STEP_S
    inside = step * np.arange(int(np.ceil(place.x[-1] / step)) + 1)
    t = np.minimum(inside, place.x[-1])
    s = np.clip(place(t), way.x[0], way.x[-1])
    s1, s2 = place(t, 1)[:, None], place(t, 2)[:, None]
    q, w1, w2 = way(s), way(s, 1), way(s, 2)
    # At rest before and after.
    around = ((n, n), (0, 0))
    q = np.pad(q, around, mode="edge")
    v, a = np.pad(w1 * s1, around), np.pad(w2 * s1**2 + w1 * s2, around)
    jerk = (a[n:] - a[:-n]) / window_s if n else np.zeros_like(a)
    return step * np.arange(len(jerk)), *(_mean(x, n) for x in (q, v, a)), jerk


def _mean(x: np.ndarray, n: int) -> np.ndarray:
    """Of each row and the n before it, by the trapezoidal rule: n rows fewer than x has."""
    if not n:
        return x
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum((x[1:] + x[:-1]) / 2, axis=0)])
    return (total[n:] - total[:-n]) / n
