"""Writes down the loss of every step of a training, for each process apart."""

from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import distributed


class Recorder:
    """Saves ``losses`` and the final ``metrics`` as ``recorded-<rank>.pt``.

    Args:
        trainer: MONAI trainer.
        evaluator: MONAI evaluator.
        folder: Where to.
    """

    def __init__(self, trainer: Any, evaluator: Any, folder: str) -> None:
        self.losses: list[float] = []
        self.evaluator = evaluator
        rank = distributed.get_rank() if distributed.is_initialized() else 0
        self.path = Path(folder) / f"recorded-{rank}.pt"
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.add)
        trainer.add_event_handler(Events.COMPLETED, self.save)

    def add(self, engine: Engine) -> None:
        self.losses.append(engine.state.output["loss"].item())

    def save(self, engine: Engine) -> None:
        torch.save({"losses": self.losses, "metrics": dict(self.evaluator.state.metrics)}, self.path)
