"""`medpixcl selftrain`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medpixcl.cli.console import say, say_log
from medpixcl.cli.options import Device, Settings, Spacing, TemplateLandmarks, Templates, Trust, chosen_bundle

BUNDLE = "xray_landmark_selftraining"


def selftrain(
    template: Templates,
    landmarks: TemplateLandmarks,
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan` with the images to train on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; an interrupted run is resumed.")],
    bundle: Annotated[
        str | None,
        typer.Option(help="Name or folder of a self-training bundle; xray_landmark_selftraining by default."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the embedding network to start from; the bundle's by default.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Number of rounds; landmarks are found anew between them.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Total number of epochs.")] = None,
    device: Device = None,
    spacing_mm: Spacing = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Train a landmark detector from one or several annotated images and many unlabelled images."""
    from medpixcl.apps.bundles import checked_device, parse_settings, run_bundle

    folder = chosen_bundle(bundle, BUNDLE, trust=trust)
    say_log()
    overrides: dict[str, Any] = {
        "template": [str(one) for one in template],
        "landmarks": str(landmarks),
        "data_list_file_path": str(data),
        "output_dir": str(output),
        "ckpt_dir": str(output / "models"),
        "pixel_mm": spacing_mm,
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
    run_bundle(folder, "train", overrides)
    say(f"weights: {output / 'models' / 'model.pt'}; curves: tensorboard --logdir {output}")
