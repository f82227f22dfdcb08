"""Pixel InfoNCE: each anchor must find its positive among all keys."""

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.losses.chunked import AnchorInfoNCE, Setting, SummedInfoNCE
from medpixcl.losses.negatives import Negatives


def pixel_info_nce(
    anchors: Float[Tensor, "n c"],
    keys: Float[Tensor, "m c"],
    targets: Int[Tensor, " n"],
    *,
    temperature: float = 0.07,
    key_positions: Float[Tensor, "m d"] | None = None,
    key_images: Int[Tensor, " m"] | None = None,
    exclusion_radius: float = 0.0,
    window: int | None = None,
    distance_slope: float = 0.0,
    distance_cap: float = 0.0,
    clamp: bool = False,
    reduction: Literal["mean", "sum", "none"] = "mean",
    chunk: int = 512,
) -> Tensor:
    """InfoNCE of anchors against keys, in memory linear in their number.

    The loss of an anchor with positive ``t`` is ``-log(exp(l_t) / sum_j exp(l_j))`` over the keys ``j`` that count,
    with ``l_j = (cosine_j + min(slope * d_j, cap)) / temperature`` and ``d_j`` the Euclidean distance between key j
    and the place of the anchor's positive; keys of other images get no shift. The positive always counts.

    CC2D is ``clamp=True, temperature=1`` with a window or all cells of the image as keys. CC2D v2 is
    ``temperature=0.1, distance_slope=0.07, distance_cap=0.8`` with positions in cells.

    Args:
        anchors: Query vectors, shape (N, C); they are normalised here.
        keys: Candidate vectors, shape (M, C); they are normalised here.
        targets: Index of each anchor's positive among the keys, shape (N,).
        temperature: Number that divides the cosine.
        key_positions: Position of each key, shape (M, D), in the same unit and axis order.
        key_images: Image number of each key, shape (M,); without it, all keys are of one image.
        exclusion_radius: Distance from the positive below which keys of the same image are no negatives.
        window: Count only keys of the same image whose offset from the positive is in ``[-window, window)`` along every
            axis; None counts all keys.
        distance_slope: Growth of the shift with distance, in cosine per unit of position.
        distance_cap: Largest shift, in units of the cosine.
        clamp: Clamp the cosine to [0, 1].
        reduction: ``"mean"`` over the anchors that count (exactly 0 when there are none), ``"sum"``, or ``"none"``
            (shape (N,), 0 where not valid; its gradient costs one more matrix product).
        chunk: Largest number of anchors worked on at a time; fewer where their logits would fill more than 16 MiB.

    Returns:
        The loss in float32 (float64 for inputs in float64), with a gradient for anchors and keys.

    Raises:
        ValueError: If shapes do not fit, a number is out of its range, or positions are missing.

    References:
        arXiv 2103.04527 (CC2D), arXiv 2203.01687 (distance shift of CC2D v2).

    Example:
        >>> pixel_info_nce(torch.eye(3), torch.eye(3), torch.arange(3), temperature=1.0)
        tensor(0.5514)
    """
    negatives = Negatives(
        key_positions=key_positions,
        key_images=key_images,
        exclusion_radius=exclusion_radius,
        window=window,
        distance_slope=distance_slope,
        distance_cap=distance_cap,
    )
    _check_numbers(temperature, chunk, reduction)
    _check_shapes(anchors, keys, targets, negatives)
    negatives.check()
    setting = Setting(temperature, clamp, chunk, negatives)
    if reduction == "none":
        return AnchorInfoNCE.apply(anchors, keys, targets, setting)
    wanted = tuple(torch.is_grad_enabled() and vectors.requires_grad for vectors in (anchors, keys))
    total = SummedInfoNCE.apply(anchors, keys, targets, setting, wanted)
    return total / max(len(anchors), 1) if reduction == "mean" else total


def _check_numbers(temperature: float, chunk: int, reduction: str) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it divides the cosine and must be greater than 0.")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it is a number of anchors and must be at least 1.")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is {reduction!r}; expected 'mean', 'sum' or 'none'.")


def _check_shapes(anchors: Tensor, keys: Tensor, targets: Tensor, negatives: Negatives) -> None:
    if anchors.ndim != 2 or keys.ndim != 2 or anchors.shape[1] != keys.shape[1]:
        raise ValueError(
            f"anchors have shape {tuple(anchors.shape)} and keys {tuple(keys.shape)}; "
            "expected (N, C) and (M, C) with the same C."
        )
    _check_length("anchors", len(anchors), {"targets": targets})
    _check_length("keys", len(keys), {"key_positions": negatives.key_positions, "key_images": negatives.key_images})
    _check_targets(targets, len(keys))


def _check_length(of: str, count: int, tensors: Mapping[str, Tensor | None]) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and len(tensor) != count:
            raise ValueError(f"{name} has {len(tensor)} rows for {count} {of}; give one row for each.")


def _check_targets(targets: Tensor, keys: int) -> None:
    """On a CPU only: elsewhere the look would stall the device, and indexing fails there by itself."""
    if targets.device.type == "cpu" and len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < keys:
        raise ValueError(
            f"targets run from {int(targets.min())} to {int(targets.max())}; "
            f"expected an index among the {keys} keys, from 0."
        )
