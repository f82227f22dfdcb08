"""What an image file claims, compared with the limits before anything is read, unpacked or allocated for it."""

import math
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from medpixcl.data.pixels import ImageFileError
from medpixcl.limits import RAISE_LIMIT, max_voxels, why_not_read


class OverLimitError(ImageFileError):
    """An image beyond the limits of this machine, which another one may read."""


def check_voxels(path: Path, shape: Iterable[int]) -> None:
    """Refuse an image that states more voxels than :func:`medpixcl.limits.max_voxels`.

    Args:
        path: Its file, for the message.
        shape: Size along each axis as its header states it, with the values of a voxel as one more axis.

    Raises:
        OverLimitError: If they are more.
    """
    sizes, most = [int(size) for size in shape], max_voxels()
    if (number := math.prod(sizes)) > most:
        raise OverLimitError(
            path,
            f"states {' x '.join(map(str, sizes))} = {number:,} voxels, more than the limit of {most:,}; make it "
            f"smaller, or {RAISE_LIMIT}.",
        )


def open_binary(path: Path) -> BufferedReader:
    """Open a file of an image to read its bytes, which never waits.

    Raises:
        OverLimitError: If it is a pipe, a socket or a device, or larger than the memory.
        OSError: If it cannot be opened.
    """
    if reason := why_not_read(path):
        raise OverLimitError(path, reason)
    return path.open("rb")
