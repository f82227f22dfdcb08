"""Momentum schedule of PixPro's momentum encoder."""

import math
from typing import Any

from ignite.engine import Engine, Events
from torch import nn


def momentum_at(step: int, steps: int, start: float = 0.99) -> float:
    """``1 - (1 - start) * (1 + cos(pi * step / steps)) / 2``: from ``start`` to 1, as in PixPro's code.

    Example:
        >>> [round(momentum_at(step, 10), 4) for step in (0, 5, 10)]
        [0.99, 0.995, 1.0]
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


class MomentumEncoder:
    """Updates the momentum copy of a network before every step, with momentum on a cosine from ``start`` to 1.

    Ignite's ``EMAHandler`` has a constant or linear momentum, updates its copy after the step and keeps it outside the
    network; this copy gives the keys, so it is the network's. The step counted is the engine's iteration, so that a
    resumed training goes on exactly. At the beginning of a training, but not of a resumed one, the copy is made equal
    to the weights, whatever was loaded before: put it after the handler that loads the start weights, at any side of
    the one that resumes.

    Args:
        network: Network with ``follow`` and ``restart``, such as a :class:`medpixcl.networks.pixpro.PixProNet`; not the
            ``DistributedDataParallel`` around it.
        start: Momentum at the first step.

    Raises:
        ValueError: If ``start`` is not between 0 and 1.
    """

    def __init__(self, network: nn.Module, start: float = 0.99) -> None:
        if not 0 <= start <= 1:
            raise ValueError(f"the momentum starts at {start}; expected a number between 0 and 1, 0.99 in PixPro.")
        self.network: Any = network
        self.start = start

    def attach(self, engine: Engine) -> None:
        """Update the copy before every step."""
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def begin(self, engine: Engine) -> None:
        """Copy the weights, unless the training is resumed."""
        if engine.state.iteration == 0:
            self.network.restart()

    def __call__(self, engine: Engine) -> None:
        """Update the copy."""
        steps = engine.state.max_epochs * engine.state.epoch_length
        self.network.follow(momentum_at(engine.state.iteration - 1, steps, self.start))
