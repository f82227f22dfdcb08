"""`medpixcl match`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medpixcl.cli.console import print_metrics, say, say_left_out
from medpixcl.cli.options import Formats, KeepPatient, Settings, Spacing, format_settings


def match(
    template: Annotated[Path, typer.Option(help="The annotated image.")],
    landmarks: Annotated[Path, typer.Option(help="Its landmarks: CSV, .mrk.json, .fcsv or a folder of these.")],
    images: Annotated[Path, typer.Option(help="Images to search: a file, a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    bundle: Annotated[str | None, typer.Option(help="Folder of a matching bundle.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the network; the bundle's own by default.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Landmark file with true positions, to measure.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="From `medpixcl calibrate`: adds error radii.")] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Learn from these images first: a folder, a manifest or a population.pt.")
    ] = None,
    unlabelled_limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many of them, drawn at random; 50 by default.")
    ] = None,
    formats: Formats = None,
    keep_patient: KeepPatient = False,
    spacing_mm: Spacing = None,
    settings: Settings = None,
) -> None:
    """Find the landmarks of one annotated image in other images."""
    from medpixcl.apps.bundles import find_bundle, parse_settings, run_bundle

    folder = find_bundle(bundle, "xray_landmark_matching")
    overrides: dict[str, Any] = {
        "template": str(template),
        "landmarks": str(landmarks),
        "images": str(images),
        "output_dir": str(output),
        "pixel_mm": spacing_mm,
        "reference": None if reference is None else str(reference),
        "facts": {"bundle": folder.resolve().name, "weights": weights.name if weights else "of the bundle"},
    }
    if weights is not None:
        overrides["weights"] = str(weights)
    if calibration is not None:
        overrides["calibration"] = str(calibration)
    if unlabelled is not None:
        overrides["unlabelled"] = str(unlabelled)
    if unlabelled_limit is not None:
        overrides["unlabelled_limit"] = unlabelled_limit
    overrides |= format_settings(formats, keep_patient) | parse_settings(settings or [])
    workflow = run_bundle(folder, "inference", overrides, kind="infer")
    searched, learning = (workflow.parser.get_parsed_content(key) for key in ("found", "learning"))
    handler = workflow.parser.get_parsed_content("handlers")[1]
    say_left_out({**learning.rejected, **searched.rejected}, handler.not_written)
    if handler.warning:
        say(handler.warning, style="yellow")
    metrics = handler.metrics
    if metrics is not None:
        print_metrics(metrics)
    say(f"report: {output / 'report.html'}; landmarks: {output / 'landmarks.csv'}")
