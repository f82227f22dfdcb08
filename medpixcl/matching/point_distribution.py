"""Shape of a set of landmarks, learnt from the point sets found in many images, some of which are wrong.

Similarity transforms align the point sets. The true shape of an image is then a draw from a Gaussian over all
coordinates, and the found positions add independent noise, more for landmarks of little weight. Expectation and
maximisation estimates mean and covariance. The covariance is drawn towards that of a smooth deformation
(:mod:`medpixcl.matching.shape`), as if some more images had shown it: with few images the model is this prior, with
many it is a principal component analysis.

Reference: Cootes et al., Active Shape Models, CVIU 61 (1995) 38-59; Little and Rubin, Statistical Analysis with
Missing Data (2002), section 11.2 (the maximisation step).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.landmarks.geometry import NOISE, fit_similarity, robust_weights, spread
from medpixcl.matching.shape import LINEAR, REACH, SMOOTH

PRIOR_IMAGES = 20.0
"""Number of images for which the smooth deformation counts."""
EM_ROUNDS = 8
LEAST_WEIGHT = 1e-3
JUDGING_TURNS = 4
"""Number of times that judging the landmarks of an image and updating their trust alternate."""
STRONG = 3.0
"""Distance from the others' prediction, in standard deviations, beyond which a landmark does not count."""


@dataclass(frozen=True)
class Judgement:
    """Judgement of the landmarks of N images by the shape, K landmarks each.

    Attributes:
        predicted: Position predicted by all the other landmarks of the image, shape (N, K, D), mm.
        deviation: Standard deviation of the prediction along an axis, with the noise of the found position, shape (N,
            K), mm.
        combined: Most likely position given all landmarks, itself included, shape (N, K, D), mm.
    """

    predicted: Float[Tensor, "n k d"]
    deviation: Float[Tensor, "n k"]
    combined: Float[Tensor, "n k d"]


