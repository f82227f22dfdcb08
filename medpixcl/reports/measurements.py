"""Cephalometric measurements as tables and as one HTML page."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.identity import telling_names
from medpixcl.landmarks.cephalometry import (
    Measurement,
    ReaderComparison,
    classifications,
    deviations,
    measurements,
    possible_classes,
)
from medpixcl.landmarks.cephalometry.definitions import UNITS
from medpixcl.reports.html import Picture, render_page
from medpixcl.reports.tables import Table, decimals
from medpixcl.reports.tracing import outside

MAIN_MEASUREMENTS = ("SNA", "SNB", "ANB", "FMA", "SN-GoGn", "Jarabak ratio", "MM-Wits")
"""Measurements in the table of one row per image."""
MAIN_CLASSES = ("Skeletal class (ANB)", "Growth (Jarabak)")
_MANY = 2000
"""Rows of the table of one row per image, at most."""
_NO_INTERVAL = " (interval unknown)"


@dataclass(frozen=True, kw_only=True)
class MeasurementReport:
    """Content of the report.

    Attributes:
        facts: Facts about the run by name; keep folders and patient data out.
        images: Paths of the N images; their folders are not shown.
        values: Measurements, shape (N, M).
        halves: Half the length of the interval around each measurement, shape (N, M); infinite where it is open and NaN
            where there is none, both without ends in the table.
        reasons: Reason why a measurement cannot be computed, for each image and measurement; empty where it can.
        doubtful: True for each image and measurement that needs a landmark flagged as unsure.
        comparisons: Comparisons with other readers.
        tracings: Pictures of the tracings.
        rejected: File name of each image that was not drawn, and the reason.
        title: Heading of the report.
    """

    facts: Mapping[str, str]
    images: Sequence[str]
    values: Float[Tensor, "n m"]
    halves: Float[Tensor, "n m"]
    reasons: Sequence[Sequence[str]]
    doubtful: Sequence[Sequence[bool]]
    comparisons: Sequence[ReaderComparison] = ()
    tracings: Sequence[Picture] = ()
    rejected: Sequence[tuple[str, str]] = ()
    title: str = "Cephalometry"


def write_measurement_report(path: Path | str, report: MeasurementReport) -> None:
    """Write the report completely or not at all."""
    write_text_atomically(path, render_measurement_report(report))


def render_measurement_report(report: MeasurementReport) -> str:
    """Render the report as HTML text."""
    return render_page(
        "measurements.html.j2",
        {"tracings": report.tracings},
        report=report,
        summary=summary_rows(report.values),
        single=single_rows(report.values[0], report.halves[0], report.doubtful[0]) if len(report.images) == 1 else [],
        rows=image_rows(report.images, report.values, report.halves, report.doubtful),
        agreement=agreement_rows(report.comparisons),
        class_agreement=class_agreement_rows(report.comparisons),
        absent=absent_rows(report.reasons),
        groups=[(one.name, one.about, one.note, one.norm.source if one.norm else "") for one in measurements()],
    )


def measurement_table(
    images: Sequence[str],
    values: Float[Tensor, "n m"],
    halves: Float[Tensor, "n m"],
    remarks: Sequence[Sequence[str]],
) -> Table:
    """One row per image and measurement: value, unit, norm, deviation in SD, remark and the ends of the interval.

    Args:
        images: Names of the N images.
        values: Measurements, shape (N, M).
        halves: Half the length of the interval around each measurement, shape (N, M); infinite where it is open and NaN
            where there is none, both without ends in the table.
        remarks: Remark on each measurement of each image, such as why it is not computable; may be empty.
    """
    table = [["image", "group", "measurement", "value", "unit", "norm", "deviation_sd", "remark", "low", "high"]]
    columns = (values, deviations(values), values - halves, values + halves)
    for image, why, *rows in zip(images, remarks, *[column.tolist() for column in columns], strict=True):
        for one, remark, value, deviation, low, high in zip(measurements(), why, *rows, strict=True):
            norm = "" if one.norm is None else str(one.norm)
            cells = [_number(value, 3), one.unit, norm, _number(deviation, 2), remark]
            table.append([image, one.group, one.name, *cells, _number(low, 3), _number(high, 3)])
    return table


def class_table(images: Sequence[str], values: Float[Tensor, "n m"], halves: Float[Tensor, "n m"]) -> Table:
    """One row per image and classification: every class that the interval touches, such as ``I or II``."""
    table = [["image", "classification", "measurement", "class"]]
    for image, classes in zip(images, possible_classes(values, halves), strict=True):
        table += [
            [image, one.name, one.measurement, label] for one, label in zip(classifications(), classes, strict=True)
        ]
    return table


def agreement_table(comparisons: Sequence[ReaderComparison]) -> Table:
    """One row per pair of readers and measurement that both have."""
    table = [["first", "second", "measurement", "unit", "images", "mean_absolute", "bias", "sd"]]
    for pair in comparisons:
        for one in pair.measurements:
            if one.images:
                numbers = [_number(number, 3) for number in (one.mean_absolute, one.bias, one.sd)]
                table.append([pair.first, pair.second, one.measurement, one.unit, str(one.images), *numbers])
    return table


def class_agreement_table(comparisons: Sequence[ReaderComparison]) -> Table:
    """One row per pair of readers and classification."""
    table = [["first", "second", "classification", "images", "same_percent", "kappa"]]
    for pair in comparisons:
        for one in pair.classes:
            if one.images:
                numbers = [_number(one.percent, 2), _number(one.kappa, 3)]
                table.append([pair.first, pair.second, one.classification, str(one.images), *numbers])
    return table


def summary_rows(values: Float[Tensor, "n m"]) -> Table:
    """Mean, spread and share outside what is usual, of every measurement that an image has."""
    table = [["measurement", "images", "mean", "SD", "usual", "above (%)", "below (%)"]]
    for one, column in _present(values):
        known = column[~column.isnan()]
        sides = [outside(one, value) for value in known.tolist()]
        shares = [100 * sides.count(side) / len(sides) for side in (1, -1)] if _has_range(one) else []
        spread = f"{known.std():.1f}" if len(known) > 1 else ""
        cells = [_with_unit(float(known.mean()), one), spread, _norm(one), *[f"{share:.0f}" for share in shares]]
        table.append([one.name, str(len(known)), *cells, *[""] * (2 - len(shares))])
    return table


def single_rows(values: Float[Tensor, " m"], halves: Float[Tensor, " m"], doubtful: Sequence[bool]) -> Table:
    """Value with its interval, norm and deviation of every measurement that one image has; ``?`` if it is in doubt."""
    table = [["measurement", "value", "", "usual", "deviation (SD)", "what"]]
    columns = (values.tolist(), halves.tolist(), deviations(values[None])[0].tolist(), doubtful)
    for one, value, half, deviation, doubt in zip(measurements(), *columns, strict=True):
        if value != value:
            continue
        arrow = {1: "▲", -1: "▼", 0: ""}[outside(one, value)]
        shown = "" if deviation != deviation else f"{round(deviation, 1) + 0.0:+.1f}"
        interval = (
            f" ({decimals(value - half, 1)} to {decimals(value + half, 1)})"
            if math.isfinite(half)
            else _NO_INTERVAL * (half == half)
        )
        table.append([one.name, _with_unit(value, one) + interval + " ?" * doubt, arrow, _norm(one), shown, one.about])
    return table


def image_rows(
    images: Sequence[str],
    values: Float[Tensor, "n m"],
    halves: Float[Tensor, "n m"],
    doubtful: Sequence[Sequence[bool]],
) -> Table:
    """One row per image: the most used measurements, ``?`` at those in doubt, and the classes that intervals touch."""
    shown, known = telling_names(images), [one.name for one in measurements()]
    classes = [one.name for one in classifications()]
    table = [["image", *MAIN_MEASUREMENTS, *MAIN_CLASSES]]
    labels_of = possible_classes(values, halves)
    columns = (values.tolist(), halves.tolist(), doubtful, labels_of)
    for image, row, ends, doubts, labels in zip(images[:_MANY], *columns, strict=False):
        places = [known.index(name) for name in MAIN_MEASUREMENTS]
        numbers = [_number(row[place], 1) + _plus_minus(ends[place]) + " ?" * doubts[place] for place in places]
        table.append([shown[image], *numbers, *[labels[classes.index(name)] for name in MAIN_CLASSES]])
    return table


def _plus_minus(half: float) -> str:
    """Half an interval behind its value; empty where there is none."""
    return f" ± {decimals(half, 1)}" if math.isfinite(half) else _NO_INTERVAL * (half == half)


def agreement_rows(comparisons: Sequence[ReaderComparison]) -> Table:
    """Mean absolute difference and SD of every measurement, the pairs of readers side by side."""
    if not comparisons:
        return []
    shown = _titles(comparisons)
    table = [["measurement", "unit", *shown]]
    for number, one in enumerate(measurements()):
        found = [pair.measurements[number] for pair in comparisons]
        if any(entry.images for entry in found):
            cells = [_pair(entry.mean_absolute, entry.sd, entry.images) for entry in found]
            table.append([one.name, UNITS[one.unit], *cells])
    return table


def class_agreement_rows(comparisons: Sequence[ReaderComparison]) -> Table:
    """Share of the same class and kappa, the pairs of readers side by side."""
    if not comparisons:
        return []
    table = [["classification", *_titles(comparisons)]]
    for number, one in enumerate(classifications()):
        found = [pair.classes[number] for pair in comparisons]
        if any(entry.images for entry in found):
            table.append([one.name, *[_same(entry.percent, entry.kappa, entry.images) for entry in found]])
    return table


def absent_rows(reasons: Sequence[Sequence[str]]) -> Table:
    """Measurements that some images do not have, why, and how many images that is."""
    counts = Counter((number, reason) for of_image in reasons for number, reason in enumerate(of_image) if reason)
    names = [one.name for one in measurements()]
    rows = [[names[number], reason, str(count)] for (number, reason), count in sorted(counts.items())]
    return [["measurement", "reason", "images"], *rows] if rows else []


def _present(values: Float[Tensor, "n m"]) -> list[tuple[Measurement, Tensor]]:
    columns = zip(measurements(), values.mT, strict=True)
    return [(one, column) for one, column in columns if not bool(column.isnan().all())]


def _titles(comparisons: Sequence[ReaderComparison]) -> list[str]:
    return [f"{pair.first} - {pair.second}" for pair in comparisons]


def _pair(value: float, spread: float, images: int) -> str:
    if not images:
        return ""
    return f"{value:.2f}" if spread != spread else f"{value:.2f} ± {spread:.2f}"


def _same(percent: float, kappa: float, images: int) -> str:
    if not images:
        return ""
    return f"{percent:.1f} %" if kappa != kappa else f"{percent:.1f} % (κ {kappa:.2f})"


def _has_range(one: Measurement) -> bool:
    return one.norm is not None and (one.norm.sd is not None or one.norm.low is not None)


def _norm(one: Measurement) -> str:
    return "" if one.norm is None else str(one.norm)


def _with_unit(value: float, one: Measurement) -> str:
    return f"{decimals(value, 1)}{'' if one.unit == 'deg' else ' '}{UNITS[one.unit]}"


def _number(value: float, digits: int) -> str:
    return decimals(value, digits) if math.isfinite(value) else ""
