"""The images to search, and their names in the results."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from medpixcl._typing import AnyPath
from medpixcl.data.datalist import ITEM_KEYS, items_of, without_files
from medpixcl.data.identity import first_file, unique_stems
from medpixcl.data.known_images import current_sha256
from medpixcl.data.manifest import SECTIONS, Entry, Manifest, is_manifest
from medpixcl.data.pixels import ImageFileError, SpacingMM
from medpixcl.data.scan import scan
from medpixcl.data.series import files_of_image
from medpixcl.data.volumes import with_detached_data

SHOWN = 3


class Images(ABC):
    """Images that can be searched: on disk (:class:`ImageList`) or in memory."""

    @property
    @abstractmethod
    def datalist(self) -> list[dict[str, Any]]:
        """Items that the preprocessing transforms take."""

    @property
    @abstractmethod
    def rejected(self) -> dict[str, str]:
        """Reason for every image that is not searched."""

    @abstractmethod
    def check(self) -> None:
        """Raise a ValueError if there is nothing to search."""

    @abstractmethod
    def entry(self, image: str) -> dict[str, Any]:
        """Item of the image whose prepared tensor names ``image`` as its source."""

    @abstractmethod
    def files(self, image: str) -> tuple[Path, ...]:
        """Files that the image was read from."""

    @abstractmethod
    def name(self, image: str) -> str:
        """Name of the image in the results."""

    @abstractmethod
    def stem(self, image: str) -> str:
        """Name of the image without suffix, for output files."""

    @abstractmethod
    def digest(self) -> str:
        """Digest of the names of the images to search, of the size of their voxels and of their content."""

    def leave_out(self, image: str, error: Exception) -> None:
        """List an image that cannot be searched after all among the rejected ones.

        Args:
            image: Source of the image, see :func:`source_of`.
            error: What happened; the first line of its text is the reason.
        """
        text = error.reason if isinstance(error, ImageFileError) else str(error)
        self.rejected[self.name(image)] = (text.strip() or type(error).__name__).splitlines()[0]


class ImageList(Images):
    """The images to search, from files, folders or a manifest, and what was rejected with its reason.

    Nothing is read until it is needed, so that other input can be checked first.

    Args:
        path: An image, a folder, a manifest (``.json``, ``.jsonl`` or in memory), or several images and folders.
        spacing_mm: Pixel size in mm of images whose file does not state it.
        exclude: Images to leave out of folders and manifests, such as the templates: paths, or items of a datalist.
        spatial_dims: Number of spatial dimensions; images of any other dimension are rejected.
        sections: Sections of a manifest whose images are searched.
    """

    def __init__(
        self,
        path: AnyPath | Sequence[AnyPath] | Manifest,
        spacing_mm: Sequence[float] | float | None = None,
        exclude: str | Sequence[str | Mapping[str, Any]] = (),
        spatial_dims: int | None = None,
        sections: Sequence[str] = SECTIONS,
    ) -> None:
        self.known = path if isinstance(path, Manifest) else None
        if isinstance(path, Manifest):
            paths: Sequence[AnyPath] = [path.base_dir]
        else:
            paths = [path] if isinstance(path, str | PathLike) else path
        self.paths = [Path(one) for one in paths]
        self.spacing_mm, self.spatial_dims, self.sections = spacing_mm, spatial_dims, tuple(sections)
        given = [exclude] if isinstance(exclude, str) else exclude
        named = [one if isinstance(one, str) else first_file(one) for one in given]
        self.left_out = {Path(one).resolve() for one in named if one}

    @property
    def path(self) -> Path:
        """Requested path, or the common folder of several paths."""
        return self.paths[0] if len(self.paths) == 1 else Path(os.path.commonpath([p.absolute() for p in self.paths]))

    @cached_property
    def manifest(self) -> Manifest:
        """Manifest of the images found."""
        if self.known is not None:
            return self.known
        if self._is_manifest_file:
            return Manifest.read(self.paths[0])
        return scan(self.paths, spacing_mm=self.spacing_mm)

    @cached_property
    def datalist(self) -> list[dict[str, Any]]:
        """Items to load, with ``image`` and ``spacing_mm``."""
        return items_of(self._usable)

    @cached_property
    def rejected(self) -> dict[str, str]:
        """Reason for every file that is not searched, except templates."""
        reasons = {str(record["path"]): str(record["reason"]) for record in self.manifest.rejected}
        for entry in self._entries:
            if (reason := self._unusable(entry)) is not None:
                reasons[self.name(first_file(entry))] = reason
        return reasons

    def check(self) -> None:
        """Find the images to search.

        Raises:
            ValueError: If there is no image.
        """
        if not self.datalist:
            reasons = [f"{path} {reason.rstrip('.')}" for path, reason in self.rejected.items()]
            more = f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
            rejected = f" (rejected: {'; '.join(reasons[:SHOWN])}{more})" if reasons else ""
            raise ValueError(f"{self.path} holds no image to search{rejected}; give a folder or manifest with images.")

    def digest(self) -> str:
        """Digest of the images; a file is read if it changed after the manifest was made."""
        digest = hashlib.sha256()
        for entry in self._usable:
            source = first_file(entry)
            content = _checksum(entry, self.files(source))
            digest.update(repr((self.name(source), [entry.get(key) for key in ITEM_KEYS[1:]], content)).encode())
        return digest.hexdigest()

    def entry(self, image: str) -> dict[str, Any]:
        """The item of the datalist whose (first) file is ``image``."""
        return self._items[image]

    def files(self, image: str) -> tuple[Path, ...]:
        """All files of the image whose (first) file is ``image``; the DICOM files for a folder of slices."""
        return files_of_image(self.entry(image)["image"])

    def stem(self, image: str) -> str:
        """Name of an image for output files: without suffix, unless two names would then be equal."""
        return self._stems[self.name(image)]

    def name(self, image: str) -> str:
        """Name of an image in the results: its path relative to the folder or manifest that lists it.

        If some images lie elsewhere, all names are relative to the common folder of the images instead.
        """
        path = Path(image)
        return path.relative_to(self._base).as_posix() if path.is_relative_to(self._base) else path.name

    @cached_property
    def _base(self) -> Path:
        base = Path(os.path.normpath(Path(self.manifest.base_dir).absolute()))
        listed = [Path(first_file(entry)) for _, entry in self.manifest.listed()]
        images = [image for image in listed if os.path.exists(image)]  # noqa: PTH110 - of any length
        if all(image.is_relative_to(base) for image in images):
            return base.parent if base in images else base  # a series is the folder of its files
        return Path(os.path.commonpath([image.parent for image in images]))

    @cached_property
    def _stems(self) -> dict[str, str]:
        return unique_stems(self.name(first_file(entry)) for entry in self.datalist)

    @cached_property
    def _items(self) -> dict[str, dict[str, Any]]:
        return {first_file(item): item for item in self.datalist}

    @cached_property
    def _usable(self) -> list[Entry]:
        return [entry for entry in self._entries if self._unusable(entry) is None]

    @property
    def _is_manifest_file(self) -> bool:
        return len(self.paths) == 1 and is_manifest(self.paths[0])

    @cached_property
    def _entries(self) -> list[Entry]:
        asked = self.sections if self.known is not None or self._is_manifest_file else SECTIONS
        entries = [entry for section in asked for entry in self.manifest.datalist(section)]
        # An image that is asked for by name is searched, be it a template.
        left_out = self.left_out - {path.resolve() for path in self.paths if path.is_file()}
        return without_files(entries, left_out)

    def _unusable(self, entry: Entry) -> str | None:
        dims = len(entry.get("shape") or ())
        if self.spatial_dims is not None and dims not in (0, self.spatial_dims):
            return f"has {dims} spatial axes; the network takes {self.spatial_dims}."
        files = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
        missing = next((Path(file).name for file in files if not os.path.exists(file)), None)  # noqa: PTH110 - of any length
        return None if missing is None else f"{missing} does not exist."


def source_of(image: str | list[str] | MetaTensor) -> str:
    """Name under which an image list knows the image of an item."""
    return str(image.meta["filename_or_obj"]) if isinstance(image, MetaTensor) else first_file({"image": image})


def _checksum(entry: Entry, files: tuple[Path, ...]) -> str:
    """Checksum of an image with the file that holds the pixels of its header; empty if it cannot be read."""
    try:
        return current_sha256(entry, with_detached_data(files))
    except (OSError, ValueError):  # the search says why
        return ""


def dims_of(images: AnyPath | Sequence[AnyPath], spacing_mm: SpacingMM | None = None) -> int | None:
    """Number of axes of the first image whose size is known, among images, folders or a manifest; None without one."""
    sizes = (entry.get("shape") for _, entry in ImageList(images, spacing_mm).manifest.listed())
    return next((len(size) for size in sizes if size), None)
