"""`medpixcl export`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import say
from medpixcl.cli.options import Settings, Trust, chosen_bundle


def export(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a landmark detection bundle.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write: .onnx, .pt2 (torch.export) or .ts (TorchScript).")
    ],
    shape: Annotated[str, typer.Option(help="Size of the image in pixels at the working spacing, such as 480,387.")],
    weights: Annotated[
        Path | None, typer.Option(help="Weights from `medpixcl finetune` or `selftrain`; the bundle's by default.")
    ] = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Export a landmark network to ONNX or PyTorch formats, and check that the file finds the same landmarks."""
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.detect import Detector
    from medpixcl.apps.export import export_detector

    folder = chosen_bundle(bundle, trust=trust)
    sizes = [int(one) for one in shape.split(",") if one.strip().isdigit()]
    detector = Detector.from_bundle(
        folder, weights=weights, device="cpu", settings=parse_settings(settings or []), trust=True
    )
    away = export_detector(detector, output, sizes)
    say(f"{output}: landmarks within {away:.4f} pixels of the network's; its settings: {output.stem}.json")
