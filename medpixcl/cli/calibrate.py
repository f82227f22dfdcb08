"""`medpixcl calibrate`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from medpixcl.cli.console import console, print_table, say
from medpixcl.cli.options import (
    Device,
    MatchingBundle,
    MatchingWeights,
    Settings,
    Spacing,
    TemplateImage,
    TemplateLandmarks,
    Trust,
    chosen_bundle,
)


def calibrate(
    template: TemplateImage,
    landmarks: TemplateLandmarks,
    images: Annotated[Path, typer.Option(help="Unlabelled images: a folder or a manifest.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write (.json), for `medpixcl match --calibration`.")
    ],
    bundle: MatchingBundle = None,
    weights: MatchingWeights = None,
    coverage: Annotated[float, typer.Option(help="Share of true positions that the radius should hold.")] = 0.9,
    reader_mm: Annotated[
        float, typer.Option(help="Standard deviation of a reader's marks along one axis, in mm.")
    ] = 0.0,
    spacing_mm: Spacing = None,
    limit: Annotated[int, typer.Option(min=2, help="Maximum number of images, drawn at random.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for choosing and ordering the images.")] = 0,
    device: Device = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Estimate from unlabelled images how far off each matched landmark may be."""
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.calibrate import calibrate as calibrate_radii
    from medpixcl.apps.match import Matcher
    from medpixcl.data.atomic import write_text_atomically

    chosen = chosen_bundle(bundle, Matcher.default_bundle, trust=trust)
    matcher = Matcher.from_bundle(
        chosen, weights=weights, device=device or "auto", settings=parse_settings(settings or []), trust=True
    ).fit(template, landmarks, spacing_mm=spacing_mm)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("matching", total=None)
        made, rejected = calibrate_radii(
            matcher,
            images,
            coverage=coverage,
            reader_mm=reader_mm,
            limit=limit,
            seed=seed,
            spacing_mm=spacing_mm,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    write_text_atomically(output, made.to_json())
    for path, reason in rejected.items():
        say(f"rejected {path}: {reason}", style="yellow")
    radii = [made.radii_mm[group] for group in ("sure", "unsure")]
    rows = [
        (name, *("-" if radius is None else f"{radius:.1f}" for radius in pair))
        for name, *pair in zip(made.names, *radii, strict=True)
    ]
    print_table(
        [("landmark", "radius (mm)", "if unsure"), *rows],
        title=f"Radii meant to hold {100 * coverage:g} % of the true positions",
    )
    if reader_mm == 0:
        say(
            "the radii ignore the readers' error and hold too few true positions; give --reader-mm if known",
            style="yellow",
        )
    say(f"calibration: {output}")
