"""`medpixcl estimate-jitter`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress

from medpixcl.cli.console import console, print_table, say
from medpixcl.cli.options import Settings, Trust, chosen_bundle

if TYPE_CHECKING:
    from medpixcl.apps.jitter import ClassJitter


def estimate_jitter(
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan`; its training images are used.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Config file to write (.json).")],
    bundle: Annotated[str | None, typer.Option(help="Name or folder of a pretraining bundle.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of the bundle's network; a frozen ImageNet encoder by default.")
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="Number of images used.")] = 20,
    pairs: Annotated[int, typer.Option(min=1, help="Number of pairs of images that are matched.")] = 40,
    window_mm: Annotated[float, typer.Option(min=1e-6, help="Side of the patches in mm.")] = 32.0,
    measure: Annotated[str, typer.Option(help="joint: mutual information; counts: the original's.")] = "joint",
    stop: Annotated[str, typer.Option(help="mean, or mean_minus_sd: the original's looser threshold.")] = "mean",
    alpha: Annotated[float, typer.Option(min=1e-6, help="Share of the mean that must be kept.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the images and pairs drawn.")] = 0,
    config: Annotated[list[Path] | None, typer.Option(help="Config file put over the bundle's own.")] = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Find how strongly brightness and contrast may change in pretraining, per class of informativeness; no labels."""
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
    with Progress(console=console, transient=True) as progress:
        tasks: dict[str, Any] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(step.capitalize(), total=total)
            progress.update(tasks[step], completed=done)

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
    """What was found for each class of informativeness."""
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
