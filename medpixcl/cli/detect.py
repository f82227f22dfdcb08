"""`medpixcl detect`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medpixcl.cli.console import print_metrics, say, say_left_out
from medpixcl.cli.options import Formats, KeepPatient, Settings, Spacing, format_settings

BUNDLE = "xray_landmark_selftraining"


def detect(
    images: Annotated[Path, typer.Option(help="Images to search: a file, a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    bundle: Annotated[str | None, typer.Option(help="Folder of a detector bundle.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of `medpixcl selftrain`; else the bundle's.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Landmark file with true positions, to measure.")] = None,
    formats: Formats = None,
    keep_patient: KeepPatient = False,
    config: Annotated[list[Path] | None, typer.Option(help="Config file put over the bundle's own.")] = None,
    spacing_mm: Spacing = None,
    settings: Settings = None,
) -> None:
    """Find landmarks with a trained detector."""
    from medpixcl.apps.bundles import find_bundle, parse_settings, run_bundle

    folder = find_bundle(bundle, BUNDLE)
    overrides: dict[str, Any] = {
        "images": str(images),
        "output_dir": str(output),
        "pixel_mm": spacing_mm,
        "reference": None if reference is None else str(reference),
        "facts": {"bundle": folder.resolve().name, "weights": weights.name if weights else "of the bundle"},
    }
    extra = []
    if weights is not None:
        overrides["weights"] = str(weights)
        beside = weights.parent / "inference.json"  # names and network of these weights, written by the training
        extra = [beside] if beside.is_file() else []
    overrides |= format_settings(formats, keep_patient) | parse_settings(settings or [])
    workflow = run_bundle(folder, "inference", overrides, extra_configs=[*extra, *(config or [])], kind="infer")
    handler = workflow.parser.get_parsed_content("handlers")[1]
    say_left_out(workflow.parser.get_parsed_content("found").rejected, handler.not_written)
    if handler.metrics is not None:
        print_metrics(handler.metrics)
    say(f"report: {output / 'report.html'}; landmarks: {output / 'landmarks.csv'}")
