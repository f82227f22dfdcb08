"""Class labels of whole images: add them from a CSV to a manifest, and split a manifest by patient.

The manifest never holds a patient's name or number: images of one patient get the same artificial ``group``.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medpixcl.data.datalist import ITEM_KEYS, Datalist, items_of
from medpixcl.data.identity import first_file
from medpixcl.data.image_keys import ImageKeys, assign_either, why_unclear
from medpixcl.data.manifest import MADE_FROM, SECTIONS, Manifest
from medpixcl.data.tables import Table, read_table
from medpixcl.data.text import quoted, shown_names

IMAGE_COLUMNS = ("image", "volume", "id")
LABELLED_KEYS = (*ITEM_KEYS, "label")


class ClassTable:
    """A CSV with a column ``image`` (``volume``, ``id``), one of class numbers, and perhaps one of patients.

    Images are named by path relative to the file, by file name, or by name without suffix.

    Args:
        path: CSV file.
        class_column: Column with the number of each image's class: 0, 1, ...
        group_column: Column with an identifier of the patient; None if every image shows another patient.

    Attributes:
        labels: Image to the number of its class.
        groups: Image to ``group-0001``, ... in order of first appearance; empty without ``group_column``.

    Raises:
        ValueError: If columns are missing, a label is not a whole number from 0, an image occurs twice, or all images
            have one class.
    """

    def __init__(
        self, path: str | os.PathLike[str], class_column: str = "label", group_column: str | None = None
    ) -> None:
        self.path, self.class_column, self.group_column = Path(path), class_column, group_column
        self.labels: dict[str, int] = {}
        self.groups: dict[str, str] = {}
        if not self.path.exists():
            raise ValueError(f"{path} does not exist; expected a CSV with an image and its class in each row.")
        self._read(read_table(self.path, (*IMAGE_COLUMNS, class_column, group_column or "")))
        check_classes(list(self.labels.values()), str(path))
        self._keys = ImageKeys(self.path, self.labels)

    def add_to(self, manifest: Manifest) -> None:
        """Write class and group into the entries of the images that the table names.

        Raises:
            ValueError: If the table names none of the manifest's images.
        """
        base = manifest.base_dir.absolute()
        places = [(base / first_file(entry), entry) for _, entry in manifest.entries()]
        suffixes = {place.suffix for place, _ in places}
        unusable = [base / one["path"] for one in manifest.rejected if Path(one["path"]).suffix in suffixes]
        made_from = {place: _series_place(base, entry[MADE_FROM]) for place, entry in places if MADE_FROM in entry}
        assigned = assign_either(self._keys.assign, [*(place for place, _ in places), *unusable], made_from)
        for place, entry in places:
            if (key := assigned.keys.get(place)) is not None:
                entry["label"] = self.labels[key]
                if self.groups:
                    entry["group"] = self.groups[key]
        unclear = [why_unclear(key, images) for key, images in assigned.unclear.items()]
        if not assigned.keys.keys() & {place for place, _ in places}:
            reason = unclear[0] if unclear else "names none of the images found; check the names in it."
            raise ValueError(f"{self.path} {reason}")
        own = self.path.resolve()
        manifest.rejected = [one for one in manifest.rejected if not _is(base, one["path"], own)]
        manifest.rejected += [{"path": os.path.relpath(own, base.resolve()), "reason": reason} for reason in unclear]

    def _read(self, table: Table) -> None:
        columns = table.columns
        image = next((name for name in IMAGE_COLUMNS if name in columns), None)
        wanted = [self.class_column, *([self.group_column] if self.group_column else [])]
        missing = [name for name in wanted if name not in columns]
        if image is None or missing:
            raise ValueError(
                f"{self.path} has the columns {shown_names(columns)}; expected image (or id), {', '.join(wanted)}."
            )
        names: dict[str, str] = {}
        for line, row in table.rows:
            key, label = row[image], row[self.class_column]
            if key in self.labels:
                raise ValueError(f"{self.path}: line {line}: {quoted(key)} stands twice; keep one row.")
            if not key or not re.fullmatch(r"\d{1,9}", label):
                raise ValueError(
                    f"{self.path}: line {line}: the class is {quoted(label)}; expected an image and a number from 0."
                )
            self.labels[key] = int(label)
            if self.group_column:
                patient = row[self.group_column] or f"image {key}"
                self.groups[key] = names.setdefault(patient, f"group-{len(names) + 1:04d}")


def _series_place(base: Path, image: str | list[str]) -> Path:
    """Folder of a series, or the common one of its files."""
    return base / (image if isinstance(image, str) else os.path.commonpath([os.path.dirname(one) for one in image]))  # noqa: PTH120


def check_classes(labels: Sequence[int], where: str) -> None:
    """Refuse labels that do not allow training a classifier.

    Raises:
        ValueError: If there are fewer than two classes.
    """
    found = Counter(labels)
    if len(found) < 2:
        of = f"all {len(labels)} images of {where} have the class {labels[0]}" if labels else f"{where} has no label"
        raise ValueError(f"{of}; classification needs images of 2 classes: check the labels.")


def tied_images(entries: Datalist) -> list[int]:
    """Number the entries so that images of one patient (``group``) and repeats (``duplicate_group``) share a number.

    Example:
        >>> tied_images([{"group": "a"}, {"group": "b", "duplicate_group": "r"}, {"duplicate_group": "r"}, {}])
        [0, 1, 1, 3]
    """
    leader = list(range(len(entries)))

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, entry in enumerate(entries):
        for key in ("group", "duplicate_group"):
            if entry.get(key) is not None:
                low, high = sorted((find(first.setdefault((key, entry[key]), index)), find(index)))
                leader[high] = low
    return [find(index) for index in range(len(entries))]


def split_labelled(
    path: str | os.PathLike[str],
    *,
    classes: int = 2,
    fractions: Sequence[float | int] = (0.25, 0.15),
    label_share: float | int = 1.0,
    seed: int = 0,
) -> dict[str, Datalist]:
    """Split labelled images into training, validation and test; images of one patient and repeats stay together.

    Test and validation sections of the manifest are kept; a missing one is drawn from the training section, class by
    class. Images without a class are left out.

    Args:
        path: Manifest with labels.
        classes: Number of classes.
        fractions: Share of the patients drawn for the test, then share of the others drawn for the validation.
        label_share: Share of the training patients to use; at least one patient of each class is kept.
        seed: Random seed for drawing test, validation and training images.

    Returns:
        Datalists ``training``, ``validation`` and ``test``; items have ``image``, ``spacing_mm`` and ``label``.

    Raises:
        ValueError: If labels are missing or beyond the classes, a side has a single class, the sections share a
            patient or a repeat, or ``label_share`` is not above 0 and up to 1.
    """
    if not 0 < label_share <= 1:
        raise ValueError(f"label_share is {label_share}; expected a share above 0 and up to 1, such as 0.1.")
    manifest, every, sides = Manifest.read(path), [], []
    for section in SECTIONS:
        found = [entry for entry in manifest.datalist(section) if isinstance(entry.get("label"), int)]
        every += found
        sides += [section] * len(found)
    labels = [entry["label"] for entry in every]
    check_classes(labels, str(path))
    if not 0 <= min(labels) <= max(labels) < classes:
        raise ValueError(f"{path} has classes from {min(labels)} to {max(labels)}; the network has 0 to {classes - 1}.")
    ties = tied_images(every)
    _refuse_ties_across(ties, sides, str(path))
    for part, section, fraction in zip((0, 1), ("test", "validation"), fractions, strict=True):
        if section not in sides:
            for index in _drawn(ties, labels, sides, fraction, (seed, part)):
                sides[index] = section
    kept = set(_drawn(ties, labels, sides, label_share, (seed, 2))) if label_share < 1 else set(range(len(every)))
    chosen: dict[str, Datalist] = {}
    for section in SECTIONS:
        members = [i for i, side in enumerate(sides) if side == section and (section != "training" or i in kept)]
        check_classes([labels[index] for index in members], f"the {section} side of {path}")
        chosen[section] = items_of([every[index] for index in members], LABELLED_KEYS)
    return chosen


def _drawn(ties: Sequence[int], labels: Sequence[int], sides: Sequence[str], share: Any, seed: Any) -> list[int]:
    """Indices of a share of the training patients of each class; a patient counts to the class of his first image."""
    drawn: list[int] = []
    random = np.random.default_rng(seed)
    first: dict[int, int] = {}
    for index, side in enumerate(sides):
        if side == "training":
            first.setdefault(ties[index], labels[index])
    for label in sorted(set(first.values())):
        names = random.permutation([tie for tie, own in first.items() if own == label])
        drawn += names[: max(1, round(share * len(names)))].tolist()
    wanted = set(drawn)
    return [index for index, side in enumerate(sides) if side == "training" and ties[index] in wanted]


def _refuse_ties_across(ties: Sequence[int], sides: Sequence[str], where: str) -> None:
    owner: dict[int, str] = {}
    for tie, side in zip(ties, sides, strict=True):
        if owner.setdefault(tie, side) != side:
            raise ValueError(
                f"{where}: images of one patient, or repeats of one picture, are in {owner[tie]} and in {side}; keep "
                "them in one section, or scan without a split."
            )


def _is(base: Path, named: object, file: Path) -> bool:
    return isinstance(named, str) and (base / named).resolve() == file
