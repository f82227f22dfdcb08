"""`medpixcl scan`."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from medpixcl.cli.console import ProgressLines, RateColumn, console, print_table, say
from medpixcl.cli.options import NumParts, PartId, Spacing

_EXAMPLES = {
    "exogenous": "NAME=FOLDER, such as depth=maps/depth",
    "labels": "NAME=FOLDER, such as heart=masks/heart",
    "landmarks": "READER=FILE, such as senior=senior.csv",
}


def scan(
    paths: Annotated[list[Path], typer.Argument(help="Image folders or files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write: .json, or .jsonl for large sets.")],
    spacing_mm: Spacing = None,
    landmarks: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Landmark file or folder; or READER=FILE, once per reader."),
    ] = None,
    split: Annotated[Path | None, typer.Option(help="CSV that assigns each image to a split.")] = None,
    classes: Annotated[Path | None, typer.Option(help="CSV with the class number of each image.")] = None,
    class_column: Annotated[str, typer.Option(help="Column of the --classes file with the class number.")] = "label",
    group_column: Annotated[
        str | None, typer.Option(help="Column of the --classes file with the patient; stored only as a group number.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the images, stored in the manifest.")] = None,
    exogenous: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Maps of the images, such as depth=FOLDER; may be repeated."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="Folder of label maps; or CLASS=FOLDER for masks, once per class."),
    ] = None,
    resample_tilt: Annotated[
        bool,
        typer.Option(
            "--resample-tilt",
            help="Resample CT series with gantry tilt to a regular grid, into a folder beside the manifest.",
        ),
    ] = False,
    tolerance_mm: Annotated[
        float | None,
        typer.Option(
            "--tolerance-mm",
            min=1e-6,
            help="How far a DICOM slice may lie from its place, in mm; a tenth of the slice distance by default.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes that read images; one for each CPU by default.")
    ] = None,
    check_content: Annotated[
        bool, typer.Option("--check-content", help="Compare checksums, not size and time, with an earlier manifest.")
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers read the images, as tcp://host:8786."),
    ] = None,
    num_parts: NumParts = None,
    part_id: PartId = None,
) -> None:
    """List the images of folders in a manifest; files that cannot be used are listed with the reason."""
    from medpixcl.data.class_labels import ClassTable
    from medpixcl.data.manifest import Manifest
    from medpixcl.data.manifest_summary import SUMMARY_COLUMNS
    from medpixcl.data.scan import scan_to_file

    table = None if classes is None else ClassTable(classes, class_column, group_column)
    with Progress(*Progress.get_default_columns(), RateColumn(), console=console, transient=True) as bars:
        headers, images = _Phase(bars, "looked at", "files"), _Phase(bars, "read", "images")
        start = time.monotonic()
        summary = scan_to_file(
            paths,
            output,
            workers=workers,
            scheduler=scheduler,
            num_parts=num_parts,
            part_id=part_id,
            check_content=check_content,
            spacing_mm=spacing_mm,
            tolerance_mm=tolerance_mm,
            landmarks=_reader_files(landmarks or []),
            split=split,
            licence=licence,
            exogenous=dict(_named_folder("exogenous", text) for text in exogenous or []),
            labels=_label_folders(labels or []),
            resample_tilt=output.with_name(f"{output.stem}_resampled") if resample_tilt else None,
            header_progress=headers,
            progress=images,
        )
        seconds = time.monotonic() - start
        say(f"read {images.done} images in {seconds:.1f} s, {images.done / max(seconds, 1e-9):.1f} images/s")
    if part_id is not None:
        say(
            f"part {part_id} of {num_parts}: {summary.images} images, {summary.rejected} files not used; after all "
            "parts the same command without --part-id puts them together"
        )
        return
    if table is not None:
        manifest = Manifest.read(output)
        try:
            table.add_to(manifest)
        except ValueError as error:
            raise ValueError(f"{str(error).rstrip('.')}; {output} lists the images without classes.") from None
        manifest.write(output)
        summary = manifest.summarised()
    rows = [[row[column] for column in SUMMARY_COLUMNS] for row in summary.rows()]
    print_table([SUMMARY_COLUMNS, *rows], title=str(output))
    for line in summary.reasons.lines():
        say(line, style="yellow")
    if summary.images and summary.rejected:
        say(f"not used: {summary.rejected} files; {output} lists all under rejected, with the reasons")
    if not summary.images:
        raise ValueError(f"nothing usable found in {', '.join(map(str, paths))}: the reasons are in {output}")


class _Phase:
    """Shows one phase of a scan from its first file on: a bar in a terminal, else a line now and then.

    Args:
        bars: Progress bars of the command.
        what: What is done with the files, such as ``read``.
        unit: Plural of the files.
    """

    def __init__(self, bars: Progress, what: str, unit: str) -> None:
        self.done = 0
        self._bars, self._what, self._unit = bars, what, unit
        self._shown: tuple[TaskID, ProgressLines] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show the number of finished files."""
        if self._shown is None:
            task = self._bars.add_task(f"{self._what} {self._unit}", unit=self._unit)
            self._shown = task, ProgressLines(self._what, self._unit)
        task, lines = self._shown
        self.done = done
        self._bars.update(task, completed=done, total=total)
        if not console.is_terminal:
            lines(done, total)


def _reader_files(texts: list[str]) -> str | dict[str, str] | None:
    """The landmark file, or the files of several readers by name."""
    if len(texts) == 1 and ("=" not in texts[0] or Path(texts[0]).exists()):
        return texts[0]
    return dict(_named_folder("landmarks", text) for text in texts) or None


def _label_folders(texts: list[str]) -> str | dict[str, str] | None:
    """The folder of label maps, or the folders of masks by class."""
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    return dict(_named_folder("labels", text) for text in texts) or None


def _named_folder(option: str, text: str) -> tuple[str, str]:
    """The two sides of ``NAME=FOLDER``."""
    name, sign, folder = text.partition("=")
    if not (name and sign and folder):
        raise ValueError(f"--{option} is {text!r}; expected {_EXAMPLES[option]}")
    return name, folder
