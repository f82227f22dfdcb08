"""Read the split of each image of a dataset from a CSV file."""

import csv
from collections.abc import Iterable
from pathlib import Path

from medpixcl.data.image_keys import Assignment, ImageKeys
from medpixcl.data.tables import table_reader
from medpixcl.limits import regular_file

_IMAGE_COLUMNS = ("image", "volume", "id")
_SPLIT_COLUMNS = ("split", "official_split")


class SplitFile:
    """A CSV with a column ``image`` (``volume``, ``id``) and a column ``split`` (``official_split``).

    Images are named by path relative to the file, by file name, or by name without suffix. A column ``duplicate_of``
    may name the image that a row repeats.

    Args:
        path: CSV file.

    Raises:
        ValueError: If columns are missing, an image occurs twice or has no split.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.splits: dict[str, str] = {}
        self.duplicate_of: dict[str, str] = {}
        try:
            with regular_file(path).open(encoding="utf-8-sig", newline="") as file:
                self._read(table_reader(file.read(), (*_IMAGE_COLUMNS, *_SPLIT_COLUMNS)))
        except FileNotFoundError:
            raise ValueError(f"{path} does not exist; expected a CSV with the columns image and split.") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8 text; save it as CSV (UTF-8).") from None
        self._keys = ImageKeys(path, self.splits)

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images in the file."""
        return tuple(self.splits)

    def assign(self, images: Iterable[Path]) -> Assignment:
        """Find the key of every image of a set (:meth:`medpixcl.data.image_keys.ImageKeys.assign`)."""
        return self._keys.assign(images)

    def _read(self, reader: csv.DictReader) -> None:
        columns = reader.fieldnames or []
        image = next((name for name in _IMAGE_COLUMNS if name in columns), None)
        split = next((name for name in _SPLIT_COLUMNS if name in columns), None)
        if image is None or split is None:
            found = ", ".join(columns) or "(none)"
            raise ValueError(f"{self.path} has the columns {found}; expected image (or id) and split.")
        for row in reader:
            key, name = (row[image] or "").strip(), (row[split] or "").strip()
            if not key or not name:
                raise ValueError(f"{self.path}: line {reader.line_num} names no image or no split; fill both cells.")
            if key in self.splits:
                raise ValueError(f"{self.path}: line {reader.line_num}: {key!r} stands twice; keep one row.")
            self.splits[key] = name
            if row.get("duplicate_of"):
                self.duplicate_of[key] = row["duplicate_of"].strip()


def section_of(split: str | None) -> str:
    """Map a split's name to a section of the manifest: train* and None to training, val* to validation, others to test.

    Example:
        >>> section_of("train"), section_of("val_1"), section_of("test1")
        ('training', 'validation', 'test')
    """
    name = (split or "train").lower()
    return "training" if name.startswith("train") else "validation" if name.startswith("val") else "test"
