"""Write and read files of tensors that are whole: archive checksums, digests of shipped weights, finite values.

``torch.load`` verifies no checksum, so a flipped bit becomes another weight, and NaN becomes made-up results.
"""

import errno
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from medpixcl.data.atomic import write_bytes_atomically
from medpixcl.limits import regular_file

SUMS = "weights.sha256"
"""File beside the folders of bundles that lists the SHA-256 of their weights, in the format of ``sha256sum``."""
_ZIP = b"PK\x03\x04"


class NotACheckpointError(ValueError):
    """A file is of another kind, or damaged so much that its kind cannot be told."""


def read_checkpoint(path: str | Path) -> Any:
    """Read what ``torch.save`` wrote, as tensors and plain data; nothing in the file is run.

    Raises:
        NotACheckpointError: If the file is another kind of file.
        ValueError: If the file is damaged, or is not the one that was shipped in its place.
        OSError: If it cannot be read.
    """
    path = regular_file(path)
    _check_digest(path)
    _check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        _refuse_bad_places(path, error)
    except Exception as error:  # the bytes of another kind of file can raise anything
        raise NotACheckpointError(f"{path} is not a checkpoint of tensors: give a file saved by torch.save") from error


def write_checkpoint(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain data completely or not at all, safely on the disk before the old file is replaced.

    Raises:
        OSError: If the file cannot be written, as on a full disk; it names the file.
    """
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    write_bytes_atomically(path, buffer.getvalue())


def check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse NaN and infinite values in tensors that were read from a file.

    Args:
        path: The file, for the message.
        tensors: Tensors by name.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    for name, value in tensors.items():
        if faults := count_non_finite(value):
            raise ValueError(
                f"{path} is not usable: {faults} of {value.numel()} values of {name} are NaN or infinite; give weights "
                "of another training, or of an earlier state of this one"
            )


def count_non_finite(tensor: Tensor) -> int:
    """Number of values that are NaN or infinite; 0 for integers.

    Example:
        >>> count_non_finite(torch.tensor([1.0, torch.nan, torch.inf]))
        2
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    return int((~tensor.detach().isfinite()).sum())


def _check_archive(path: Path) -> None:
    """Verify the CRC-32 of every part; the format before PyTorch 1.6 has none."""
    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            return
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = [one.filename for one in archive.infolist() if one.compress_type != zipfile.ZIP_STORED]
            damaged = None if compressed else archive.testzip()
    except OSError as error:
        _refuse_bad_places(path, error)
    except Exception as error:  # damaged bytes in the directory of the archive can raise anything
        raise NotACheckpointError(
            f"{path} is not a checkpoint of tensors, or its archive is cut off or damaged: give a file saved by "
            "torch.save, or copy it again from where it came"
        ) from error
    if compressed:
        raise NotACheckpointError(
            f"{path} is not a checkpoint of tensors: {compressed[0]} in it is compressed; give a file saved by "
            "torch.save, which compresses nothing"
        )
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged: the checksum (CRC-32) of {damaged} in it is wrong; copy the file again from where it "
            "came, or take an earlier one"
        )


def _refuse_bad_places(path: Path, error: OSError) -> NoReturn:
    """Raise for an error of reading: damaged where a place lies outside the file, else the error with the file's name.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
    """
    if error.errno == errno.EINVAL:
        raise ValueError(
            f"{path} is damaged: parts of it lie outside the file; copy it again from its source"
        ) from error
    raise OSError(error.errno, error.strerror, str(path)) from error


def _check_digest(path: Path) -> None:
    """Compare a bundle's weights with the digest in :data:`SUMS`; weights that the file does not list may be any."""
    place = path.resolve()
    root = place.parents[min(2, len(place.parents) - 1)]
    expected = shipped_digests(root / SUMS).get(place.relative_to(root).as_posix())
    if expected is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} is not the file that was shipped: its SHA-256 is {found[:16]}... and {root / SUMS} says "
            f"{expected[:16]}...; install the package again, or keep weights of your own in another folder"
        )


def shipped_digests(sums: Path) -> dict[str, str]:
    """SHA-256 of shipped weights by their path from the folder of the list; empty if there is no list.

    Args:
        sums: The list, lines of digest, two spaces and path.
    """
    if not sums.is_file():
        return {}
    lines = (line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8", errors="replace").splitlines())
    return {parts[1].lstrip("*"): parts[0] for parts in lines if len(parts) == 2}
