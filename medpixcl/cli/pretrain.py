"""`medpixcl pretrain`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medpixcl.cli.console import say, say_log
from medpixcl.cli.options import Configs, Device, Settings, Trust, chosen_bundle


def pretrain(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a pretraining bundle.")],
    data: Annotated[list[Path], typer.Option(help="Manifest from `medpixcl scan`; may be repeated.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; an interrupted run is resumed.")],
    init: Annotated[
        Path | None, typer.Option(help="Weights to start from; those that the bundle names by default.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Total number of epochs.")] = None,
    device: Device = None,
    config: Configs = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Pretrain a network without labels; writes TensorBoard logs, checkpoints and the best weights."""
    from medpixcl.apps.bundles import checked_device, parse_settings, run_bundle

    say_log()
    folder = chosen_bundle(bundle, configs=config, trust=trust)
    manifests = [str(path) for path in data]
    overrides: dict[str, Any] = {"data_list_file_path": manifests[0] if len(manifests) == 1 else manifests}
    overrides |= {"output_dir": str(output), "ckpt_dir": str(output / "models")}
    if init is not None:
        overrides |= {"start_weights": str(init), "imagenet": False}
    if epochs is not None:
        overrides["max_epochs"] = epochs
    if device is not None:
        overrides["device"] = checked_device(device)
    overrides |= parse_settings(settings or [])
    run_bundle(folder, "train", overrides, extra_configs=config or [])
    say(f"weights: {output / 'models' / 'model.pt'}; curves: tensorboard --logdir {output}")
