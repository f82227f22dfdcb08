"""`medpixcl detect`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import say_results
from medpixcl.cli.options import (
    Configs,
    Continue,
    Corrected,
    Formats,
    KeepPatient,
    NumParts,
    Overwrite,
    PartId,
    ReaderHabit,
    Scheduler,
    Settings,
    Spacing,
    Trust,
    Workers,
    asked_folder,
    chosen_bundle,
)


def detect(
    images: Annotated[Path, typer.Option(help="Images to search: a file, a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Name or folder of a detector bundle; by default a self-training bundle, for pictures or volumes."
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights from `medpixcl selftrain` or `finetune`; the bundle's by default.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Landmark file with true positions, to measure the error.")
    ] = None,
    corrections: Corrected = None,
    habit: ReaderHabit = None,
    formats: Formats = None,
    overwrite: Overwrite = False,
    resume: Continue = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    num_parts: NumParts = None,
    part_id: PartId = None,
    keep_patient: KeepPatient = False,
    config: Configs = None,
    spacing_mm: Spacing = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Find landmarks with a trained detector."""
    asked = asked_folder(locals())
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.detect import Detector, detection_bundle

    chosen = chosen_bundle(bundle, "" if bundle else detection_bundle(images, weights), configs=config, trust=trust)
    detector = Detector.from_bundle(
        chosen, weights=weights, config=config or [], settings=parse_settings(settings or []), trust=True
    )
    folder = detector.output.into(**asked)
    results = detector.detect(
        images,
        spacing_mm=spacing_mm,
        reference=reference,
        corrections=corrections,
        habit=habit,
        output=folder,
        workers=workers,
        scheduler=scheduler,
    )
    say_results(results, folder.write(results), folder)
