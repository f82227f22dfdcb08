"""`medpixcl compare-controls`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import print_table, say
from medpixcl.cli.options import Settings, Trust, chosen_bundle


def compare_controls(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a PixPro bundle.")],
    data: Annotated[
        Path, typer.Option(help="Manifest from `medpixcl scan`; the control `labels` needs one with label maps.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the runs; finished runs are not repeated.")],
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="none, shuffled, random_deletion, no_depth or labels; may be repeated; all but labels by default."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of trainings per control.")] = 3,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Train PixPro with its exogenous channel and with each control in its place, and compare the results."""
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
    say(f"table: {output / 'controls.csv'}; only a downstream task shows whether the channel helps")
