"""Ways of an arm's joints that hit nothing, by OMPL's RRT-Connect."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

RANGE_RAD = 0.6
"""Longest branch of a tree."""
CHECKED_RAD = 0.04
"""Between two places of a way that are looked at."""
MOST_CHECKS = 20_000
"""Places that are looked at before it is given up: a count, for a clock would not be the same twice."""
SHORTCUTS = 60
"""Tries to make a way shorter."""


def free_way(
    start: np.ndarray, goal: np.ndarray, lower: np.ndarray, upper: np.ndarray,
    free: Callable[[np.ndarray], bool], *, seed: int = 0,
) -> np.ndarray | None:  # fmt: skip
    """A way from start to goal, (J,) each [rad], within the limits.

    Args:
        free: whether the arm hits nothing at (J,) angles.

    Returns:
        (N, J) [rad], places on it at most `CHECKED_RAD` apart in the joint that moves most; None where
        none was found.
    """
    from ompl import base, geometric, util

    util.setLogLevel(util.LOG_NONE)
    util.RNG.setSeed(seed + 1)
    J, checks = len(start), 0
    space = base.RealVectorStateSpace(J)
    bounds = base.RealVectorBounds(J)
    for j in range(J):
        # What starts at a limit rounds to within.
        bounds.setLow(j, float(min(lower[j], start[j], goal[j])))
        bounds.setHigh(j, float(max(upper[j], start[j], goal[j])))
    space.setBounds(bounds)

    def valid(state) -> bool:
        nonlocal checks
        checks += 1
        return free(np.array([state[j] for j in range(J)]))

    setup = geometric.SimpleSetup(space)
    setup.setStateValidityChecker(valid)
    info = setup.getSpaceInformation()
    info.setStateValidityCheckingResolution(CHECKED_RAD / space.getMaximumExtent())
    ends = []
    for angles in (start, goal):
        state = space.allocState()
        for j in range(J):
            state[j] = float(angles[j])
        ends.append(state)
    setup.setStartAndGoalStates(*ends)
    planner = geometric.RRTConnect(info)
    planner.setRange(RANGE_RAD)
    setup.setPlanner(planner)
    setup.solve(base.PlannerTerminationCondition(lambda: checks > MOST_CHECKS))
    if not setup.haveExactSolutionPath():
        return None
    path = setup.getSolutionPath()
    shorter = geometric.PathSimplifier(info)
    shorter.reduceVertices(path, SHORTCUTS, SHORTCUTS)
    shorter.partialShortcutPath(path, SHORTCUTS, SHORTCUTS)
    corners = np.array([[s[j] for j in range(J)] for s in path.getStates()])
    return evenly(corners, CHECKED_RAD)


def evenly(corners: np.ndarray, apart_rad: float) -> np.ndarray:
    """(N, J) along straight lines between corners (C, J), at most so far apart in each joint."""
    parts = [corners[:1]]
    for a, b in pairwise(corners):
        n = max(1, int(np.ceil(np.abs(b - a).max() / apart_rad)))
        parts.append(a + np.linspace(0, 1, n + 1)[1:, None] * (b - a))
    return np.concatenate(parts)
