"""`medpixcl scan`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from medpixcl.cli.console import console, print_table
from medpixcl.cli.options import Spacing


def scan(
    paths: Annotated[list[Path], typer.Argument(help="Folders or files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write (.json).")],
    spacing_mm: Spacing = None,
    landmarks: Annotated[Path | None, typer.Option(help="Landmark file or folder.")] = None,
    split: Annotated[Path | None, typer.Option(help="CSV that gives each image a split.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the images, kept in the manifest.")] = None,
    exogenous: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FOLDER", help="Maps of the images, as depth=FOLDER; may be repeated."),
    ] = None,
) -> None:
    """List the images under some folders in a manifest; whatever is not usable is listed with its reason."""
    from medpixcl.data.manifest import SUMMARY_COLUMNS
    from medpixcl.data.scan import scan as scan_images

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Reading images", total=None)
        manifest = scan_images(
            paths,
            spacing_mm=spacing_mm,
            landmarks=landmarks,
            split=split,
            licence=licence,
            exogenous=dict(map(_named_folder, exogenous or [])),
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    manifest.write(output)
    rows = [[row[column] for column in SUMMARY_COLUMNS] for row in manifest.summary()]
    print_table([SUMMARY_COLUMNS, *rows], title=f"{manifest.name}: {output}")
    if not any(True for _ in manifest.entries()):
        raise ValueError(f"nothing usable found in {', '.join(map(str, paths))}: the reasons are in {output}")


def _named_folder(text: str) -> tuple[str, str]:
    """The two sides of ``NAME=FOLDER``."""
    name, sign, folder = text.partition("=")
    if not (name and sign and folder):
        raise ValueError(f"--exogenous is {text!r}; expected NAME=FOLDER, such as depth=maps/depth")
    return name, folder
