"""`medpixcl adapt`."""

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medpixcl.cli.console import print_table, say, say_log
from medpixcl.cli.options import (
    Device,
    MatchingBundle,
    MatchingWeights,
    Settings,
    Spacing,
    TemplateLandmarks,
    Templates,
    Trust,
    chosen_bundle,
    chosen_matcher,
)

if TYPE_CHECKING:
    from monai.data import MetaTensor

    from medpixcl.apps.adapt import Adapted


def adapt(
    template: Templates,
    landmarks: TemplateLandmarks,
    images: Annotated[Path, typer.Option(help="Images to learn from without labels: a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the result; an interrupted run goes on.")],
    bundle: MatchingBundle = None,
    weights: MatchingWeights = None,
    training_bundle: Annotated[
        str | None,
        typer.Option(help="Name or folder of a self-training bundle; xray_landmark_selftraining by default."),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            help="Number of parts of the annotated images in the cross-validation, each a training; 0 leaves it out."
        ),
    ] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs of each training.")] = None,
    device: Device = None,
    spacing_mm: Spacing = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Learn from a few annotated and many unlabelled images, and say which error to expect."""
    from medpixcl.apps.adapt import adapt as adapt_to
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.default_bundles import SELFTRAINING, bundle_for

    matcher = chosen_matcher(bundle, weights, None, template, device=device, trust=trust)
    folder = chosen_bundle(training_bundle, bundle_for(SELFTRAINING, matcher.spatial_dims), trust=trust)
    say_log()
    adapted = adapt_to(
        template,
        landmarks,
        images,
        output,
        matcher=matcher,
        training_bundle=folder,
        folds=folds,
        epochs=epochs,
        device=device,
        spacing_mm=spacing_mm,
        settings=parse_settings(settings or []),
        trust=True,
    )
    _say_result(adapted)
    given = [part for one in template for part in ("--template", str(one))] + ["--landmarks", str(landmarks)]
    given += ["--bundle", bundle] if bundle else []
    given += ["--weights", str(weights)] if weights else []
    command = _command(adapted.way, given, output / "models" / "model.pt")
    command += _pixel_size(spacing_mm, adapted.matcher.templates[0].image)
    command += ["--trust"] if trust and bundle else []
    say(f"next: {shlex.join(command)} --images NEW -o FOUND")
    say(f"report: {output / 'report.html'}")


def _pixel_size(given: float | None, template: "MetaTensor") -> list[str]:
    """The option with the pixel size of a template, which a manifest may have given; none for a volume."""
    from medpixcl.coordinates import affines_of, spacing_of

    if given is not None:
        return ["--spacing-mm", f"{given:g}"]
    sizes = spacing_of(affines_of(template)[0]).tolist()
    equal = len(sizes) == 2 and math.isclose(*sizes, rel_tol=1e-6)
    return ["--spacing-mm", f"{sizes[0]:g}"] if equal else []


def _say_result(adapted: "Adapted") -> None:
    from medpixcl.reports.tables import comparison_rows

    if adapted.errors_mm:
        rows = comparison_rows(list(adapted.metrics.items()))
        print_table(rows, title=f"Held-out annotated images, after {adapted.seen:.3g} others were seen")
    for count, error in adapted.curve.items():
        say(f"matching with {count} annotated image(s): {error:.2f} mm in the others")
    say(f"taken: {adapted.way}")


def _command(way: str, given: list[str], weights: Path) -> list[str]:
    """The command that finds the landmarks in the way that was chosen."""
    from medpixcl.apps.adaptation_steps import DETECTOR, MEAN

    if way == DETECTOR:
        return ["medpixcl", "detect", "--weights", str(weights)]
    return ["medpixcl", "match", *given, *(["--detector", str(weights)] if way == MEAN else [])]
