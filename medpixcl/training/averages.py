"""Moving average of the weights, validated and saved instead of the weights themselves."""

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn


class AveragedWeights:
    """Exponential moving average of a network's weights (Ignite's ``EMAHandler``), or the network itself when off.

    ``average = (1 - momentum) * average + momentum * weights`` after every step, beginning with the weights at the
    start of the training; buffers are those of the network. The average reaches back about ``1 / momentum`` steps.

    Args:
        network: Network in training, on its device, wrapped for mixed precision (with its definition as ``network``);
            may be a ``DistributedDataParallel``.
        momentum: Share of the new weights at each step, such as 0.005; 0 switches the average off.

    Attributes:
        network: Network to validate: the averaged one (never a ``DistributedDataParallel``), or the given one when off.

    Raises:
        ValueError: If ``momentum`` is not between 0 and 1.
    """

    def __init__(self, network: nn.Module, momentum: float = 0.0) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"ema_momentum is {momentum}; expected 0 (off) or a share of the new weights below 1.")
        self.handler = EMAHandler(network, momentum) if momentum > 0 else None
        self.network = network if self.handler is None else self.handler.ema_model

    @property
    def definition(self) -> nn.Module:
        """Validated network without the wrapper for mixed precision, whose weights are saved."""
        wrapped = self.network.module if isinstance(self.network, nn.parallel.DistributedDataParallel) else self.network
        return wrapped.get_submodule("network")

    def attach(self, engine: Engine) -> None:
        """Update after every step; attach after the loader of the start weights, before the handler that resumes."""
        if self.handler is not None:
            engine.add_event_handler(Events.STARTED, self.start)
            self.handler.attach(engine, warn_if_exists=False)

    def start(self, engine: Engine) -> None:
        """Begin with the weights that the network has now."""
        if self.handler is not None:
            self.network.load_state_dict(self.handler.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights; empty when off."""
        return {} if self.handler is None else self.network.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the averaged weights."""
        if self.handler is not None:
            self.network.load_state_dict(state)
