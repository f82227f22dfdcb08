"""Leak probe: how well global statistics alone, without anatomy, predict the opacity of a mixture.

If a network's opacity has a high R2 and this probe a low one, the network uses the content. The probe is ours; its
statistics (mean, spread, quantiles, spectrum) are those that reveal the opacity in mixtures of different domains.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from ignite.metrics import EpochMetric
from jaxtyping import Float
from torch import Tensor

from medpixcl._typing import Image

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
BANDS = 8
LEAST_A_FOLD = 10
MOST_VOXELS = 2**20
_PENALTIES = tuple(10.0**power for power in range(-4, 5))


@dataclass(frozen=True)
class LeakProbe:
    """Result of the leak probe.

    Attributes:
        r2: Mean R2 of the opacity on held-out mixtures; at 0 or below, the statistics predict nothing.
        spread: Standard deviation of R2 over the folds of all repeats.
        folds: R2 of each fold.
        number: Number of mixtures.
    """

    r2: float
    spread: float
    folds: tuple[float, ...]
    number: int

    def __str__(self) -> str:
        return f"leak probe: R2 {self.r2:.3f} (spread over folds {self.spread:.3f}, {self.number} mixtures)"


def global_statistics(images: Image) -> Float[Tensor, "b n"]:
    """Compute for each image and channel: mean, standard deviation, 7 quantiles, log power in 8 bands.

    The bands have equal width from 0 to half a cycle per voxel; a band without a frequency is 0. Quantiles of large
    images are taken over every n-th voxel.

    Args:
        images: Batch of 2D or 3D images, shape (B, C, *spatial).

    Returns:
        Statistics, shape (B, 17 * C), float64.
    """
    values = images.double()
    flat = values.flatten(2)
    thinned = flat[..., :: max(1, flat.shape[-1] // MOST_VOXELS)]
    levels = torch.tensor(QUANTILES, dtype=flat.dtype, device=flat.device)
    quantiles = thinned.quantile(levels, dim=2).movedim(0, 2)
    moments = torch.stack([flat.mean(2), flat.std(2, correction=0)], dim=2)
    return torch.cat([moments, quantiles, _band_powers(values)], dim=2).flatten(1)


def _band_powers(values: Tensor) -> Tensor:
    """Logarithm of the mean power in each band of frequencies, shape (B, C, BANDS)."""
    axes = tuple(range(2, values.ndim))
    power = torch.fft.fftn(values - values.mean(axes, keepdim=True), dim=axes, norm="ortho").abs().square().flatten(2)
    steps = [torch.fft.fftfreq(n, dtype=values.dtype, device=values.device) for n in values.shape[2:]]
    radius = sum(grid.square() for grid in torch.meshgrid(*steps, indexing="ij"))
    band = (torch.as_tensor(radius).sqrt() * 2 * BANDS).ceil().long().flatten() - 1
    rows = []
    for number in range(BANDS):
        inside = power[..., band == number]
        rows.append(inside.mean(2).clamp_min(1e-12).log() if inside.shape[-1] else torch.zeros_like(power[..., 0]))
    return torch.stack(rows, dim=2)


def leak_probe(
    statistics: Float[Tensor, "n k"],
    opacity: Float[Tensor, " n"],
    *,
    folds: int = 5,
    repeats: int = 3,
    seed: int = 0,
) -> LeakProbe:
    """R2 with which ridge regression on the statistics, their squares and products predicts held-out opacities.

    The penalty of each fold minimises the leave-one-out error within its training part, in closed form.

    Args:
        statistics: One row per mixture, see :func:`global_statistics`.
        opacity: True opacity of each mixture; the mean for an opacity map.
        folds: Number of folds, each held out once.
        repeats: Number of random assignments of mixtures to folds.
        seed: Random seed for assigning mixtures to folds.

    Raises:
        ValueError: If there are fewer than 10 mixtures per fold, a number is not finite, or all opacities are equal.

    Reference: leave-one-out errors of ridge regression: Golub, Heath and Wahba, Technometrics 21 (1979).
    """
    x, y = statistics.double().cpu(), opacity.double().cpu()
    if len(y) < LEAST_A_FOLD * folds:
        least = LEAST_A_FOLD * folds
        raise ValueError(f"found {len(y)} mixtures for {folds} folds; the leak probe needs at least {least}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("the mixtures or their opacities hold NaN or infinite values; check the images")
    if y.std() == 0:
        raise ValueError(f"all {len(y)} mixtures have the opacity {float(y[0]):g}; the leak probe needs different ones")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(repeats):
        parts = torch.randperm(len(y), generator=generator).tensor_split(folds)
        for held in parts:
            train = torch.ones(len(y), dtype=torch.bool)
            train[held] = False
            found.append(r_squared(_ridge(x[train], y[train], x[held]), y[held]))
    scores = torch.tensor(found, dtype=torch.float64)
    return LeakProbe(float(scores.mean()), float(scores.std()), tuple(found), len(y))


def r_squared(predicted: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float:
    """``1 - sum (p - t)^2 / sum (t - mean t)^2``."""
    return float(1 - (predicted - truth).square().sum() / (truth - truth.mean()).square().sum())


def _ridge(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """Fit ridge regression and predict new rows."""
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-12)
    terms, new_terms = (_quadratic((rows - mean) / spread) for rows in (x, new))
    mean, spread = terms.mean(0), terms.std(0).clamp_min(1e-12)
    terms, new_terms = (terms - mean) / spread, (new_terms - mean) / spread
    left, values, right = torch.linalg.svd(terms, full_matrices=False)
    along = left.mT @ (y - y.mean())
    best = (torch.inf, 1.0)
    for penalty in _PENALTIES:
        shrunk = values.square() / (values.square() + penalty * len(y))
        leverage = left.square() @ shrunk + 1 / len(y)
        residual = (y - y.mean() - left @ (shrunk * along)) / (1 - leverage).clamp_min(1e-9)
        best = min(best, (float(residual.square().mean()), penalty))
    weights = right.mT @ (values / (values.square() + best[1] * len(y)) * along)
    return y.mean() + new_terms @ weights


def _quadratic(rows: Tensor) -> Tensor:
    """Columns and all products of two columns."""
    first, second = torch.triu_indices(rows.shape[1], rows.shape[1])
    return torch.cat([rows, rows[:, first] * rows[:, second]], dim=1)


class LeakProbeR2(EpochMetric):
    """R2 of the leak probe over a validation's mixtures, to compare with the network's.

    NaN if there are too few mixtures or all have one opacity, so that a validation never stops a training.

    Args:
        output_transform: Function from the engine's output to (mixtures, opacities), such as
            :func:`medpixcl.training.mixup.mixtures_and_opacity`.
        folds: Number of folds, see :func:`leak_probe`.
        repeats: Number of random assignments to folds, see :func:`leak_probe`.
    """

    def __init__(self, output_transform: Callable = lambda output: output, *, folds: int = 5, repeats: int = 3) -> None:
        super().__init__(
            lambda statistics, opacity: _r2_or_nan(statistics, opacity, folds, repeats),
            output_transform=output_transform,
            check_compute_fn=False,
        )

    def update(self, output: tuple[Tensor, Tensor]) -> None:
        """Keep the statistics of a batch of mixtures and their opacities."""
        mixed, opacity = output
        super().update((global_statistics(mixed), opacity))


def _r2_or_nan(statistics: Tensor, opacity: Tensor, folds: int, repeats: int) -> float:
    if len(opacity) < LEAST_A_FOLD * folds or opacity.std() == 0:
        return float("nan")
    return leak_probe(statistics, opacity, folds=folds, repeats=repeats).r2
