"""What a training began with, kept beside its checkpoint: settings and checksums of the data, compared at a resume."""

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import medpixcl
from medpixcl._json import parsed_json
from medpixcl.data.atomic import remove_drafts, write_text_atomically
from medpixcl.data.examination import content_sha256
from medpixcl.data.identity import first_file, telling_names
from medpixcl.data.known_images import files_stamp
from medpixcl.data.volumes import with_detached_data

log = logging.getLogger(__name__)

RECORD = "training.json"
PLACES = {
    "bundle_root",
    "ckpt_dir",
    "data_list_file_path",
    "dataset_dir",
    "device",
    "num_workers",
    "output_dir",
    "pictures",
    "silent",
    "template",
}
"""Ids that say where the data is and how it is computed; they change no result. Images are compared by content."""
START_ONLY = {"start_weights", "imagenet", "learn_appearance", "matcher"}
"""Ids that decide how a training begins; a resumed one goes on from its own state."""
ANNOTATIONS = {"landmarks"}
"""Ids of files that are data of the training."""
SHOWN = 20
_FILES = ("image", "label", "landmarks", "exogenous")
"""Keys of an item whose values name files."""
_ADVICE = "give the data as it was, or another output folder to start anew"


class TrainingRecord:
    """Reads and writes the record of a training, ``training.json`` in its folder. It holds no path of a folder.

    Args:
        folder: Folder of the training.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / RECORD

    @property
    def started(self) -> float | None:
        """Time in seconds since 1970 of the first start; None if there was none."""
        return self._read().get("started")

    def begin(self, settings: Mapping[str, Any] | None = None) -> None:
        """Write the record of a training without a checkpoint; the time of an earlier start stays.

        Args:
            settings: Values by id of its configuration, see :func:`recorded_settings`; None leaves those noted before.
        """
        remove_drafts(self.path)
        before = self._read()
        noted = before.get("settings") if settings is None else settings
        self._write({"started": before.get("started") or time.time(), "settings": noted})

    def compare_settings(self, settings: Mapping[str, Any]) -> None:
        """Log a line for every setting that is not the one which the training began with.

        Raises:
            ValueError: If an annotation file is another one.
        """
        before = self._read().get("settings")
        if before is None:
            return
        changed = [key for key in (before | dict(settings)) if before.get(key) != settings.get(key)]
        for key in changed:
            if _first(key) in ANNOTATIONS:
                raise ValueError(f"{key} names a file with another content than when this training began: {_ADVICE}")
        for key in changed[:SHOWN]:
            then, now = (_shown(one[key]) if key in one else "not set" for one in (before, settings))
            log.warning("%s was %s when this training began and is %s now: %s", key, then, now, _effect(key))
        if len(changed) > SHOWN:
            log.warning("%d more settings have changed since this training began", len(changed) - SHOWN)

    def compare_images(self, items: Iterable[Mapping[str, Any]]) -> None:
        """Compare the images and annotations with those that the training began with, or note them at its start.

        A file of the same size and time of change as before is not read.

        Args:
            items: Items of the training and of the validation; those without files are passed over.

        Raises:
            ValueError: If an image was changed, added or taken away.
        """
        content = self._read()
        before, files = content.get("images"), dict(_named_files(items))
        if before is None:
            found = {name: [files_stamp(paths), content_sha256(paths)] for name, paths in files.items()}
            self._write(content | {"images": found})
            return
        for names, fault in ((files.keys() - before.keys(), "is new"), (before.keys() - files.keys(), "is missing")):
            if names:
                raise ValueError(f"the image {min(names)} {fault} in the data of this training: {_ADVICE}")
        for name, paths in files.items():
            stamp, digest = before[name]
            if files_stamp(paths) != stamp and content_sha256(paths) != digest:
                raise ValueError(f"the image {name} or its annotation has changed since this training began: {_ADVICE}")

    def _read(self) -> dict[str, Any]:
        try:
            content = parsed_json(self.path.read_text(encoding="utf-8"))
            return content if isinstance(content, dict) else {}
        except FileNotFoundError:
            return {}
        except ValueError:
            log.warning("%s is damaged: changed settings and data are not noticed", self.path)
            return {}

    def _write(self, content: Mapping[str, Any]) -> None:
        about = {"created_with": f"medpixcl {medpixcl.__version__}"}
        write_text_atomically(self.path, json.dumps(about | dict(content), indent=1) + "\n")


def recorded_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a configuration by id that decide the result; a file stands for its checksum."""
    return {key: _recorded(value) for key, value in _leaves(config) if _first(key) not in PLACES}


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Values of a configuration that hold no mapping, with their ids."""
    if isinstance(value, Mapping):
        inner: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list) and any(isinstance(one, Mapping | list) for one in value):
        inner = enumerate(value)
    else:
        yield key, value
        return
    for name, one in inner:
        yield from _leaves(one, f"{key}::{name}" if key else str(name))


def _recorded(value: Any) -> Any:
    if isinstance(value, list):
        return [_recorded(one) for one in value]
    if isinstance(value, str):
        try:
            return f"SHA-256 {content_sha256([Path(value)])}" if Path(value).is_file() else value
        except (OSError, ValueError):  # no name of a file
            return value
    return value if isinstance(value, bool | int | float | None) else str(value)


def _named_files(items: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, list[Path]]]:
    """Names of the images and all files of each, with its annotations."""
    known = {first_file(item): item for item in items if _paths(item.get("image"))}
    for path, name in telling_names(known).items():
        yield name, with_detached_data(file for key in _FILES for file in _paths(known[path].get(key)))


def _paths(value: Any) -> list[Path]:
    """Files that a value of an item names; those in a folder where it names one."""
    if isinstance(value, str):
        place = Path(value)
        return sorted(file for file in place.iterdir() if file.is_file()) if place.is_dir() else [place]
    if isinstance(value, Mapping):
        return [file for one in value.values() for file in _paths(one)]
    return [file for one in value for file in _paths(one)] if isinstance(value, list | tuple) else []


def _first(key: str) -> str:
    return key.partition("::")[0]


def _effect(key: str) -> str:
    if _first(key) in START_ONLY:
        return "it does not count, because the training goes on from its own state"
    return "it counts from here on"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
