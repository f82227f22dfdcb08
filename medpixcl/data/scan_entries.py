"""Entries of a manifest: of images that were read, and of those that an earlier scan read."""

from typing import Any

import torch

from medpixcl.coordinates import image_affine
from medpixcl.data.dicom_header import is_dicom
from medpixcl.data.examination import Examination, Usable
from medpixcl.data.images import log_notice
from medpixcl.data.known_images import STAMP, KnownImages, stamp_of
from medpixcl.data.manifest import MADE_FROM, SERIES, Entry
from medpixcl.data.manifest_paths import relative_path
from medpixcl.data.scan_inputs import ScanInputs
from medpixcl.data.scan_maps import ImageMaps


class ScanEntries:
    """Writes the entries of one scan; landmarks, split and group of repeats are left open.

    Args:
        inputs: What is scanned.
        known: Entries of an earlier scan.
        maps: Maps of the images.
    """

    def __init__(self, inputs: ScanInputs, known: KnownImages, maps: ImageMaps) -> None:
        self._inputs, self._known, self._maps = inputs, known, maps

    def known(self, task: Examination) -> tuple[Entry, str | None]:
        """Entry of an image that is as it was, and its group of repeats then."""
        entry = self._known.entry(task.source, task.maps)
        group = entry["duplicate_group"]
        entry["split"] = entry["duplicate_group"] = entry["landmarks"] = None
        for key in ("exogenous", "label", "group"):
            entry.pop(key, None)
        entry.update(self._maps.named(task.maps))
        return entry, group

    def read(self, task: Examination, found: Usable) -> Entry:
        """Entry of an image that was read."""
        source = task.source
        entry: Entry = {
            "image": relative_path(source.image, self._inputs.base_dir),
            "spacing_mm": found.spacing_mm,
            "spacing_source": found.spacing_source,
            "shape": list(found.shape),
            "modality": found.modality or source.modality or None,
            "sha256": found.sha256,
            "licence": self._inputs.licence,
            "split": None,
            "duplicate_group": None,
            "landmarks": None,
            STAMP: stamp_of(source, task.maps),
            "fingerprint": found.fingerprint.to_text(),
        }
        if found.notice:
            log_notice(str(source.files[0]), found.notice)
            entry["notice"] = found.notice
        if self._inputs.tolerance_mm is not None and len(found.shape) == 3 and is_dicom(source.files[0]):
            entry["tolerance_mm"] = self._inputs.tolerance_mm
        if not _is_plain(found):
            entry["affine"] = [list(row) for row in found.affine[:3]]
        return entry | self._of_slices(task) | self._maps.named(task.maps)

    def _of_slices(self, task: Examination) -> dict[str, Any]:
        """What the entry of a volume of slices says of these."""
        source = task.source
        made_from = source.made_from and {MADE_FROM: relative_path(source.made_from.image, self._inputs.base_dir)}
        return ({SERIES: source.series} if source.series else {}) | (made_from or {})


def _is_plain(found: Usable) -> bool:
    """True if the affine follows from the spacing alone, as that of a picture does."""
    if len(found.shape) != 2:
        return False
    return torch.allclose(torch.tensor(found.affine, dtype=torch.float64), image_affine(found.spacing_mm), atol=1e-6)
