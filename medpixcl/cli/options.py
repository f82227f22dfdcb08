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


def format_settings(formats: str | None, keep_patient: bool) -> dict[str, object]:
    """The settings of a bundle that say how landmarks are written; those not asked for are left to it."""
    from medpixcl.data.landmarks.writing import checked_formats

    chosen: dict[str, object] = {"keep_patient": True} if keep_patient else {}
    if formats is not None:
        names = [name.strip().lower().removeprefix(".") for name in formats.split(",")]
        chosen["formats"] = list(checked_formats([name for name in names if name]))
    return chosen


def checked_device(name: str) -> str:
    """Name of a device that works."""
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the device {name!r} cannot be used ({reason}); give cpu, or what `doctor` lists") from None
    return name
