"""Confidence regions of landmarks: calibrate on images with known landmarks, write and draw for others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from medpixcl.apps.results import Landmarks, Results
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.identity import pair_images
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.tables import write_csv
from medpixcl.landmarks.difficulty import difficulty, image_difficulty, widened
from medpixcl.landmarks.regions import (
    LEAST_IMAGES,
    RegionCalibration,
    calibrate_regions,
    coverage_report,
    region_size,
    semi_axes,
)
from medpixcl.reports.tables import write_metrics_json

CALIBRATION_FILE, TABLE_FILE, COVERAGE_FILE = "region_calibration.json", "regions.csv", "region_coverage.json"
TruePositions = Mapping[str, Mapping[str, tuple[float, ...]]]


class Regions:
    """Makes confidence regions for the landmarks of a run from their covariances.

    Without a calibration it makes one from the reference, ``region_calibration.json``. With one it adds a region to
    every landmark, flags a landmark as unsure if its region is larger than nearly all of the calibration's, and writes
    ``regions.csv`` (LPS+ mm: place, semi-axes and their directions, flag) and, with a reference,
    ``region_coverage.json``. If corrected images changed the size of the regions, ``region_calibration.json`` is the
    calibration of the new size.

    Args:
        calibration: File ``region_calibration.json`` of a run on other images; None makes a new calibration.
        coverage: Probability with which regions of a new calibration should hold the true position.
        readers: Landmark files of several readers, by name. A new calibration then takes the marks of each as examples
            instead of the reference, and its regions hold what one reader would mark, not the readers' mean.
    """

    def __init__(
        self, calibration: str | None = None, coverage: float = 0.9, readers: Mapping[str, str] | None = None
    ) -> None:
        self.path = calibration
        self.calibration = None if calibration is None else RegionCalibration.read(calibration)
        self.coverage = coverage
        self.readers = {name: Path(path) for name, path in (readers or {}).items()}

    def check(self, results: Results) -> None:
        """Check whether all input of the regions is available.

        Args:
            results: Results of a run that has not begun.

        Raises:
            ValueError: If there is neither a calibration nor a reference, or the calibration was made with other
                weights or lacks a landmark.
        """
        if self.calibration is None:
            if results.reference is None:
                raise ValueError(
                    "regions need a calibration (the setting region_calibration), or a reference with known landmarks "
                    "to make one; give either"
                )
            return
        if self.calibration.weights != results.digest:
            raise ValueError(
                f"{self.path} was calibrated with other weights or another shape of the landmarks: calibrate the "
                "regions again"
            )
        self.calibration.regions_of(results.names, torch.eye(2).expand(len(results.names), 2, 2))

    def judge(self, one: Landmarks) -> Landmarks:
        """Add regions to the landmarks of an image, and flag those whose region is too large.

        Args:
            one: Landmarks of an image; returned unchanged if there is no calibration.
        """
        if self.calibration is None:
            return one
        regions = self.calibration.regions_of(one.names, _covariance(one))
        regions = regions.masked_fill(one.points.missing[:, None, None], torch.nan)
        return replace(one, regions_mm2=regions).with_flags(self.calibration.unsure(regions).tolist())

    def warning(self, landmarks: Sequence[Landmarks]) -> str:
        """Warn of images that look unlike those of the calibration; empty if there are few such, or no calibration."""
        if self.calibration is None or not landmarks:
            return ""
        return self.calibration.warning(image_difficulty(torch.stack([_difficulty(one) for one in landmarks])))

    def write(self, folder: Path, results: Results) -> None:
        """Write the calibration, or the regions and the share of true positions that they hold."""
        if self.calibration is not None:
            write_csv(folder / TABLE_FILE, _rows(results.landmarks))
            if results.stretch is not None:
                stretched = self.calibration.stretched(results.stretch)
                write_text_atomically(folder / CALIBRATION_FILE, stretched.to_json() + "\n")
        if results.reference is None:
            return
        if self.calibration is None:
            made = self._calibrated(results, results.reference)
            write_text_atomically(folder / CALIBRATION_FILE, made.to_json() + "\n")
            if (note := _few(made)) and note not in results.notes:
                results.notes.append(note)
            return
        found, away = _examples(results, results.reference)
        regions = torch.stack([_regions(one) for one in found])
        unsure = torch.tensor([one.unsure for one in found])
        report = coverage_report(self.calibration.coverage, results.names, away, regions, unsure)
        write_metrics_json(folder / COVERAGE_FILE, report)

    def _calibrated(self, results: Results, reference: TruePositions) -> RegionCalibration:
        """Calibration on the reference, or on the marks of each reader."""
        readers: list[TruePositions] = [read_landmarks(path).positions_mm() for path in self.readers.values()]
        examples = [_examples(results, positions) for positions in readers or [reference]]
        found = [one for images, _ in examples for one in images]
        return calibrate_regions(
            torch.cat([away for _, away in examples]),
            torch.stack([_covariance(one) for one in found]),
            results.names,
            coverage=self.coverage,
            difficulty=image_difficulty(torch.stack([_difficulty(one) for one in found])),
            weights=results.digest,
        )


def _few(made: RegionCalibration) -> str:
    """Sentence on a calibration of too few images; empty if they are enough."""
    count = max(map(sum, made.examples))
    if count >= LEAST_IMAGES:
        return ""
    return (
        f"the regions were calibrated on {count} image(s): with fewer than ten no landmark has a region of its own "
        f"size, and with fewer than {LEAST_IMAGES} nothing warns of unlike images; 50 are good"
    )


def _rows(landmarks: Sequence[Landmarks]) -> Iterator[list[str]]:
    """Header and rows of the table of regions."""
    dims = landmarks[0].voxels.shape[1] if landmarks else 2
    axes = [f"axis{n + 1}_{what}" for n in range(dims) for what in ("mm", *"xyz"[:dims])]
    yield ["image", "landmark", *[f"{axis}_mm" for axis in "xyz"[:dims]], "size_mm", "flag", *axes]
    for found in landmarks:
        regions = _regions(found)
        lengths, directions = semi_axes(regions)
        sizes = region_size(regions)
        for number, name in enumerate(found.names):
            along = torch.cat([lengths[number][:, None], directions[number].T], dim=1).flatten()
            numbers = [_text(place) for place in found.mm[number].tolist()]
            known = [_text(value) for value in (sizes[number].item(), *along.tolist())]
            yield [found.image, name, *numbers, known[0], found.flags[number], *known[1:]]


def _examples(results: Results, reference: TruePositions) -> tuple[list[Landmarks], Tensor]:
    """The images that the reference has, and their errors (true minus found, (N, K, D)), LPS+ mm.

    Images that a reader corrected are left out: they keep the reader's positions.
    """
    found = {one.image: one for one in results.landmarks if one.image not in results.corrected}
    pairs, away = pair_images(found, reference), []
    for image, other in pairs.items():
        places = found[image].mm
        missing = (torch.nan,) * places.shape[1]
        given = [reference[other].get(name, missing) for name in results.names]
        away.append(torch.tensor(given, dtype=torch.float64) - places)
    return [found[image] for image in pairs], torch.stack(away)


def _difficulty(one: Landmarks) -> Tensor:
    return difficulty(one.scores, one.deviations)


def _covariance(one: Landmarks) -> Tensor:
    """Covariances of an image, wider where the landmarks are hard to find."""
    if one.covariance_mm2 is None:
        raise ValueError(f"the landmarks of {one.image} come without covariances, and regions are made of them")
    return widened(one.covariance_mm2, _difficulty(one))


def _regions(one: Landmarks) -> Tensor:
    assert one.regions_mm2 is not None
    return one.regions_mm2


def _text(value: float) -> str:
    return "" if value != value else f"{value:.4f}"
