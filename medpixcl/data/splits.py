"""Read the split of each image of a dataset from a CSV file."""

from collections.abc import Iterable
from pathlib import Path

from medpixcl.data.image_keys import Assignment, ImageKeys
from medpixcl.data.tables import Table, read_table
from medpixcl.data.text import quoted, shown_names

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
        if not path.exists():
            raise ValueError(f"{path} does not exist; expected a CSV with the columns image and split.")
        self._read(read_table(path, (*_IMAGE_COLUMNS, *_SPLIT_COLUMNS)))
        self._keys = ImageKeys(path, self.splits)

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images in the file."""
        return tuple(self.splits)

    def assign(self, images: Iterable[Path]) -> Assignment:
        """Find the key of every image of a set (:meth:`medpixcl.data.image_keys.ImageKeys.assign`)."""
        return self._keys.assign(images)

    def _read(self, table: Table) -> None:
        columns = table.columns
        image = next((name for name in _IMAGE_COLUMNS if name in columns), None)
        split = next((name for name in _SPLIT_COLUMNS if name in columns), None)
        if image is None or split is None:
            raise ValueError(f"{self.path} has the columns {shown_names(columns)}; expected image (or id) and split.")
        for line, row in table.rows:
            key, name = row[image], row[split]
            if not key or not name:
                raise ValueError(f"{self.path}: line {line} names no image or no split; fill both cells.")
            if key in self.splits:
                raise ValueError(f"{self.path}: line {line}: {quoted(key)} stands twice; keep one row.")
            self.splits[key] = name
            if row.get("duplicate_of"):
                self.duplicate_of[key] = row["duplicate_of"]


def section_of(split: str | None) -> str:
    """Map a split's name to a section of the manifest: train* and None to training, val* to validation, others to test.

    Example:
        >>> section_of("train"), section_of("val_1"), section_of("test1")
        ('training', 'validation', 'test')
    """
    name = (split or "train").lower()
    return "training" if name.startswith("train") else "validation" if name.startswith("val") else "test"
