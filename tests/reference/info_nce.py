"""InfoNCE written from its equation: one anchor, one key, one axis at a time, in Python floats."""

import math


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def info_nce(
    anchors,
    keys,
    targets,
    *,
    temperature,
    key_positions=None,
    key_images=None,
    exclusion_radius=0.0,
    window=None,
    distance_slope=0.0,
    distance_cap=0.0,
    clamp=False,
):
    """Loss of each anchor: -log(exp(l_t) / sum over the keys that count of exp(l_j))."""
    losses = []
    for i, target in enumerate(targets):
        terms = []
        for j in range(len(keys)):
            similarity = cosine(anchors[i], keys[j])
            if clamp:
                similarity = min(max(similarity, 0.0), 1.0)
            same_image = key_images is None or key_images[target] == key_images[j]
            counts = True
            if key_positions is not None:
                offset = [x - centre for x, centre in zip(key_positions[j], key_positions[target], strict=True)]
                distance = math.sqrt(sum(x * x for x in offset))
                if same_image:
                    similarity += min(distance_slope * distance, distance_cap)
                    counts = distance >= exclusion_radius
                if window is not None:
                    counts = counts and same_image and all(-window <= x < window for x in offset)
            if counts or j == target:
                terms.append(math.exp(similarity / temperature))
            if j == target:
                positive = terms[-1]
        losses.append(-math.log(positive / sum(terms)))
    return losses
