"""PixPro and its exogenous filter cell by cell, from the equations: loops over plain numbers."""

import itertools
import math


def centres(low, high, shape):
    """Centres of a box's cells in array order, and the diagonal of a cell."""
    bins = [(h - l) / n for l, h, n in zip(low, high, shape, strict=True)]  # noqa: E741
    cells = itertools.product(*map(range, shape))
    points = [[l + (i + 0.5) * b for l, i, b in zip(low, cell, bins, strict=True)] for cell in cells]  # noqa: E741
    return points, math.sqrt(sum(b * b for b in bins))


def mask(query, key, shape, threshold):
    """Set of (i, j) with |p_i - p'_j| / max(diagonals) < T; boxes as (low, high)."""
    (points, diagonal), (others, other_diagonal) = centres(*query, shape), centres(*key, shape)
    limit = max(diagonal, other_diagonal)
    return {(i, j) for i, p in enumerate(points) for j, q in enumerate(others) if math.dist(p, q) / limit < threshold}


def wrapped(first, second, period):
    turn = abs(first - second) % period
    return min(turn, period - turn)


def consistency(queries, keys, weights):
    """One image: queries and keys as lists of unit vectors, weights as rows."""
    total = sum(map(sum, weights))
    agreement = 0.0
    for q, row in zip(queries, weights, strict=True):
        for k, w in zip(keys, row, strict=True):
            agreement += w * sum(a * b for a, b in zip(q, k, strict=True))
    return -2 * agreement / (total + 1e-6)


def contrast(queries, keys, weights, temperature, candidates=None):
    """One image: mean over the queries that have a positive; None where no query has one."""
    losses = []
    for i, (q, row) in enumerate(zip(queries, weights, strict=True)):
        if sum(row) == 0:
            continue
        powers = [math.exp(sum(a * b for a, b in zip(q, k, strict=True)) / temperature) for k in keys]
        positive = sum(w * p for w, p in zip(row, powers, strict=True))
        every = sum(p for j, p in enumerate(powers) if candidates is None or candidates[i][j] or row[j] > 0)
        losses.append(-math.log(positive / every))
    return sum(losses) / len(losses) if losses else None


def propagate(vectors, values, gamma, normalise):
    """y_i = sum_j max(cos(x_i, x_j), 0)^gamma g(x_j)."""

    def length(v):
        return math.sqrt(sum(a * a for a in v))

    out = []
    for x in vectors:
        total = [0.0] * len(values[0])
        for y, g in zip(vectors, values, strict=True):
            cosine = sum(a * b for a, b in zip(x, y, strict=True)) / (length(x) * length(y))
            factor = max(cosine, 0.0) ** gamma / (length(g) if normalise else 1.0)
            total = [t + factor * a for t, a in zip(total, g, strict=True)]
        out.append(total)
    return out


def pooled(values, stride):
    """Rows of a 2D channel (None where missing) as cells: (mean, share known, deviation within)."""
    cells = []
    for r in range(0, len(values), stride):
        for c in range(0, len(values[0]), stride):
            window = [v for row in values[r : r + stride] for v in row[c : c + stride]]
            known = [v for v in window if v is not None]
            mean = sum(known) / len(known) if known else 0.0
            deviation = math.sqrt(sum((v - mean) ** 2 for v in known) / len(known)) if known else 0.0
            cells.append((mean, len(known) / len(window), deviation))
    return cells


def lars(weight, gradients, lr, momentum, decay, trust, eps):
    """Steps of one matrix, given as a flat list."""
    velocity = [0.0] * len(weight)
    for gradient in gradients:
        decayed = [g + decay * w for g, w in zip(gradient, weight, strict=True)]
        length, slope = (math.sqrt(sum(a * a for a in v)) for v in (weight, decayed))
        scale = trust * length / (slope + eps)
        velocity = [momentum * v + scale * g for v, g in zip(velocity, decayed, strict=True)]
        weight = [w - lr * v for w, v in zip(weight, velocity, strict=True)]
    return weight
