"""Mutual information written from its equation, one label pair at a time."""

import math
from collections import Counter


def label_information(first, second):
    """Sum over the pairs of labels of p_ij log(p_ij / (p_i p_j)), in nats; two sequences of equal length."""
    total = len(first)
    joint, one, other = Counter(zip(first, second, strict=True)), Counter(first), Counter(second)
    return sum(n / total * math.log(n * total / (one[i] * other[j])) for (i, j), n in joint.items())


def grey_levels(patch, bins, low, high):
    """Bin number of every pixel of a numpy array, in a flat list."""
    shares = [(float(value) - low) / (high - low) for value in patch.flatten()]
    return [min(max(math.floor(share * bins), 0), bins - 1) for share in shares]


def joint_information(first, second, *, bins, low, high):
    """Of the grey levels at the same pixels."""
    return label_information(*(grey_levels(patch, bins, low, high) for patch in (first, second)))


def count_vector_information(first, second, *, bins, low, high):
    """Of how often each grey level occurs in one patch and in the other."""
    counts = [Counter(grey_levels(patch, bins, low, high)) for patch in (first, second)]
    return label_information(*([count[level] for level in range(bins)] for count in counts))
