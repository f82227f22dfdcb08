"""Sums over bins of informativeness, in constant memory and equal on all processes."""

from collections.abc import Mapping, Sequence

import ignite.distributed as idist
import torch
from jaxtyping import Float
from torch import Tensor

MOST_BITS = 8.0
"""Entropy of 256 equally frequent grey levels; higher values are counted in the last bin."""


def binned_sums(
    informativeness: Float[Tensor, " n"], values: Sequence[Float[Tensor, " n"]], *, bin_bits: float
) -> Float[Tensor, "bins columns"]:
    """Number of pixels, sum of their informativeness and sum of each value, in every bin of informativeness.

    Args:
        informativeness: Informativeness in bits, shape (N,).
        values: Tensors to sum, each of shape (N,).
        bin_bits: Width of a bin in bits; bins run from 0 to :data:`MOST_BITS`.

    Returns:
        Float64 on the CPU, shape (bins, 2 + number of values).

    Example:
        >>> binned_sums(torch.tensor([0.5, 5.0, 5.5]), [torch.tensor([1.0, 2.0, 3.0])], bin_bits=4.0)
        tensor([[ 1.0000,  0.5000,  1.0000],
                [ 2.0000, 10.5000,  5.0000]], dtype=torch.float64)
    """
    number = round(MOST_BITS / bin_bits)
    bits = informativeness.detach().double().cpu()
    index = (bits / bin_bits).long().clamp(0, number - 1)
    columns = [torch.ones_like(bits), bits, *(value.detach().double().cpu() for value in values)]
    # Of no pixels at all bincount gives integers.
    return torch.stack([torch.bincount(index, column, minlength=number).double() for column in columns], dim=1)


def over_processes(sums: Tensor) -> Tensor:
    """Sum of a tensor on the CPU over all processes of torch.distributed; each of them must call it."""
    if idist.get_world_size() == 1:
        return sums
    return idist.all_reduce(sums.to(idist.device())).cpu()


def of_pairs(pairs: Mapping[str, Tensor], name: str) -> Tensor:
    """Property of the query pixels that the pairs hold.

    Raises:
        ValueError: If the pairs do not hold it.
    """
    if name not in pairs:
        raise ValueError(
            f"the pairs of a batch have no {name}, which this training follows: keep {name!r} among the keys that "
            "SelectItemsd of the preprocessing leaves in the item"
        )
    return pairs[name]
