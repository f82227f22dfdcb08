"""Heatmaps and their losses, cell by cell, as the equations say."""

import itertools
import math

import torch
from torch import Tensor


def gaussian(point: list[float], cells: tuple[int, ...], stride: int, sigma_mm: float, spacing: list[float]) -> Tensor:
    """exp(-|(centre of the cell - point) * spacing|^2 / (2 sigma^2)), centres at (cell + 0.5) * stride - 0.5."""
    values = torch.zeros(cells, dtype=torch.float64)
    for cell in itertools.product(*[range(n) for n in cells]):
        square = sum((((c + 0.5) * stride - 0.5 - p) * s) ** 2 for c, p, s in zip(cell, point, spacing, strict=True))
        values[cell] = math.exp(-square / (2 * sigma_mm**2))
    return values


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> float:
    """Sum over images and landmarks of weight * -sum(target * log softmax), divided by the sum of the weights."""
    total = 0.0
    for image, landmark in itertools.product(range(weights.shape[0]), range(weights.shape[1])):
        values = logits[image, landmark].flatten().tolist()
        norm = math.log(sum(math.exp(value) for value in values))
        wanted = target[image, landmark].flatten().tolist()
        total += float(weights[image, landmark]) * sum(
            t * (norm - value) for t, value in zip(wanted, values, strict=True)
        )
    return total / float(weights.sum())


def offset_loss(
    offsets: Tensor, points: Tensor, weights: Tensor, stride: int, radius_mm: float, spacing: list[float]
) -> float:
    """Smooth L1 between offsets and (point - centre) / stride over cells nearer than the radius."""
    total, norm = 0.0, 0.0
    dims = points.shape[2]
    for image, landmark in itertools.product(range(weights.shape[0]), range(weights.shape[1])):
        point, found = points[image, landmark].tolist(), []
        for cell in itertools.product(*[range(n) for n in offsets.shape[3:]]):
            way = [p - ((c + 0.5) * stride - 0.5) for c, p in zip(cell, point, strict=True)]
            if not math.sqrt(sum((w * s) ** 2 for w, s in zip(way, spacing, strict=True))) < radius_mm:
                continue  # NaN compares false
            for axis in range(dims):
                miss = abs(float(offsets[(image, landmark, axis, *cell)]) - way[axis] / stride)
                found.append(0.5 * miss**2 if miss < 1 else miss - 0.5)
        if found:
            total += float(weights[image, landmark]) * sum(found) / len(found)
            norm += float(weights[image, landmark])
    return total / norm


def covariance(values: Tensor, peak: tuple[int, ...], radius: int, stride: int, spacing: list[float]) -> Tensor:
    """Sum over the window round the peak of value * (place - mean) (place - mean)^T, over the sum of the values."""
    found = []
    for cell in itertools.product(*[range(max(0, p - radius), p + radius + 1) for p in peak]):
        if all(c < n for c, n in zip(cell, values.shape, strict=True)):
            place = [((c + 0.5) * stride - 0.5) * s for c, s in zip(cell, spacing, strict=True)]
            found.append((float(values[cell]), place))
    total = sum(value for value, _ in found)
    dims = range(len(peak))
    mean = [sum(value * place[a] for value, place in found) / total for a in dims]
    return torch.tensor(
        [
            [sum(value * (place[a] - mean[a]) * (place[b] - mean[b]) for value, place in found) / total for b in dims]
            for a in dims
        ],
        dtype=torch.float64,
    )
