"""Pixels that a DICOM image only has to be a rectangle (PixelPaddingValue): no part of what was imaged."""

import numpy as np
from jaxtyping import Bool, Float32

from medpixcl.data.dicom_header import Header

_SIGNED = 1
_OUTSIDE = 0.01
"""Distance of padding from the range of all other pixels, as a fraction of it, from which it counts as an outlier."""


def padding_of(header: Header, stored: np.ndarray) -> np.ndarray:
    """True where a stored value lies in the range of PixelPaddingValue and its limit (PS3.3 C.7.5.1.1.2)."""
    value = _as_stored(header, header.number("PixelPaddingValue"))
    if value is None or stored.dtype.kind == "f":
        return np.zeros(stored.shape, dtype=bool)
    limit = _as_stored(header, header.number("PixelPaddingRangeLimit"))
    low, high = sorted((value, value if limit is None else limit))
    return (stored >= low) & (stored <= high)


class VolumePadding:
    """Padding among the slices of a volume.

    The standard leaves it open which value padding has after the rescale; scanners write -2000 HU and the like around
    the circle of a CT, which would move every percentile and bleed into its neighbours where a volume is resampled.
    Padding that lies outside of all other values becomes the lowest of these. Padding among them, such as the zeros
    around an MR, stays.
    """

    def __init__(self) -> None:
        self._masks: dict[int, Bool[np.ndarray, "rows columns"]] = {}
        self._others, self._padding = (np.inf, -np.inf), (np.inf, -np.inf)

    def note(self, place: int, header: Header, stored: np.ndarray, values: Float32[np.ndarray, "rows columns"]) -> None:
        """Remember the padding of a slice, if its header names a padding value.

        Args:
            place: Number of the slice in the volume.
            header: Header that may name the value.
            stored: Its values as stored, shape (rows, columns).
            values: Its values after rescale.
        """
        if "PixelPaddingValue" not in header:
            return
        mask = padding_of(header, stored)
        if mask.any():
            self._masks[place] = mask
            self._padding = _widened(self._padding, values[mask])
        if not mask.all():
            self._others = _widened(self._others, values[~mask] if place in self._masks else values)

    def fill(self, volume: Float32[np.ndarray, "i j k"]) -> None:
        """Give the padding of a volume, once all slices are noted, its value; in place."""
        low, high = self._others
        apart = max(low - self._padding[0], self._padding[1] - high)
        if self._masks and low <= high and apart > _OUTSIDE * (high - low):
            for place, mask in self._masks.items():
                volume[:, :, place][mask.T] = low


def _widened(around: tuple[float, float], values: np.ndarray) -> tuple[float, float]:
    return min(around[0], float(values.min())), max(around[1], float(values.max()))


def _as_stored(header: Header, value: float | None) -> float | None:
    """A padding value as a signed number where the pixels are signed, whatever its own VR."""
    signed = header.whole("PixelRepresentation") == _SIGNED
    return value - 2**16 if value is not None and signed and value >= 2**15 else value
