"""Summary of a manifest, collected entry by entry, so that no list of the entries is needed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medpixcl.data.reasons import Reasons

SUMMARY_COLUMNS = ("section", "kind", "images", "size", "spacing_mm", "split", "landmarks", "repeats")


@dataclass
class Extent:
    """Range along each axis.

    Example:
        >>> extent = Extent()
        >>> for size in [(387, 480), (387, 500)]:
        ...     extent.add(size)
        >>> str(extent)
        '387 x 480-500'
    """

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(self, values: Sequence[float | int]) -> None:
        """Widen the range to hold these values, one for each axis."""
        if values and not values == self.low == self.high:
            self.low = [min(pair) for pair in zip(self.low or values, values, strict=False)]
            self.high = [max(pair) for pair in zip(self.high or values, values, strict=False)]

    def __str__(self) -> str:
        ends = [(f"{low:.4g}", f"{high:.4g}") for low, high in zip(self.low, self.high, strict=True)]
        return " x ".join(low if low == high else f"{low}-{high}" for low, high in ends)


@dataclass
class _Kind:
    """Images of one section and kind."""

    images: int = 0
    landmarks: int = 0
    size: Extent = field(default_factory=Extent)
    spacing: Extent = field(default_factory=Extent)
    splits: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)


class ManifestSummary:
    """Counts what a manifest holds.

    Attributes:
        images: Number of images.
        rejected: Number of rejected files.
        reasons: Why they were rejected.
    """

    def __init__(self) -> None:
        self.images = self.rejected = 0
        self.reasons = Reasons()
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def add(self, section: str, entry: Mapping[str, Any]) -> None:
        """Count an image."""
        kind = self._kind(section, entry)
        self.images += 1
        kind.images += 1
        kind.landmarks += entry.get("landmarks") is not None
        kind.size.add(entry.get("shape") or ())
        spacing = entry.get("spacing_mm") or ()
        kind.spacing.add([spacing] if isinstance(spacing, int | float) else spacing)
        if split := entry.get("split"):
            kind.splits[str(split)] += 1
        if group := entry.get("duplicate_group"):
            kind.groups[str(group)] += 1

    def reject(self, record: Mapping[str, Any]) -> None:
        """Count a rejected file."""
        self.rejected += 1
        self.reasons.add(str(record["path"]), str(record["reason"]))

    def add_group(self, section: str, entry: Mapping[str, Any], group: str) -> None:
        """Count the group of repeats of an image that was counted without it."""
        self._kind(section, entry).groups[group] += 1

    def _kind(self, section: str, entry: Mapping[str, Any]) -> _Kind:
        dims = f"{len(entry['shape'])}D" if entry.get("shape") else "?"
        name = " ".join(filter(None, [dims, entry.get("modality")]))
        if (section, name) not in self._kinds:
            self._kinds[section, name] = _Kind()
        return self._kinds[section, name]

    def rows(self) -> list[dict[str, str]]:
        """Return one row per section and kind of image, and one for the rejected files.

        Returns:
            Dictionaries with the keys :data:`SUMMARY_COLUMNS`.
        """
        trained = {
            group for (section, _), kind in self._kinds.items() if section == "training" for group in kind.groups
        }
        rows = [_row(section, name, kind, trained) for (section, name), kind in self._kinds.items()]
        if self.rejected:
            rows.append(dict.fromkeys(SUMMARY_COLUMNS, "") | {"section": "rejected", "images": str(self.rejected)})
        return rows


def _row(section: str, name: str, kind: _Kind, trained: set[str]) -> dict[str, str]:
    repeats = kind.groups.total()
    leaked = 0 if section == "training" else sum(count for group, count in kind.groups.items() if group in trained)
    return {
        "section": section,
        "kind": name,
        "images": str(kind.images),
        "size": str(kind.size),
        "spacing_mm": str(kind.spacing),
        "split": ", ".join(f"{split} ({count})" for split, count in sorted(kind.splits.items())),
        "landmarks": str(kind.landmarks),
        "repeats": f"{repeats}" + (f" ({leaked} of training)" if leaked else ""),
    }
