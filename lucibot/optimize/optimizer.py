"""What the search asks of an optimizer."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Optimizer(Protocol):
    """Minimises over R^D, starting at 0 with unit step size."""

    def ask(self) -> np.ndarray:
        """Samples (P, D) float32."""
        ...

    def tell(self, samples: np.ndarray, losses: np.ndarray) -> None: ...

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs, as arrays."""
        ...

    def restore(self, state: dict[str, np.ndarray]) -> None: ...
