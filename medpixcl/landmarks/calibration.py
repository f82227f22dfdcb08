"""Split-conformal radii around found landmarks, per landmark and separately for sure and unsure matches.

From N example errors that are exchangeable with the error of a new image, the value of rank
``ceil((N + 1) * coverage)`` holds the new one with at least that probability, whatever the errors' distribution.

Reference: Lei et al., Distribution-Free Predictive Inference for Regression, JASA 113 (2018) 1094-1111, section 2.2;
Vovk, Conditional Validity of Inductive Conformal Predictors, ACML 2012, section 3 (a quantile for every group).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl._json import parsed_json
from medpixcl.limits import regular_file

GROUPS = ("sure", "unsure")
_N = TypeVar("_N", int, float)


def conformal_quantile(scores: Float[Tensor, "n ..."], coverage: float) -> Float[Tensor, "..."]:
    """Return the score of rank ``ceil((N + 1) * coverage)`` among the N that are not NaN; infinite if that exceeds N.

    Args:
        scores: Scores of the examples, shape (N, ...).
        coverage: Probability that a new score is not larger, between 0 and 1.

    Returns:
        Quantiles, shape (...).

    Raises:
        ValueError: If the coverage is not between 0 and 1.

    Example:
        >>> conformal_quantile(torch.arange(1.0, 10.0), 0.9), conformal_quantile(torch.arange(1.0, 9.0), 0.9)
        (tensor(9.), tensor(inf))
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}; expected a share between 0 and 1, such as 0.9")
    known = (~scores.isnan()).sum(dim=0)
    # Rounding of the product must not raise the rank: (9 + 1) * 0.9 is 9.
    rank = ((known + 1).double() * coverage - 1e-9).ceil().long().clamp_min(1)
    endless = torch.full_like(scores[:1], torch.inf)
    ordered = torch.cat([scores.nan_to_num(nan=torch.inf), endless]).sort(dim=0).values
    return ordered.gather(0, (rank - 1).clamp_max(len(scores))[None])[0]


def scaled(sizes: Sequence[float | None], factor: float) -> tuple[float | None, ...]:
    """Multiply sizes; None stays unknown."""
    return tuple(None if size is None else factor * size for size in sizes)


