"""What rollouts are judged by: a family, of which the comparison with a video is one member.

An objective says what is to be looked at, is shown that of a batch of rollouts, and answers with
named, unweighted terms; lower is better. It knows nothing of the simulator, and the simulator shows
it nothing that it has not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from lucibot_kernels import Wanted

MAX_PARTS = 6
"""Largest parts of a rollout's target that are looked at."""
FAR_M = 0.3
"""Distance [m] that stands for "nowhere to be seen" in terms measured in metres."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What is to be looked at; the rest is neither drawn nor measured."""

    masks: Wanted | None = None
    """Masks (K, L, H, W) with which what is seen of L objects is compared at the K keyframes."""
    contact_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of objects of which is asked at each keyframe whether they touch."""
    goal: bool = False
    """The picture of the last keyframe."""
    settled: bool = False
    """The picture when all has been let go and has settled."""
    parts: bool = False
    """In these pictures, the targets part by part as well: the one thing that is not read from what
    is drawn, but from which particles hang together."""
    around_pairs: tuple[tuple[str, str], ...] = ()
    """Pairs (target, thing that stands still) of which is asked there whether one goes around the
    other."""
    state: bool = False
    """The simulator's own poses and particles at the keyframes, which no camera sees."""
    settled_state: bool = False
    """The same when all has been let go and has settled."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of the targets in P environments, nothing else drawn: tool and hand are gone."""

    number: Tensor
    """(P, H, W) int32: 0 where no target is, 1 .. MAX_PARTS otherwise."""
    depth: Tensor
    """(P, H, W) float32 [m]."""
    count: Tensor
    """(P,) int32 parts of all targets together."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What P environments look like at one moment, on the supervision's observation grid."""

    label: Tensor
    """(P, H, W) int32: 0 background, i + 1 for the task's object i."""
    depth: Tensor
    """(P, H, W) float32 [m]."""
    parts: Parts | None = None
    around: Tensor | None = None
    """(P, pairs) bool, of `Looks.around_pairs`: the target goes around the thing."""


class State(Protocol):
    """Where things are at K moments of P environments, those of the first moment first."""

    position: Mapping[str, Tensor]
    """(K P, 3) [m, world] of each rigid body's mesh frame."""
    quaternion: Mapping[str, Tensor]
    """(K P, 4) wxyz, mesh frame to world."""
    particles: Mapping[str, Tensor]
    """(N, K P, 3) [m, world] of each particle object."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """P rollouts of K keyframes, as far as `Looks` has asked."""

    overlap: Tensor | None = None
    """(K, P, L) IoU with `Looks.masks`."""
    contact: Tensor
    """(K, P, pairs) bool."""
    goal: Picture | None = None
    settled: Picture | None = None
    state: State | None = None
    settled_state: State | None = None


class Objective(Protocol):
    """One objective for one task on one device."""

    looks: Looks
    weights: Mapping[str, float]
    """Of every term that `score` gives, in the order in which they are added up."""

    def score(self, seen: Seen) -> dict[str, Tensor]:
        """Named, unweighted terms, (P,) each; an environment's do not depend on its neighbours."""
        ...

    def shown(self, seen: Seen) -> dict[str, Tensor]:
        """What is brought home to a judge outside of the simulation, by name, (P, ...) each; empty
        where the terms say all."""
        ...
