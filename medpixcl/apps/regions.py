"""Confidence regions of landmarks: calibrate on images with known landmarks, write and draw for others."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from monai.data import MetaTensor
from torch import Tensor

from medpixcl.apps.results import Landmarks, Results, lps_axes
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.identity import pair_images
from medpixcl.landmarks.regions import RegionCalibration, calibrate_regions, coverage_report, region_size, semi_axes
from medpixcl.reports.tables import write_metrics_json

if TYPE_CHECKING:
    import matplotlib.figure

CALIBRATION_FILE, TABLE_FILE, COVERAGE_FILE = "region_calibration.json", "regions.csv", "region_coverage.json"
TruePositions = Mapping[str, Mapping[str, tuple[float, ...]]]


class Regions:
    """Makes confidence regions for the landmarks of a run from their covariances.

    Without a calibration it makes one from the reference, ``region_calibration.json``. With one it writes
    ``regions.csv`` (LPS+ mm: place, semi-axes and their directions, and whether the region is so large that the
    landmark is unsure), ``regions/<image>.png``, and with a reference ``region_coverage.json``.

    Args:
        calibration: File ``region_calibration.json`` of a run on other images; None makes a new calibration.
        coverage: Probability with which regions of a new calibration should hold the true position.
    """

    def __init__(self, calibration: str | None = None, coverage: float = 0.9) -> None:
        self.calibration = None if calibration is None else RegionCalibration.read(calibration)
        self.coverage = coverage

    def check(self, names: Sequence[str], reference: TruePositions | None) -> None:
        """Check whether all input of the regions is available.

        Args:
            names: Names of the landmarks to find.
            reference: True positions; None without a reference.

        Raises:
            ValueError: If there is neither a calibration nor a reference, or the calibration lacks a landmark.
        """
        if self.calibration is not None:
            self.calibration.regions_of(names, torch.eye(2).expand(len(names), 2, 2))
        elif reference is None:
            raise ValueError("regions need a calibration, or a reference with known landmarks to make one; give either")

    def overlay(self, one: Landmarks, image: MetaTensor) -> "matplotlib.figure.Figure":
        """Draw the regions of one prepared image (1, *spatial); a calibration is required."""
        calibration, to_array = self._known(), torch.linalg.inv(lps_axes(image))
        regions = calibration.regions_of(one.names, to_array @ _covariance(one) @ to_array.T)
        return one.overlay(image, regions, calibration.unsure(one.names, regions).tolist())

    def write(self, folder: Path, results: Results) -> None:
        """Write the calibration, or the regions and the share of true positions that they hold."""
        if self.calibration is not None:
            write_text_atomically(folder / TABLE_FILE, self._table(results))
        if results.reference is None:
            return
        away, covariance = _examples(results, results.reference)
        if self.calibration is not None:
            report = coverage_report(self.calibration, results.names, away, covariance)
            write_metrics_json(folder / COVERAGE_FILE, report)
            return
        made = calibrate_regions(away, covariance, results.names, coverage=self.coverage)
        write_text_atomically(folder / CALIBRATION_FILE, made.to_json() + "\n")

    def _known(self) -> RegionCalibration:
        assert self.calibration is not None
        return self.calibration

    def _table(self, results: Results) -> str:
        calibration, text = self._known(), io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        dims = results.landmarks[0].voxels.shape[1] if results.landmarks else 2
        axes = [f"axis{n + 1}_{what}" for n in range(dims) for what in ("mm", *"xyz"[:dims])]
        writer.writerow(["image", "landmark", *[f"{axis}_mm" for axis in "xyz"[:dims]], "size_mm", "unsure", *axes])
        for found in results.landmarks:
            regions = calibration.regions_of(found.names, _covariance(found))
            lengths, directions = semi_axes(regions)
            unsure, sizes = calibration.unsure(found.names, regions).tolist(), region_size(regions)
            for number, name in enumerate(found.names):
                along = torch.cat([lengths[number][:, None], directions[number].T], dim=1).flatten()
                numbers = [_text(place) for place in found.mm[number].tolist()]
                known = [_text(value) for value in (sizes[number].item(), *along.tolist())]
                row = [found.image, name, *numbers, known[0], "unsure" if unsure[number] else "", *known[1:]]
                writer.writerow(row)
        return text.getvalue()


def _examples(results: Results, reference: TruePositions) -> tuple[Tensor, Tensor]:
    """Errors (true minus found, (N, K, D)) and covariances (N, K, D, D), LPS, of the images in the reference."""
    found = {one.image: one for one in results.landmarks}
    pairs, away = pair_images(found, reference), []
    for image, other in pairs.items():
        places = found[image].mm
        missing = (torch.nan,) * places.shape[1]
        given = [reference[other].get(name, missing) for name in results.names]
        away.append(torch.tensor(given, dtype=torch.float64) - places)
    return torch.stack(away), torch.stack([_covariance(found[image]) for image in pairs])


def _covariance(one: Landmarks) -> Tensor:
    if one.covariance_mm2 is None:
        raise ValueError(f"the landmarks of {one.image} come without covariances, and regions are made of them")
    return one.covariance_mm2


def _text(value: float) -> str:
    return "" if value != value else f"{value:.4f}"
