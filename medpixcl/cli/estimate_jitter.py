"""`medpixcl estimate-jitter`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medpixcl.cli.console import print_table, progress_bars, say
from medpixcl.cli.options import Configs, Settings, Trust, chosen_bundle

if TYPE_CHECKING:
    from medpixcl.apps.jitter import ClassJitter


def estimate_jitter(
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan`; only its training images are used.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Config file to write (.json).")],
    bundle: Annotated[
        str | None, typer.Option(help="Name or folder of a pretraining bundle; xray_infoaug_pretraining by default.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights for the bundle's network; a frozen ImageNet encoder by default.")
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="Number of images to use.")] = 20,
    pairs: Annotated[int, typer.Option(min=1, help="Number of image pairs to match.")] = 40,
    window_mm: Annotated[float, typer.Option(min=1e-6, help="Side of the patches in mm.")] = 32.0,
    measure: Annotated[
        str, typer.Option(help="Information measure: joint (mutual information) or counts (as in the original code).")
    ] = "joint",
    stop: Annotated[
        str, typer.Option(help="Information to keep: mean, or mean_minus_sd (less, as in the original code).")
    ] = "mean",
    alpha: Annotated[
        float, typer.Option(min=1e-6, help="Share of the mean information that a changed patch must keep.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    config: Configs = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Estimate how strongly pretraining may change brightness and contrast at each informativeness level."""
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.estimate_jitter import JitterSettings, estimate_for_bundle
    from medpixcl.data.atomic import write_text_atomically

    folder = chosen_bundle(bundle, "xray_infoaug_pretraining", configs=config, trust=trust)
    how = JitterSettings(
        images=images,
        pairs=pairs,
        window_mm=window_mm,
        measure=measure,
        stop=stop,
        alpha=alpha,
        seed=seed,
    )
    with progress_bars() as show:
        classes, fragment = estimate_for_bundle(
            folder,
            data,
            how,
            weights=weights,
            overrides=parse_settings(settings or []),
            extra_configs=config or [],
            progress=show,
        )
    write_text_atomically(output, json.dumps(fragment, indent=4) + "\n")
    _print_classes(classes, measure)
    say(f"config: {output}; use it with `medpixcl pretrain ... --config {output}`")


def _print_classes(classes: "Sequence[ClassJitter]", measure: str) -> None:
    """Print the estimate for each informativeness class."""
    header = ("class", "pairs", "mean", "SD", "kept", "brightness", "contrast", "at limit")
    rows = [
        (
            one.name,
            one.number,
            f"{one.mean:.3f}",
            f"{one.deviation:.3f}",
            f"{one.threshold:.3f}",
            "{:.3f} to {:.3f}".format(*one.brightness),
            "{:.3f} to {:.3f}".format(*one.contrast),
            "{:.0%}, {:.0%}".format(*one.at_limit),
        )
        for one in classes
    ]
    print_table([header, *rows], title=f"Changes by informativeness; {measure} information in nats")
