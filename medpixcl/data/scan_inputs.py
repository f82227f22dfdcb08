"""What a scan is asked to do, checked before anything is read."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medpixcl._typing import AnyPath, Number
from medpixcl.data.dicom_geometry import checked_tolerance
from medpixcl.data.exogenous import ExogenousFiles
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.manifest import Manifest
from medpixcl.data.paths import checked_path, checked_paths, shown_value
from medpixcl.data.pixels import SpacingMM, checked_spacing
from medpixcl.data.scan_parts import ScanParts
from medpixcl.data.splits import SplitFile


@dataclass(frozen=True)
class ScanInputs:
    """Inputs of a scan; see :func:`medpixcl.data.scan.scan` for their meaning.

    Attributes:
        roots: Absolute paths of the folders and files to list.
        folder: Folder that holds all of them.
        base_dir: Folder that the paths of the manifest start from.
        spacing_mm: Pixel size in mm of 2D images whose file has none.
        tolerance_mm: How far in mm a slice of a DICOM volume may lie from its place on the regular grid.
        licence: Licence of the images.
        points: Landmark files by reader; one without a reader's name under None.
        splits: Table of the splits.
        channels: Files of the exogenous channels.
        labels: Files of the label maps, one for each class.
        one_label_map: True if one label map holds all classes.
        resampled: Folder of the volumes that are resampled from series with gantry tilt; None to reject these.
        known: Manifests of an earlier scan, or of its parts, in one folder.
        check_content: Compare the checksums of files with those of that manifest.
        parts: Parts of the scan, if it is divided.
    """

    roots: tuple[Path, ...]
    folder: Path
    base_dir: Path
    spacing_mm: SpacingMM | None
    tolerance_mm: Number | None
    licence: str | None
    points: Mapping[str | None, LandmarkFile]
    splits: SplitFile | None
    channels: tuple[ExogenousFiles, ...]
    labels: tuple[ExogenousFiles, ...]
    one_label_map: bool
    resampled: Path | None
    known: tuple[Path, ...]
    check_content: bool
    parts: ScanParts | None = None

    @classmethod
    def checked(
        cls,
        paths: AnyPath | Sequence[AnyPath],
        *,
        base_dir: Path | None = None,
        spacing_mm: SpacingMM | None = None,
        landmarks: AnyPath | Mapping[str, AnyPath] | None = None,
        split: AnyPath | None = None,
        licence: str | None = None,
        exogenous: Mapping[str, AnyPath] | None = None,
        labels: AnyPath | Mapping[str, AnyPath] | None = None,
        resample_tilt: AnyPath | None = None,
        tolerance_mm: Number | None = None,
        known: AnyPath | None = None,
        check_content: bool = False,
        parts: ScanParts | None = None,
    ) -> "ScanInputs":
        """Check the arguments of a scan and read its tables.

        Raises:
            ValueError: If an argument is of a wrong type, a path does not exist, or a table is bad.
        """
        roots = tuple(one.absolute() for one in checked_paths(paths, "the folder to scan"))
        folder = _common_folder(roots)
        if spacing_mm is not None:
            checked_spacing(spacing_mm)
        if licence is not None and not isinstance(licence, str):
            raise ValueError(f"licence is {shown_value(licence)}; expected text, such as 'CC BY 4.0'.")
        if not isinstance(check_content, bool):
            raise ValueError(f"check_content is {shown_value(check_content)}; expected True or False.")
        return cls(
            roots=roots,
            folder=folder,
            base_dir=folder if base_dir is None else base_dir.absolute(),
            spacing_mm=spacing_mm,
            tolerance_mm=checked_tolerance(tolerance_mm),
            licence=licence,
            points=_landmark_files(landmarks),
            splits=None if split is None else SplitFile(checked_path(split, "the split file")),
            channels=_channels(exogenous),
            labels=_labels(labels),
            one_label_map=labels is not None and not isinstance(labels, Mapping),
            resampled=_optional_path(resample_tilt, "the folder of resampled series"),
            known=_known(known, parts),
            check_content=check_content,
            parts=parts,
        )

    @property
    def is_part(self) -> bool:
        """True for one part of a scan, which leaves the tables to the whole."""
        return self.parts is not None and self.parts.part_id is not None

    @property
    def tables(self) -> list[LandmarkFile | SplitFile]:
        """Files that name images."""
        return [*self.points.values(), *([] if self.splits is None else [self.splits])]

    @property
    def map_files(self) -> tuple[ExogenousFiles, ...]:
        """Files of channels, then of labels."""
        return (*self.channels, *self.labels)

    def empty_manifest(self) -> Manifest:
        """Manifest without entries, with the settings that decide what is read and how."""
        sizes = None if self.spacing_mm is None else checked_spacing(self.spacing_mm)
        settings: dict[str, Any] = {
            "split": None if self.splits is None else self.splits.path.name,
            "spacing_mm": sizes[0] if sizes and len(sizes) == 1 else sizes,
            "tolerance_mm": self.tolerance_mm,
            "exogenous": [one.name for one in self.channels],
            "labels": [one.name for one in self.labels],
        }
        if self.resampled is not None:
            settings["resample_tilt"] = self.resampled.name
        return Manifest(name=self.folder.name, licence=self.licence, base_dir=self.base_dir, settings=settings)


def _common_folder(roots: Sequence[Path]) -> Path:
    for root in roots:
        if not root.exists():
            raise ValueError(f"{root} does not exist; expected a folder or an image.")
    if not roots:
        raise ValueError("no path to scan; give a folder or an image.")
    common = Path(os.path.commonpath(roots))
    return common if common.is_dir() else common.parent


def _known(known: AnyPath | None, parts: ScanParts | None) -> tuple[Path, ...]:
    """Manifests whose entries are taken over."""
    if parts is not None:
        return tuple(file.absolute() for file in parts.manifests)
    return () if known is None else (checked_path(known, "the earlier manifest").absolute(),)


def _optional_path(path: AnyPath | None, what: str) -> Path | None:
    return None if path is None else checked_path(path, what).absolute()


def _landmark_files(landmarks: AnyPath | Mapping[str, AnyPath] | None) -> dict[str | None, LandmarkFile]:
    if landmarks is None:
        return {}
    if not isinstance(landmarks, Mapping):
        return {None: read_landmarks(checked_path(landmarks, "the landmark file"))}
    for name in landmarks:
        if not isinstance(name, str) or not name:
            raise ValueError(f"landmarks has the reader {shown_value(name)}; expected a name, such as 'senior'.")
    return {name: read_landmarks(checked_path(file, f"landmarks of {name}")) for name, file in landmarks.items()}


def _channels(exogenous: Mapping[str, AnyPath] | None) -> tuple[ExogenousFiles, ...]:
    if exogenous is not None and not isinstance(exogenous, Mapping):
        raise ValueError(f"exogenous is {shown_value(exogenous)}; expected a mapping of names to folders")
    return tuple(ExogenousFiles(name, folder) for name, folder in (exogenous or {}).items())


def _labels(labels: AnyPath | Mapping[str, AnyPath] | None) -> tuple[ExogenousFiles, ...]:
    named = labels if isinstance(labels, Mapping) else {} if labels is None else {"label": labels}
    return tuple(ExogenousFiles(name, folder, what="label") for name, folder in named.items())
