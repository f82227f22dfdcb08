"""Keys of all processes, with their gradient, for a loss that equals that of one process with the whole batch."""

from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch import distributed as dist
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """Number of processes; 1 when torch.distributed is not initialised."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather_counts(count: int, device: torch.device) -> list[int]:
    """The ``count`` of every process, in rank order."""
    own = torch.tensor([count], device=device)
    every = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(every, own)
    return torch.cat(every).tolist()


def gather_keys(rows: Shaped[Tensor, "m ..."], counts: list[int]) -> Shaped[Tensor, "total ..."]:
    """Rows of all processes in rank order, with gradient; every process must call it, also with no rows.

    Args:
        rows: Rows of this process, shape (M, ...); M may differ between processes.
        counts: The M of every process, as :func:`gather_counts` gives it.
    """
    return _Gather.apply(rows, counts)


def global_count(count: int, device: torch.device) -> int:
    """Sum of ``count`` over all processes."""
    return sum(gather_counts(count, device)) if world_size() > 1 else count


class _Gather(torch.autograd.Function):
    """All-gather of unequal parts; backward sums the gradients that all processes hold for one part."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        """Parts of all processes, joined; each is padded to the longest on its way."""
        ctx.counts = counts
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        """Gradient of the own part, summed over processes."""
        total = outer.contiguous()
        dist.all_reduce(total)
        return total.split(ctx.counts)[dist.get_rank()], None
