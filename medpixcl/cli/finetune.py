"""`medpixcl finetune`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medpixcl.cli.console import say, say_log
from medpixcl.cli.options import Configs, Device, Settings, Trust, chosen_bundle


def finetune(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle that trains with annotations.")],
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan` with --landmarks, --labels or --classes.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; an interrupted run is resumed.")],
    init: Annotated[
        Path | None, typer.Option(help="Pretrained weights to start from; those that the bundle names by default.")
    ] = None,
    scratch: Annotated[bool, typer.Option("--scratch", help="Start from random weights.")] = False,
    train_images: Annotated[
        int | None,
        typer.Option(min=1, help="Number of annotated images to train on, drawn by the seed; all by default."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Reader whose landmarks are learnt, or mean for the readers' mean.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Total number of optimizer steps.")] = None,
    device: Device = None,
    config: Configs = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Fine-tune a network on annotated images, for landmarks, organs or classes depending on the bundle."""
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
