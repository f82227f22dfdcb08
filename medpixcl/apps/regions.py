"""Confidence regions of detected landmarks: calibrated on images with known landmarks, stored and drawn for others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from jaxtyping import Float
from monai.data import MetaTensor, decollate_batch
from torch import Tensor

from medpixcl.apps.images import ImageList
from medpixcl.coordinates import flip_ras_lps, spacing_of, voxel_to_mm, working_affine, working_spacing
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.identity import pair_images
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.tables import write_csv
from medpixcl.landmarks.regions import RegionCalibration, calibrate_regions, coverage_report, region_size, semi_axes
from medpixcl.reports.figures import landmark_overlay, save_png
from medpixcl.reports.tables import write_metrics_json

CALIBRATION_FILE, TABLE_FILE, COVERAGE_FILE = "region_calibration.json", "regions.csv", "region_coverage.json"


@dataclass(frozen=True)
class Spread:
    """Where the landmarks of an image were found, and how far each may be off, in mm, LPS+."""

    places: Float[Tensor, "k d"]
    covariance: Float[Tensor, "k d d"]


class RegionHandler:
    """Makes regions of what a :class:`medpixcl.networks.inferers.LandmarkInferer` finds in every image of an evaluator.

    Without a calibration it makes one from the reference, ``region_calibration.json``. With one it writes
    ``regions.csv`` (LPS+ mm: place, semi-axes and their directions, and whether the region is so large that the
    landmark is unsure), ``regions/<image>.png``, and with a reference ``region_coverage.json``.

    Args:
        names: Of the landmarks, in the network's order.
        images: The images that the evaluator runs over.
        output_dir: Folder of the results.
        calibration: File that this handler wrote for other images.
        reference: Landmark file with true positions.
        coverage: Probability that the regions of a new calibration hold the true place.
        overlays: Draw the regions of every image.

    Raises:
        ValueError: If there is neither a calibration nor a reference, or the calibration has not these landmarks.
    """

    def __init__(
        self,
        names: Sequence[str],
        images: ImageList,
        output_dir: str,
        calibration: str | None = None,
        reference: str | None = None,
        coverage: float = 0.9,
        overlays: bool = True,
    ) -> None:
        if calibration is None and reference is None:
            raise ValueError("regions need a calibration, or a reference with known landmarks to make one; give either")
        self.names, self.images, self.output_dir = tuple(names), images, Path(output_dir)
        self.calibration = None if calibration is None else RegionCalibration.read(calibration)
        if self.calibration is not None:
            self.calibration.regions_of(self.names, torch.eye(2).expand(len(self.names), 2, 2))
        self.reference, self.coverage, self.overlays = reference, coverage, overlays
        self.found: dict[str, Spread] = {}

    def attach(self, engine: Engine) -> None:
        """Take the landmarks of every image, write at the end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def collect(self, engine: Engine) -> None:
        """Keep the landmarks of this iteration's images, and draw their regions."""
        found = engine.state.output["pred"]
        for number, image in enumerate(decollate_batch(engine.state.batch["image"])):
            voxels, covariance = (found[key][number].double().cpu() for key in ("points", "covariance_mm2"))
            path = str(image.meta["filename_or_obj"])
            self.found[self.images.name(path)] = in_lps(voxels, covariance, image)
            if self.calibration is not None and self.overlays:
                self._draw(image, voxels, covariance, self.output_dir / "regions" / f"{self.images.stem(path)}.png")

    def _draw(self, image: MetaTensor, voxels: Tensor, covariance: Tensor, path: Path) -> None:
        assert self.calibration is not None
        regions = self.calibration.regions_of(self.names, covariance)
        volume = image.ndim == 4
        path.parent.mkdir(parents=True, exist_ok=True)
        overlay = landmark_overlay(
            image.as_tensor()[0].cpu(),
            voxels,
            names=self.names,
            unsure=self.calibration.unsure(self.names, regions),
            regions_mm2=regions,
            affine=working_affine(image) if volume else None,
            spacing=None if volume else working_spacing(image),
        )
        save_png(overlay, path)

    def finish(self, engine: Engine) -> None:
        """Write the calibration, or the regions and how many true places they hold."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        if self.calibration is not None:
            write_csv(self.output_dir / TABLE_FILE, self._table(self.calibration))
        if self.reference is None:
            return
        away, covariance = self._examples()
        if self.calibration is not None:
            report = coverage_report(self.calibration, self.names, away, covariance)
            write_metrics_json(self.output_dir / COVERAGE_FILE, report)
            return
        made = calibrate_regions(away, covariance, self.names, coverage=self.coverage)
        write_text_atomically(self.output_dir / CALIBRATION_FILE, made.to_json() + "\n")

    def _examples(self) -> tuple[Tensor, Tensor]:
        """True less found position (N, K, D) and covariances (N, K, D, D), LPS, of the images in the reference."""
        assert self.reference is not None
        true = read_landmarks(self.reference).positions_mm()
        pairs = pair_images(self.found, true)
        if not pairs:
            raise ValueError(f"{self.reference} names none of the {len(self.found)} images; give landmarks of them")
        away = []
        for image, other in pairs.items():
            places = self.found[image].places
            missing = (torch.nan,) * places.shape[1]
            given = [true[other].get(name, missing) for name in self.names]
            away.append(torch.tensor(given, dtype=torch.float64) - places)
        return torch.stack(away), torch.stack([self.found[image].covariance for image in pairs])

    def _table(self, calibration: RegionCalibration) -> list[list[str]]:
        dims = next(iter(self.found.values())).places.shape[1] if self.found else 2
        axes = [f"axis{n + 1}_{what}" for n in range(dims) for what in ("mm", *"xyz"[:dims])]
        table = [["image", "landmark", *[f"{axis}_mm" for axis in "xyz"[:dims]], "size_mm", "unsure", *axes]]
        for image, found in self.found.items():
            regions = calibration.regions_of(self.names, found.covariance)
            lengths, directions = semi_axes(regions)
            unsure, sizes = calibration.unsure(self.names, regions).tolist(), region_size(regions)
            for number, name in enumerate(self.names):
                along = torch.cat([lengths[number][:, None], directions[number].T], dim=1).flatten()
                numbers = [_text(place) for place in found.places[number].tolist()]
                known = [_text(value) for value in (sizes[number].item(), *along.tolist())]
                table.append([image, name, *numbers, known[0], "unsure" if unsure[number] else "", *known[1:]])
        return table


def _text(value: float) -> str:
    return "" if value != value else f"{value:.4f}"


def in_lps(voxels: Float[Tensor, "k d"], covariance: Float[Tensor, "k d d"], image: MetaTensor) -> Spread:
    """Places and covariances in LPS+ mm, of voxels and of mm along the array axes of an image (C, *spatial)."""
    affine = working_affine(image)
    turn = flip_ras_lps((affine[:-1, :-1] / spacing_of(affine)).T).T
    return Spread(flip_ras_lps(voxel_to_mm(voxels, affine)), turn @ covariance @ turn.T)
