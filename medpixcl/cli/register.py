"""`medpixcl register`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import say_results
from medpixcl.cli.options import (
    Continue,
    Formats,
    KeepPatient,
    NumParts,
    Overwrite,
    PartId,
    Scheduler,
    Spacing,
    TemplateLandmarks,
    Templates,
    Workers,
    asked_folder,
    listing,
)


def register(
    template: Templates,
    landmarks: TemplateLandmarks,
    images: Annotated[Path, typer.Option(help="Images to search: a file, a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    method: Annotated[str, typer.Option(help="affine, convexadam (volumes) or elastix.")] = "convexadam",
    working_spacing_mm: Annotated[
        float | None, typer.Option(min=0.01, help="Voxel size in mm at which images are registered.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Landmark file with true positions, to measure the error.")
    ] = None,
    formats: Formats = None,
    overwrite: Overwrite = False,
    resume: Continue = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    num_parts: NumParts = None,
    part_id: PartId = None,
    keep_patient: KeepPatient = False,
    spacing_mm: Spacing = None,
) -> None:
    """Carry the landmarks of annotated images to others by registration, to compare with `match`."""
    asked = asked_folder(locals())
    from medpixcl.apps.register import Registration

    registration = Registration(method, working_spacing_mm=working_spacing_mm)
    folder = registration.output.into(**asked)
    registration.fit(template, landmarks, spacing_mm=spacing_mm, manifest=listing(images))
    results = registration.match(
        images,
        spacing_mm=spacing_mm,
        reference=reference,
        output=folder,
        workers=workers,
        scheduler=scheduler,
    )
    say_results(results, folder.write(results), folder)
