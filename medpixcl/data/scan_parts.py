"""Parts of one scan, which processes read that know nothing of each other, and which are put together afterwards.

Each part is a manifest of some of the files, without tables. The scan that puts them together takes their entries as
those of an earlier scan, and reads again what the parts could not see whole: series with slices in several of them.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medpixcl.data.manifest import LINES_SUFFIX
from medpixcl.data.nifti import NIFTI_SUFFIXES
from medpixcl.data.part_numbers import named_parts, other_number, part_name
from medpixcl.data.pictures import PICTURE_SUFFIXES
from medpixcl.data.volumes import ITK_SUFFIXES, MINC_SUFFIX

_ALONE = (*PICTURE_SUFFIXES, *NIFTI_SUFFIXES, *ITK_SUFFIXES, MINC_SUFFIX)
"""Suffixes of files that are images of their own."""


@dataclass(frozen=True)
class ScanParts:
    """The parts of a scan.

    Args:
        output: Manifest of the whole scan; the parts lie in a folder beside it.
        num_parts: Number of parts.
        part_id: Number of the part to read, counted from 0; None puts all parts together.
    """

    output: Path
    num_parts: int
    part_id: int | None = None

    @property
    def folder(self) -> Path:
        """Folder of the parts' manifests, hidden, as no scan looks into such folders."""
        return self.output.with_name(f".{self.output.name}.parts")

    @property
    def manifests(self) -> tuple[Path, ...]:
        """Manifest of the part to read, or of all parts."""
        numbers = range(self.num_parts) if self.part_id is None else (self.part_id,)
        return tuple(self.folder / f"{part_name(number, self.num_parts)}{LINES_SUFFIX}" for number in numbers)

    def share(self, names: Sequence[str]) -> list[str]:
        """Those of the files that the part looks at.

        DICOM slices of a folder stay together; a file whose name says that it is an image of its own goes alone.
        """
        if self.part_id is None:
            return list(names)
        units = [name if name.lower().endswith(_ALONE) else os.path.dirname(name) for name in names]  # noqa: PTH120
        numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
        return [name for name, unit in zip(names, units, strict=True) if numbers[unit] % self.num_parts == self.part_id]

    @property
    def destination(self) -> Path:
        """Manifest that is written: of the part, or of the whole scan."""
        return self.output if self.part_id is None else self.manifests[0]

    def check(self) -> None:
        """Check that the parts can be read, or put together.

        Raises:
            ValueError: If there are parts of a scan that is divided otherwise, or a part to put together is missing.
        """
        if other := other_number((file.stem for file in self.folder.glob(f"*{LINES_SUFFIX}")), self.num_parts):
            raise ValueError(
                f"{self.folder} holds parts of a scan in {other} parts; give num_parts={other} to go on with it, or "
                "remove this folder"
            )
        if self.part_id is None:
            self._require_all()

    def _require_all(self) -> None:
        left = [number for number, file in enumerate(self.manifests) if not file.is_file()]
        if len(left) == self.num_parts and self.output.is_file():
            raise ValueError(
                f"{self.output} is there, and no part of its scan: they were put together, or not begun; leave out "
                f"num_parts to scan again what has changed, or scan with part_id={left[0]} first"
            )
        if left:
            raise ValueError(
                f"the scan to {self.output} lacks {named_parts(left)} of {self.num_parts}; scan with "
                f"part_id={left[0]} first"
            )

    def remove(self) -> None:
        """Remove the parts after they were put together, and their folder if nothing else is in it."""
        for file in self.manifests:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # it holds something else
            self.folder.rmdir()
