"""`medpixcl measure`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import print_table, progress_bars, say
from medpixcl.cli.options import (
    Continue,
    Exclude,
    Overwrite,
    Spacing,
    excluded_images,
    require_input_kept,
    typed_options,
)


def measure(
    landmarks: Annotated[Path, typer.Argument(help="Landmark file of lateral cephalograms, or a folder of them.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    images: Annotated[
        Path | None, typer.Option(help="Folder or manifest of the radiographs, for the tracings.")
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="Landmark file of another reader to compare with; may be repeated.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help="CSV with the columns landmark and name, to identify the landmarks of the file.")
    ] = None,
    exclude: Exclude = None,
    coverage: Annotated[
        float,
        typer.Option(help="Probability with which the column radius_mm, or the regions, hold the true positions."),
    ] = 0.9,
    spacing_mm: Spacing = None,
    overwrite: Overwrite = False,
    resume: Continue = False,
) -> None:
    """Measure cephalometric angles, lengths and ratios from landmarks, with norms, classes and tracings."""
    typed = typed_options(locals())
    if overwrite:
        require_input_kept(output, locals())
    from medpixcl.apps.measure import measure as run_measurement
    from medpixcl.apps.measurement import read_names
    from medpixcl.reports.measurements import agreement_rows, class_agreement_rows, single_rows, summary_rows

    with progress_bars() as show:
        run = run_measurement(
            landmarks,
            output,
            images=images,
            references=reference or [],
            names=None if names is None else read_names(names),
            spacing_mm=spacing_mm,
            exclude=excluded_images(exclude),
            coverage=coverage,
            overwrite=overwrite,
            resume=resume,
            options=typed,
            progress=partial(show, "drawing"),
        )
    for path, reason in run.rejected.items():
        say(f"not drawn {path}: {reason}", style="yellow")
    if run.not_found:
        say(
            f"{landmarks} does not hold {len(run.not_found)} of the excluded images: {run.not_found[0]}", style="yellow"
        )
    for warning in run.warnings:
        say(warning, style="yellow")
    values = run.measured.values
    if run.comparisons:
        print_table(agreement_rows(run.comparisons), title="Mean absolute difference ± SD of the difference")
        print_table(class_agreement_rows(run.comparisons), title="Same class")
    elif len(values) == 1:
        print_table(row[:5] for row in single_rows(values[0], run.measured.halves[0], run.measured.doubtful[0]))
    else:
        print_table(summary_rows(values))
    say(f"report: {output / 'report.html'}; measurements: {output / 'measurements.csv'}")
