"""Compare a landmark file with those of readers: distances, regions, cephalometric measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from medpixcl._typing import AnyPath
from medpixcl.apps.measurement import compare_files, measure_file
from medpixcl.apps.readers import (
    Compared,
    Positions,
    compare_reader_positions,
    require_different_files,
    same_points,
)
from medpixcl.data.identity import pair_images, unique_table_names
from medpixcl.data.landmarks.comparison import evaluate_positions
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.row import CORRECTED, LandmarkRow
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.paths import checked_path, checked_paths
from medpixcl.data.wording import about
from medpixcl.landmarks.calibration import coverage_of
from medpixcl.landmarks.cephalometry import ReaderComparison
from medpixcl.landmarks.points import in_plane
from medpixcl.landmarks.regions import covered

RegionMatrices = dict[str, dict[str, Tensor]]
"""Matrices of regions in mm^2 by image and landmark, LPS+, see :mod:`medpixcl.landmarks.regions`."""


@dataclass
class Evaluation:
    """Result of :func:`evaluate`.

    Attributes:
        metrics: Errors against the first reference, for JSON; also ``radius_coverage``, ``region_coverage`` and
            ``readers`` where available.
        compared: Comparisons of all pairs of files, and of the predictions with the references' mean; empty for a
            single reference.
        angles: Comparisons of cephalometric measurements for each pair of files, if requested.
        warnings: What suggests that files were exchanged, or that two are copies.
    """

    metrics: dict[str, Any]
    compared: Compared = field(default_factory=list)
    angles: list[ReaderComparison] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def evaluate(
    predictions: AnyPath,
    references: AnyPath | Sequence[AnyPath],
    *,
    exclude: Sequence[str] = (),
    angles: bool = False,
    names: Mapping[str, str] | None = None,
    spacing_mm: float | None = None,
) -> Evaluation:
    """Compare predicted landmarks with those of one or several readers.

    Args:
        predictions: Landmark file. With radii (``radius_mm``) or regions (``regions.csv``), the share of true positions
            that they hold is measured, too.
        references: Landmark file with true positions, or the files of several readers; the errors are measured against
            the first one.
        exclude: Images to leave out, as the files name them, or their file names. Images with landmarks flagged as
            ``corrected`` are left out, too.
        angles: Compare the cephalometric measurements, too.
        names: Anatomical name of each landmark, see :func:`medpixcl.landmarks.cephalometry.landmark_roles`.
        spacing_mm: Pixel size in mm of positions in pixels whose file does not state it.

    Raises:
        ValueError: If the input is bad; one sentence that names the file.
    """
    readers = checked_paths(references, "a reference")
    if not readers:
        raise ValueError("the list of references is empty; give at least one landmark file")
    paths = [checked_path(predictions, "the file of predictions"), *readers]
    require_different_files(paths)
    files = [read_landmarks(path) for path in paths]
    positions = [file.positions_mm(spacing_mm) for file in files]
    corrected = _corrected_images(files[0])
    exclude = [*exclude, *corrected]
    with about(f"{paths[0]} against {paths[1]}"):
        result = Evaluation(evaluate_positions(positions[0], positions[1], exclude=exclude))
    if radii := _radii(files[0]):
        result.metrics["radius_coverage"] = radius_coverage(result.metrics, radii)
    if regions := _regions(files[0]):
        result.metrics["region_coverage"] = region_coverage(positions[0], positions[1], regions, result.metrics)
    if len(paths) > 2:
        result.compared = compare_reader_positions(
            dict(zip(unique_table_names(paths), positions, strict=True)), exclude=exclude
        )
        result.metrics["readers"] = {title: _overall(metrics) for title, metrics in result.compared}
    result.warnings = _warnings(files, result)
    if corrected:
        result.warnings.append(
            f"{len(corrected)} image(s) of {paths[0]} hold landmarks that a reader corrected: they are left out, as "
            "what was found there is not known"
        )
    if angles:
        shared = {"names": names, "spacing_mm": spacing_mm}
        measured = measure_file(paths[0], exclude=exclude, **shared)  # type: ignore[arg-type]
        others = [measure_file(path, **shared) for path in paths[1:]]  # type: ignore[arg-type]
        result.angles = compare_files(measured, others)
        result.metrics["measurements"] = {
            f"{one.first} against {one.second}": _measurements(one) for one in result.angles
        }
    return result


def _warnings(files: Sequence[LandmarkFile], result: Evaluation) -> list[str]:
    predictions, *references = files
    exchanged = [one.path for one in references if one.scored and not predictions.scored]
    pair = f"{predictions.path} against {references[0].path}"
    equal = [title for title, metrics in result.compared or [(pair, result.metrics)] if same_points(metrics)]
    return [
        *(
            f"{path} has scores, as predictions have, and {predictions.path} has none: were the two exchanged?"
            for path in exchanged
        ),
        *(f"{title}: every point lies at the same place; is one a copy of the other?" for title in equal),
    ]


def _corrected_images(file: LandmarkFile) -> list[str]:
    """Images in which a run found a landmark that a reader then corrected; none if the reader corrected all images."""
    corrected = file.flagged(CORRECTED)
    return corrected if len(corrected) < len(file.images) else []


def _rows(file: LandmarkFile) -> list[LandmarkRow]:
    rows = [file.row(image, name) for image in file.images for name in file.names]
    return [row for row in rows if row is not None]


def _radii(file: LandmarkFile) -> dict[str, dict[str, float]]:
    """Radius in mm of every landmark of a file by image; empty where the file has none."""
    radii: dict[str, dict[str, float]] = {}
    for row in _rows(file):
        if row.radius_mm is not None:
            radii.setdefault(row.image, {})[row.landmark] = row.radius_mm
    return radii


def _regions(file: LandmarkFile) -> RegionMatrices:
    """Region of every landmark of a file by image; empty where the file has none."""
    regions: RegionMatrices = {}
    for row in _rows(file):
        if row.region_mm2 is not None:
            regions.setdefault(row.image, {})[row.landmark] = torch.tensor(row.region_mm2, dtype=torch.float64)
    return regions


def radius_coverage(metrics: Mapping[str, Any], radii: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Share of the measured points that lie within their radius, over all and for each landmark.

    Args:
        metrics: Metrics from :func:`medpixcl.data.landmarks.comparison.evaluate_positions`.
        radii: Radius in mm by image and landmark.

    Returns:
        ``measured`` (None where no point has both), ``points``, ``mean_radius_mm`` and ``per_landmark``.
    """
    pairs = [
        (name, error, radii[image][name])
        for image, entry in metrics["per_image"].items()
        for name, error in entry["errors_mm"].items()
        if error is not None and name in radii.get(image, {})
    ]
    names = dict.fromkeys(name for name, _, _ in pairs)
    return {
        "measured": _share(pairs),
        "points": len(pairs),
        "mean_radius_mm": sum(radius for _, _, radius in pairs) / len(pairs) if pairs else None,
        "per_landmark": {name: _share([pair for pair in pairs if pair[0] == name]) for name in names},
    }


