"""Shape of the landmarks of many images as statistics: mean, principal modes and size, to judge what a detector found.

The shape knows which positions of a landmark go with those of the others. It tells an image of another view, a mirrored
image and a wrong pixel size from one like the training images, and a single landmark that was found at a wrong place
from the others. It holds no positions of any single image.

Reference: Cootes et al., Active Shape Models, CVIU 61 (1995) 38-59.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl._json import parsed_json
from medpixcl.data.wording import about
from medpixcl.landmarks.geometry import fit_similarity, robust_similarity, robust_weights, spread, transform
from medpixcl.limits import regular_file
from medpixcl.matching.point_distribution import PointDistribution

LEAST_LANDMARKS = 3
"""Least number of landmarks that have a shape."""
MODES = 12
"""Largest number of principal modes that are kept."""
MAX_DEVIATIONS = 3.0
"""Distance from the position that the others predict, in its standard deviations, beyond which a landmark contradicts
the shape."""
LEAST_FITTING = 2 / 3
"""Least share of the found landmarks that must fit the shape for any of them to be trusted. On cephalograms at least 18
of 19 do, of mirrored ones at most 10."""
MAX_SIZE_DEVIATIONS = 4.0
"""Deviation of the logarithm of the size, in standard deviations, beyond which no landmark is trusted."""
SIZE_SD = 0.1
"""Standard deviation of the logarithm of the size before any image was seen."""
SIZE_IMAGES = 3
"""Number of images for which ``SIZE_SD`` counts."""
LEAST_SPREAD_MM = 1e-3
"""Spread below which landmarks lie at one place, as in a blank image."""
START = 0.1
"""Standard deviation of landmarks around the fitted mean shape, in units of its spread, for the first weights."""


@dataclass(frozen=True)
class ShapeJudgement:
    """Judgement of the K landmarks of one image.

    Attributes:
        deviations: Distance of each landmark from the position that the others predict, in standard deviations, shape
            (K,); NaN for a missing one.
        size: Size of the landmarks, divided by the mean size of the training images.
        fits: True for each landmark that fits the shape, shape (K,). False for all if too many contradict it, or the
            size does.
    """

    deviations: Float[Tensor, " k"]
    size: float
    fits: Bool[Tensor, " k"]


@dataclass(frozen=True)
class ShapeStatistics:
    """Mean shape of landmarks and its variation.

    Attributes:
        names: Names of the K landmarks.
        mean_mm: Mean shape in mm at the mean size, shape (K, D).
        modes_mm: Principal modes of the variation in mm, each as long as its standard deviation, shape (M, K, D).
        rest_mm: Standard deviation along an axis of what the modes leave.
        size_sd: Standard deviation of the logarithm of the size.
        images: Number of images.
    """

    names: tuple[str, ...]
    mean_mm: Float[Tensor, "k d"]
    modes_mm: Float[Tensor, "m k d"]
    rest_mm: float
    size_sd: float
    images: int

    @classmethod
    def of(cls, points_mm: Float[Tensor, "n k d"], names: Sequence[str]) -> "ShapeStatistics | None":
        """Compute the statistics of N images; none if there are too few landmarks or one is always missing.

        Args:
            points_mm: Landmarks in mm, RAS+ or LPS+, shape (N, K, D); NaN where missing.
            names: Names of the K landmarks.
        """
        points = points_mm.double()
        there = ~points.isnan().any(dim=2)
        if len(names) < LEAST_LANDMARKS or not bool(there.any(dim=0).all()) or not bool(there.all(dim=1).any()):
            return None
        whole = points[there.all(dim=1)]
        sizes = torch.stack([spread(one) for one in whole]).log()
        first = whole[0] - whole[0].mean(dim=0)
        template = first * (sizes.mean().exp() / spread(first))
        known = torch.where(there[..., None], points, template)
        shape = PointDistribution(known, there.double(), template)
        mean, covariance = shape.mean, shape.covariance
        values, vectors = torch.linalg.eigh(covariance)
        kept = min(MODES, len(values) - 1)
        modes = (vectors * values.clamp_min(0).sqrt()).T.flip(0)[:kept].unflatten(1, mean.shape)
        deviation = (sizes - sizes.mean()).square().sum() + SIZE_IMAGES * SIZE_SD**2
        return cls(
            tuple(names),
            mean - mean.mean(dim=0),
            modes,
            float(values[: len(values) - kept].clamp_min(0).mean().sqrt()),
            float((deviation / (len(sizes) + SIZE_IMAGES)).sqrt()),
            len(points),
        )

    def judge(self, found_mm: Float[Tensor, "k d"]) -> ShapeJudgement:
        """Judge the landmarks found in an image by their positions alone.

        Args:
            found_mm: Landmarks in mm, RAS+ or LPS+, shape (K, D); NaN where missing.
        """
        found = found_mm.double()
        there = found.isfinite().all(dim=1)
        if int(there.sum()) < LEAST_LANDMARKS:
            return ShapeJudgement(torch.full_like(found[:, 0], torch.nan), math.nan, there)
        if spread(found[there]) < LEAST_SPREAD_MM:
            return ShapeJudgement(torch.where(there, torch.inf, torch.nan).double(), 0.0, torch.zeros_like(there))
        weights = self._first_weights(found, there)
        known = torch.where(there[:, None], found, self.mean_mm)
        judged = self._distribution.judge(known[None], weights[None])
        away = torch.linalg.vector_norm(known - judged.predicted[0], dim=1)
        deviations = torch.where(there, away / judged.deviation[0], torch.nan)
        matrix, _ = fit_similarity(self.mean_mm, judged.combined[0], torch.ones_like(weights))
        size = float(torch.linalg.det(matrix).abs() ** (1 / found.shape[1]))
        fits = deviations <= MAX_DEVIATIONS
        right_size = abs(math.log(max(size, 1e-9))) <= MAX_SIZE_DEVIATIONS * self.size_sd
        whole = right_size and int(fits.sum()) >= LEAST_FITTING * int(there.sum())
        return ShapeJudgement(deviations, size, fits & whole)

    def _first_weights(self, found: Tensor, there: Tensor) -> Tensor:
        """Weights (K,) of landmarks by their distance from the mean shape, fitted so that most of them agree."""
        matrix, shift = robust_similarity(self.mean_mm[there], found[there])
        size = START * spread(self.mean_mm) * torch.linalg.det(matrix).abs() ** (1 / found.shape[1])
        weights = torch.zeros_like(found[:, 0])
        residuals = found[there] - transform(self.mean_mm[there], matrix, shift)
        weights[there] = robust_weights(residuals, size.expand(int(there.sum())))
        return weights

    @cached_property
    def _distribution(self) -> PointDistribution:
        modes = self.modes_mm.flatten(1)
        covariance = modes.T @ modes + self.rest_mm**2 * torch.eye(modes.shape[1]).to(modes)
        return PointDistribution.known(self.mean_mm, covariance)

    def to_data(self) -> dict[str, Any]:
        """Return the statistics as plain data, for :meth:`from_data`: lengths to 0.001 mm."""
        return {
            "names": list(self.names),
            "images": self.images,
            "mean_mm": _rounded(self.mean_mm),
            "modes_mm": _rounded(self.modes_mm.flatten(1)),
            "rest_mm": round(self.rest_mm, 4),
            "size_sd": round(self.size_sd, 4),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "ShapeStatistics":
        """Take the statistics from the data of :meth:`to_data`.

        Raises:
            ValueError: If the data are no shape statistics.
        """
        try:
            mean = torch.tensor(data["mean_mm"], dtype=torch.float64)
            modes = torch.tensor(data["modes_mm"], dtype=torch.float64).unflatten(1, mean.shape)
            names = tuple(str(name) for name in data["names"])
            if len(names) != len(mean):
                raise ValueError("names and landmarks differ in number")
            numbers = (float(data["rest_mm"]), float(data["size_sd"]), int(data["images"]))
            return cls(names, mean, modes, *numbers)
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError, OverflowError) as error:
            raise ValueError(
                f"the shape of the landmarks cannot be read ({error}); give the one that the training wrote, or null"
            ) from None


def read_shape(path: str) -> dict[str, Any]:
    """Read the data of :meth:`ShapeStatistics.to_data` from a JSON file.

    Raises:
        ValueError: If the file holds something else.
    """
    with about(path):
        content: dict[str, Any] = parsed_json(regular_file(path).read_text(encoding="utf-8"))
        ShapeStatistics.from_data(content)
    return content


def misfit_warning(misfits: Sequence[bool]) -> str:
    """Warn of images that a detector does not fit; empty if there are none.

    Args:
        misfits: True for each image most of whose landmarks do not fit what the detector learnt.

    Example:
        >>> misfit_warning([False, True])[:60]
        'most landmarks of 1 of 2 images do not fit what the detector'
        >>> misfit_warning([False])
        ''
    """
    if not any(misfits):
        return ""
    return (
        f"most landmarks of {sum(misfits)} of {len(misfits)} images do not fit what the detector learnt: check that "
        "the images show the same view of the same part of the body, that they are not mirrored and that their pixel "
        "size is right; an unusual anatomy may be the cause, too"
    )


def _rounded(values: Tensor) -> list[Any]:
    return [[round(value, 3) for value in row] for row in values.tolist()]
