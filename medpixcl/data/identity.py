"""Which image a row of a table means."""

import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path, PurePosixPath

_SUFFIXES = re.compile(
    r"(\.nii(\.gz)?|\.nrrd|\.nhdr|\.mh[ad]|\.png|\.jpe?g|\.tiff?|\.bmp|\.dcm|\.ima|(\.mrk)?\.json|\.f?csv)$",
    re.IGNORECASE,
)


def image_stem(name: str) -> str:
    """File name without the suffixes of image and landmark files.

    Example:
        >>> image_stem("head.nii.gz"), image_stem("head.mrk.json"), image_stem("CT.1.2.840")
        ('head', 'head', 'CT.1.2.840')
    """
    return _SUFFIXES.sub("", name)


class ImageKeys:
    """The images that a table names: by path relative to it, by file name, or by name without suffix.

    Args:
        table: The table's file; relative paths start at its folder (or at itself, if it is a folder).
        keys: The names, unique.
    """

    def __init__(self, table: Path, keys: Iterable[str]) -> None:
        self.table = table
        folder = table if table.is_dir() else table.parent
        self._by_path: dict[Path, list[str]] = {}
        self._by_name: dict[str, list[str]] = {}
        for key in keys:
            self._by_path.setdefault((folder / key).resolve(), []).append(key)
            self._by_name.setdefault(PurePosixPath(key).name, []).append(key)

    def find(self, image_path: str | PathLike[str]) -> str | None:
        """The key of an image, None if the table does not name it.

        Raises:
            ValueError: If several keys fit.
        """
        path = Path(image_path)
        for found in (
            self._by_path.get(path.resolve()),
            self._by_name.get(path.name),
            self._by_name.get(image_stem(path.name)),
        ):
            if found is None:
                continue
            if len(found) > 1:
                raise ValueError(
                    f"{self.table}: {path.name} may be any of {found}; write image paths relative to this file."
                )
            return found[0]
        return None
