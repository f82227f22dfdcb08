"""Manifest of a dataset: a MONAI datalist with checksums, licences, repeats and rejected files.

The file is JSON with the sections ``training``, ``validation`` and ``test``, which
``monai.data.load_decathlon_datalist(path, True, section)`` reads, and ``rejected``: files that were
found but not used, with the reason. A name that ends in ``.jsonl`` makes it JSON Lines, for large sets: a first line
about the data set, then one line for each entry or rejected file, with its ``section``. Every image has one entry:

* ``image``: path relative to the manifest, of a file or of the folder of a DICOM series; or the list of its files.
* ``spacing_mm``, ``shape``: in array order. ``modality``: of DICOM, else null.
* ``tolerance_mm``: only of DICOM volumes of a scan with that option: how far a slice may lie from its place.
* ``spacing_source``: ``file``, ``given``, or the DICOM attributes that a radiograph's spacing comes from.
* ``sha256``: of the file; of a series or a header with its own data file, of the ``sha256sum`` listing of its files.
* ``licence``: may be null. ``split``: the data set's own name for it, or null.
* ``duplicate_group``: the same name for all repeats of one picture, else null.
* ``landmarks``: path of the file that holds them, else null; never their values. Of several readers: name to path.
* ``exogenous``: only where there are any: name to path of the maps that belong to the image, as its depth.
* ``label``: only where there is one, for a downstream task. Segmentation: path of the label map, or the list of the
  paths of its masks, one per class. Classification: the number of the class.
* ``stamp``: size and time of the last change of its files; ``fingerprint``: what repeats are found by; ``affine``: rows
  of the matrix from voxels to mm, RAS+, of an image that has its own. With them the next scan need not read the image.
* ``series``: of DICOM slices, a digest by which new slices of the series are known, in rejected records, too.
* ``resampled_from``: of a volume that ``scan`` resampled, the series: its folder, or the list of its files.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import medpixcl
from medpixcl._json import parsed_json
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.manifest_checks import ABOUT, checked_entries, checked_rejected, checked_value
from medpixcl.data.manifest_summary import SUMMARY_COLUMNS as SUMMARY_COLUMNS, ManifestSummary
from medpixcl.data.paths import checked_path
from medpixcl.limits import regular_file

SECTIONS = ("training", "validation", "test")
LINES_SUFFIX = ".jsonl"
MANIFEST_SUFFIXES = (".json", LINES_SUFFIX)
REJECTED = "rejected"
SERIES, MADE_FROM = "series", "resampled_from"
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_NO_GROUP = '"duplicate_group": null'
_BASE_DIR = "the folder that paths start from"
Entry = dict[str, Any]


def is_manifest(path: Path) -> bool:
    """True if a path is named like a manifest, not like an image or a folder."""
    return path.suffix in MANIFEST_SUFFIXES


@dataclass
class Manifest:
    """Entries of a dataset by section, and the rejected files.

    Attributes:
        settings: Options of the scan that decide what is read and how; empty if it was not made by one.
        base_dir: Folder that relative paths start from; it is not written to the file.
    """

    name: str = ""
    description: str = ""
    licence: str | None = None
    created_with: str = f"medpixcl {medpixcl.__version__}"
    training: list[Entry] = field(default_factory=list)
    validation: list[Entry] = field(default_factory=list)
    test: list[Entry] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    base_dir: Path = Path()

    def __repr__(self) -> str:
        sizes = [f"{len(getattr(self, section))} in {section}" for section in SECTIONS]
        return f"<Manifest {self.name!r}: {', '.join(sizes)}, {len(self.rejected)} rejected>"

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, base_dir: str | os.PathLike[str] | None = None) -> "Manifest":
        """Read a manifest, or any MONAI datalist with these sections.

        Args:
            path: JSON file of the manifest.
            base_dir: Folder that the paths in the file start from; by default the folder of the file.

        Raises:
            ValueError: If the file is not JSON, has no section, an entry names no image, or a value is of a wrong type.
        """
        path = checked_path(path, "the manifest")
        base = path.parent if base_dir is None else checked_path(base_dir, _BASE_DIR)
        content = _content(path)
        if not isinstance(content, dict) or not any(section in content for section in SECTIONS):
            raise ValueError(
                f"{path} has none of the lists {', '.join(SECTIONS)}; make a manifest with `medpixcl scan`."
            )
        training, validation, test = (checked_entries(path, name, content.get(name, [])) for name in SECTIONS)
        about = {key: checked_value(path, key, content.get(key), check) for key, check in ABOUT.items()}
        return cls(
            name=about["name"] or "",
            description=about["description"] or "",
            licence=about["licence"],
            created_with=about["created_with"] or "",
            training=training,
            validation=validation,
            test=test,
            rejected=checked_rejected(path, content.get(REJECTED) or []),
            settings=about["settings"] or {},
            base_dir=base,
        )

    def write(self, path: str | os.PathLike[str], *, base_dir: str | os.PathLike[str] | None = None) -> None:
        """Write the manifest as JSON, or as JSON Lines to a file ``.jsonl``.

        Args:
            path: File to write.
            base_dir: Folder that the written paths start from; by default the folder of the file.

        Raises:
            ValueError: If one of them is no path.
        """
        path = checked_path(path, "the manifest")
        target = path.parent if base_dir is None else checked_path(base_dir, _BASE_DIR)
        moved = {key: [self._moved(one, target) for one in getattr(self, key)] for key in (*SECTIONS, REJECTED)}
        if path.suffix == LINES_SUFFIX:
            lines = (entry_line(section, entry) for section, entries in moved.items() for entry in entries)
            write_text_atomically(path, "".join([json_line(self.about), *lines]))
        else:
            write_text_atomically(path, _one_line_an_entry(self.about | moved))

    @property
    def about(self) -> dict[str, Any]:
        """What the file says about the data set, without its entries."""
        about = {
            "name": self.name,
            "description": self.description,
            "licence": self.licence,
            "created_with": self.created_with,
        }
        return about | ({"settings": self.settings} if self.settings else {})

    def datalist(self, section: str) -> list[Entry]:
        """List the entries of one section with absolute paths.

        Args:
            section: Name of the section: ``training``, ``validation`` or ``test``.

        Raises:
            ValueError: If there is no such section.
        """
        if section not in SECTIONS:
            raise ValueError(f"section is {section!r}; expected one of {', '.join(SECTIONS)}.")
        base = self.base_dir.absolute()
        return [_with_paths(entry, lambda one: os.path.normpath(base / one)) for entry in getattr(self, section)]

    def listed(self) -> Iterator[tuple[str, Entry]]:
        """Iterate over all entries with the names of their sections, their paths absolute."""
        for section in SECTIONS:
            for entry in self.datalist(section):
                yield section, entry

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Iterate over all entries with the names of their sections."""
        for section in SECTIONS:
            for entry in getattr(self, section):
                yield section, entry

    def summarised(self) -> ManifestSummary:
        """Count what the manifest holds."""
        summary = ManifestSummary()
        for record in self.rejected:
            summary.reject(record)
        for section, entry in self.entries():
            summary.add(section, entry)
        return summary

    def summary(self) -> list[dict[str, str]]:
        """Summarise the manifest as table rows: one per section and kind of image, and one for the rejected files.

        Returns:
            Dictionaries with the keys :data:`SUMMARY_COLUMNS`.
        """
        return self.summarised().rows()

    def _moved(self, entry: Entry, target: Path) -> Entry:
        return moved_entry(entry, self.base_dir, target)


