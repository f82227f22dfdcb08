"""Identity of images: the rules by which files, tables and results name an image and names are paired."""

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
Parts = tuple[str, ...]
"""Folders and name of an image."""

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


def name_parts(key: str) -> tuple[str, ...]:
    r"""Folders and name of a key, composed letters in one spelling (NFC), without what only leads to another folder.

    Example:
        >>> name_parts("../p001/ceph.png"), name_parts("C:\\scans\\a.png")
        (('p001', 'ceph.png'), ('C:', 'scans', 'a.png'))
    """
    parts = re.split(r"[\\/]", unicodedata.normalize("NFC", key))
    return tuple(part for part in parts if part not in ("", ".", ".."))


def path_tails(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Ends of a path, the longest first.

    Example:
        >>> path_tails(("a", "b.png"))
        [('a', 'b.png'), ('b.png',)]
    """
    return [parts[start:] for start in range(len(parts))]


def pair_images(predicted: Iterable[str], reference: Iterable[str]) -> dict[str, str]:
    """Pair the images of two tables: by equal key, else where one key is the end of the other.

    Keys are compared folder by folder, without the suffix of the file. A bare file name so meets the one image of that
    name, whatever its folder; keys with different folders never meet.

    Args:
        predicted: Keys of the predicted images, usually paths.
        reference: Keys of the reference images.

    Returns:
        Predicted key to reference key, in the order of ``predicted``; images without a partner are left out.

    Raises:
        ValueError: If a name stands for several images of one side.

    Example:
        >>> pair_images(["images/p1/a.nii.gz", "b.png"], ["p1/a.nii.gz", "p2/b.png", "p3/a.nii.gz"])
        {'images/p1/a.nii.gz': 'p1/a.nii.gz', 'b.png': 'p2/b.png'}
    """
    sides = [{key: _paired_parts(key) for key in side} for side in (predicted, reference)]
    partner = {key: key for key in sides[0] if key in sides[1]}
    ours, theirs = PathEnds(sides[0]), PathEnds(sides[1])
    for key, parts in sides[0].items():
        fits = theirs.nearest(parts)
        if key in partner or not fits or (len(fits) == 1 and fits[0] in partner):
            continue
        back = ours.nearest(sides[1][fits[0]])
        if len(fits) > 1 or (len(back) > 1 and key in back):
            name = "/".join(parts if len(parts) <= len(sides[1][fits[0]]) else sides[1][fits[0]])
            raise ValueError(
                f"the file name {name!r} stands for {len(back)} predicted and {len(fits)} reference images; "
                "expected one of each; give the images the same full paths on both sides."
            )
        if back == [key]:
            partner[key] = fits[0]
    return {key: partner[key] for key in sides[0] if key in partner}


def named_images(names: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """Find the images of a table that a list names, by the rules of :func:`pair_images`.

    Args:
        names: Keys of the table, ends of them (such as file names), or longer paths of the same images.
        keys: Keys of the table.

    Returns:
        Name to key; names that fit no key are left out.

    Raises:
        ValueError: If a name fits several keys.

    Example:
        >>> named_images(["b.png", "p2/a.png"], ["p1/a.png", "p1/b.png"])
        {'b.png': 'p1/b.png'}
    """
    parts = {key: _paired_parts(key) for key in keys}
    ends = PathEnds(parts)
    found: dict[str, str] = {}
    for name in names:
        fits = [name] if name in parts else ends.nearest(_paired_parts(name))
        if len(fits) > 1:
            raise ValueError(
                f"the file name {name!r} stands for {len(fits)} images, {fits[0]} among them; add folders."
            )
        if fits:
            found[name] = fits[0]
    return found


def _paired_parts(key: str) -> Parts:
    return (*name_parts(key)[:-1], pairing_name(unicodedata.normalize("NFC", key)))


class PathEnds(Generic[_T]):
    """Finds what has a path, or the end of one.

    Args:
        paths: Parts of the path of each thing.
    """

    def __init__(self, paths: Mapping[_T, Parts]) -> None:
        self._whole, self._ending = defaultdict[Parts, list[_T]](list), defaultdict[Parts, list[_T]](list)
        for one, parts in paths.items():
            self._whole[parts].append(one)
            for tail in path_tails(parts)[1:]:
                self._ending[tail].append(one)

    def nearest(self, parts: Parts) -> list[_T]:
        """Return what has this path, else what ends with it, else what has the longest end of it."""
        longer = self._whole.get(parts) or self._ending.get(parts)
        shorter = (self._whole[tail] for tail in path_tails(parts) if tail in self._whole)
        return longer or next(shorter, [])


def telling_names(images: Iterable[str]) -> dict[str, str]:
    """Names of images for people: the file name, where several images share it with the folders that tell them apart.

    Names count as equal as in :func:`unique_stems`. No folder is shown without need: folders carry names of people.

    Args:
        images: Paths of images.

    Returns:
        Path to name, in the order given.

    Example:
        >>> telling_names(["study/p1/CT/a.png", "study/p2/CT/a.png", "study/p2/CT/b.png"])
        {'study/p1/CT/a.png': 'p1/CT/a.png', 'study/p2/CT/a.png': 'p2/CT/a.png', 'study/p2/CT/b.png': 'b.png'}
    """
    tails = {image: path_tails(name_parts(image))[::-1] for image in images}
    counts = Counter(tail for one in tails.values() for tail in {_one_case("/".join(tail)) for tail in one})
    return {image: _telling_name(image, ["/".join(tail) for tail in some], counts) for image, some in tails.items()}


def _telling_name(image: str, tails: Sequence[str], counts: Mapping[str, int]) -> str:
    """Shortest end of an image's path that is no other image's; the path where it has none."""
    telling = next((tail for tail in tails if counts[_one_case(tail)] == 1), image)
    return short_name(image) if telling in tails[:1] else telling


def first_file(item: Mapping[str, Any]) -> str:
    """File that names the image of a datalist item: the file itself, or the first one of a list of slices."""
    return item["image"] if isinstance(item["image"], str) else item["image"][0]


def is_image_of(item: Mapping[str, Any], file: Path) -> bool:
    """True if a file names the image of a datalist item, see :func:`first_file`.

    Args:
        item: Item with ``image``.
        file: Resolved path of the file.
    """
    return Path(first_file(item)).resolve() == file


def unique_stems(images: Iterable[str]) -> dict[str, str]:
    """Names for output files of some images: without suffix, unless two names would then be equal.

    Names that differ only in capital letters, or in how an accent is stored, count as equal: some file systems hold
    them as one file.

    Example:
        >>> unique_stems(["a/1.png", "a/1.dcm", "b/1.png", "b/1.PNG"])
        {'a/1.png': 'a/1.png', 'a/1.dcm': 'a/1.dcm', 'b/1.png': 'b/1.png', 'b/1.PNG': 'b/1.PNG (2)'}

    Raises:
        ValueError: If a name leads out of the folder of the files.
    """
    images = list(images)
    for image in images:
        if image.startswith("/") or ".." in PurePosixPath(image).parts:
            raise ValueError(f"the image is called {image!r}, which leads out of the folder; rename it")
    return _distinct_stems({image: image for image in images})


def unique_output_names(images: Iterable[str]) -> dict[str, str]:
    """Names for the files made from the images of a table, whose keys may lead anywhere: short ones where unique.

    Example:
        >>> unique_output_names(["a/1.png", "../b/1.png", "b/2.png"])
        {'a/1.png': 'a/1', '../b/1.png': 'b/1', 'b/2.png': '2'}
    """
    images = list(images)
    counts = Counter(_one_case(image_stem(short_name(image))) for image in images)
    alone = [image for image in images if counts[_one_case(image_stem(short_name(image)))] == 1]
    return _distinct_stems(
        {image: "/".join(name_parts(image)) for image in images} | {one: short_name(one) for one in alone}
    )


def _distinct_stems(names: Mapping[str, str]) -> dict[str, str]:
    """Stem of each image's name where no other image has it, else the name, else the name with a number."""
    counts = Counter(one for name in names.values() for one in {_one_case(name), _one_case(image_stem(name))})
    chosen = {
        image: stem if counts[_one_case(stem := image_stem(name))] == 1 else name for image, name in names.items()
    }
    return numbered_repeats(chosen)


def numbered_repeats(names: Mapping[_T, str]) -> dict[_T, str]:
    """Names of output files, those that another file has with a number; equal is as in :func:`unique_stems`.

    Example:
        >>> numbered_repeats({1: "a", 2: "A", 3: "b", 4: "a"})
        {1: 'a', 2: 'A (2)', 3: 'b', 4: 'a (3)'}
    """
    wanted, taken = {_one_case(name) for name in names.values()}, set[str]()
    chosen: dict[_T, str] = {}
    for key, name in names.items():
        numbered = (f"{name} ({number})" for number in itertools.count(2))
        free = (one for one in numbered if _one_case(one) not in wanted and _one_case(one) not in taken)
        chosen[key] = next(free) if _one_case(name) in taken else name
        taken.add(_one_case(chosen[key]))
    return chosen


def _one_case(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


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
