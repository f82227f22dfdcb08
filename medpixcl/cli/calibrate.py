"""`medpixcl calibrate`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medpixcl.cli.console import print_table, progress_bars, say, say_left_out
from medpixcl.cli.options import (
    Device,
    MatchingBundle,
    MatchingWeights,
    Settings,
    Spacing,
    TemplateLandmarks,
    Templates,
    Trust,
    chosen_matcher,
    listing,
)

if TYPE_CHECKING:
    from medpixcl.landmarks.calibration import RadiusCalibration


def calibrate(
    template: Templates,
    landmarks: TemplateLandmarks,
    images: Annotated[Path, typer.Option(help="Unlabelled images: a folder or a manifest.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File to write (.json), for `medpixcl match --calibration`.")
    ],
    bundle: MatchingBundle = None,
    weights: MatchingWeights = None,
    coverage: Annotated[float, typer.Option(help="Share of true positions that the radius should hold.")] = 0.9,
    reader_mm: Annotated[
        float,
        typer.Option(help="Standard deviation of a reader's marks along one axis, in mm; 0.5 to 1 on cephalograms."),
    ] = 0.0,
    spacing_mm: Spacing = None,
    limit: Annotated[int, typer.Option(min=2, help="Maximum number of images, drawn at random.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Random seed for choosing and ordering the images.")] = 0,
    device: Device = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Estimate from unlabelled images how far off each matched landmark may be."""
    from medpixcl.apps.calibrate import calibrate as calibrate_radii
    from medpixcl.data.atomic import write_text_atomically

    matcher = chosen_matcher(bundle, weights, settings, template, device=device, trust=trust)
    matcher.fit(template, landmarks, spacing_mm=spacing_mm, manifest=listing(images))
    with progress_bars() as show:
        made, rejected = calibrate_radii(
            matcher,
            images,
            coverage=coverage,
            reader_mm=reader_mm,
            limit=limit,
            seed=seed,
            spacing_mm=spacing_mm,
            progress=partial(show, "matching"),
        )
    write_text_atomically(output, made.to_json())
    say_left_out(rejected)
    _print_radii(made, coverage)
    if reader_mm == 0:
        say(
            "the radii ignore the readers' error and hold too few true positions; give --reader-mm if known",
            style="yellow",
        )
    say(f"calibration: {output}")


def _print_radii(made: "RadiusCalibration", coverage: float) -> None:
    """Print the radii of sure and unsure landmarks."""
    radii = [made.radii_mm[group] for group in ("sure", "unsure")]
    rows = [
        (name, *("-" if radius is None else f"{radius:.1f}" for radius in pair))
        for name, *pair in zip(made.names, *radii, strict=True)
    ]
    print_table(
        [("landmark", "radius (mm)", "if unsure"), *rows],
        title=f"Radii meant to hold {100 * coverage:g} % of the true positions",
    )