def region_coverage(
    found: Positions, true: Positions, regions: RegionMatrices, metrics: Mapping[str, Any]
) -> dict[str, Any]:
    """Share of the true positions that lie in their regions, over all and for each landmark.

    Args:
        found: Positions at the centres of the regions, LPS+ mm.
        true: True positions, LPS+ mm.
        regions: RegionMatrices by image and landmark, for the images of ``found``.
        metrics: Metrics of prediction and reference; only the points measured there count.

    Returns:
        ``measured`` (None where no point has both), ``points`` and ``per_landmark``.
    """
    hits: dict[str, list[bool]] = {}
    for image, other in pair_images(metrics["per_image"], true).items():
        for name in metrics["per_image"][image]["errors_mm"]:
            region = regions.get(image, {}).get(name)
            places = [side[key][name] for side, key in ((found, image), (true, other))]
            if region is not None:
                here, there = (in_plane(place or (), len(region)) for place in places)
                away = torch.tensor(there, dtype=torch.float64) - torch.tensor(here, dtype=torch.float64)
                hits.setdefault(name, []).append(bool(covered(away, region)))
    every = [hit for row in hits.values() for hit in row]
    return {
        "measured": sum(every) / len(every) if every else None,
        "points": len(every),
        "per_landmark": {name: sum(row) / len(row) for name, row in hits.items()},
    }


def _share(pairs: Sequence[tuple[str, float, float]]) -> float | None:
    if not pairs:
        return None
    errors, radii = (torch.tensor([pair[column] for pair in pairs]) for column in (1, 2))
    return coverage_of(errors, radii)


def _overall(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics over all points."""
    return {key: metrics[key] for key in ("images", "measured", "mre_mm", "median_mm", "p95_mm", "sdr_percent")}


def _measurements(comparison: ReaderComparison) -> dict[str, Any]:
    """Mean absolute difference, bias and number of images for every measurement that both files have."""
    return {
        one.measurement: {
            "unit": one.unit,
            "images": one.images,
            "mean_absolute": one.mean_absolute,
            "bias": one.bias,
            "sd": None if one.images < 2 else one.sd,
        }
        for one in comparison.measurements
        if one.images > 0
    }
