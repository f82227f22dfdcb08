"""Which of a table's keys, or of a folder's files, belongs to which image."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path

from medpixcl.data.identity import Parts, PathEnds, image_stem, name_parts, path_tails
from medpixcl.data.text import quoted

_SHOWN = 3
HOW_FOUND = (
    "an image is found by its path from the folder of that file, or by the end of its path, such as its file name"
)
"""How the key of an image in a table is found, for messages."""


@dataclass(frozen=True)
class Assignment:
    """Images of a set and the keys that name them.

    Attributes:
        keys: Key of each image that the table names.
        unclear: Keys that fit several images, with these; they name none.
    """

    keys: Mapping[Path, str]
    unclear: Mapping[str, Sequence[Path]]


class ImageKeys:
    """The images that a table names.

    A key is the path of its image relative to the table. A key that does not lead to the image names it by being the
    end of its path: a path relative to some folder above it, or a bare file name. Then it must fit one image of the
    set only, so that a bare name names the one image of that name, and a key with a folder never an image in another.
    The suffix may be left out. Composed and decomposed letters (NFC, NFD) are equal.

    Args:
        table: The table's file; relative paths start at its folder (or at itself, if it is a folder).
        keys: The unique names of the images in the table.
    """

    def __init__(self, table: Path, keys: Iterable[str]) -> None:
        self.table = table
        folder = table if table.is_dir() else table.parent
        folders = (folder, folder.resolve())
        self._by_path, self._by_end = defaultdict[str, list[str]](list), defaultdict[Parts, list[str]](list)
        self._by_name = defaultdict[str, list[str]](list)
        for key in keys:
            for path in dict.fromkeys(_spelled(one / key) for one in folders):
                self._by_path[path].append(key)
            self._by_end[parts := name_parts(key)].append(key)
            self._by_name[parts[-1] if parts else ""].append(key)

    def find(self, image_path: str | PathLike[str]) -> str | None:
        """Return the key of one image that belongs to no set, None if the table does not name it.

        Raises:
            ValueError: If several keys fit, or name images of this file name in other folders.
        """
        image = Path(image_path)
        found = self.assign([image]).keys.get(image)
        elsewhere = self._by_name.get(unicodedata.normalize("NFC", image.name), [])
        if found is None and len(elsewhere) > 1:
            raise self._unsure(image, elsewhere)
        return found

    def assign(self, images: Iterable[Path]) -> Assignment:
        """Find the key of every image of a set.

        Args:
            images: All images of the set, also those that cannot be used, since a name may be theirs.

        Raises:
            ValueError: If several keys fit one image equally well.
        """
        claims: dict[str, dict[int, list[Path]]] = {}
        for image in dict.fromkeys(images):
            for rank, key in self._fitting(image):
                claims.setdefault(key, {}).setdefault(rank, []).append(image)
        owners = {key: (rank := min(by_rank), by_rank[rank]) for key, by_rank in claims.items()}
        best: dict[Path, list[tuple[tuple[int, int], str]]] = {}
        for key, (rank, fits) in owners.items():
            if len(fits) == 1:
                best.setdefault(fits[0], []).append(((rank, -len(name_parts(key))), key))
        unclear = {key: fits for key, (_, fits) in owners.items() if len(fits) > 1}
        return Assignment({image: self._first(image, found) for image, found in best.items()}, unclear)

    def shown(self, image: Path | None = None) -> str:
        """Some keys for a message, those of an image's file name first, and how many more there are."""
        keys = [key for found in self._by_name.values() for key in found]
        alike = "" if image is None else image_stem(image.name)
        ordered = sorted(keys, key=lambda key: image_stem(name_parts(key)[-1] if name_parts(key) else "") != alike)
        more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
        return ", ".join(map(repr, ordered[:_SHOWN])) + more

    def _fitting(self, image: Path) -> Iterator[tuple[int, str]]:
        """Keys that fit an image: by path (rank 0), by path without suffix (1), by the end of either (2, 3)."""
        for path in dict.fromkeys((_spelled(image), _spelled(_real_folder(image.absolute().parent) / image.name))):
            for rank, spelled in enumerate(_with_and_without_suffix(path)):
                yield from ((rank, key) for key in self._by_path.get(spelled, ()))
        for rank, spelled in enumerate(_with_and_without_suffix(_spelled(image)), start=2):
            for tail in path_tails(name_parts(spelled)):
                yield from ((rank, key) for key in self._by_end.get(tail, ()))

    def _first(self, image: Path, found: list[tuple[tuple[int, int], str]]) -> str:
        ranks = sorted(found)
        if len(equal := [key for rank, key in ranks if rank == ranks[0][0]]) > 1:
            raise self._unsure(image, equal)
        return equal[0]

    def _unsure(self, image: Path, keys: Sequence[str]) -> ValueError:
        return ValueError(
            f"{self.table}: {image.name} may be any of {list(keys)}; write image paths relative to this file."
        )


