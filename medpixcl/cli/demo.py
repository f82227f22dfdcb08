"""`medpixcl demo`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import print_comparison, say


def demo(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write the demo into; demo or demo_volume by default."),
    ] = None,
    volume: Annotated[bool, typer.Option("--volume", help="Match landmarks in brain volumes instead.")] = False,
) -> None:
    """Run the demo: render radiographs from a chest CT, pretrain, match landmarks; takes minutes on a CPU.

    With --volume: match landmarks of one brain template in changed copies of it, beside an affine registration.
    """
    from medpixcl.apps.demo import run_demo
    from medpixcl.apps.volume_demo import run_volume_demo

    folder = output or Path("demo_volume" if volume else "demo")
    print_comparison((run_volume_demo if volume else run_demo)(folder, report=say))
    say(f"report: {folder / 'report.html'}")
