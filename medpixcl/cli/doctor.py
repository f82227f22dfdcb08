"""`medpixcl doctor`."""

import medpixcl
from medpixcl.cli.console import print_table


def doctor() -> None:
    """Report which dependencies are installed, which extras are missing and which devices are available."""
    from medpixcl.apps.doctor import diagnose

    print_table([("what", "found", "note"), *diagnose()], title=f"medpixcl {medpixcl.__version__}")
