"""`medpixcl bundles list` and `medpixcl bundles copy`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import say

bundles = typer.Typer(help="List the available bundles, or copy one to edit.", no_args_is_help=True)


@bundles.command("list")
def list_all() -> None:
    """List the bundles in the working folder, in $MEDPIXCL_BUNDLES and in the installation."""
    from medpixcl.apps.bundle_copies import list_bundles

    for one in list_bundles():
        say(f"{one.name} {one.version}, weights: {'yes' if one.weights else 'no'}", style="bold")
        say(f"    {one.task}")
        say(f"    {one.place}")


@bundles.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name or folder of a bundle.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to create; it must not exist yet.")],
) -> None:
    """Copy a bundle with its weights, so that its configurations can be edited."""
    from medpixcl.apps.bundle_copies import copy_bundle

    say(f"copied {copy_bundle(name, folder)} to {folder}; give this folder where a command takes a bundle")
