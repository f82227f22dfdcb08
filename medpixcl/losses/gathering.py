"""What the processes of one training tell each other, so that many processes compute the loss of one.

With ``counts = gather_counts(n, device)`` for the n anchors of this process, ``gather_keys(keys, counts)`` as keys and
targets moved on by ``first_row(counts)``, the loss ``len(counts) * local_sum / sum(counts)`` has, once DistributedData-
Parallel has averaged, exactly the gradient of one process, also where processes hold different numbers of anchors.
"""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed as dist
from torch.autograd.function import once_differentiable


def gather_counts(count: int, device: torch.device) -> list[int]:
    """The ``count`` of every process in rank order; ``[count]`` when torch.distributed is not initialised."""
    if not (dist.is_available() and dist.is_initialized()):
        return [count]
    own = torch.tensor([count], device=device)
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    return torch.cat(every).tolist()


def divisor_over_processes(total: Shaped[Tensor, ""]) -> Shaped[Tensor, ""]:
    """Mean over all processes of the number that a loss divides by, such as a sum of weights, without gradient.

    With it the mean of the processes' losses, and of their gradients, is that of one process with all items, also where
    the processes hold different weights. Every process must call it, because they wait for each other. Without other
    processes, and without gradients, as in an evaluation of different numbers of batches, the number stays as it is.

    Args:
        total: Number of this process.
    """
    if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()):
        return total
    shared = total.detach().clone()
    dist.all_reduce(shared)
    return shared / dist.get_world_size()


def own_rank(counts: list[int]) -> int:
    """Index of this process in ``counts``."""
    return dist.get_rank() if len(counts) > 1 else 0


def first_row(counts: list[int]) -> int:
    """Index of the first row of this process among the gathered rows."""
    return sum(counts[: own_rank(counts)])


def gather_keys(keys: Shaped[Tensor, "m ..."], counts: list[int]) -> Shaped[Tensor, "total ..."]:
    """Gather the keys (or their positions or images) of all processes in rank order, with gradient.

    Every process must call it, even without keys, because the processes wait for each other, forward and backward.

    Args:
        keys: Keys of this process, shape (M, ...); only M may differ between processes.
        counts: Number M of every process (:func:`gather_counts`).
    """
    return keys if len(counts) == 1 else _Gather.apply(keys, counts)


class _Gather(torch.autograd.Function):
    """All-gather of unequal parts; backward sums the gradients that all processes hold for one part."""

    @staticmethod
    def forward(ctx: Any, keys: Tensor, counts: list[int]) -> Tensor:
        """Parts of all processes, joined; each is padded to the longest on its way."""
        ctx.counts = counts
        padded = keys.new_zeros(max(counts), *keys.shape[1:])
        padded[: len(keys)] = keys
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        """Gradient of the own part, summed over processes."""
        total = outer.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.split(ctx.counts)[dist.get_rank()], None
