"""Output folder of a run: which files are written, and how they are drawn."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from medpixcl.apps.digests import path_digest, value_digest
from medpixcl.apps.few_shot import few_shot_report, read_earlier_runs
from medpixcl.apps.images import Images
from medpixcl.apps.parts import (
    PARTS_FOLDER,
    found_in_parts,
    left_parts,
    remove_parts,
    require_finished,
    require_no_other_parts,
    run_folder_of_part,
)
from medpixcl.apps.readers import compare_reader_positions, read_readers, write_reader_table
from medpixcl.apps.regions import CALIBRATION_FILE, Regions
from medpixcl.apps.results import Landmarks, Results, rejected_rows
from medpixcl.apps.run_folder import FINISHED, Run, RunFolder, finished_error
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.dicom_header import is_dicom
from medpixcl.data.landmarks.writing import DEFAULT_FORMATS, NotWritten, checked_formats, write_landmarks
from medpixcl.data.part_numbers import check_part
from medpixcl.data.paths import checked_folder, checked_path, shown_value
from medpixcl.data.result_folders import REJECTED_TABLE
from medpixcl.data.tables import write_csv
from medpixcl.limits import regular_file
from medpixcl.reports.figures import save_png
from medpixcl.reports.html import Picture
from medpixcl.reports.tables import write_metrics_json

METRICS_FILE, HABIT_FILE, RADII_FILE = "metrics.json", "habit.json", "radius_calibration.json"
PLANES_FOLDER = "planes"
MOST_DRAWN = 1000
"""Number of images up to which all are drawn, unless a setting says otherwise; the report always draws some."""


@dataclass(frozen=True)
class Output:
    """Settings for writing the landmarks found.

    The folder gets ``landmarks.csv`` (pixels and mm, LPS+), the other formats chosen, ``rejected.csv`` with what has no
    landmarks and why, ``overlays/<image>.png``, for volumes ``planes/<image>.png`` with slices through every landmark,
    ``report.html`` and, with a reference, ``metrics.json``.

    Args:
        folder: Folder of the results.
        formats: Landmark formats, see :mod:`medpixcl.data.landmarks.writing`; CSV is always included.
        overlays: Whether to draw the landmarks on every image; None does so unless there are more than 1,000.
        keep_patient: Whether to copy patient and study data into DICOM SR.
        comparisons: Names and metrics of other runs on the same images, shown in the report next to this run.
        pictures: Pictures for the report, as file (PNG or JPEG) and caption.
        readers: Landmark files of several readers, by name. The report and ``readers.csv`` give the distances between
            this run and each reader, and between the readers.
        earlier_runs: Files ``metrics.json`` from evaluating other trainings on the same images; the report shows the
            error of all against the number of training images. This run's own file is ignored.
        regions: Confidence regions to calibrate, write and draw.
        overwrite: Whether to remove the files of another run from the folder, see :mod:`medpixcl.apps.run_folder`.
        resume: Whether to go on with a run into the folder that was interrupted.
        options: Options of the command as they were typed, for the run file.
        num_parts: Number of parts of the run, see :mod:`medpixcl.apps.parts`; None for a run without parts.
        part_id: Number of the part to search, counted from 0; None puts all parts together.

    Raises:
        ValueError: If the folder is no path, a format is unknown, a switch is not True or False, or two contradict each
            other.
        ModuleNotFoundError: If a format needs a package that is not installed.
    """

    folder: Path = Path()
    formats: Sequence[str] = DEFAULT_FORMATS
    overlays: bool | None = None
    keep_patient: bool = False
    comparisons: Sequence[tuple[str, Mapping[str, Any]]] = ()
    pictures: Sequence[tuple[str, str]] = ()
    readers: Mapping[str, str] | None = None
    earlier_runs: Sequence[str] = ()
    regions: Regions | None = None
    overwrite: bool = False
    resume: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    num_parts: int | None = None
    part_id: int | None = None

    def __post_init__(self) -> None:
        checked_path(self.folder, "the folder of the results")
        checked_formats(self.formats)
        for name in ("overlays", "keep_patient", "overwrite", "resume"):
            value = getattr(self, name)
            if not isinstance(value, bool) and not (name == "overlays" and value is None):
                raise ValueError(f"{name} is {shown_value(value)}; expected true or false")
        check_part(self.part_id, self.num_parts)
        if self.overwrite and self.resume:
            raise ValueError("a run either starts anew or goes on: set overwrite=True or resume=True, not both")

    def into(
        self,
        folder: str | PathLike[str],
        formats: Sequence[str] | None = None,
        *,
        overlays: bool | None = None,
        keep_patient: bool | None = None,
        overwrite: bool = False,
        resume: bool = False,
        options: Mapping[str, Any] | None = None,
        num_parts: int | None = None,
        part_id: int | None = None,
    ) -> "Output":
        """Copy these settings with another folder; None keeps the current value.

        A folder belongs to one run. It is new or empty, unless one of the switches says what to do with a run in it.

        Args:
            folder: Folder of the results; made if it does not exist.
            formats: Landmark formats; CSV is always included.
            overlays: Whether to draw the landmarks on every image.
            keep_patient: Whether to copy patient and study data into DICOM SR.
            overwrite: Whether to remove the files that the run file of another run lists; other files stay.
            resume: Whether to go on with an interrupted run of the same input, of which nothing is computed twice; a
                new or empty folder starts a run.
            options: Options of the command as they were typed, for the run file.
            num_parts: Number of parts of the run, which several processes search.
            part_id: Number of the part to search, counted from 0; None puts all parts together.

        Raises:
            ValueError: As for the settings themselves.
            ModuleNotFoundError: If a format needs a package that is not installed.
        """
        wanted = checked_formats(self.formats if formats is None else formats)
        return replace(
            self,
            folder=checked_folder(folder, "the folder of the results"),
            formats=checked_formats(("csv", *wanted)),
            overlays=self.overlays if overlays is None else overlays,
            keep_patient=self.keep_patient if keep_patient is None else keep_patient,
            overwrite=overwrite,
            resume=resume,
            options=self.options if options is None else options,
            num_parts=num_parts,
            part_id=part_id,
        )

    def share(self, items: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Items of the images that this run searches, out of those of all images."""
        return items if self.part_id is None else items[self.part_id :: self.num_parts]

    def found_in_parts(self, results: Results) -> dict[str, dict[str, Any]]:
        """Landmarks that the parts of a run have found, if this run puts them together.

        Raises:
            ValueError: If a part was made from other input.
        """
        if self._merged_parts is None or self._is_finished:
            return {}
        return found_in_parts(self.folder, self._merged_parts, self._described(results))

    def check(self, results: Results) -> None:
        """Find the images and check all input before the search begins.

        Raises:
            ValueError: If a file or an option is bad; one sentence that names it.
        """
        if self._earlier() and results.reference is None:
            raise ValueError("earlier_runs are compared by their error, and there is no reference to measure; give one")
        if self.regions is not None:
            self.regions.check(results)
        self._require_apart(results)
        self._require_free(results.run)
        results.images.check()
        if "sr" in self.formats and not _has_dicom(results.images):
            raise ValueError("no image to search is DICOM, and a DICOM SR refers to one; leave out sr.")

    def draw(self, results: Results, one: Landmarks, image: MetaTensor) -> None:
        """Draw the landmarks of one prepared image (1, *spatial) of a run."""
        if not self._draws(results):
            return
        save_png(one.overlay(image), self._picture(one, "overlays"))
        if one.regions_mm2 is not None:
            save_png(one.overlay(image, one.regions_along(image)), self._picture(one, "regions"))
        if one.points.dims == 3:
            save_png(results.planes(one, image), self._picture(one, PLANES_FOLDER))

    def draw_all(self, results: Results, run: RunFolder) -> None:
        """Read every image of a run again and draw its landmarks, but those that were drawn before."""
        for one in results.landmarks if self._draws(results) else ():
            if one.image not in run.lines.drawn:
                self.draw(results, one, results.read(one))
                run.lines.keep({"drawn": one.image})

    @contextmanager
    def opened(self, results: Results) -> Iterator[RunFolder]:
        """Lock the folder for a block, and list what is written in it as files of the run.

        Raises:
            ValueError: If the folder belongs to another run, or another process writes into it.
        """
        images = len(self.share(results.images.datalist))
        with self._run_folder.opened(
            self._described(results), images, overwrite=self.overwrite, resume=self.resume
        ) as run:
            yield run

    def write(self, results: Results, *, draw: bool = False) -> list[NotWritten]:
        """Write the landmarks, the tables and the report of a run, and mark the run as finished.

        Of a part of a run, the landmarks alone stay in the folder of the part.

        Args:
            results: The results.
            draw: Whether to read every image again and draw its landmarks.

        Returns:
            What a format cannot hold, with the reason.
        """
        self._require_apart(results)
        if self.part_id is not None:
            with self.opened(results) as run:
                run.finish(len(results.failed), keep_lines=True)
            return []
        if not results.landmarks:
            raise ValueError(f"{self.folder}: there are no landmarks to write; search an image first")
        with self.opened(results) as run:
            not_written = self._write(results)
            if draw:
                self.draw_all(results, run)
            notes = run.finish(len(results.failed))
        merged = self._merged_parts
        notes += left_parts(self.folder) if merged is None else remove_parts(self.folder, merged)
        results.notes += [note for note in notes if note not in results.notes]
        return not_written

    def _write(self, results: Results) -> list[NotWritten]:
        not_written = write_landmarks(self.folder, results.landmarks, self.formats, keep_patient=self.keep_patient)
        write_csv(self.folder / REJECTED_TABLE, rejected_rows(results.rejected, not_written))
        for name, write in results.further.items():
            write(self.folder / name)
        if results.metrics is not None:
            write_metrics_json(self.folder / METRICS_FILE, results.metrics)
        if results.reading is not None:
            results.reading.write(self.folder / HABIT_FILE)
        if self.regions is not None:
            self.regions.write(self.folder, results)
        if results.stretch is not None and results.radii.calibration is not None:
            write_text_atomically(self.folder / RADII_FILE, results.radii.calibration.to_json() + "\n")
        if self.overlays is None and not self._draws(results):
            results.facts["overlays"] = f"none, as there are more than {MOST_DRAWN} images; overlays=true draws all"
        compared, between_readers_mm = self._compare(results)
        curve, warnings = few_shot_report(results.metrics or {}, self._earlier(), between_readers_mm)
        ways = [(f"{one.title.lower()} alone", one.metrics) for one in results.alone if one.metrics is not None]
        pictures = [Picture(image=regular_file(file).read_bytes(), caption=caption) for file, caption in self.pictures]
        results.report(
            self.folder / "report.html",
            comparisons=[*self.comparisons, *compared, *ways],
            pictures=[*pictures, *curve],
            warnings=warnings,
        )
        return not_written

    def _described(self, results: Results) -> Run:
        """What the run file says about the run of some results, with these settings."""
        results.run.options, results.run.output = self.options, self._digests()
        return results.run

    @property
    def _merged_parts(self) -> int | None:
        """Number of the parts that this run puts together; None for a run without parts, and for a part."""
        return self.num_parts if self.part_id is None else None

    @property
    def _run_folder(self) -> RunFolder:
        """Folder of the run, or of its part."""
        if self.num_parts is None or self.part_id is None:
            return RunFolder(self.folder, beside=[] if self._merged_parts is None else [PARTS_FOLDER])
        return run_folder_of_part(self.folder, self.part_id, self.num_parts)

    def _require_free(self, run: Run) -> None:
        """Check that the folder may be written into, and that it has the parts that are to be put together."""
        if not self.overwrite:
            require_no_other_parts(self.folder, self.num_parts)
        self._run_folder.require_free(run, overwrite=self.overwrite, resume=self.resume)
        if self._merged_parts is not None and not self._is_finished:
            require_finished(self.folder, self._merged_parts)
        whole = None if self.part_id is None or self.overwrite else RunFolder(self.folder).described()
        if whole is not None and whole["state"] == FINISHED:
            if self.resume:
                raise finished_error(self.folder, whole.get("failed") or 0)
            raise ValueError(f"the folder {self.folder} holds a run already; give another folder for parts of a run")

    @property
    def _is_finished(self) -> bool:
        """Whether the run that is to go on has put its parts together before."""
        if not self.resume or self.part_id is not None:
            return False
        run = self._run_folder.described()
        return run is not None and run["state"] == FINISHED

    def _draws(self, results: Results) -> bool:
        """Whether the landmarks are drawn on every image."""
        return len(results.images.datalist) <= MOST_DRAWN if self.overlays is None else self.overlays

    def _digests(self) -> dict[str, str]:
        """Digests of the settings that decide which files are written, and of the calibration of the regions."""
        return {
            "formats, overlays or keep_patient": value_digest(tuple(self.formats), self.overlays, self.keep_patient),
            "calibration of regions": "" if self.regions is None else path_digest(self.regions.path),
        }

    def _require_apart(self, results: Results) -> None:
        """Check that no calibration that was given would be overwritten."""
        written = {RADII_FILE: results.radii.path, CALIBRATION_FILE: self.regions.path if self.regions else None}
        for name, given in written.items():
            if given is not None and Path(given).resolve() == (self.folder / name).resolve():
                raise ValueError(
                    f"the calibration {given} lies in the folder of the results, which may overwrite it; give another "
                    "folder for the results"
                )

    def _compare(self, results: Results) -> tuple[list[tuple[str, dict[str, Any]]], float | None]:
        """Compare this run with the readers and the readers with each other; also return their mean distance in mm."""
        if not self.readers:
            return [], None
        found = {one.image: dict(zip(one.names, one.mm.tolist(), strict=True)) for one in results.landmarks}
        readers = read_readers({name: Path(path) for name, path in self.readers.items()})
        compared = compare_reader_positions({"this run": found, **readers})
        write_reader_table(self.folder / "readers.csv", compared)
        between = [metrics["mre_mm"] for _, metrics in compared[len(readers) + 1 :]]
        return compared, sum(between) / len(between) if between else None

    def _earlier(self) -> list[Any]:
        own = (self.folder / METRICS_FILE).resolve()
        return read_earlier_runs([file for file in self.earlier_runs if Path(file).resolve() != own])

    def _picture(self, one: Landmarks, kind: str) -> Path:
        return self.folder / kind / f"{one.stem}.png"


def _has_dicom(images: Images) -> bool:
    """True if one of the images is a series or a DICOM picture."""
    for item in images.datalist:
        path = item["image"]
        if isinstance(path, MetaTensor):
            continue
        if not isinstance(path, str) or Path(path).is_dir() or is_dicom(Path(path)):
            return True
    return False
