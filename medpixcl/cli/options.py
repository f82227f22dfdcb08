"""Options that several commands share."""

from typing import Annotated

import typer

Spacing = Annotated[
    float | None, typer.Option("--spacing-mm", min=1e-6, help="Pixel size in mm of pictures that do not say theirs.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override of a setting; may be repeated.")
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


def asked_formats(formats: str | None) -> list[str] | None:
    """The formats of landmarks that ``--format`` names; None leaves them to the bundle."""
    if formats is None:
        return None
    names = [name.strip().lower().removeprefix(".") for name in formats.split(",")]
    return [name for name in names if name]


def checked_device(name: str) -> str:
    """Name of a device that works."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the device {name!r} cannot be used ({reason}); give cpu, or what `doctor` lists") from None
    return name
