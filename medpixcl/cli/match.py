"""`medpixcl match`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import say_left_out, say_results
from medpixcl.cli.options import (
    Continue,
    Corrected,
    Formats,
    KeepPatient,
    MatchingBundle,
    MatchingWeights,
    NumParts,
    Overwrite,
    PartId,
    ReaderHabit,
    Scheduler,
    Settings,
    Spacing,
    TemplateLandmarks,
    Templates,
    Trust,
    Workers,
    asked_folder,
    chosen_matcher,
    listing,
)


def match(
    template: Templates,
    landmarks: TemplateLandmarks,
    images: Annotated[Path, typer.Option(help="Images to search: a file, a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    bundle: MatchingBundle = None,
    weights: MatchingWeights = None,
    reference: Annotated[
        Path | None, typer.Option(help="Landmark file with true positions, to measure the error.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File from `medpixcl calibrate`, to add error radii.")
    ] = None,
    corrections: Corrected = None,
    habit: ReaderHabit = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Images to learn from before matching: a folder, a manifest or a population.pt.")
    ] = None,
    unlabelled_limit: Annotated[
        int, typer.Option(min=1, help="Maximum number of images to learn from, drawn at random.")
    ] = 50,
    detector: Annotated[
        Path | None,
        typer.Option(help="Weights from `medpixcl selftrain`; the mean of matching and detection is taken."),
    ] = None,
    registration: Annotated[
        str | None,
        typer.Option(help="Register, too (affine, convexadam for volumes, elastix), and take the mean of both ways."),
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
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Find the landmarks of one or several annotated images in other images."""
    asked = asked_folder(locals())
    from medpixcl.apps.detect import Detector
    from medpixcl.apps.register import Registration

    if detector is not None and registration is not None:
        raise ValueError("give --detector or --registration: the mean of two ways is taken, not of three")
    matcher = chosen_matcher(bundle, weights, settings, template, trust=trust)
    folder = matcher.output.into(**asked)
    matcher.fit(template, landmarks, spacing_mm=spacing_mm, manifest=listing(images))
    if unlabelled is not None:
        matcher.learn(unlabelled, limit=unlabelled_limit, spacing_mm=spacing_mm)
    second: Detector | Registration | None = None
    if detector is not None:
        second = Detector.from_bundle(weights=detector, device=matcher.device)
    if registration is not None:
        second = Registration(registration)
        second.fit(template, landmarks, spacing_mm=spacing_mm, manifest=listing(images))
    results = matcher.match(
        images,
        spacing_mm=spacing_mm,
        reference=reference,
        calibration=calibration,
        second=second,
        corrections=corrections,
        habit=habit,
        output=folder,
        workers=workers,
        scheduler=scheduler,
    )
    not_written = folder.write(results)
    if matcher.unlabelled is not None:
        say_left_out(matcher.unlabelled.rejected)
    say_results(results, not_written, folder)
