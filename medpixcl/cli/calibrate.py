"""`medpixcl calibrate`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from medpixcl.cli.console import console, print_table, say
from medpixcl.cli.options import Settings, Spacing, checked_device


def calibrate(
    template: Annotated[Path, typer.Option(help="The annotated image.")],
    landmarks: Annotated[Path, typer.Option(help="Its landmarks: CSV, .mrk.json, .fcsv or a folder of these.")],
    images: Annotated[Path, typer.Option(help="Unlabelled images: a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="calibration.json, for `medpixcl match`.")],
    bundle: Annotated[str | None, typer.Option(help="Folder of a matching bundle.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the network; the bundle's own by default.")] = None,
    coverage: Annotated[float, typer.Option(help="Share of true places that lie within the radius.")] = 0.9,
    reader_mm: Annotated[float, typer.Option(help="Standard deviation in mm along an axis of a reader's mark.")] = 0.0,
    spacing_mm: Spacing = None,
    limit: Annotated[int, typer.Option(min=2, help="At most so many images, drawn at random.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of that, and of the order.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    settings: Settings = None,
) -> None:
    """Learn from unlabelled images how far off each matched landmark may be."""
    from medpixcl.apps.bundles import find_bundle, parse_settings
    from medpixcl.apps.calibrate import calibrate_from_bundle
    from medpixcl.data.atomic import write_text_atomically

    overrides: dict[str, Any] = {
        "template": str(template),
        "landmarks": str(landmarks),
        "images": str(images),
        "pixel_mm": spacing_mm,
    }
    if weights is not None:
        overrides["weights"] = str(weights)
    if device is not None:
        overrides["device"] = checked_device(device)
    overrides |= parse_settings(settings or [])
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("matching", total=None)
        made, rejected = calibrate_from_bundle(
            find_bundle(bundle, "xray_landmark_matching"),
            overrides,
            coverage=coverage,
            reader_mm=reader_mm,
            limit=limit,
            seed=seed,
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
        title=f"Meant to hold {100 * coverage:g} % of the true places",
    )
    if reader_mm == 0:
        say("the radii leave readers out and hold too few true places; give --reader-mm if it is known", style="yellow")
    say(f"calibration: {output}")
