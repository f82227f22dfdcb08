"""Options that several commands share."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer

T = TypeVar("T")

Spacing = Annotated[
    float | None, typer.Option("--spacing-mm", min=1e-6, help="Pixel size in mm of pictures that do not say theirs.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Value for a setting; may be repeated."),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--format", help="Files of landmarks, joined by commas: csv, json, mrk.json, coco, sr; csv,mrk.json by default."
    ),
]
KeepPatient = Annotated[
    bool, typer.Option("--keep-patient", help="Copy patient and study of the image into DICOM SR (left out otherwise).")
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run configurations from any folder without a question; they are programs."),
]


def chosen_bundle(
    name: str | Path | None, default: str = "", *, configs: Sequence[Path] | None = None, trust: bool = False
) -> Path:
    """Folder of the bundle that a command runs; asks at a terminal whether a foreign configuration may run.

    Args:
        name: Name or folder of the bundle.
        default: Name that is taken if there is none.
        configs: Config files that the user puts over the bundle's.
        trust: Whether the user said so already.
    """
    from medpixcl.apps.bundle_search import find_bundle

    folder = _asked(partial(find_bundle, name, default), trust)
    if configs:
        from medpixcl.apps.bundles import check_config

        for file in configs:
            _asked(partial(check_config, file), trust)
    return folder


def _asked(look: Callable[..., T], trust: bool) -> T:
    """What a look for a configuration gives, after a question to the user if nobody vouched for the place."""
    from medpixcl.apps.bundle_search import UntrustedBundleError

    try:
        return look(trust=trust)
    except UntrustedBundleError as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        typer.confirm(f"{error}. Run it?", abort=True, err=True)
        return look(trust=True)


def asked_formats(formats: str | None) -> list[str] | None:
    """The formats of landmarks that ``--format`` names; None leaves them to the bundle."""
    if formats is None:
        return None
    names = [name.strip().lower().removeprefix(".") for name in formats.split(",")]
    return [name for name in names if name]
