"""`medpixcl evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import print_metrics, print_table, say
from medpixcl.cli.options import Exclude, Spacing, excluded_images


def evaluate(
    predictions: Annotated[Path, typer.Option(help="Landmark file with predicted positions.")],
    reference: Annotated[
        list[Path], typer.Option(help="Landmark file with true positions; may be repeated for several readers.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write the metrics into (.json).")],
    exclude: Exclude = None,
    angles: Annotated[bool, typer.Option("--angles", help="Also compare cephalometric measurements.")] = False,
    names: Annotated[Path | None, typer.Option(help="CSV with the columns landmark and name, for --angles.")] = None,
    spacing_mm: Spacing = None,
) -> None:
    """Compare predicted with true landmarks: MRE, SDR, errors per landmark, several readers, regions, angles."""
    from medpixcl.apps.evaluate import evaluate as evaluate_files
    from medpixcl.apps.measurement import read_names
    from medpixcl.reports.measurements import agreement_rows, class_agreement_rows
    from medpixcl.reports.tables import comparison_rows, write_metrics_json

    result = evaluate_files(
        predictions,
        reference,
        exclude=excluded_images(exclude),
        angles=angles,
        names=None if names is None else read_names(names),
        spacing_mm=spacing_mm,
    )
    write_metrics_json(output, result.metrics)
    for warning in result.warnings:
        say(warning, style="yellow")
    print_metrics(result.metrics)
    for kind in ("radius", "region"):
        if coverage := result.metrics.get(f"{kind}_coverage"):
            share = "-" if coverage["measured"] is None else f"{100 * coverage['measured']:.1f} %"
            say(f"within their {kind}: {share} of {coverage['points']} points")
    if result.compared:
        print_table(comparison_rows(result.compared), title="Readers")
    if result.angles:
        print_table(agreement_rows(result.angles), title="Mean absolute difference ± SD of the difference")
        print_table(class_agreement_rows(result.angles), title="Same class")