def assign_either(
    assign: Callable[[Iterable[Path]], Assignment], images: Sequence[Path], others: Mapping[Path, Path]
) -> Assignment:
    """Find the key of every image of a set, some of which a table may name by another path, too.

    A key that names the file of the image itself goes first.

    Args:
        assign: :meth:`ImageKeys.assign` of the table.
        images: All images of the set.
        others: Other path of each image that has one.

    Raises:
        ValueError: If several keys fit one image equally well.
    """
    own = assign(images)
    if not others:
        return own
    by_other = assign([others.get(image, image) for image in images])
    keys = {image: key for image in images if (key := by_other.keys.get(others.get(image, image))) is not None}
    for image, key in own.keys.items():
        if image not in keys or (image in others and key.endswith(image.suffix)):
            keys[image] = key
    used = set(keys.values())
    unclear = {key: found for key, found in {**own.unclear, **by_other.unclear}.items() if key not in used}
    return Assignment(keys, unclear)


def why_unclear(key: str, images: Sequence[Path]) -> str:
    """Explain a key that fits several images.

    Example:
        >>> why_unclear("a.png", [Path("p1/a.png"), Path("p2/a.png")])
        "names 'a.png', which fits 2 images (p1/a.png, p2/a.png); write image paths relative to this file."
    """
    shown = ", ".join("/".join(image.parts[-2:]) for image in images[:_SHOWN]) + (", ..." * (len(images) > _SHOWN))
    return f"names {quoted(key)}, which fits {len(images)} images ({shown}); write image paths relative to this file."


class FilesOfImages:
    """Files of a folder that belong to images of the same name, such as label maps.

    An image's files are those with the same path in the folder, whatever the suffix; else, where the image or the file
    lies in no subfolder, those with the same name without suffix; else those with the same name up to its first dot
    (``frame-01.depth.png`` for ``frame-01.color.jpg``).

    Args:
        folder: Folder that the paths of ``files`` are relative to.
        files: Files of the folder and its subfolders.
    """

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        paths = {file: name_parts(file.relative_to(folder).as_posix()) for file in files}
        self._by_rule = [
            (shorten, PathEnds({file: (*path[:-1], shorten(path[-1])) for file, path in paths.items()}))
            for shorten in (image_stem, _start)
        ]

    def find(self, image: Path, roots: Sequence[Path]) -> list[Path]:
        """Return the files that the first rule with any result finds; more than one are ambiguous.

        Args:
            image: Absolute path of the image.
            roots: Folders that the image's relative path may start from.
        """
        below = [name_parts(image.relative_to(root).as_posix()) for root in roots if root in image.parents]
        for shorten, files in self._by_rule:
            for path in below or [name_parts(image.name)]:
                if found := files.nearest((*path[:-1], shorten(path[-1]))):
                    return found
        return []


def _start(name: str) -> str:
    """Name up to its first dot; a dot before a number, as in a UID, ends nothing.

    Example:
        >>> _start("frame-01.depth.png"), _start("1.2.840.5.nii")
        ('frame-01', '1.2.840.5')
    """
    found = re.match(r"[^.]+(?=\.[A-Za-z])", name)
    return found[0] if found else image_stem(name)


@lru_cache(maxsize=1024)
def _real_folder(folder: Path) -> Path:
    return folder.resolve()


def _spelled(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.normpath(path.absolute()))


def _with_and_without_suffix(path: str) -> tuple[str, ...]:
    folder, name = os.path.split(path)
    stem = image_stem(name)
    return (path,) if stem in ("", name) else (path, f"{folder}{os.sep}{stem}")
