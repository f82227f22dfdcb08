"""Heatmaps and their losses, cell by cell, as the equations say."""

import itertools
import math
from collections.abc import Callable

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


def cell_mean(output: Tensor, target: Tensor, weights: Tensor, loss: Callable[[float, float], float]) -> float:
    """Sum over images and landmarks of weight * mean over cells of the loss, divided by the sum of the weights."""
    total = 0.0
    for image, landmark in itertools.product(range(weights.shape[0]), range(weights.shape[1])):
        pairs = list(
            zip(output[image, landmark].flatten().tolist(), target[image, landmark].flatten().tolist(), strict=True)
        )
        total += float(weights[image, landmark]) * sum(loss(o, t) for o, t in pairs) / len(pairs)
    return total / float(weights.sum())


def square(output: float, target: float) -> float:
    """(output - target)^2."""
    return (output - target) ** 2


def binary_cross_entropy(logit: float, target: float) -> float:
    """-(t log p + (1 - t) log(1 - p)) of the sigmoid p."""
    probability = 1 / (1 + math.exp(-logit))
    return -(target * math.log(probability) + (1 - target) * math.log(1 - probability))


def wing(output: float, target: float, alpha: float, omega: float, epsilon: float, theta: float) -> float:
    """The loss of arXiv 1904.07399, with A and C as they stand there."""
    away, p = abs(target - output), alpha - target
    if away < theta:
        return omega * math.log(1 + (away / epsilon) ** p)
    a = omega * (1 / (1 + (theta / epsilon) ** p)) * p * ((theta / epsilon) ** (p - 1)) * (1 / epsilon)
    return a * away - (theta * a - omega * math.log(1 + (theta / epsilon) ** p))


def expected(values: Tensor, stride: int) -> list[float]:
    """Sum over cells of value * centre, over the sum of the values; voxels."""
    place, total = [0.0] * values.ndim, 0.0
    for cell in itertools.product(*[range(n) for n in values.shape]):
        total += float(values[cell])
        for axis, c in enumerate(cell):
            place[axis] += float(values[cell]) * ((c + 0.5) * stride - 0.5)
    return [p / total for p in place]
