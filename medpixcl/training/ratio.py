"""The metric that is a sum over a sum, over all batches and processes: weighted means, shares and relative errors."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from torch import Tensor


class RatioOfSums(Metric):
    """Sum of one quantity over the sum of another.

    Args:
        empty: Sentence for a second sum of 0: what was found, and what to do.
        output_transform: Function from the engine's output to that of :meth:`quantities`.
    """

    required_output_keys = None

    def __init__(self, empty: str, output_transform: Callable = lambda output: output) -> None:
        self.empty = empty
        super().__init__(output_transform=output_transform)

    @abstractmethod
    def quantities(self, output: Any) -> tuple[Tensor, Tensor]:
        """Both quantities of a batch, each as a tensor of any shape, such as weighted distances and their weights."""

    @reinit__is_reduced
    def reset(self) -> None:
        """Start new sums."""
        self._sums = torch.zeros(2, dtype=torch.float64)

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Add a batch."""
        self._sums += torch.stack([quantity.sum().double().cpu() for quantity in self.quantities(output)])

    @sync_all_reduce("_sums")
    def compute(self) -> float:
        """Ratio of the sums since the last reset.

        Raises:
            NotComputableError: If the second sum is 0.
        """
        if self._sums[1] == 0:
            raise NotComputableError(self.empty)
        return float(self._sums[0] / self._sums[1])
