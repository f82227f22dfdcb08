"""`medpixcl evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import print_metrics, print_table, say
from medpixcl.cli.options import Spacing


def evaluate(
    predictions: Annotated[Path, typer.Option(help="Landmark file with predicted positions.")],
    reference: Annotated[
        list[Path], typer.Option(help="Landmark file with true positions; repeated for several readers.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write (metrics.json).")],
    exclude: Annotated[Path | None, typer.Option(help="Text file, one image per line, left out.")] = None,
    angles: Annotated[bool, typer.Option("--angles", help="Compare cephalometric measurements, too.")] = False,
    names: Annotated[Path | None, typer.Option(help="CSV with the columns landmark and name, for --angles.")] = None,
    spacing_mm: Spacing = None,
) -> None:
    """Measure predicted against true landmarks: MRE, SDR, each landmark, several readers, regions, angles."""
    from medpixcl.apps.evaluate import evaluate as evaluate_files
    from medpixcl.apps.measurement import read_names
    from medpixcl.reports.measurements import agreement_rows, class_agreement_rows
    from medpixcl.reports.tables import comparison_rows, write_metrics_json

    lines = [] if exclude is None else exclude.read_text(encoding="utf-8-sig").splitlines()
    result = evaluate_files(
        predictions,
        reference,
        exclude=[line.strip() for line in lines if line.strip()],
        angles=angles,
        names=None if names is None else read_names(names),
        spacing_mm=spacing_mm,
    )
    write_metrics_json(output, result.metrics)
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
