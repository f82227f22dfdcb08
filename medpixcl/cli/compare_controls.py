"""`medpixcl compare-controls`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import print_table, say
from medpixcl.cli.options import Settings, Trust, chosen_bundle


def compare_controls(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a PixPro bundle.")],
    data: Annotated[Path, typer.Option(help="Manifest; for the control `labels` it names `labels`, too.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the runs; finished ones are kept.")],
    control: Annotated[
        list[str] | None,
        typer.Option(help="none, shuffled, random_deletion, no_depth or labels; repeat for several; all but labels."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings of each control.")] = 3,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Train PixPro with its exogenous channel, and with each control in its place; a table of all."""
    from medpixcl.apps import compare_controls as control_runs
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.data.tables import write_csv

    folder = chosen_bundle(bundle, trust=trust)
    overrides = {"data_list_file_path": str(data), **parse_settings(settings or [])}
    chosen = {"controls": control} if control else {}
    rows = control_runs.compare_controls(folder, output, overrides, seeds=range(seeds), **chosen)
    write_csv(output / "controls.csv", [list(rows[0]), *(list(row.values()) for row in rows)])
    shown = [[row["control"], *(f"{row[name]:.3f}" for name in list(row)[1:])] for row in rows]
    print_table([list(rows[0]), *shown])
    say(f"table: {output / 'controls.csv'}; whether the channel helps is a question to a downstream task")