class PointDistribution:
    """Mean shape and covariance of landmarks.

    Args:
        found: Found landmarks in mm, shape (N, K, D), all finite; give a missing one any position and weight 0.
        weights: Trust in each found landmark, 0 to 1, shape (N, K).
        template: Correct shape in mm, shape (K, D); it sets the unit of length and the position of the mean.

    Attributes:
        mean: Mean shape in mm, shape (K, D).
        covariance: Covariance of the coordinates, landmark by landmark, shape (K * D, K * D), mm^2.
        noise: Variance along an axis of a found position of weight 1, mm^2.
    """

    def __init__(
        self,
        found: Float[Tensor, "n k d"],
        weights: Float[Tensor, "n k"],
        template: Float[Tensor, "k d"],
    ) -> None:
        found, weights, self.mean = found.double(), weights.double(), template.double()
        size = spread(self.mean)
        self.noise = float(NOISE * size) ** 2
        prior = self.covariance = smooth_covariance(self.mean, size)
        for _ in range(EM_ROUNDS):
            judged = self.judge(found, weights)
            trust = weights * self.trust(found, judged)
            aligned, _, _ = self._aligned(found, trust)
            posterior, spread_of = self._posterior(aligned, trust)
            self.mean = posterior.mean(dim=0)
            inner = (posterior - self.mean).flatten(1)
            total = inner.T @ inner + spread_of.sum(dim=0) + PRIOR_IMAGES * prior
            self.covariance = total / (len(found) + PRIOR_IMAGES)

    @classmethod
    def known(cls, mean: Float[Tensor, "k d"], covariance: Float[Tensor, "n n"]) -> "PointDistribution":
        """Make a distribution of a mean shape and a covariance that are known already, both in mm."""
        made = cls.__new__(cls)
        made.mean, made.covariance = mean.double(), covariance.double()
        made.noise = float(NOISE * spread(made.mean)) ** 2
        return made

    def judge(self, found: Float[Tensor, "n k d"], weights: Float[Tensor, "n k"]) -> Judgement:
        """Judge found landmarks (N, K, D) with weights (N, K) by the shape."""
        found, weights = found.double(), weights.double()
        trust = weights
        for turn in range(JUDGING_TURNS):  # landmarks that turn out to be wrong should not move the rest
            aligned, matrix, shift = self._aligned(found, trust)
            predicted, deviation = self._leave_one_out(aligned, trust)
            trust = weights * agreement(aligned - predicted, deviation, reject=turn > 0)
        combined, _ = self._posterior(aligned, trust)
        scale = torch.linalg.det(matrix).abs() ** (1 / found.shape[-1])
        back = torch.linalg.inv(matrix)
        there = [transform_each(points - shift[:, None], back) for points in (predicted, combined)]
        return Judgement(there[0], deviation / scale[:, None], there[1])

    @staticmethod
    def trust(found: Float[Tensor, "n k d"], judged: Judgement) -> Float[Tensor, "n k"]:
        """Agreement of found landmarks with the prediction by the others, 0 to 1, shape (N, K)."""
        return agreement(found.double() - judged.predicted, judged.deviation, reject=True)

    def _aligned(self, found: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Point sets brought to the mean, and the similarity transforms that did so."""
        matrix, shift = fit_similarity(found, self.mean.expand_as(found), weights.clamp_min(LEAST_WEIGHT))
        return transform_each(found, matrix) + shift[:, None], matrix, shift

    def _information(self, weights: Tensor) -> Tensor:
        """Inverse covariance of the found coordinates, shape (N, K * D, K * D)."""
        dims = self.mean.shape[1]
        noise = (self.noise / weights.clamp_min(LEAST_WEIGHT)).repeat_interleave(dims, dim=1)
        return torch.linalg.inv(self.covariance + torch.diag_embed(noise))

    def _posterior(self, aligned: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (N, K, D) and covariance (N, K * D, K * D) of the true shapes."""
        gain = self.covariance @ self._information(weights)
        inner = (aligned - self.mean).flatten(1)
        moved = self.mean + (gain @ inner[..., None])[..., 0].view_as(aligned)
        return moved, self.covariance - gain @ self.covariance

    def _leave_one_out(self, aligned: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction of each landmark by the others (N, K, D), and its deviation (N, K)."""
        number, count, dims = aligned.shape
        information = self._information(weights)
        blocks = information.view(number, count, dims, count, dims).diagonal(dim1=1, dim2=3).movedim(-1, 1)
        own = torch.linalg.inv(blocks)
        pull = (information @ (aligned - self.mean).flatten(1)[..., None]).view(number, count, dims, 1)
        predicted = aligned - (own @ pull)[..., 0]
        variance = own.diagonal(dim1=-2, dim2=-1).mean(dim=-1) - self.noise / weights.clamp_min(LEAST_WEIGHT)
        return predicted, (variance.clamp_min(0) + self.noise).sqrt()


def smooth_covariance(points: Float[Tensor, "k d"], size: Float[Tensor, ""]) -> Float[Tensor, "n n"]:
    """Covariance (K * D, K * D) of a smooth and a linear deformation of points (K, D), the same along every axis."""
    inner = (points - points.mean(dim=0)) / size
    smooth = torch.exp(-torch.cdist(inner, inner).square() / (2 * REACH**2))
    each = size.square() * (LINEAR**2 * inner @ inner.T + SMOOTH**2 * smooth)
    return torch.kron(each, torch.eye(points.shape[1]).to(each))


def transform_each(points: Float[Tensor, "n k d"], matrix: Float[Tensor, "n d d"]) -> Float[Tensor, "n k d"]:
    """Every point set under its own matrix."""
    return points @ matrix.mT


def agreement(
    residuals: Float[Tensor, "n k d"], deviations: Float[Tensor, "n k"], *, reject: bool
) -> Float[Tensor, "n k"]:
    """:func:`medpixcl.landmarks.geometry.robust_weights` of many images; 0 beyond ``STRONG`` deviations if asked."""
    weights = robust_weights(residuals.flatten(0, 1), deviations.flatten()).view(deviations.shape)
    far = torch.linalg.vector_norm(residuals, dim=2) > STRONG * deviations
    return torch.where(far, 0, weights) if reject else weights
