"""`medpixcl finetune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medpixcl.cli.console import say, say_log
from medpixcl.cli.options import Settings, Trust, chosen_bundle


def finetune(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle that trains with annotations.")],
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan --landmarks` (or --labels, --classes).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; a second call resumes.")],
    init: Annotated[
        Path | None, typer.Option(help="Weights of a pretraining to start from; the bundle's choice by default.")
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Start from random weights.")] = False,
    train_images: Annotated[
        int | None, typer.Option(min=1, help="Number of annotated images to draw, by the seed; all by default.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Reader to learn from, or mean; the mean by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed of the training and of the images drawn.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the optimizer in all.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="Config file put over the bundle's own.")] = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Fine-tune a network on annotated images: landmarks, organs or classes, as the bundle says."""
    from medpixcl.apps.bundles import checked_device, parse_settings, run_bundle

    say_log()
    if init is not None and scratch:
        raise ValueError("--init and --scratch contradict each other; give one of them")
    folder = chosen_bundle(bundle, configs=config, trust=trust)
    overrides: dict[str, Any] = {"data_list_file_path": str(data)}
    overrides |= {"output_dir": str(output), "ckpt_dir": str(output / "models")}
    asked = {"train_images": train_images, "target": target, "seed": seed, "steps": steps}
    overrides |= {key: value for key, value in asked.items() if value is not None}
    if init is not None or scratch:
        overrides["start_weights"] = None if init is None else str(init)
    if device is not None:
        overrides["device"] = checked_device(device)
    overrides |= parse_settings(settings or [])
    run_bundle(folder, "train", overrides, extra_configs=config or [])
    say(f"weights: {output / 'models' / 'model.pt'}; curves: tensorboard --logdir {output}")
