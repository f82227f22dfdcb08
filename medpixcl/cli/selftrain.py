"""`medpixcl selftrain`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import say, say_log
from medpixcl.cli.options import Device, Settings, Spacing, TemplateLandmarks, Templates, Trust, chosen_bundle


def selftrain(
    template: Templates,
    landmarks: TemplateLandmarks,
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan` with the images to train on.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; an interrupted run is resumed.")],
    bundle: Annotated[
        str | None,
        typer.Option(help="Name or folder of a self-training bundle; that for pictures or volumes by default."),
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
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.selftrain import selftrain as train_detector

    folder = chosen_bundle(bundle, trust=trust) if bundle else None  # the training takes the one for its images
    say_log()
    trained = train_detector(
        template,
        landmarks,
        data,
        output,
        bundle=folder,
        weights=weights,
        rounds=rounds,
        epochs=epochs,
        device=device,
        spacing_mm=spacing_mm,
        settings=parse_settings(settings or []),
        trust=True,
    )
    say(f"weights: {trained}; curves: tensorboard --logdir {output}")
