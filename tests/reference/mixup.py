"""Losses of mix-up pretraining, written out voxel by voxel from their equations."""

import math

import numpy as np


def mean_error(predicted, truth, power, weights):
    """Mean over images by weight of the mean of |p - t|^power."""
    total = 0.0
    for weight, one, other in zip(weights, predicted, truth, strict=True):
        values = [abs(p - t) ** power for p, t in zip(np.ravel(one), np.ravel(other), strict=True)]
        total += weight * sum(values) / len(values)
    return total / sum(weights)


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def squared(logits, opacity):
    return sum((sigmoid(a) - b) ** 2 for a, b in zip(logits, opacity, strict=True)) / len(opacity)


def cross_entropy(logits, opacity):
    terms = [
        -b * math.log(sigmoid(a)) - (1 - b) * math.log(1 - sigmoid(a)) for a, b in zip(logits, opacity, strict=True)
    ]
    return sum(terms) / len(terms)


def ordinal(logits, opacity, low, high):
    """Every row of logits asks of each border whether the opacity is above."""
    terms = []
    for row, value in zip(logits, opacity, strict=True):
        for number, logit in enumerate(row, start=1):
            border = low + (high - low) * number / (len(row) + 1)
            terms.append(-math.log(sigmoid(logit) if value > border else 1 - sigmoid(logit)))
    return sum(terms) / len(terms)


def physics(target, source, opacity, mixed):
    """One opacity an image."""
    errors = []
    for t, s, o, x in zip(target, source, opacity, mixed, strict=True):
        errors += [abs(o * a + (1 - o) * b - c) for a, b, c in zip(np.ravel(t), np.ravel(s), np.ravel(x), strict=True)]
    return sum(errors) / len(errors)
