"""Split-conformal ellipses and ellipsoids that hold a landmark's true place, from the shape of its heatmap.

The score of an example is the Mahalanobis distance of the true place from the found one, under the covariance of the
heatmap's peak. A new region reaches as many of its own standard deviations as the score of rank
``ceil((N + 1) * coverage)`` among N examples, exchangeable with the new image. The promised share of regions then holds
the true place even if the covariances are wrong in size; better shapes give smaller regions. If a covariance has no
shape (one cell, a line, nothing), the region is a ball whose radius is calibrated on the examples without a shape.

Regions are matrices ``A`` in mm^2: a place ``x`` lies in the region around ``c`` if ``(x - c)^T A^-1 (x - c) <= 1``.

Reference: Vovk, Conditional Validity of Inductive Conformal Predictors, ACML 2012, section 3 (a quantile for every
group); Johnstone and Cox, Conformal uncertainty sets for robust optimization, COPA 2021 (ellipsoids).
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl._json import parsed_json
from medpixcl.landmarks.calibration import conformal_quantile, counts, known_sizes, names_and_coverage, scaled
from medpixcl.limits import regular_file

MIN_SD_MM = 1e-3
"""Least standard deviation in mm along any direction of a covariance that has a shape."""
UNLIKE_SHARE = 0.1
"""Share of the examples whose difficulty a new image must exceed to count as unlike them."""
LEAST_UNLIKE, LEAST_UNLIKE_SHARE = 3, 0.3
"""Least number and share of unlike images of a warning."""
LEAST_IMAGES = 20
"""Number of calibrating images below which they do not tell what is unlike them."""
MAX_ELONGATION = 100.0
"""Largest ratio of length to width of a covariance that has a shape."""


def has_shape(covariance: Float[Tensor, "*n d d"]) -> Bool[Tensor, "*n"]:
    """True for covariances that can give a region: finite, and wide enough in every direction.

    Example:
        >>> has_shape(torch.stack([torch.eye(2), torch.zeros(2, 2), torch.diag(torch.tensor([1.0, 0.0]))]))
        tensor([ True, False, False])
    """
    finite = covariance.isfinite().all(dim=-1).all(dim=-1)
    variances = torch.linalg.eigvalsh(torch.where(finite[..., None, None], covariance, 0).double())
    least, most = variances[..., 0], variances[..., -1]
    return finite & (least >= MIN_SD_MM**2) & (most <= MAX_ELONGATION**2 * least)


def mahalanobis_distance(away: Float[Tensor, "*n d"], covariance: Float[Tensor, "*n d d"]) -> Float[Tensor, "*n"]:
    """Compute ``sqrt(away^T covariance^-1 away)``; NaN where the covariance has no shape or an input is NaN.

    Example:
        >>> mahalanobis_distance(torch.tensor([4.0, 0.0]), torch.diag(torch.tensor([4.0, 1.0])))
        tensor(2., dtype=torch.float64)
    """
    shaped = has_shape(covariance)[..., None, None]
    unit = torch.eye(covariance.shape[-1], dtype=torch.float64, device=covariance.device)
    whole = torch.where(shaped, covariance.double(), unit)
    square = (away.double() * torch.linalg.solve(whole, away.double()[..., None])[..., 0]).sum(dim=-1)
    return torch.where(shaped[..., 0, 0], square.clamp_min(0).sqrt(), torch.nan)


def semi_axes(regions: Float[Tensor, "*n d d"]) -> tuple[Float[Tensor, "*n d"], Float[Tensor, "*n d d"]]:
    """Semi-axes of regions: lengths in mm, longest first, and directions as columns; NaN where there is no region.

    Example:
        >>> semi_axes(torch.diag(torch.tensor([4.0, 9.0])))[0]
        tensor([3., 2.])
    """
    known = regions.isfinite().all(dim=-1).all(dim=-1)
    squares, directions = torch.linalg.eigh(torch.where(known[..., None, None], regions, 0))
    lengths = squares.clamp_min(0).sqrt().flip(-1)
    return (
        torch.where(known[..., None], lengths, torch.nan),
        torch.where(known[..., None, None], directions.flip(-1), torch.nan),
    )


def balls(radii_mm: Float[Tensor, "*n"], dims: int) -> Float[Tensor, "*n d d"]:
    """Regions in mm^2 that reach equally far in all ``dims`` directions; NaN where there is no radius.

    Example:
        >>> balls(torch.tensor([2.0]), 2)
        tensor([[[4., 0.],
                 [0., 4.]]])
    """
    return torch.eye(dims).to(radii_mm) * radii_mm.square()[..., None, None]


def region_size(regions: Float[Tensor, "*n d d"]) -> Float[Tensor, "*n"]:
    """Size of regions: radius in mm of the ball of equal area or volume; NaN where there is no region."""
    return semi_axes(regions)[0].log().mean(dim=-1).exp()


@dataclass(frozen=True)
class RegionCalibration:
    """Calibration that turns covariances into regions, which hold the true place with a given probability.

    Attributes:
        names: Names of the K landmarks.
        coverage: Probability that a region holds the true place.
        scales: Number of standard deviations that a region reaches, per landmark; None with too few examples.
        radii_mm: Radius in mm for covariances without a shape, per landmark; None with too few examples.
        unsure_above_mm: Size in mm (see :func:`region_size`) above which a region marks its landmark as unsure; None
            without examples.
        examples: Numbers of examples with and without a shape, per landmark.
        difficulty_above: Difficulty of an image (:func:`medpixcl.landmarks.difficulty.image_difficulty`) that
            ``UNLIKE_SHARE`` of the examples exceed; None if unknown.
        weights: Digest of the weights that the examples were found with; empty if unknown.
    """

    names: tuple[str, ...]
    coverage: float
    scales: tuple[float | None, ...]
    radii_mm: tuple[float | None, ...]
    unsure_above_mm: float | None
    examples: tuple[tuple[int, int], ...]
    difficulty_above: float | None = None
    weights: str = ""

    def __post_init__(self) -> None:
        rows = (self.scales, self.radii_mm, self.examples)
        if any(len(row) != len(self.names) for row in rows):
            raise ValueError(f"a calibration of regions needs {len(self.names)} values of each kind, one per landmark.")

    def regions_of(self, names: Sequence[str], covariance: Float[Tensor, "*n k d d"]) -> Float[Tensor, "*n k d d"]:
        """Return regions in mm^2 around found landmarks, NaN where missing.

        Args:
            names: Names of the K landmarks.
            covariance: Covariances of the heatmaps' peaks in mm^2, shape (..., K, D, D); NaN for missing landmarks.

        Raises:
            ValueError: If a landmark was not calibrated.
        """
        spread = covariance.double()
        scales, radii = (self._values(names, row).to(spread) for row in (self.scales, self.radii_mm))
        ball = balls(radii, spread.shape[-1])
        missing = spread.isnan().any(dim=-1).any(dim=-1)[..., None, None]
        region = torch.where(has_shape(spread)[..., None, None], spread * scales.square()[:, None, None], ball)
        return torch.where(missing, torch.nan, region)

    def unsure(self, regions: Float[Tensor, "*n d d"]) -> Bool[Tensor, "*n"]:
        """True for regions that are larger than nearly all regions of the examples' landmarks, or unknown."""
        return ~(region_size(regions) <= (math.nan if self.unsure_above_mm is None else self.unsure_above_mm))

    def warning(self, difficulties: Float[Tensor, " n"]) -> str:
        """Warn if images look unlike the examples: so many are difficult that chance does not explain it; else empty.

        Args:
            difficulties: Difficulty of each image, shape (N,); NaN counts as difficult.
        """
        if self.difficulty_above is None or max(map(sum, self.examples), default=0) < LEAST_IMAGES:
            return ""
        count, hard = len(difficulties), int((~(difficulties <= self.difficulty_above)).sum())
        chance = count * UNLIKE_SHARE + 3 * math.sqrt(count * UNLIKE_SHARE * (1 - UNLIKE_SHARE))
        if hard < max(LEAST_UNLIKE, LEAST_UNLIKE_SHARE * count, chance):
            return ""
        return (
            f"{hard} of {count} images are harder than {100 * (1 - UNLIKE_SHARE):g} % of those that the regions were "
            f"calibrated on: the regions may hold fewer true places than {100 * self.coverage:g} %; calibrate on "
            "images like these"
        )

    def _values(self, names: Sequence[str], row: Sequence[float | None]) -> Float[Tensor, " k"]:
        if unknown := sorted(set(names) - set(self.names)):
            raise ValueError(
                f"the calibration has no landmark {unknown[0]!r}; expected one made with the same detector on images "
                "with known landmarks"
            )
        by_name = dict(zip(self.names, row, strict=True))
        chosen = [by_name[name] for name in names]
        return torch.tensor([math.nan if value is None else value for value in chosen], dtype=torch.float64)

    def stretched(self, factor: float) -> "RegionCalibration":
        """Copy whose regions are so many times as long along every axis; the same landmarks are unsure."""
        (limit,) = scaled((self.unsure_above_mm,), factor)
        return replace(
            self, scales=scaled(self.scales, factor), radii_mm=scaled(self.radii_mm, factor), unsure_above_mm=limit
        )

    def to_json(self) -> str:
        """Return the calibration as JSON text, for :meth:`read`."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, path: str | Path) -> "RegionCalibration":
        """Read a calibration that :meth:`to_json` wrote.

        Raises:
            ValueError: If the file is not a calibration of regions; the message names the file.
        """
        file = regular_file(path)
        try:
            record: dict[str, Any] = parsed_json(file.read_text(encoding="utf-8"))
            scales, radii = (known_sizes(record[key]) for key in ("scales", "radii_mm"))
            examples = tuple((shaped, other) for shaped, other in map(counts, record["examples"]))
            limit, above = known_sizes([record["unsure_above_mm"], record["difficulty_above"]])
            names, coverage = names_and_coverage(record)
            return cls(names, coverage, scales, radii, limit, examples, above, str(record["weights"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path} is no calibration of regions, or one of an earlier version; calibrate the regions again."
            ) from None


def calibrate_regions(
    away_mm: Float[Tensor, "n k d"],
    covariance: Float[Tensor, "n k d d"],
    names: Sequence[str],
    *,
    coverage: float = 0.9,
    sure_share: float = 0.98,
    difficulty: Float[Tensor, " n"] | None = None,
    weights: str = "",
) -> RegionCalibration:
    """Calibrate regions on examples: images with known landmarks that were not used in the training.

    If a landmark has too few examples of a kind for a finite quantile, the quantile of all landmarks is used; if they
    are too few together, there is none.

    Args:
        away_mm: True minus found position in mm of K landmarks in N examples, along the array axes, shape (N, K, D);
            NaN where either is missing.
        covariance: Covariances of the heatmaps' peaks in mm^2, along the same axes, shape (N, K, D, D).
        names: Names of the K landmarks.
        coverage: Probability that a true place lies within its region.
        sure_share: Share of the examples' regions, of all landmarks together, that count as sure.
        difficulty: Difficulty of each example, shape (N,), by which unlike images are told later; None if unknown.
        weights: Digest of the weights that the examples were found with.

    Raises:
        ValueError: If the numbers of landmarks differ, or a share is not between 0 and 1.
    """
    if len(names) != away_mm.shape[1]:
        raise ValueError(f"found {len(names)} names for {away_mm.shape[1]} landmarks; expected one for each")
    found = ~covariance.isnan().any(dim=-1).any(dim=-1) & ~away_mm.isnan().any(dim=-1)
    scores = torch.where(found, mahalanobis_distance(away_mm, covariance), torch.nan)
    distance = torch.linalg.vector_norm(away_mm.double(), dim=-1)
    others = torch.where(found & ~has_shape(covariance), distance, torch.nan)
    counts = zip(*[(~values.isnan()).sum(dim=0).tolist() for values in (scores, others)], strict=True)
    calibration = RegionCalibration(
        tuple(names),
        coverage,
        _quantiles(scores, coverage),
        _quantiles(others, coverage),
        None,
        tuple((int(one), int(other)) for one, other in counts),
        None if difficulty is None else float(difficulty.double().nanquantile(1 - UNLIKE_SHARE)),
        weights,
    )
    known = torch.where(found[..., None, None], covariance.double(), torch.nan)
    sizes = region_size(calibration.regions_of(names, known)).flatten()
    sizes = sizes[~sizes.isnan()]
    if not len(sizes):
        return calibration
    limit = torch.minimum(conformal_quantile(sizes, sure_share), sizes.max())
    return replace(calibration, unsure_above_mm=float(limit))


def _quantiles(scores: Float[Tensor, "n k"], share: float) -> tuple[float | None, ...]:
    """Conformal quantile of each landmark, or of all if it has too few examples; None if these are too few, too."""
    each, pooled = conformal_quantile(scores, share), conformal_quantile(scores.flatten(), share)
    chosen = torch.where(each.isfinite(), each, pooled)
    return tuple(value if math.isfinite(value) else None for value in chosen.tolist())


def region_scale(away_mm: Float[Tensor, "n k d"], regions: Float[Tensor, "n k d d"], coverage: float) -> float | None:
    """Compute by how much regions must be stretched to hold a share of the true places of other images.

    Args:
        away_mm: True minus found position in mm in some images, shape (N, K, D); NaN where either is missing.
        regions: Regions of these landmarks in mm^2, shape (N, K, D, D); NaN where there is none.
        coverage: Probability that a true place lies within its stretched region.

    Returns:
        Factor of the semi-axes; None if there are too few examples, all landmarks together.

    Example:
        >>> away = torch.tensor([[3.0, 0.0]]).expand(9, 1, 2)
        >>> region_scale(away, torch.eye(2).expand(9, 1, 2, 2), 0.9)
        3.0
    """
    scale = float(conformal_quantile(mahalanobis_distance(away_mm, regions).flatten(), coverage))
    return scale if math.isfinite(scale) else None


def covered(away_mm: Float[Tensor, "*n d"], regions: Float[Tensor, "*n d d"]) -> Float[Tensor, "*n"]:
    """1 where the true place lies in the region, 0 where not, NaN where either is not known.

    Args:
        away_mm: True minus found position in mm, shape (..., D).
        regions: Regions in mm^2, shape (..., D, D).
    """
    known = regions.isfinite().all(dim=-1).all(dim=-1) & ~away_mm.isnan().any(dim=-1)
    unit = torch.eye(regions.shape[-1], dtype=torch.float64, device=regions.device)
    whole = torch.where(known[..., None, None], regions.double(), unit)
    square = (away_mm.double() * torch.linalg.solve(whole, away_mm.double()[..., None])[..., 0]).sum(dim=-1)
    return torch.where(known, (square <= 1).double(), torch.nan)


def coverage_report(
    target: float,
    names: Sequence[str],
    away_mm: Float[Tensor, "n k d"],
    regions: Float[Tensor, "n k d d"],
    unsure: Bool[Tensor, "n k"],
) -> dict[str, Any]:
    """Measure how many true places lie in their regions, on images that the calibration has not seen.

    Args:
        target: Probability with which the regions are meant to hold the true places.
        names: Names of the K landmarks.
        away_mm: True minus found position in mm, shape (N, K, D).
        regions: Regions in mm^2, shape (N, K, D, D).
        unsure: Flags of unsure landmarks, shape (N, K).

    Returns:
        ``target``, and both over all landmarks and for each under ``landmarks``: ``coverage`` (None without examples),
        its 95 % ``interval`` (Wilson's; the one over all landmarks is too narrow, since the landmarks of an image are
        correlated), ``examples``, the median ``size_mm`` of the regions, and the ``unsure`` share.
    """
    hits, sizes = covered(away_mm, regions), region_size(regions)
    each = {name: _summary(hits[:, number], sizes[:, number], unsure[:, number]) for number, name in enumerate(names)}
    return {"target": target, **_summary(hits, sizes, unsure), "landmarks": each}


def _summary(hits: Tensor, sizes: Tensor, unsure: Tensor) -> dict[str, Any]:
    known = ~hits.isnan()
    count = int(known.sum())
    if count == 0:
        return {"coverage": None, "interval": None, "examples": 0, "size_mm": None, "unsure": None}
    share = float(hits[known].mean())
    return {
        "coverage": share,
        "interval": wilson_interval(share, count),
        "examples": count,
        "size_mm": float(sizes[known].median()),
        "unsure": float(unsure[known].double().mean()),
    }


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """Compute the 95 % interval of a probability from the share of successes in ``count`` independent trials.

    Reference: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927).

    Example:
        >>> wilson_interval(0.9, 100)
        (0.8256..., 0.9447...)
    """
    z = 1.959963984540054
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return centre - half, centre + half