def moved_entry(entry: Entry, base_dir: Path, target: Path) -> Entry:
    """Copy an entry whose paths start at a folder, with paths that start at another one."""
    base, start = os.path.abspath(base_dir), os.path.abspath(target)  # noqa: PTH100 - links stay as they are
    if base == start:
        return dict(entry)
    return _with_paths(entry, lambda one: Path(os.path.relpath(os.path.join(base, one), start)).as_posix())  # noqa: PTH118


def entry_line(section: str, entry: Entry) -> str:
    """One line of a manifest in JSON Lines."""
    return json_line({"section": section, **entry})


def line_with_group(line: str, group: str) -> str:
    """A line of :func:`entry_line` that names no group of repeats, with one; in a text the quotes would be escaped."""
    return line.replace(_NO_GROUP, f'"duplicate_group": {_ENCODER.encode(group)}', 1)


def json_line(content: dict[str, Any]) -> str:
    """A line of JSON."""
    return _ENCODER.encode(content) + "\n"


def _content(path: Path) -> Any:
    """JSON of a manifest; the entries of JSON Lines under their sections."""
    line = 0
    regular_file(path)
    try:
        if path.suffix != LINES_SUFFIX:
            return parsed_json(path.read_text(encoding="utf-8-sig"))
        with path.open(encoding="utf-8-sig") as file:
            content: dict[str, Any] = {key: [] for key in (*SECTIONS, REJECTED)}
            for text in file:
                line += 1
                one = parsed_json(text)
                if "section" not in one:
                    content |= one
                else:
                    content[one.pop("section")].append(one)
            return content
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; make a manifest with `medpixcl scan`.") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a folder; expected a manifest, which `medpixcl scan` makes.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        number = error.lineno if isinstance(error, json.JSONDecodeError) and not line else line
        where = "" if isinstance(error, UnicodeDecodeError) else f" (line {number})"
        kind = "a manifest in JSON Lines" if path.suffix == LINES_SUFFIX else "JSON"
        raise ValueError(f"{path} is not {kind}{where}; make a manifest with `medpixcl scan`.") from None


def _one_line_an_entry(content: dict[str, Any]) -> str:
    """JSON that a person can read and a version control system can compare."""
    blocks = []
    for key, value in content.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in value) + "\n ]"
        blocks.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _with_paths(entry: Entry, change: Callable[[str], str]) -> Entry:
    """A copy with every path changed."""
    changed = dict(entry)
    for key in {"image", "landmarks", "path", "label", MADE_FROM} & entry.keys():
        value = entry[key]
        if isinstance(value, str | list):
            changed[key] = change(value) if isinstance(value, str) else [change(one) for one in value]
    for key in ("exogenous", "landmarks"):
        if isinstance(entry.get(key), dict):
            changed[key] = {name: change(path) for name, path in entry[key].items()}
    return changed