@dataclass(frozen=True)
class RadiusCalibration:
    """Radii in mm that hold the true place with a given probability.

    Attributes:
        names: Names of the K landmarks.
        coverage: Probability that a radius holds the true place.
        radii_mm: K radii in mm for each group (sure, unsure); None where there were too few examples.
        examples: Number of examples of each landmark for each group (sure, unsure).
        made_for: Digest of the weights and the templates that the examples were matched with; empty if unknown.
    """

    names: tuple[str, ...]
    coverage: float
    radii_mm: dict[str, tuple[float | None, ...]]
    examples: dict[str, tuple[int, ...]]
    made_for: str = ""

    def __post_init__(self) -> None:
        for what, table in (("radii_mm", self.radii_mm), ("examples", self.examples)):
            if set(table) != set(GROUPS) or any(len(row) != len(self.names) for row in table.values()):
                raise ValueError(f"{what} must have {len(self.names)} values for each of {', '.join(GROUPS)}.")

    def radii_of(self, names: Sequence[str], flags: Sequence[str]) -> Float[Tensor, " k"]:
        """Return the radii in mm of matched landmarks, shape (K,), by their flags; NaN where missing or unknown.

        Raises:
            ValueError: If a landmark was not calibrated.
        """
        if unknown := [name for name in names if name not in self.names]:
            raise ValueError(
                f"the calibration has no landmark {unknown[0]!r}; expected one made with the same template: run "
                "medpixcl calibrate again"
            )
        radii = []
        for name, flag in zip(names, flags, strict=True):
            group = "unsure" if flag == "unsure" else "sure"
            radius = None if flag == "missing" else self.radii_mm[group][self.names.index(name)]
            radii.append(math.nan if radius is None else radius)
        return torch.tensor(radii, dtype=torch.float64)

    def stretched(self, factor: float) -> "RadiusCalibration":
        """Copy with radii that are so many times as large."""
        radii = {group: scaled(row, factor) for group, row in self.radii_mm.items()}
        return replace(self, radii_mm=radii)

    def to_json(self) -> str:
        """Return the calibration as JSON text, for :meth:`read`."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def read(cls, path: str | Path) -> "RadiusCalibration":
        """Read a calibration that :meth:`to_json` wrote.

        Raises:
            ValueError: If the file is not a calibration; the message names the file.
        """
        file = regular_file(path)
        try:
            record: dict[str, Any] = parsed_json(file.read_text(encoding="utf-8"))
            radii = {group: known_sizes(row) for group, row in record["radii_mm"].items()}
            examples = {group: counts(row) for group, row in record["examples"].items()}
            names, coverage = names_and_coverage(record)
            return cls(names, coverage, radii, examples, str(record["made_for"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path} is no calibration, or one of an earlier version; give a file that medpixcl calibrate writes"
            ) from None


def names_and_coverage(record: Mapping[str, Any]) -> tuple[tuple[str, ...], float]:
    """Names of the landmarks and the coverage of a calibration that was read from a file.

    Raises:
        ValueError: If they are something else.
    """
    names, coverage = record["names"], record["coverage"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("names is no list of texts")
    if isinstance(coverage, bool) or not 0 < coverage < 1:
        raise ValueError("coverage is no share")
    return tuple(names), coverage


def known_sizes(row: Sequence[Any]) -> tuple[float | None, ...]:
    """Sizes of a calibration that was read from a file, None where there is none.

    Raises:
        ValueError: If one is no finite number of 0 or more.
    """
    return tuple(None if size is None else _positive(size, float) for size in row)


def counts(row: Sequence[Any]) -> tuple[int, ...]:
    """Numbers of examples of a calibration that was read from a file.

    Raises:
        ValueError: If one is no whole number of 0 or more.
    """
    return tuple(_positive(count, int) for count in row)


def _positive(value: Any, kind: type[_N]) -> _N:
    if not isinstance(value, int | kind) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"{value!r} is no number of 0 or more")
    return kind(value)


def calibrate_radii(
    errors_mm: Float[Tensor, "n k"], unsure: Bool[Tensor, "n k"], names: Sequence[str], *, coverage: float = 0.9
) -> RadiusCalibration:
    """Compute radii from example errors: one quantile for every landmark and group (sure, unsure).

    If a landmark has too few examples in a group for a finite quantile, the quantile of all landmarks of the group is
    used. If they are too few together, an unsure landmark takes the quantile of its examples of both groups, or the
    largest error of any unsure example if that is larger: these radii hold at least as much as a sure landmark's, but
    not a known share. The radius of an unsure landmark is never smaller than that of the same landmark if sure.

    Args:
        errors_mm: Errors in mm, shape (N examples, K landmarks), NaN where there is none.
        unsure: Group of each error, True for unsure matches.
        names: Names of the K landmarks.
        coverage: Probability that a true place lies within the radius.
    """
    sure_errors, unsure_errors = (torch.where(members, errors_mm, torch.nan) for members in (~unsure, unsure))
    sure, doubtful = _quantiles(sure_errors, coverage), _quantiles(unsure_errors, coverage)
    largest = unsure_errors.nan_to_num(nan=-torch.inf).amax()
    fallback = torch.maximum(_quantiles(errors_mm, coverage), largest)
    doubtful = torch.where(doubtful.isfinite(), doubtful, fallback)
    doubtful = torch.where(sure.isfinite(), torch.maximum(doubtful, sure), doubtful)
    radii = dict(zip(GROUPS, (_known(sure), _known(doubtful)), strict=True))
    rows = (tuple((~errors.isnan()).sum(dim=0).tolist()) for errors in (sure_errors, unsure_errors))
    return RadiusCalibration(tuple(names), coverage, radii, dict(zip(GROUPS, rows, strict=True)))


def _quantiles(errors_mm: Float[Tensor, "n k"], coverage: float) -> Float[Tensor, " k"]:
    """Quantile of each landmark, or of all together if it has too few examples; infinite if they are too few."""
    each, pooled = conformal_quantile(errors_mm, coverage), conformal_quantile(errors_mm.flatten(), coverage)
    return torch.where(each.isfinite(), each, pooled)


def _known(radii_mm: Float[Tensor, " k"]) -> tuple[float | None, ...]:
    return tuple(value if math.isfinite(value) else None for value in radii_mm.tolist())


def with_readers(
    errors_mm: Float[Tensor, "n k"], reader_mm: float, dims: int, generator: torch.Generator
) -> Float[Tensor, "n k"]:
    """Add the variation of two readers to example errors: that of the template's mark and that of the reference mark.

    Args:
        errors_mm: Errors of matching in mm, shape (N, K).
        reader_mm: Standard deviation in mm, along an axis, of a reader's mark around the true place.
        dims: Number of spatial axes.
        generator: Source of random numbers for the marks.

    Raises:
        ValueError: If the standard deviation is negative.
    """
    if reader_mm < 0:
        raise ValueError(f"reader_mm is {reader_mm}; expected a standard deviation in mm of 0 or more")
    marks = torch.randn(*errors_mm.shape, dims, generator=generator) * reader_mm * math.sqrt(2)
    marks[..., 0] += errors_mm  # the direction of an error is no matter: the marks have none
    return torch.linalg.vector_norm(marks, dim=-1)


def coverage_of(errors_mm: Float[Tensor, "*n"], radii_mm: Float[Tensor, "*n"]) -> float:
    """Compute the share of errors within their radius, where both are known; NaN if none is.

    Example:
        >>> coverage_of(torch.tensor([1.0, 3.0, torch.nan]), torch.tensor([2.0, 2.0, 2.0]))
        0.5
    """
    known = ~(errors_mm.isnan() | radii_mm.isnan())
    return float((errors_mm <= radii_mm)[known].double().mean())
