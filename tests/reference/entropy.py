"""Entropy of grey levels round each pixel, written from its equation: one pixel and one offset at a time."""

import itertools
import math


def local_entropy(image, *, radius, footprint, spacing=None, bins, low, high, mask=None):
    """Bits; ``image`` and ``mask`` are numpy arrays of any number of axes; 0 outside the mask."""
    spacing = spacing or [1.0] * image.ndim
    result = {}
    for centre in itertools.product(*[range(n) for n in image.shape]):
        counts = {}
        for pixel in itertools.product(*[range(n) for n in image.shape]):
            offset = [(a - b) * s for a, b, s in zip(pixel, centre, spacing, strict=True)]
            if footprint == "ball":
                inside = sum(o * o for o in offset) <= radius * radius
            else:
                inside = all(abs(o) <= radius for o in offset)
            if inside and (mask is None or mask[pixel]):
                share = (float(image[pixel]) - low) / (high - low) if high > low else 0.0
                level = min(max(math.floor(share * bins), 0), bins - 1)
                counts[level] = counts.get(level, 0) + 1
        total = sum(counts.values())
        counted = mask is None or mask[centre]
        result[centre] = -sum(c / total * math.log2(c / total) for c in counts.values()) if counted else 0.0
    return result
