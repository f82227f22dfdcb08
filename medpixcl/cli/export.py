"""`medpixcl export`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from medpixcl.cli.console import say
from medpixcl.cli.options import Settings, Trust, chosen_bundle


def export(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a landmark detection bundle.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="File: .onnx, .pt2 (torch.export) or .ts.")],
    shape: Annotated[str, typer.Option(help="Size of an image at the working spacing, as 480,387.")],
    weights: Annotated[
        Path | None, typer.Option(help="Weights of `medpixcl finetune`; the bundle's own by default.")
    ] = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Write a landmark network for other programs, and check that the file finds the same landmarks."""
    import json

    from medpixcl.apps.bundles import parse_settings, read_bundle
    from medpixcl.apps.export import export_network
    from medpixcl.data.atomic import write_text_atomically
    from medpixcl.networks import load_weights
    from medpixcl.training.config_data import as_data
    from medpixcl.training.settings_file import read_settings

    folder = chosen_bundle(bundle, trust=trust)
    extra = []
    if weights is not None and (weights.parent / "inference.json").is_file():
        extra = [as_data(read_settings(weights.parent / "inference.json"))]
    overrides: dict[str, Any] = parse_settings(settings or [])
    parser = read_bundle(folder, "inference", overrides, extra_configs=extra)
    network = parser.get_parsed_content("network_def")
    load_weights(network, weights or Path(parser.get_parsed_content("weights")))
    facts = {
        key: parser.get_parsed_content(key)
        for key in ("landmark_names", "working_spacing_mm", "activation", "use_offsets")
        if key in parser
    }
    sizes = [int(one) for one in shape.split(",") if one.strip().isdigit()]
    away = export_network(network, output, sizes, activation=facts.get("activation", "softmax"))
    facts |= {"stride": network.stride, "multiple_of": network.coarsest_stride}
    write_text_atomically(output.with_suffix(".json"), json.dumps(facts, indent=4) + "\n")
    say(f"{output}: landmarks within {away:.4f} pixels of the network's; what belongs to it: {output.stem}.json")
