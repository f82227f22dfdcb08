"""Landmarks found in images: collected, written in the formats wanted, measured, reported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

import medpixcl
from medpixcl.apps.images import ImageList
from medpixcl.apps.radii import Radii
from medpixcl.coordinates import affines_of, original_voxels, working_spacing
from medpixcl.data.dicom import is_dicom
from medpixcl.data.landmarks.comparison import evaluate_positions
from medpixcl.data.landmarks.reading import REJECTED_TABLE, read_landmarks
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.landmarks.writing import DEFAULT_FORMATS, NotWritten, checked_formats, write_landmarks
from medpixcl.data.tables import write_csv
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.reports.figures import landmark_overlay, save_png
from medpixcl.reports.html import Picture, write_match_report
from medpixcl.reports.match import match_report
from medpixcl.reports.tables import write_metrics_json

METRICS_FILE = "metrics.json"


@runtime_checkable
class Found(Protocol):
    """Landmarks found in one image, K of them.

    Attributes:
        voxels: Of the working image, shape (K, D), NaN where missing.
        scores: Confidence, shape (K,).
        flags: A word for each landmark, empty where there is nothing to say.
    """

    @property
    def voxels(self) -> Tensor: ...  # noqa: D102

    @property
    def scores(self) -> Tensor: ...  # noqa: D102

    @property
    def flags(self) -> tuple[str, ...]: ...  # noqa: D102


class LandmarkResults:
    """Collects the landmarks found in images, and writes them.

    The folder gets ``landmarks.csv`` (pixels and mm, LPS+; the metrics are measured on it), the other formats wanted,
    ``rejected.csv`` with what has no landmarks and why, ``overlays/<image>.png``, ``report.html`` and, with a
    reference, ``metrics.json``.

    Args:
        images: The images that are searched.
        preprocessing: Their transforms.
        output_dir: Folder of the results.
        title: Heading of the report.
        reference: Landmark file with true positions, to measure the error.
        facts: What the report shall say of the run, beside the versions.
        overlays: Draw an overlay of every image.
        comparisons: Name and metrics of other runs over the same images, shown beside this one's.
        pictures: Files (PNG or JPEG) and captions of pictures for the report.
        formats: Of the landmarks, see :mod:`medpixcl.data.landmarks.writing`.
        keep_patient: Copy patient and study into DICOM SR.

    Raises:
        ValueError: If a format is unknown.
    """

    def __init__(
        self,
        images: ImageList,
        preprocessing: Compose,
        output_dir: str,
        *,
        title: str,
        reference: str | None = None,
        facts: Mapping[str, str] | None = None,
        overlays: bool = True,
        comparisons: Sequence[tuple[str, Mapping[str, Any]]] = (),
        pictures: Sequence[tuple[str, str]] = (),
        formats: Sequence[str] = DEFAULT_FORMATS,
        keep_patient: bool = False,
    ) -> None:
        self.images, self.preprocessing, self.output_dir, self.title = images, preprocessing, Path(output_dir), title
        self.reference, self.facts, self.overlays = reference, dict(facts or {}), overlays
        self.comparisons, self.pictures = comparisons, pictures
        self.formats, self.keep_patient = checked_formats(("csv", *formats)), keep_patient
        self.names: tuple[str, ...] = ()
        self.results: dict[str, tuple[LandmarkSet, Found]] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.landmarks: list[ImageLandmarks] = []
        self.not_written: list[NotWritten] = []
        self.true_positions: dict[str, dict[str, tuple[float, ...]]] | None = None
        self.metrics: dict[str, Any] | None = None
        self.radii = Radii(None, ())

    def check(self) -> None:
        """Read the reference, then find the images: bad input shows before the work begins.

        Raises:
            ValueError: One sentence that names the file.
        """
        if self.reference is not None:
            self.true_positions = read_landmarks(self.reference).positions_mm()
        self.images.check()
        if "sr" in self.formats and not any(self._is_dicom(item) for item in self.images.datalist):
            raise ValueError(f"{self.images.path} holds no DICOM image, and a DICOM SR refers to one; leave out sr.")

    def add(self, image: MetaTensor, result: Found) -> None:
        """Keep what was found in one image, and draw it."""
        path = str(image.meta["filename_or_obj"])
        name, stem = self.images.name(path), self.images.stem(path)
        found = LandmarkSet(
            names=self.names,
            voxels=original_voxels(result.voxels.cpu(), image),
            scores=result.scores.cpu(),
            flags=result.flags,
        )
        affine = torch.as_tensor(image.meta["original_affine"], dtype=torch.float64)
        self.results[name] = (found, result)
        self.entries[name] = self.images.entry(path)
        self.landmarks.append(
            ImageLandmarks(
                image=name,
                points=found,
                affine=affine,
                shape=tuple(int(size) for size in image.meta["spatial_shape"]),
                files=self.images.files(path),
                extras=tuple(self.radii.with_column([{} for _ in self.names], result.flags)),
            )
        )
        if self.overlays:
            overlay = self.output_dir / "overlays" / f"{stem}.png"
            overlay.parent.mkdir(parents=True, exist_ok=True)
            save_png(self._overlay(image, result), overlay)

    def _overlay(self, image: MetaTensor, result: Found) -> Any:
        return landmark_overlay(
            image.as_tensor()[0].cpu(),
            result.voxels.cpu(),
            names=self.names,
            unsure=[flag == "unsure" for flag in result.flags],
            radii_mm=self.radii.of(result.flags),
            affine=affines_of(image)[1] if image.ndim == 4 else None,
            spacing=working_spacing(image) if image.ndim == 3 else None,
        )

    def finish(self, engine: Engine) -> None:
        """Write the landmarks, the metrics and the report."""
        self.not_written = write_landmarks(
            self.output_dir, self.landmarks, self.formats, keep_patient=self.keep_patient
        )
        self._write_rejected()
        self.metrics = self._measure()
        circles = self.radii.measure({name: found.flags for name, (_, found) in self.results.items()}, self.metrics)
        if self.metrics is not None:
            write_metrics_json(self.output_dir / METRICS_FILE, self.metrics)
        report = match_report(
            title=self.title,
            images=list(self.results),
            names=self.names,
            scores=torch.stack([result.scores.cpu() for _, result in self.results.values()]),
            unsure=torch.tensor([[flag == "unsure" for flag in result.flags] for _, result in self.results.values()]),
            draw=self._picture_of,
            facts={**self.facts, **circles, "medpixcl": medpixcl.__version__, "torch": torch.__version__},
            metrics=self.metrics,
            rejected=self.images.rejected,
            comparisons=[*self.comparisons, ("this run", self.metrics or {})] if self.comparisons else (),
            **self._in_report(),
        )
        write_match_report(self.output_dir / "report.html", report)

    def _measure(self) -> dict[str, Any] | None:
        """Metrics of the landmarks as they were written; None without a reference."""
        if self.true_positions is None:
            return None
        found = read_landmarks(self.output_dir / "landmarks.csv").positions_mm()
        return evaluate_positions(found, self.true_positions)

    def _in_report(self) -> dict[str, Any]:
        """What else the report says, of an annotated image for instance, as arguments of ``match_report``."""
        pictures = [Picture(image=Path(file).read_bytes(), caption=caption) for file, caption in self.pictures]
        return {"template_name": "", "pictures": pictures}

    def _picture_of(self, name: str) -> Any:
        """Overlay of one image for the report."""
        return self._overlay(self.preprocessing(self.entries[name])["image"], self.results[name][1])

    def _write_rejected(self) -> None:
        """List the images without landmarks, and those that a format cannot hold."""
        rows = [(image, "", reason) for image, reason in self.images.rejected.items()]
        rows += [(one.image, one.format, one.reason) for one in self.not_written]
        write_csv(self.output_dir / REJECTED_TABLE, [("image", "format", "reason"), *rows])

    @staticmethod
    def _is_dicom(item: Mapping[str, Any]) -> bool:
        """True for a series and for a DICOM picture."""
        path = item["image"]
        return not isinstance(path, str) or Path(path).is_dir() or is_dicom(Path(path))
