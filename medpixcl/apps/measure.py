"""Cephalometric measurements of a landmark file, with tables, tracings and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import medpixcl
from medpixcl._typing import AnyPath, Progress
from medpixcl.apps.digests import path_digest, value_digest
from medpixcl.apps.measurement import (
    ListedPicture,
    Measured,
    compare_files,
    copies_among,
    find_pictures,
    image_folder,
    measure_file,
)
from medpixcl.apps.readers import require_different_files
from medpixcl.apps.run_folder import Run, RunFolder
from medpixcl.apps.run_lines import RunLines
from medpixcl.coordinates import working_spacing
from medpixcl.data.identity import named_images, telling_names, unique_output_names
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.paths import checked_folder, checked_path, checked_paths
from medpixcl.data.pixels import NO_SPACING, MissingSpacingError
from medpixcl.data.tables import write_csv
from medpixcl.data.wording import worded
from medpixcl.landmarks.cephalometry import ReaderComparison
from medpixcl.reports.figures import save_png
from medpixcl.reports.html import Picture
from medpixcl.reports.measurements import (
    MeasurementReport,
    agreement_table,
    class_agreement_table,
    class_table,
    measurement_table,
    write_measurement_report,
)
from medpixcl.reports.tracing import cephalometric_tracing

if TYPE_CHECKING:
    import matplotlib.figure

SHOWN_TRACINGS = 6
"""Number of tracings on the report page; the others are separate files."""


@dataclass
class MeasurementRun:
    """Result of :func:`measure`.

    Attributes:
        measured: Measurements of the landmark file.
        comparisons: Comparisons of the file with the references, and of the references with each other.
        rejected: Reason for each picture that could not be drawn.
        output: Folder of the results.
        not_found: Excluded images that the landmark file does not contain.
        warnings: What suggests that two of the files compared are copies, and other files in the folder.
    """

    measured: Measured
    comparisons: list[ReaderComparison]
    output: Path
    rejected: dict[str, str] = field(default_factory=dict)
    not_found: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def measure(
    landmarks: AnyPath,
    output: AnyPath,
    *,
    images: AnyPath | None = None,
    references: AnyPath | Sequence[AnyPath] = (),
    names: Mapping[str, str] | None = None,
    spacing_mm: float | None = None,
    exclude: Sequence[str] = (),
    coverage: float = 0.9,
    overwrite: bool = False,
    resume: bool = False,
    options: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
) -> MeasurementRun:
    """Measure cephalometric angles, lengths and ratios from landmarks.

    Writes ``measurements.csv``, ``classes.csv``, the tracings, the comparisons and ``report.html`` into a folder that
    belongs to this run alone (:mod:`medpixcl.apps.run_folder`).

    Args:
        landmarks: Landmark file of lateral cephalograms, or a folder of them; of the ``regions.csv`` of a detection the
            regions give the intervals.
        output: Folder of the results.
        images: A picture, or a folder or manifest that is searched for the pictures of the file's images, to draw the
            tracings; a manifest also gives their pixel sizes.
        references: Landmark files of other readers, to compare with.
        names: Anatomical name of each landmark, see :func:`medpixcl.landmarks.cephalometry.landmark_roles`.
        spacing_mm: Pixel size in mm for positions in pixels whose file does not state it.
        exclude: Images to leave out, as the file names them, or their file names.
        coverage: Probability with which the column ``radius_mm`` of the landmark file, or its regions, hold the true
            positions, and the intervals the true measurements.
        overwrite: Whether to remove the files of another run from the folder; other files stay.
        resume: Whether to go on with an interrupted run of the same input; tracings are not drawn twice.
        options: Options of the command as they were typed, for the run file.
        progress: Function called after every tracing.

    Raises:
        ValueError: If the input is bad; one sentence that names the file.
    """
    file, folder = checked_path(landmarks, "the landmark file"), checked_folder(output, "the folder of the results")
    others = checked_paths(references, "a reference")
    RunFolder(folder).require_free(Run("measure", dict), overwrite=overwrite, resume=resume)
    require_different_files([file, *others])
    drawn_on = None if images is None else checked_path(images, "the folder of the pictures")
    pictures = {} if drawn_on is None else find_pictures(read_landmarks(file), drawn_on)
    measured = measure_file(
        file, names=names, spacing_mm=spacing_mm, exclude=exclude, pictures=pictures, coverage=coverage
    )
    readers = [measure_file(path, names=names, spacing_mm=spacing_mm) for path in others]
    run = MeasurementRun(measured, compare_files(measured, readers) if readers else [], folder)
    run.warnings = copies_among(run.comparisons)
    named = named_images(exclude, measured.file.images)
    run.not_found = [line for line in exclude if line not in named]

    def made_from() -> dict[str, str]:
        return {
            "landmarks": path_digest(file),
            "references": value_digest([path_digest(one) for one in others]),
            "settings": value_digest(dict(names or {}), spacing_mm, list(exclude), coverage),
            "images": value_digest([(name, path_digest(one.file), one.spacing_mm) for name, one in pictures.items()]),
            "version of medpixcl": medpixcl.__version__,
        }

    described = Run("measure", made_from, options or {})
    with RunFolder(folder).opened(described, len(pictures), overwrite=overwrite, resume=resume) as place:
        _write_tables(run)
        shown = _draw_tracings(run, pictures, spacing_mm, place.lines, progress)
        facts = {"program": f"medpixcl {medpixcl.__version__}", "landmarks": file.name}
        if not bool(measured.halves.isnan().all()):
            facts["intervals"] = f"{100 * coverage:g} %, from the error radii or regions of the landmarks"
        if others:
            facts["compared with"] = ", ".join(telling_names(map(str, others)).values())
        write_measurement_report(folder / "report.html", _report(run, facts, shown))
        run.warnings += place.finish()
    return run


def _write_tables(run: MeasurementRun) -> None:
    measured = run.measured
    tables = {
        "measurements.csv": measurement_table(measured.images, measured.values, measured.halves, measured.remarks),
        "classes.csv": class_table(measured.images, measured.values, measured.halves),
    }
    if run.comparisons:
        tables["agreement.csv"] = agreement_table(run.comparisons)
        tables["class_agreement.csv"] = class_agreement_table(run.comparisons)
    for name, table in tables.items():
        write_csv(run.output / name, table)


def _report(run: MeasurementRun, facts: dict[str, str], tracings: list[Picture]) -> MeasurementReport:
    measured = run.measured
    return MeasurementReport(
        facts=facts,
        images=measured.images,
        values=measured.values,
        halves=measured.halves,
        reasons=measured.reasons,
        doubtful=measured.doubtful,
        comparisons=run.comparisons,
        tracings=tracings,
        rejected=[(measured.short_names[image], reason) for image, reason in run.rejected.items()],
    )


def _draw_tracings(
    run: MeasurementRun,
    pictures: Mapping[str, ListedPicture],
    spacing_mm: float | None,
    lines: RunLines,
    progress: Progress,
) -> list[Picture]:
    """Draw a tracing on every picture found but those drawn before, and return the first ones for the report."""
    shown: list[Picture] = []
    images = [image for image in run.measured.images if image in pictures]
    files, names = unique_output_names(images), run.measured.short_names
    for number, image in enumerate(images):
        if image in lines.drawn and len(shown) == SHOWN_TRACINGS:
            continue
        try:
            figure = _tracing(run.measured, image, pictures[image], spacing_mm)
        except ValueError as error:
            run.rejected[image] = worded(str(error).replace(str(pictures[image].file), names[image]))
            continue
        save_png(figure, run.output / "tracings" / f"{files[image]}.png")
        lines.keep({"drawn": image})
        if len(shown) < SHOWN_TRACINGS:
            shown.append(Picture(image=figure, caption=names[image], alt=f"Tracing over {names[image]}"))
        progress(number + 1, len(images))
    return shown


def _tracing(
    measured: Measured, image: str, picture: ListedPicture, spacing_mm: float | None
) -> "matplotlib.figure.Figure":
    size = picture.spacing_mm or spacing_mm
    pixels = read_image(picture.file, spacing_mm=size, allow_missing_spacing=True)
    if pixels.meta["spacing_source"] == "unknown":
        size = _pixel_size(measured, image, picture.file)
        pixels = read_image(picture.file, spacing_mm=size)
    points = measured.file.for_image(image_folder(measured.file) / image, pixels.affine, pixels.shape[1:], dims=2)
    title, spacing = measured.short_names[image], working_spacing(pixels)
    return cephalometric_tracing(pixels[0], points.voxels, measured.roles, spacing=spacing, title=title)


def _pixel_size(measured: Measured, image: str, picture: Path) -> float:
    """Pixel size in mm of a picture that does not state it, from landmarks that the file has in pixels and mm.

    Raises:
        MissingSpacingError: If the file has fewer than two landmarks in pixels; mm alone do not say where they lie.
    """
    rows = [measured.file.row(image, name) for name in measured.file.names]
    places = measured.points[measured.images.index(image)]
    both = [(row.px, mm) for row, mm in zip(rows, places, strict=True) if row and row.px]
    known = [(px, mm) for px, mm in both if not bool(mm.isnan().any())]
    if len(known) < 2:
        raise MissingSpacingError(picture, NO_SPACING)
    in_pixels, in_mm = torch.tensor([px for px, _ in known], dtype=torch.float64), torch.stack([mm for _, mm in known])
    return float(torch.pdist(in_mm).sum() / torch.pdist(in_pixels).sum())
