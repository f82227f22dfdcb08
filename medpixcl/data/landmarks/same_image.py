"""Check that landmarks were marked on the image that they are given to."""

from dataclasses import dataclass
from pathlib import Path

from medpixcl.data.dicom_header import is_dicom, read_header
from medpixcl.data.series import dicom_files

_TAGS = ("SOPInstanceUID", "FrameOfReferenceUID")


@dataclass(frozen=True)
class MarkedOn:
    """What a file says about the image that a landmark was marked on; empty where it says nothing.

    Attributes:
        shape: Spatial shape of the image; None for an axis whose length the file does not say.
        instance: SOP Instance UID of the DICOM image.
        frames: Numbers, from 1, of the frames of that image.
        frame_of_reference: Frame of Reference UID of the DICOM series.
    """

    shape: tuple[int | None, ...] = ()
    instance: str = ""
    frames: tuple[int, ...] = ()
    frame_of_reference: str = ""


def why_another_image(marked_on: MarkedOn, image: Path, shape: tuple[int, ...]) -> str | None:
    """Explain why an image cannot be the one that a landmark was marked on; None if nothing speaks against it.

    Args:
        marked_on: What the landmark file says.
        image: File of the image, or folder of the series; one that does not exist is not compared.
        shape: Spatial shape of the image.
    """
    if marked_on.shape and not _may_be(marked_on.shape, shape):
        sizes = [" x ".join("?" if size is None else str(size) for size in one) for one in (marked_on.shape, shape)]
        return f"was marked on an image of {sizes[0]} pixels, and {image.name} has {sizes[1]}; use the same image."
    if not (marked_on.instance or marked_on.frame_of_reference) or not image.exists():
        return None
    files = dicom_files(image) if image.is_dir() else [image] if is_dicom(image) else []
    if not files:
        return f"was marked on a DICOM image, and {image.name} is none; give the landmarks of this file."
    headers = [read_header(file) for file in files]
    instances, frames_of_reference = ({header.text(tag) for header in headers} for tag in _TAGS)
    if marked_on.instance and marked_on.instance not in instances:
        return f"was marked on another DICOM image than {image.name} (another SOP Instance UID); give its own report."
    if marked_on.frame_of_reference and marked_on.frame_of_reference not in frames_of_reference:
        return f"was marked in another frame of reference than that of {image.name}; give its own report."
    if len(shape) == 2 and any(frame != 1 for frame in marked_on.frames):
        shown = ", ".join(map(str, marked_on.frames))
        return f"was marked on frame {shown} of {image.name}, of which only the first frame is read."
    return None


def _may_be(stated: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(stated) == len(shape) and all(one in (None, other) for one, other in zip(stated, shape, strict=True))
