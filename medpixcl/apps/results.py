"""Landmarks found in images, by matching or by detection: positions, scores, errors, tables, files and a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

import medpixcl
from medpixcl.apps.bundles import own_errors
from medpixcl.apps.habit_file import ReadingHabit
from medpixcl.apps.images import Images
from medpixcl.apps.planes import draw_planes
from medpixcl.apps.radii import Radii
from medpixcl.apps.run_folder import Run
from medpixcl.coordinates import affines_of, flip_ras_lps, spacing_of, working_affine, working_spacing, working_voxels
from medpixcl.data.identity import pair_images
from medpixcl.data.landmarks.comparison import evaluate_positions
from medpixcl.data.landmarks.row import CORRECTED
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.landmarks.writing import NotWritten
from medpixcl.data.other_files import NO_IMAGE
from medpixcl.data.paths import checked_file
from medpixcl.landmarks.points import LandmarkSet, rows_by_name
from medpixcl.landmarks.regions import region_size
from medpixcl.matching.annotated_image import AnnotatedImage
from medpixcl.matching.key_points import template_warning
from medpixcl.matching.shape_statistics import misfit_warning
from medpixcl.reports.figures import landmark_overlay
from medpixcl.reports.html import Picture, write_match_report
from medpixcl.reports.match import match_report
from medpixcl.reports.tables import habit_rows, region_rows

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

    import medpixcl.apps.output

TRAINED_ON = "trained_on"


@dataclass(frozen=True)
class Landmarks(ImageLandmarks):
    """The K landmarks found in one image, with D = 2 or 3 coordinates.

    Attributes:
        image: Name of the image in results and files.
        points: Names, voxels, scores and flags, see :class:`medpixcl.landmarks.points.LandmarkSet`.
        affine: Affine (voxel -> mm, RAS+) of the image as stored in its file.
        shape: Spatial shape of the image as stored in its file.
        files: Files that the image was read from; empty for an image in memory.
        extras: Values of further columns in the landmark table.
        stem: Name of output files for the image, without suffix.
        source: File name in the prepared image's metadata (``filename_or_obj``), used to find the image again.
        covariance_mm2: Covariance of each position in mm^2 along the axes of :attr:`mm`, (K, D, D), float64; its shape
            is more reliable than its size, see :mod:`medpixcl.landmarks.regions`.
        radii_mm: Radius in mm around each position, (K,), that holds the true position with the calibration's
            probability; NaN where unknown. None without a calibration.
        deviations: Distance of each position from the one that the other landmarks predict, in standard deviations of
            the training landmarks, (K,); NaN where unknown. None if the detector knows no shape.
        misfit: True if most landmarks do not fit what a detector learnt, by its network and its shape.
        regions_mm2: Region around each position along the axes of :attr:`mm`, (K, D, D), see
            :mod:`medpixcl.landmarks.regions`; NaN where unknown. None without a calibration of regions.
    """

    stem: str = ""
    source: str = ""
    covariance_mm2: Float[Tensor, "k d d"] | None = None
    radii_mm: Float[Tensor, " k"] | None = None
    deviations: Float[Tensor, " k"] | None = None
    misfit: bool = False
    regions_mm2: Float[Tensor, "k d d"] | None = None

    def __repr__(self) -> str:
        counts = f"{len(self.names)} landmarks, {int(self.points.missing.sum())} missing, {sum(self.unsure)} unsure"
        return f"<{type(self).__name__} of {self.image!r}: {counts}>"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the landmarks."""
        return self.points.names

    @property
    def voxels(self) -> Float[Tensor, "k d"]:
        """Voxel index of each landmark in the file's image, array order: (row, column) or (i, j, k); NaN if missing."""
        return self.points.voxels

    @property
    def mm(self) -> Float[Tensor, "k d"]:
        """Position of each landmark (x, y[, z]) in mm, LPS+, as landmark files hold it; NaN if missing."""
        return self.lps_mm

    @property
    def scores(self) -> Float[Tensor, " k"]:
        """Confidence of each landmark, 0 to 1."""
        return torch.full_like(self.voxels[:, 0], torch.nan) if self.points.scores is None else self.points.scores

    @property
    def flags(self) -> tuple[str, ...]:
        """One word per landmark: ``unsure``, ``missing``, ``no geometry``, ``corrected``, or empty if all is well."""
        return self.points.flags or ("",) * len(self.names)

    @property
    def unsure(self) -> tuple[bool, ...]:
        """True for each landmark that is flagged as unsure."""
        return tuple(flag == "unsure" for flag in self.flags)

    def mm_of(self, points: LandmarkSet) -> Float[Tensor, "k d"]:
        """Positions (x, y[, z]) in mm, LPS+, of other landmarks of the image, in the order of these; NaN if missing."""
        voxels = rows_by_name(points.voxels, points.names, self.names)
        return replace(self, points=replace(self.points, voxels=voxels)).mm

    def with_flags(self, doubtful: Sequence[bool]) -> "Landmarks":
        """Copy these landmarks with other flags.

        Args:
            doubtful: Landmarks that become ``"unsure"``; the others keep their flags, except that those without a
                position become ``"missing"``.
        """
        given = zip(self.flags, doubtful, self.points.missing.tolist(), strict=True)
        words = tuple("missing" if gone else "unsure" if doubt else flag for flag, doubt, gone in given)
        return replace(self, points=replace(self.points, flags=words))

    def regions_along(self, image: MetaTensor) -> Float[Tensor, "k d d"] | None:
        """Regions in mm^2 along the array axes of the prepared image (1, *spatial); None without a calibration."""
        if self.regions_mm2 is None:
            return None
        to_array = torch.linalg.inv(lps_axes(image))
        return to_array @ self.regions_mm2 @ to_array.T

    def overlay(
        self, image: MetaTensor, regions_mm2: Float[Tensor, "k d d"] | None = None
    ) -> "matplotlib.figure.Figure":
        """Draw the landmarks on their prepared image; those flagged as unsure are hollow, those of a reader differ.

        Args:
            image: The image, (1, *spatial), at any spacing.
            regions_mm2: Matrices of the regions around the landmarks, along the array axes of the image.
        """
        return landmark_overlay(
            image.as_tensor()[0].cpu(),
            working_voxels(self.voxels, image),
            names=self.names,
            unsure=self.unsure,
            corrected=[flag == CORRECTED for flag in self.flags],
            radii_mm=self.radii_mm if regions_mm2 is None else None,
            regions_mm2=regions_mm2,
            affine=affines_of(image)[1] if image.ndim == 4 else None,
            spacing=working_spacing(image) if image.ndim == 3 else None,
        )


