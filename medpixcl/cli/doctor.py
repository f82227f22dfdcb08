"""`medpixcl doctor`."""

import medpixcl
from medpixcl.cli.console import print_table


def doctor() -> None:
    """What is installed, which devices there are, which extras are missing."""
    from medpixcl.apps.doctor import diagnose

    print_table([("what", "found", "note"), *diagnose()], title=f"medpixcl {medpixcl.__version__}")
