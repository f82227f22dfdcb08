"""`medpixcl selftrain` and `medpixcl detect`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medpixcl.cli.console import print_metrics, say, say_left_out, say_log
from medpixcl.cli.options import Formats, KeepPatient, Settings, Spacing, checked_device, format_settings

BUNDLE = "xray_landmark_selftraining"


def selftrain(
    template: Annotated[Path, typer.Option(help="The annotated image.")],
    landmarks: Annotated[Path, typer.Option(help="Its landmarks: CSV, .mrk.json, .fcsv or a folder of these.")],
    data: Annotated[Path, typer.Option(help="Manifest of images to train on, from `medpixcl scan`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; a second call resumes.")],
    bundle: Annotated[str | None, typer.Option(help="Folder of a self-training bundle.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the embedding network to start from.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds; landmarks are found anew between them.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs in all.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    spacing_mm: Spacing = None,
    settings: Settings = None,
) -> None:
    """Train a landmark detector from one annotated image and unlabelled ones."""
    from medpixcl.engines.workflow import find_bundle, parse_settings, run_bundle

    say_log()
    overrides: dict[str, Any] = {
        "template": str(template),
        "landmarks": str(landmarks),
        "data_list_file_path": str(data),
        "output_dir": str(output),
        "ckpt_dir": str(output / "models"),
        "spacing_mm": spacing_mm,
    }
    if weights is not None:
        overrides["start_weights"] = str(weights)
    if epochs is not None:
        overrides["max_epochs"] = epochs
    if rounds is not None:
        overrides["rounds"] = rounds
    if device is not None:
        overrides["device"] = checked_device(device)
    overrides |= parse_settings(settings or [])
    run_bundle(find_bundle(bundle, BUNDLE), "train", overrides)
    say(f"weights: {output / 'models' / 'model.pt'}; curves: tensorboard --logdir {output}")


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
    from medpixcl.engines.workflow import find_bundle, parse_settings, run_bundle

    say_log()
    folder = find_bundle(bundle, BUNDLE)
    overrides: dict[str, Any] = {
        "images": str(images),
        "output_dir": str(output),
        "spacing_mm": spacing_mm,
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
