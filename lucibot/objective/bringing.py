"""The objective of rollouts that bring home what is judged elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from lucibot.objective.home import BringHome
from lucibot.objective.objective import Looks, Objective, Seen


class Bringing:
    """The `Objective` of a `BringHome`."""

    def __init__(self, config: BringHome, beside: Objective | None):
        self._config, self._beside = config, beside
        self.weights = {} if beside is None else beside.weights
        looks = Looks() if beside is None else beside.looks
        goal = config.moment == "goal"
        self.looks = Looks(
            masks=looks.masks, contact_pairs=looks.contact_pairs, parts=looks.parts,
            around_pairs=looks.around_pairs,
            goal=looks.goal or (config.picture and goal),
            settled=looks.settled or (config.picture and not goal),
            state=looks.state or (config.state and goal),
            settled_state=looks.settled_state or (config.state and not goal),
        )  # fmt: skip

    def score(self, seen: Seen) -> dict[str, Tensor]:
        """See `Objective`."""
        return {} if self._beside is None else self._beside.score(seen)

    def shown(self, seen: Seen) -> dict[str, Tensor]:
        """See `Objective`."""
        c, out = self._config, {}
        if c.picture:
            picture = getattr(seen, c.moment)
            out |= {"label": picture.label.to(torch.uint8), "depth": picture.depth.half()}
        if c.state:
            state = seen.state if c.moment == "goal" else seen.settled_state
            P = seen.contact.shape[1]
            out |= {f"position/{n}": x[-P:] for n, x in state.position.items()}
            out |= {f"quaternion/{n}": x[-P:] for n, x in state.quaternion.items()}
            out |= {f"particles/{n}": x[:, -P:].transpose(0, 1) for n, x in state.particles.items()}
        return out
