"""Agreement between two sets of measurements of the same cephalograms: model and reader, or two readers."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.landmarks.cephalometry.definitions import classifications, measurements
from medpixcl.landmarks.cephalometry.measuring import classify


@dataclass(frozen=True, kw_only=True)
class MeasurementAgreement:
    """Difference of one measurement, first minus second, over the cephalograms that have both.

    Attributes:
        measurement: Name of the measurement.
        unit: Unit of the differences.
        images: Number of cephalograms that have both values.
        mean_absolute: Mean absolute difference; NaN where there is none.
        bias: Mean difference.
        sd: Standard deviation of the difference (n - 1); NaN for fewer than two.
    """

    measurement: str
    unit: str
    images: int
    mean_absolute: float
    bias: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class ClassAgreement:
    """Agreement of two sets of classes of the same cephalograms.

    Attributes:
        classification: Name of the classification.
        images: Number of cephalograms that have both classes.
        percent: Share in percent of cephalograms in the same class; NaN where there is none.
        kappa: Cohen's kappa, the agreement beyond chance; NaN if chance alone would always agree.
    """

    classification: str
    images: int
    percent: float
    kappa: float


def compare_measurements(first: Float[Tensor, "n m"], second: Float[Tensor, "n m"]) -> list[MeasurementAgreement]:
    """Compare two results of :func:`~medpixcl.landmarks.cephalometry.measuring.measure`.

    Args:
        first: Measurements of shape (N, M), NaN where not computable.
        second: Other measurements of the same cephalograms in the same order, shape (N, M).
    """
    agreements = []
    for one, difference in zip(measurements(), (first - second).mT, strict=True):
        known = difference[~difference.isnan()].double()
        agreements.append(
            MeasurementAgreement(
                measurement=one.name,
                unit=one.unit,
                images=len(known),
                mean_absolute=float(known.abs().mean()),
                bias=float(known.mean()),
                sd=float(known.std()) if len(known) > 1 else torch.nan,
            )
        )
    return agreements


def compare_classes(first: Float[Tensor, "n m"], second: Float[Tensor, "n m"]) -> list[ClassAgreement]:
    """Compare the classes of two results of :func:`~medpixcl.landmarks.cephalometry.measuring.measure`."""
    agreements = []
    for one, ours, theirs in zip(classifications(), classify(first).mT, classify(second).mT, strict=True):
        known = (ours >= 0) & (theirs >= 0)
        agreements.append(_class_agreement(one.name, ours[known], theirs[known]))
    return agreements


def _class_agreement(name: str, first: Int[Tensor, " n"], second: Int[Tensor, " n"]) -> ClassAgreement:
    table = torch.bincount(3 * first + second, minlength=9).reshape(3, 3).double()
    table = table / table.sum()
    same, chance = float(table.trace()), float(table.sum(dim=0) @ table.sum(dim=1))
    kappa = (same - chance) / (1 - chance) if chance < 1 else torch.nan
    return ClassAgreement(classification=name, images=len(first), percent=100 * same, kappa=kappa)


@dataclass(frozen=True, kw_only=True)
class ReaderComparison:
    """Differences between two readers, one of whom may be a model.

    Attributes:
        first: Name of the first reader; differences are first minus second.
        second: Name of the second reader.
        measurements: Agreement on each measurement.
        classes: Agreement on each classification.
    """

    first: str
    second: str
    measurements: list[MeasurementAgreement]
    classes: list[ClassAgreement]


def compare_readers(readers: Mapping[str, Float[Tensor, "n m"]]) -> list[ReaderComparison]:
    """Compare every reader with every later one: the model's error beside the differences among readers.

    Args:
        readers: Mapping from names, the model first, to measurements of the same cephalograms in the same order.

    Example:
        >>> nothing = torch.full((1, len(measurements())), torch.nan)
        >>> [(one.first, one.second) for one in compare_readers({"model": nothing, "a": nothing, "b": nothing})]
        [('model', 'a'), ('model', 'b'), ('a', 'b')]
    """
    return [
        ReaderComparison(
            first=first,
            second=second,
            measurements=compare_measurements(readers[first], readers[second]),
            classes=compare_classes(readers[first], readers[second]),
        )
        for first, second in itertools.combinations(readers, 2)
    ]
