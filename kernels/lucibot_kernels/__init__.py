"""Batched tensor kernels of LuciBot: one Quadrants source for CPU and GPU, on torch tensors.

Each kernel has a checked wrapper, exported here, and a slow readable torch twin in
`lucibot_kernels.twins`. Importing this package imports neither torch nor Quadrants.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lucibot_kernels.affordance import HandSpace, tip_distance
    from lucibot_kernels.clouds import Chamfer, chamfer, min_distance, nearest_distance
    from lucibot_kernels.groups import linked_groups
    from lucibot_kernels.observe import Observation, Observer, Wanted
    from lucibot_kernels.overlap import label_iou
    from lucibot_kernels.points import Surface, unproject
    from lucibot_kernels.runtime import ensure_initialized
    from lucibot_kernels.thinning import even_ranks

_HOME = {
    "HandSpace": "affordance",
    "tip_distance": "affordance",
    "Chamfer": "clouds",
    "chamfer": "clouds",
    "min_distance": "clouds",
    "nearest_distance": "clouds",
    "linked_groups": "groups",
    "Observation": "observe",
    "Observer": "observe",
    "Wanted": "observe",
    "label_iou": "overlap",
    "Surface": "points",
    "unproject": "points",
    "ensure_initialized": "runtime",
    "even_ranks": "thinning",
}

__all__ = [
    "Chamfer",
    "HandSpace",
    "Observation",
    "Observer",
    "Surface",
    "Wanted",
    "chamfer",
    "ensure_initialized",
    "even_ranks",
    "label_iou",
    "linked_groups",
    "min_distance",
    "nearest_distance",
    "tip_distance",
    "unproject",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'lucibot_kernels' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lucibot_kernels.{_HOME[name]}"), name)
