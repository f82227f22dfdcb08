"""The images that an evaluator runs over, and how results name them."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from medpixcl.data.datalist import items_of
from medpixcl.data.identity import image_stem
from medpixcl.data.manifest import SECTIONS, Entry, Manifest
from medpixcl.data.scan import scan
from medpixcl.data.series import dicom_files

SHOWN = 3


class ImageList:
    """The images to search, from a file, a folder or a manifest, and what was rejected with its reason.

    Nothing is read before it is asked for, so that other input can be checked first.

    Args:
        path: An image, a folder, or a manifest (``.json``).
        spacing_mm: Pixel size of pictures that do not say theirs.
        exclude: Image that is left out of a folder or manifest: the template.
        spatial_dims: Images of another dimension are rejected.
        sections: Of a manifest, in which images are searched.
    """

    def __init__(
        self,
        path: str,
        spacing_mm: Sequence[float] | float | None = None,
        exclude: str = "",
        spatial_dims: int | None = None,
        sections: Sequence[str] = SECTIONS,
    ) -> None:
        self.path, self.spacing_mm, self.spatial_dims = Path(path), spacing_mm, spatial_dims
        self.sections = tuple(sections)
        self.left_out = Path(exclude).resolve() if exclude else None

    @cached_property
    def manifest(self) -> Manifest:
        """What was found."""
        if self.path.suffix == ".json":
            return Manifest.read(self.path)
        return scan(self.path, spacing_mm=self.spacing_mm)

    @cached_property
    def datalist(self) -> list[dict[str, Any]]:
        """Items for loading: ``image`` and ``spacing_mm``."""
        return items_of([entry for entry in self._entries if self._unusable(entry) is None])

    @cached_property
    def rejected(self) -> dict[str, str]:
        """Reason for every file that is not searched, the template apart."""
        reasons = {str(record["path"]): str(record["reason"]) for record in self.manifest.rejected}
        for entry in self._entries:
            if (reason := self._unusable(entry)) is not None:
                reasons[self.name(first_file(entry))] = reason
        return reasons

    def check(self) -> None:
        """Find the images.

        Raises:
            ValueError: If there is none.
        """
        if not self.datalist:
            reasons = [f"{path} {reason.rstrip('.')}" for path, reason in self.rejected.items()]
            more = f" and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
            rejected = f" (rejected: {'; '.join(reasons[:SHOWN])}{more})" if reasons else ""
            raise ValueError(f"{self.path} holds no image to search{rejected}; give a folder or manifest with images.")

    def entry(self, image: str) -> dict[str, Any]:
        """The item of the datalist whose (first) file is ``image``."""
        return next(entry for entry in self.datalist if first_file(entry) == image)

    def files(self, image: str) -> tuple[Path, ...]:
        """All files of the image whose (first) file is ``image``; of a folder of slices its DICOM files."""
        files = self.entry(image)["image"]
        if not isinstance(files, str):
            return tuple(Path(file) for file in files)
        return tuple(dicom_files(Path(files))) if Path(files).is_dir() else (Path(files),)

    def stem(self, image: str) -> str:
        """Name of an image without suffix, for the files made from it; with suffix where two would be the same."""
        name = self.name(image)
        return image_stem(name) if self._stems[image_stem(name)] == 1 else name

    def name(self, image: str) -> str:
        """How results name an image: its path relative to the folder or manifest it was found by."""
        path, base = Path(image), Path(os.path.normpath(Path(self.manifest.base_dir).absolute()))
        return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name

    @cached_property
    def _stems(self) -> Counter[str]:
        return Counter(image_stem(self.name(first_file(entry))) for entry in self.datalist)

    @cached_property
    def _entries(self) -> list[Entry]:
        asked = self.sections if self.path.suffix == ".json" else SECTIONS
        entries = [entry for section in asked for entry in self.manifest.datalist(section)]
        if self.path.is_file() and self.path.suffix != ".json":
            return entries  # asked for by name, so searched, be it the template
        return [entry for entry in entries if not self._is_left_out(entry)]

    def _is_left_out(self, entry: Entry) -> bool:
        return isinstance(entry["image"], str) and Path(entry["image"]).resolve() == self.left_out

    def _unusable(self, entry: Entry) -> str | None:
        dims = len(entry.get("shape") or ())
        if self.spatial_dims is not None and dims not in (0, self.spatial_dims):
            return f"has {dims} spatial axes; the network takes {self.spatial_dims}."
        files = [entry["image"]] if isinstance(entry["image"], str) else entry["image"]
        missing = next((Path(file).name for file in files if not Path(file).exists()), None)
        return None if missing is None else f"{missing} does not exist."


def first_file(entry: Mapping[str, Any]) -> str:
    """File that stands for an entry in its metadata."""
    return entry["image"] if isinstance(entry["image"], str) else entry["image"][0]
