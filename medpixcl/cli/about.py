"""`medpixcl demo` and `medpixcl doctor`."""

from pathlib import Path
from typing import Annotated

import typer

import medpixcl
from medpixcl.cli.console import print_comparison, print_table, say


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the demo.")] = Path("demo"),
) -> None:
    """Radiographs rendered from a chest CT, a small pretraining, landmarks matched from one view; minutes on a CPU."""
    from medpixcl.engines.demo import run_demo

    print_comparison(run_demo(output, report=say))
    say(f"report: {output / 'report.html'}")


def doctor() -> None:
    """What is installed, which devices there are, which extras are missing."""
    from medpixcl.engines.doctor import diagnose

    print_table([("what", "found", "note"), *diagnose()], title=f"medpixcl {medpixcl.__version__}")