@dataclass
class Results:
    """Landmarks of all images of a run; images themselves are not kept in memory.

    Attributes:
        title: Heading of the report.
        names: Names of the landmarks to find.
        images: Images that were searched.
        preprocessing: Transforms that prepare an image before it is searched or drawn.
        output: Default output settings of :meth:`write`.
        facts: Values by name that the report lists about the run, besides the versions.
        templates: Annotated images that were matched; empty for a detection.
        template_warnings: Warnings about the marks of the templates.
        trained_on: Number of ``images`` that the detector was trained on and name of the ``start`` weights.
        reference: True positions by image and landmark, LPS+ mm; None without a reference.
        radii: Error radii of a calibration, or none.
        digest: Digest of the weights that confidence regions are calibrated for; empty without regions.
        landmarks: Landmarks of each image, in the order of the run.
        metrics: Errors against the reference, see :func:`medpixcl.landmarks.metrics.evaluate_positions`; None without.
        reading: Reading habit by which landmarks were moved; None without one.
        corrected: Names of the images that keep the positions of a reader; no error is measured on them.
        moved_mm: Mean distance in mm between each landmark and where it was found first, over the images that were not
            corrected, (K,); None without a habit.
        matched_again: True if these images were matched again, with the corrected ones as templates; else the habit
            moved them.
        matched_flags: Flags that matching alone gave, by which the templates are judged; None where the landmarks have
            them.
        alone: Results of both finders whose mean these are; empty without a second finder.
        stretch: Factor by which the regions (or radii) were stretched, as corrected images asked; None where they keep
            the size of the calibration.
        notes: Sentences on the corrections that a reader should know.
        run: What the run file of the folder says about the run.
        further: Functions that write further files of the run, by the name of the file.
    """

    title: str
    names: tuple[str, ...]
    images: Images
    preprocessing: Compose
    output: "medpixcl.apps.output.Output"
    facts: dict[str, str] = field(default_factory=dict)
    templates: Sequence[AnnotatedImage] = ()
    template_warnings: Sequence[str] = ()
    trained_on: Mapping[str, Any] | None = None
    reference: Mapping[str, Mapping[str, tuple[float, ...]]] | None = None
    radii: Radii = field(default_factory=lambda: Radii(None, ()))
    digest: str = ""
    landmarks: list[Landmarks] = field(default_factory=list)
    metrics: dict[str, Any] | None = None
    reading: ReadingHabit | None = None
    corrected: tuple[str, ...] = ()
    moved_mm: Float[Tensor, " k"] | None = None
    matched_again: bool = False
    matched_flags: Sequence[Sequence[str]] | None = None
    alone: Sequence["Results"] = ()
    stretch: float | None = None
    notes: list[str] = field(default_factory=list)
    run: Run = field(default_factory=lambda: Run("", dict))
    further: dict[str, Callable[[Path], None]] = field(default_factory=dict)

    def __repr__(self) -> str:
        searched = f"{len(self.landmarks)} images searched for {len(self.names)} landmarks each"
        unsure = sum(sum(one.unsure) for one in self.landmarks)
        rejected = f", {len(self.rejected)} images rejected" if self.landmarks else ""  # else nothing was scanned yet
        return f"<{type(self).__name__} of {self.title!r}: {searched}, {unsure} landmarks unsure{rejected}>"

    @property
    def rejected(self) -> dict[str, str]:
        """Reason for every image that was not searched."""
        return self.images.rejected

    @property
    def failed(self) -> dict[str, str]:
        """Reason for every image that was not searched, without the files that are no images."""
        return {image: reason for image, reason in self.rejected.items() if reason != NO_IMAGE}

    @property
    def summary(self) -> str:
        """Numbers of images, landmarks, unsure ones and files that were left out, in one line."""
        found, missing = self.landmarks, sum(int(one.points.missing.sum()) for one in self.landmarks)
        unsure = sum(sum(one.unsure) for one in found)
        marks = f"{sum(len(one.names) for one in found)} landmarks ({unsure} unsure, {missing} missing)"
        failed = len(self.failed)
        left_out = f"{failed} could not be searched, {len(self.rejected) - failed} other files passed over"
        return f"{len(found)} images searched, {marks}; {left_out}"

    @property
    def coverage(self) -> float | None:
        """Probability with which the regions (or radii) hold the true positions; None without a calibration."""
        regions = None if self.output.regions is None else self.output.regions.calibration
        calibration = regions or self.radii.calibration
        return None if calibration is None else calibration.coverage

    @property
    def warnings(self) -> list[str]:
        """Warnings about the results, such as that a template fits the images poorly, and notes on corrections."""
        flags, regions = self.matched_flags or [one.flags for one in self.landmarks], self.output.regions
        fit = template_warning(flags) if self.templates else misfit_warning([one.misfit for one in self.landmarks])
        unlike = regions.warning(self.landmarks) if regions else ""
        return [*self.template_warnings, *[text for text in (fit, unlike) if text], *self.notes]

    def add(self, one: Landmarks) -> Landmarks:
        """Add the landmarks of an image, named as the list of images names it, and return them."""
        self.landmarks.append(named(one, self.images))
        return self.landmarks[-1]

    def positions_mm(self) -> dict[str, dict[str, tuple[float, ...]]]:
        """Positions (x, y[, z]) in mm, LPS+, by image and landmark, as ``landmarks.csv`` holds them: to 0.0001 mm."""
        return {
            one.image: {
                name: tuple(float(f"{value:.4f}") for value in place)
                for name, place, missing in zip(one.names, one.mm.tolist(), one.points.missing.tolist(), strict=True)
                if not missing
            }
            for one in self.landmarks
        }

    def measure(self) -> None:
        """Fill :attr:`metrics` from the reference, if any, with the share of true positions that the radii hold."""
        for one in self.alone:
            one.measure()
        if self.reference is not None:
            self.metrics = evaluate_positions(self.positions_mm(), self.reference, exclude=self.corrected)
            self.metrics |= {TRAINED_ON: dict(self.trained_on)} if self.trained_on else {}
        self.facts |= self.radii.measure({one.image: one.flags for one in self.landmarks}, self.metrics)

    def to_dataframe(self) -> "pandas.DataFrame":
        """One row per image and landmark: the columns of ``landmarks.csv``, positions and scores as numbers.

        Raises:
            ModuleNotFoundError: If pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "to_dataframe needs the package pandas: pip install 'medpixcl[table]'", name="pandas"
            ) from None
        if not self.landmarks:
            return pandas.DataFrame(columns=["image", "landmark", "score", "flag"])
        return pandas.concat([pandas.DataFrame(_columns(one)) for one in self.landmarks], ignore_index=True)

    def write(
        self,
        folder: str | PathLike[str],
        formats: Sequence[str] | None = None,
        *,
        overlays: bool | None = None,
        keep_patient: bool | None = None,
        overwrite: bool = False,
    ) -> list[NotWritten]:
        """Write the landmarks, the overlays, the metrics and the report into a folder.

        The folder belongs to this run alone: it is new or empty, or these results were written into it before.

        Args:
            folder: Folder of the results; created if missing.
            formats: Landmark formats, see :mod:`medpixcl.data.landmarks.writing`; CSV is always included. By
                default the bundle's formats, usually ``("csv", "mrk.json")``.
            overlays: Whether to read every image again and draw its landmarks; the bundle's choice by default.
            keep_patient: Whether to copy patient and study data into DICOM SR; the bundle's choice by default.
            overwrite: Whether to replace another run's results: the files that its run file lists are removed first.

        Returns:
            What a format cannot hold, with the reason; ``rejected.csv`` lists it beside the images without landmarks.

        Raises:
            ValueError: If an argument is of another kind, a format is unknown, the folder holds another run or other
                files, no image was searched, or one cannot be read again; the tables are written before the pictures.
        """
        output = self.output.into(folder, formats, overlays=overlays, keep_patient=keep_patient, overwrite=overwrite)
        return output.write(self, draw=True)

    @own_errors()
    def read(self, one: Landmarks) -> MetaTensor:
        """Read the image of the given landmarks again and prepare it."""
        return self.preprocessing(dict(self.images.entry(one.source)))["image"]

    def planes(self, one: Landmarks, image: MetaTensor) -> "matplotlib.figure.Figure":
        """Draw slices through every landmark of a prepared volume (1, i, j, k), beside those of the templates."""
        pairs = pair_images([other.image for other in self.landmarks], self.reference or {})
        true = self.reference[pairs[one.image]] if self.reference and one.image in pairs else {}
        return draw_planes(one, image, reference=true, templates=self.templates)

    def report(
        self,
        path: str | PathLike[str],
        *,
        comparisons: Sequence[tuple[str, Mapping[str, Any]]] = (),
        pictures: Sequence[Picture] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        """Write the report: one HTML page with tables, error curves, and the best and the worst images.

        Args:
            path: The HTML file.
            comparisons: Names and metrics of other runs on the same images, shown next to this run.
            pictures: Pictures to show above the error curves.
            warnings: Warnings to show in addition to :attr:`warnings`.

        Raises:
            ValueError: If ``path`` names no file, no image was searched, or one cannot be read again.
        """
        path = checked_file(path, "the report")
        if not self.landmarks:
            raise ValueError(f"there are no landmarks to report in {path}: search an image first")
        by_name = {one.image: one for one in self.landmarks}

        def planes(name: str) -> "matplotlib.figure.Figure":
            return self.planes(by_name[name], self.read(by_name[name]))

        versions = {"medpixcl": medpixcl.__version__, "torch": torch.__version__}
        page = match_report(
            title=self.title,
            templates=[str(template.path) for template in self.templates],
            template_pictures=[_template_picture(template) for template in self.templates],
            images=list(by_name),
            names=self.names,
            scores=torch.stack([one.scores for one in self.landmarks]),
            unsure=torch.tensor([one.unsure for one in self.landmarks]),
            draw=lambda name: by_name[name].overlay(self.read(by_name[name])),
            draw_planes=planes if self.landmarks[0].points.dims == 3 else None,
            facts=self.facts | versions,
            metrics=self.metrics,
            rejected=self.rejected,
            comparisons=[*comparisons, ("this run", self.metrics or {})] if comparisons else (),
            pictures=pictures,
            warnings=[*self.warnings, *warnings],
            habit_table=self._habit_table(),
            region_table=self._region_table(),
        )
        write_match_report(path, page)

    def _region_table(self) -> list[list[str]]:
        sizes = [one.radii_mm if one.regions_mm2 is None else region_size(one.regions_mm2) for one in self.landmarks]
        if self.coverage is None or any(size is None for size in sizes):
            return []
        return region_rows(self.names, torch.stack([size for size in sizes if size is not None]), self.coverage)

    def _habit_table(self) -> list[list[str]]:
        if self.reading is None:
            return []
        return habit_rows(self.reading.habit.of(self.names), self.moved_mm, matched_again=self.matched_again)


def named(one: Landmarks, images: Images) -> Landmarks:
    """Give the landmarks of an image the names and files by which a list of images knows it."""
    source = one.source
    return replace(one, image=images.name(source), stem=images.stem(source), files=images.files(source))


def rejected_rows(rejected: Mapping[str, str], not_written: Sequence[NotWritten]) -> list[tuple[str, str, str]]:
    """Table of the images without landmarks, and of those that a format cannot hold; the first row is the header."""
    rows = [(image, "", reason) for image, reason in rejected.items()]
    rows += [(one.image, one.format, one.reason) for one in not_written]
    return [("image", "format", "reason"), *rows]


def lps_axes(image: MetaTensor) -> Float[Tensor, "d d"]:
    """Matrix from mm along the array axes of an image (C, *spatial) to mm along LPS+, float64."""
    affine = working_affine(image)
    return flip_ras_lps((affine[:-1, :-1] / spacing_of(affine)).T).T


def _columns(one: Landmarks) -> dict[str, Any]:
    """Columns of the landmark table for one image."""
    places = {"px": one.px, "mm": one.mm}
    columns: dict[str, Any] = {"image": one.image, "landmark": list(one.names)}
    for unit, values in places.items():
        columns |= {f"{axis}_{unit}": column.tolist() for axis, column in zip("xyz", values.T, strict=False)}
    columns |= {"score": one.scores.tolist(), "flag": list(one.flags)}
    return columns | ({} if one.radii_mm is None else {"radius_mm": one.radii_mm.tolist()})


def _template_picture(template: AnnotatedImage) -> Picture:
    image = template.image
    nowhere = torch.full_like(template.voxels, torch.nan)
    names = template.points.names
    figure = landmark_overlay(image.as_tensor()[0], nowhere, reference=template.voxels, names=names)
    return Picture(image=figure, caption="")
