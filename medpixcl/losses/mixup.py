"""Losses of mix-up pretraining: the images behind a mixture, and the opacity of the target in it.

The mixture is ``x = opacity * target + (1 - opacity) * source``. Only the abstract of the paper (Zhang et al., ICME
2022, arXiv 2204.00901) names the two tasks; norms, weights and the physics check are ours.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from monai.losses import SSIMLoss
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl._typing import Image
from medpixcl.losses.gathering import divisor_over_processes

POOLS: dict[int, Callable[..., Tensor]] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


def pool_opacity(opacity: Float[Tensor, "b ..."], cells: Sequence[int]) -> Float[Tensor, "b 1 *cells"]:
    """Pool the opacity to the cells of a head: the mean over each cell or, without cells, over the image.

    Args:
        opacity: Opacity of each image, shape (B,) or (B, 1), or a map (B, 1, *spatial).
        cells: Shape of the head's map; empty for one number per image.

    Example:
        >>> pool_opacity(torch.tensor([[[[1.0, 1.0, 1.0, 0.25]]]]), (1, 2)).flatten()
        tensor([1.0000, 0.6250])
    """
    if opacity.ndim <= 2:
        return opacity.reshape(-1, 1, *[1] * len(cells)).expand(-1, 1, *cells)
    if not cells:
        return opacity.flatten(2).mean(2)
    return POOLS[len(cells)](opacity, tuple(cells))


def reconstruction_loss(
    predicted: Image, truth: Float[Tensor, "b c *t"], *, kind: str = "l1", weights: Float[Tensor, " b"] | None = None
) -> Float[Tensor, ""]:
    """Mean over images, by weight, of the mean absolute (``l1``) or squared (``l2``) error, or of 1 - SSIM.

    Args:
        predicted: Reconstruction, shape (B, C, *spatial).
        truth: Image to reconstruct, shape (B, C, *spatial).
        kind: ``l1``, ``l2`` or ``ssim``. SSIM is MONAI's, with a data range of 1 and a window of 11 voxels, less in
            smaller images.
        weights: Weight of each image, not negative, shape (B,); equal by default.

    Raises:
        ValueError: If the shapes differ or the kind is unknown.

    Example:
        >>> t, x = torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]]), torch.tensor([[[[0.25, 0.75], [0.5, 0.375]]]])
        >>> reconstruction_loss(x, t).item(), reconstruction_loss(x, t, kind="l2").item()
        (0.15625, 0.03515625)
    """
    if predicted.shape != truth.shape:
        raise ValueError(
            f"found a reconstruction of shape {tuple(predicted.shape)} for an image of shape {tuple(truth.shape)}; the "
            "sizes of the image must be multiples of the network's coarsest stride"
        )
    if kind == "ssim":
        window = min(11, *truth.shape[2:])
        ssim = SSIMLoss(truth.ndim - 2, data_range=1.0, win_size=window - 1 + window % 2, reduction="none")
        each = ssim(predicted, truth).flatten()
    elif kind in ("l1", "l2"):
        error = predicted - truth
        each = (error.abs() if kind == "l1" else error.square()).flatten(1).mean(1)
    else:
        raise ValueError(f"the reconstruction loss is {kind!r}; expected 'l1', 'l2' or 'ssim'")
    if weights is None:
        return each.mean()
    total = divisor_over_processes(weights.sum())
    return (weights * each).sum() / total.clamp_min(torch.finfo(weights.dtype).tiny)


def opacity_loss(
    logits: Float[Tensor, "b k *cells"],
    opacity: Float[Tensor, "b ..."],
    *,
    kind: str = "squared",
    opacity_range: Sequence[float | int] = (0.0, 1.0),
) -> Float[Tensor, ""]:
    """Mean loss of the opacity over images and cells.

    ``squared``: ``(sigmoid(logit) - opacity)^2``. ``cross_entropy``: of the opacity as a probability; it never falls
    below the opacity's own entropy. ``ordinal``: for each border between equal bins, the cross-entropy of whether
    the opacity is above it.

    Args:
        logits: Logits of the opacity, shape (B, 1) or (B, 1, *cells); for ``ordinal`` (B, bins - 1).
        opacity: True opacity, see :func:`pool_opacity`.
        kind: ``squared``, ``cross_entropy`` or ``ordinal``.
        opacity_range: Lowest and highest opacity, for ``ordinal``.

    Raises:
        ValueError: If the kind is unknown or the number of logits does not suit it.
    """
    truth = pool_opacity(opacity, logits.shape[2:]).to(logits)
    if kind == "ordinal":
        low, high = opacity_range
        borders = torch.arange(1, logits.shape[1] + 1, device=logits.device) / (logits.shape[1] + 1)
        borders = low + (high - low) * borders.to(logits)
        above = (truth > borders.view(1, -1, *[1] * (logits.ndim - 2))).to(logits)
        return F.binary_cross_entropy_with_logits(logits, above)
    if kind not in ("squared", "cross_entropy"):
        raise ValueError(f"the opacity loss is {kind!r}; expected 'squared', 'cross_entropy' or 'ordinal'")
    if logits.shape[1] != 1:
        raise ValueError(f"found {logits.shape[1]} logits per image for the opacity loss {kind!r}; expected 1")
    if kind == "cross_entropy":
        return F.binary_cross_entropy_with_logits(logits, truth)
    return (logits.sigmoid() - truth).square().mean()


def physics_loss(target: Image, source: Image, opacity: Float[Tensor, "b 1 *cells"], mixed: Image) -> Float[Tensor, ""]:
    """Mean absolute difference between the mixture and the one made of the predictions; it needs no truth.

    Args:
        target: Predicted target, shape (B, C, *spatial).
        source: Predicted source, shape (B, C, *spatial).
        opacity: Predicted opacity, shape (B, 1), or a map (B, 1, *cells), which is interpolated.
        mixed: Mixture, shape (B, C, *spatial).
    """
    dims = mixed.ndim - 2
    if opacity.ndim == 2:
        share = opacity[(..., *[None] * dims)]
    else:
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[dims]
        share = F.interpolate(opacity, size=mixed.shape[2:], mode=mode, align_corners=False)
    return (share * target + (1 - share) * source - mixed).abs().mean()


def mixup_terms(
    output: Mapping[str, Tensor],
    truth: Mapping[str, Tensor],
    *,
    reconstruction: str = "l1",
    opacity: str = "squared",
    opacity_range: Sequence[float | int] = (0.0, 1.0),
    weigh_by_opacity: bool = False,
) -> dict[str, Tensor]:
    """Compute the terms of the objective, each without its weight.

    Args:
        output: ``target`` and ``opacity_logits``; for the terms ``source`` and ``physics`` also ``source`` and
            ``opacity``. See :class:`medpixcl.networks.mixup.MixUpNet`.
        truth: ``target`` and ``opacity``; ``source`` and ``mixed`` where the output has a ``source``.
        reconstruction: Loss of the reconstruction, see :func:`reconstruction_loss`.
        opacity: Loss of the opacity, see :func:`opacity_loss`.
        opacity_range: Lowest and highest opacity, see :func:`opacity_loss`.
        weigh_by_opacity: Weigh the target's reconstruction by its mean opacity, and the source's by the rest, because
            an image that hardly shows can only be guessed.

    Returns:
        ``reconstruction`` and ``opacity``, and ``source`` and ``physics`` where the output has a ``source``.
    """
    found = {name: value if value.dtype == torch.float64 else value.float() for name, value in output.items()}
    given = {name: value.to(found["target"]) for name, value in truth.items()}
    share = pool_opacity(given["opacity"], ())[:, 0]
    weights, rest = (share, 1 - share) if weigh_by_opacity else (None, None)
    terms = {
        "reconstruction": reconstruction_loss(found["target"], given["target"], kind=reconstruction, weights=weights),
        "opacity": opacity_loss(found["opacity_logits"], given["opacity"], kind=opacity, opacity_range=opacity_range),
    }
    if "source" in found:
        terms["source"] = reconstruction_loss(found["source"], given["source"], kind=reconstruction, weights=rest)
        terms["physics"] = physics_loss(found["target"], found["source"], found["opacity"], given["mixed"])
    return terms


def mixup_objective(terms: Mapping[str, Tensor], weights: Mapping[str, float | int]) -> Float[Tensor, ""]:
    """Sum of the terms by weight; a term of weight 0, or without one, is left out and gives no gradient."""
    used = [weights[name] * value for name, value in terms.items() if weights.get(name, 0) > 0]
    if not used:
        raise ValueError(f"no term of the objective has a weight above 0: the output gives {', '.join(terms)}")
    return torch.stack(used).sum()


class MixUpObjective(nn.Module):
    """Objective of mix-up pretraining, see :func:`mixup_terms` and :func:`mixup_objective`.

    At the start the absolute error is about 0.1 to 0.2, while a constant opacity of 0.5 has a squared error of 0.03 to
    0.08; with a weight of 1 the second task would learn little.

    Args:
        reconstruction_weight: Weight of the target's reconstruction.
        opacity_weight: Weight of the opacity.
        source_weight: Weight of the source's reconstruction; needs a network that reconstructs the source.
        physics_weight: Weight of the physics loss; needs a network that reconstructs the source.
        reconstruction: Loss of the reconstructions, see :func:`reconstruction_loss`.
        opacity: Loss of the opacity, see :func:`opacity_loss`.
        opacity_range: Lowest and highest opacity, see :func:`opacity_loss`.
        weigh_by_opacity: Whether reconstructions are weighted by opacity, see :func:`mixup_terms`.

    Attributes:
        latest: Terms of the last call, without weights and gradients.

    Raises:
        ValueError: If a weight is negative or all are 0; from a call, if a weighted term needs a source and there is
            none.
    """

    def __init__(
        self,
        *,
        reconstruction_weight: float | int = 1.0,
        opacity_weight: float | int = 3.0,
        source_weight: float | int = 0.0,
        physics_weight: float | int = 0.0,
        reconstruction: str = "l1",
        opacity: str = "squared",
        opacity_range: Sequence[float | int] = (0.0, 1.0),
        weigh_by_opacity: bool = False,
    ) -> None:
        super().__init__()
        self.weights = {
            "reconstruction": reconstruction_weight,
            "opacity": opacity_weight,
            "source": source_weight,
            "physics": physics_weight,
        }
        if min(self.weights.values()) < 0 or max(self.weights.values()) == 0:
            raise ValueError(f"the weights are {self.weights}; expected none below 0 and one above")
        self.reconstruction, self.opacity = reconstruction, opacity
        self.opacity_range, self.weigh_by_opacity = tuple(opacity_range), weigh_by_opacity
        self.latest: dict[str, Tensor] = {}

    def forward(self, output: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch: the network's output, and ``target``, ``opacity``, ``source``, ``mixed``."""
        with torch.autocast(output["target"].device.type, enabled=False):
            terms = mixup_terms(
                output,
                target,
                reconstruction=self.reconstruction,
                opacity=self.opacity,
                opacity_range=self.opacity_range,
                weigh_by_opacity=self.weigh_by_opacity,
            )
            absent = [name for name, weight in self.weights.items() if weight > 0 and name not in terms]
            if absent:
                raise ValueError(
                    f"the term {absent[0]} has a weight, but the network gives no source: build it with "
                    "reconstruct_source=True"
                )
            self.latest = {name: value.detach() for name, value in terms.items()}
            return mixup_objective(terms, self.weights)
