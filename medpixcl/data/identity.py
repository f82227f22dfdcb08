"""Identity of images: the rules by which files, tables and results name an image and names are paired."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any

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


def short_name(path: str) -> str:
    r"""Last part of a path, of Windows or of other systems.

    Example:
        >>> short_name("C:\\scans\\a.png"), short_name("series/1.2.3/")
        ('a.png', '1.2.3')
    """
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]


def pairing_name(key: str) -> str:
    """Name by which the images of two tables meet: the last part of the path without compression and suffix.

    A dot before a number starts no suffix, because folders may be named by UIDs.

    Example:
        >>> pairing_name("scans/a.nii.gz"), pairing_name("b.png"), pairing_name("series/1.2.840.5/")
        ('a', 'b', '1.2.840.5')
    """
    return re.sub(r"(?<=.)\.[A-Za-z]\w*$", "", short_name(key).removesuffix(".gz"))


def pair_images(predicted: Iterable[str], reference: Iterable[str]) -> dict[str, str]:
    """Pair predicted with reference images: by equal key, else by equal :func:`pairing_name`.

    Args:
        predicted: Keys of the predicted images, usually paths.
        reference: Keys of the reference images.

    Returns:
        Predicted key to reference key, in the order of ``predicted``; images without a partner are left out.

    Raises:
        ValueError: If a name stands for several images of one side.

    Example:
        >>> pair_images(["run/a.nii.gz", "run/b.png"], ["truth/a.nii.gz", "truth/c.png"])
        {'run/a.nii.gz': 'truth/a.nii.gz'}
    """
    predicted, reference = list(predicted), list(reference)
    partner = {key: key for key in set(predicted) & set(reference)}
    ours, theirs = (_by_pairing_name(key for key in side if key not in partner) for side in (predicted, reference))
    for name in ours.keys() & theirs.keys():
        if len(ours[name]) > 1 or len(theirs[name]) > 1:
            raise ValueError(
                f"the file name {name!r} stands for {len(ours[name])} predicted and {len(theirs[name])} reference "
                "images; expected one of each; give the images the same full paths on both sides."
            )
        partner[ours[name][0]] = theirs[name][0]
    return {key: partner[key] for key in predicted if key in partner}


def _by_pairing_name(keys: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(pairing_name(key), []).append(key)
    return groups


class ImageKeys:
    """The images that a table names: by path relative to it, by file name, or by name without suffix.

    Args:
        table: The table's file; relative paths start at its folder (or at itself, if it is a folder).
        keys: The unique names of the images in the table.
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
        """Return the key of an image, None if the table does not name it.

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


class FilesOfImages:
    """Files of a folder that belong to images of the same name, such as label maps.

    An image's files are those with the same path in the folder, whatever the suffix; else those with the same name
    without suffix; else those with the same name up to its first dot (``frame-01.depth.png`` for
    ``frame-01.color.jpg``).

    Args:
        folder: Folder that the paths of ``files`` are relative to.
        files: Files of the folder and its subfolders.
    """

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        self._by_path: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        self._by_start: dict[str, list[Path]] = {}
        for file in files:
            below = file.relative_to(folder)
            self._by_path.setdefault((below.parent / image_stem(below.name)).as_posix(), []).append(file)
            self._by_stem.setdefault(image_stem(file.name), []).append(file)
            self._by_start.setdefault(file.name.partition(".")[0], []).append(file)

    def find(self, image: Path, roots: Sequence[Path]) -> list[Path]:
        """Return the files that the first rule with any result finds; more than one are ambiguous.

        Args:
            image: Absolute path of the image.
            roots: Folders that the image's relative path may start from.
        """
        stem = image_stem(image.name)
        below = [(image.parent / stem).relative_to(root).as_posix() for root in roots if root in image.parents]
        found = [self._by_path.get(path) for path in below]
        found += [self._by_stem.get(stem), self._by_start.get(image.name.partition(".")[0])]
        return next(filter(None, found), [])


def first_file(item: Mapping[str, Any]) -> str:
    """File that names the image of a datalist item: the file itself, or the first one of a list of slices."""
    return item["image"] if isinstance(item["image"], str) else item["image"][0]


def is_image_of(item: Mapping[str, Any], file: Path) -> bool:
    """True if a datalist item's image is this one file; a list of slices never is.

    Args:
        item: Item with ``image``.
        file: Resolved path of the file.
    """
    return isinstance(item["image"], str) and Path(item["image"]).resolve() == file


def unique_stems(images: Iterable[str]) -> dict[str, str]:
    """Names for output files of some images: without suffix, unless two names would then be equal.

    Example:
        >>> unique_stems(["a/1.png", "a/1.dcm", "b/1.png"])
        {'a/1.png': 'a/1.png', 'a/1.dcm': 'a/1.dcm', 'b/1.png': 'b/1'}

    Raises:
        ValueError: If a name leads out of the folder of the files.
    """
    images = list(images)
    for image in images:
        if image.startswith("/") or ".." in PurePosixPath(image).parts:
            raise ValueError(f"the image is called {image!r}, which leads out of the folder; rename it")
    counts = Counter(map(image_stem, images))
    return {image: stem if counts[stem := image_stem(image)] == 1 else image for image in images}


def unique_file_names(images: Iterable[str]) -> dict[str, str]:
    """Names without folders for the files made from some images; with their folders where two would be the same.

    Example:
        >>> unique_file_names(["a/1.png", "b/1.png", "b/2.png"])
        {'a/1.png': 'a_1.png', 'b/1.png': 'b_1.png', 'b/2.png': '2'}
    """
    images = list(images)
    counts = Counter(image_stem(short_name(image)) for image in images)
    return {
        image: stem if counts[stem := image_stem(short_name(image))] == 1 else image.replace("/", "_")
        for image in images
    }


def unique_table_names(paths: Sequence[Path]) -> list[str]:
    """Short names of tables: the stem, with the folder where two are the same, with a number where that is too.

    Example:
        >>> unique_table_names([Path("a/senior.csv"), Path("b/senior.csv"), Path("b/junior.csv")])
        ['a/senior', 'b/senior', 'junior']
    """
    stems = [image_stem(path.name) for path in paths]
    longer = [f"{path.parent.name}/{stem}" for path, stem in zip(paths, stems, strict=True)]
    names = [stem if stems.count(stem) == 1 else long for stem, long in zip(stems, longer, strict=True)]
    counter = itertools.count(1)
    return [name if names.count(name) == 1 else f"{name} {next(counter)}" for name in names]
