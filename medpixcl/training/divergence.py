"""Tell a training that has blown up, whose weights are finite but worth nothing, from one that goes on."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn


class DivergenceWatch:
    """Tells whether a training has diverged: its loss has risen over that of the first step, or its weights have grown.

    A training that blew up has finite weights at first, but it is worth nothing to go on from them.

    Args:
        network: Network in training.
        share: Share of an epoch over which the mean of the last losses is taken.
        growth: Multiple of the norm that all weights together had at the start, above which they have diverged. The
            loss may rise by as much as its size was.
    """

    def __init__(self, network: nn.Module, share: float = 0.25, growth: float = 10.0) -> None:
        self.network, self.share, self.growth = network, share, growth
        self.first = self.norm = math.nan
        self.last: deque[float] = deque(maxlen=1)

    def attach(self, engine: Engine) -> None:
        """Note the weights at the start and the loss of every step."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self) -> None:
        """Note the norm of the weights, unless the training is resumed."""
        if math.isnan(self.norm):
            self.norm = self._norm()

    def __call__(self, engine: Engine) -> None:
        """Note the loss of this step."""
        loss = engine.state.output["loss"].item()
        if math.isnan(self.first):
            self.first = loss
        self.last = deque(self.last, maxlen=max(1, int(self.share * engine.state.epoch_length)))
        self.last.append(loss)

    @property
    def diverged(self) -> bool:
        """Whether this state is none to go on from."""
        mean = sum(self.last) / max(1, len(self.last))
        return not (mean <= self.first + abs(self.first) and self._norm() <= self.growth * self.norm)

    def state_dict(self) -> dict[str, Any]:
        """The losses and the norm at the start; empty before it."""
        return {} if math.isnan(self.norm) else {"norm": self.norm, "first": self.first, "last": list(self.last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore them."""
        self.norm, self.first = state["norm"], state["first"]
        self.last = deque(state["last"], maxlen=max(1, len(state["last"])))

    def _norm(self) -> float:
        """Norm of all weights together; NaN or infinite if one of them is."""
        with torch.no_grad():
            return float(torch.nn.utils.get_total_norm(list(self.network.parameters())))
