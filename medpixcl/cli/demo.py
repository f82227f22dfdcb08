"""`medpixcl demo`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import print_comparison, say


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write the demo into.")] = Path("demo"),
) -> None:
    """Run the demo: render radiographs from a chest CT, pretrain, match landmarks; takes minutes on a CPU."""
    from medpixcl.apps.demo import run_demo

    print_comparison(run_demo(output, report=say))
    say(f"report: {output / 'report.html'}")
