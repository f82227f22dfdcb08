"""Match a source's statistics to the medical image, so that only content distinguishes both in a mixture."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MATCHES = ("none", "moments", "spectrum")
EMPTY = 1e-6
"""Spread of values, and power of a band, below which a source is taken for empty."""


def match_source(
    source: Float[Tensor, " c *s"], target: Float[Tensor, " c *s"], foreground: Bool[Tensor, " 1 *s"], how: str
) -> Float[Tensor, " c *s"]:
    """Make the source look like the target in its statistics.

    Args:
        source: Image to change, shape (C, *spatial).
        target: Image whose statistics the source gets, shape (C, *spatial).
        foreground: Mask of the voxels whose values are compared, shape (1, *spatial); at least one is True.
        how: ``none``; ``moments``, see :func:`match_moments`; ``spectrum``, which is :func:`match_spectrum` followed by
            :func:`match_histogram`.

    Raises:
        ValueError: If there is no such way.
    """
    if how == "none":
        return source
    if how == "moments":
        return match_moments(source, target, foreground)
    if how == "spectrum":
        return match_histogram(match_spectrum(source, target), target, foreground)
    raise ValueError(f"match is {how!r}; expected one of {', '.join(MATCHES)}.")


def match_moments(
    source: Float[Tensor, " c *s"], target: Float[Tensor, " c *s"], foreground: Bool[Tensor, " 1 *s"]
) -> Float[Tensor, " c *s"]:
    """Give the source the mean and the standard deviation that the target has, per channel, both in the foreground.

    A source that is flat there becomes the target's mean.
    """
    inside = foreground[0]
    own, wanted = source[:, inside], target[:, inside]
    factor = wanted.std(dim=1, correction=0) / own.std(dim=1, correction=0).clamp_min(EMPTY)
    shape = (-1, *[1] * (source.ndim - 1))
    return (source - own.mean(dim=1).view(shape)) * factor.view(shape) + wanted.mean(dim=1).view(shape)


def match_histogram(
    source: Float[Tensor, " c *s"], target: Float[Tensor, " c *s"], foreground: Bool[Tensor, " 1 *s"]
) -> Float[Tensor, " c *s"]:
    """Give the source the values that the target has, per channel, both in the foreground, in the source's own order.

    Equal values stay equal: they get the target's value at their mean rank.
    """
    inside, result = foreground[0], torch.empty_like(source)
    for number, (own, wanted) in enumerate(zip(source, target, strict=True)):
        ordered, values, flat = own[inside].sort().values, wanted[inside].sort().values, own.flatten().contiguous()
        ranks = torch.searchsorted(ordered, flat) + torch.searchsorted(ordered, flat, right=True)
        result[number] = values[((ranks - 1) // 2).clamp(0, len(values) - 1)].view_as(own)
    return result


def match_spectrum(source: Float[Tensor, " c *s"], target: Float[Tensor, " c *s"]) -> Float[Tensor, " c *s"]:
    """Give the source the power that the target has in every band of frequencies, per channel; phases stay.

    Bands are rings (in 3D shells) around frequency zero, as wide as the longest axis resolves; the mean is a band of
    its own. A band in which the source is empty stays empty.
    """
    axes = tuple(range(1, source.ndim))
    steps = [torch.fft.fftfreq(size, device=source.device) for size in source.shape[1:]]
    squares = torch.stack(torch.meshgrid(*steps, indexing="ij")).square().sum(0)
    bands = (squares.sqrt() * max(source.shape[1:])).round().long()
    own, wanted = torch.fft.fftn(source, dim=axes), torch.fft.fftn(target, dim=axes)
    power, wished = (
        torch.zeros(len(source), int(bands.max()) + 1, device=source.device).index_add_(
            1, bands.flatten(), field.abs().square().flatten(1)
        )
        for field in (own, wanted)
    )
    gain = torch.where(power > EMPTY, wished / power.clamp_min(EMPTY), 1.0).sqrt()
    return torch.fft.ifftn(own * gain[:, bands], dim=axes).real
