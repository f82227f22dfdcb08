"""Matching of 19 landmarks: exact search in one map, and in the product of five levels, against the plain forms.

``python benchmarks/bench_matching.py [--json FILE] [--rounds 3]``

Embeddings are smooth random fields, as a network gives; queries are vectors of the map with noise. Every candidate must
find the same cells before anything is timed.

Holds: one map of 1200 x 968, 128 channels: at most 0.85 of ``q @ M`` then argmax; five levels of 64 channels under an
image of 2400 x 1936: at most half of upsample, multiply, argmax.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import timing  # first, for one thread  # isort: skip
import torch
from torch import Tensor
from torch.nn import functional as F

from medpixcl.matching import best_match, product_match
from medpixcl.matching.product import describe
from medpixcl.matching.search import unravel

LANDMARKS = 19
IMAGE = (2400, 1936)
STRIDES = (2, 4, 8, 16, 32)


def smooth_map(channels: int, cells: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Unit vectors that change over a few cells, shape (C, *cells)."""
    rough = torch.randn(1, channels, *[max(2, size // 3) for size in cells], generator=generator)
    return F.normalize(F.interpolate(rough, size=cells, mode="bilinear"), dim=1)[0].contiguous()


def noisy(vectors: Tensor, generator: torch.Generator) -> Tensor:
    """Unit vectors near those given."""
    noise = torch.randn(vectors.shape, generator=generator) / vectors.shape[1] ** 0.5
    return F.normalize(vectors + 0.3 * noise, dim=1)


def plain_argmax(queries: Tensor, embedding: Tensor) -> Tensor:
    """All scalar products, then the largest."""
    return unravel((queries @ embedding.flatten(1)).argmax(dim=1), embedding.shape[1:])


def plain_product(queries: list[Tensor], levels: list[Tensor]) -> Tensor:
    """Similarity maps brought to the finest level, multiplied, then the largest."""
    product = torch.ones(1)
    for query, level in zip(queries, levels, strict=True):
        similarity = (query @ level.flatten(1)).unflatten(1, level.shape[1:]).clamp_min(0)
        fine = F.interpolate(similarity[None], size=levels[0].shape[1:], mode="bilinear", align_corners=False)[0]
        product = product * fine
    return unravel(product.flatten(1).argmax(dim=1), levels[0].shape[1:])


def same_cells(results: dict[str, Any]) -> dict[str, float]:
    """Stop if a candidate found another cell than the first one."""
    first, *others = (value[0] if isinstance(value, tuple) else value for value in results.values())
    wrong = max(int((other != first).any(dim=1).sum()) for other in others)
    if wrong:
        raise SystemExit(f"{wrong} of {LANDMARKS} landmarks were found in another cell")
    return {"landmarks in another cell": 0.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)

    embedding = smooth_map(128, (1200, 968), generator)
    places = torch.randint(embedding[0].numel(), (LANDMARKS,), generator=generator)
    queries = noisy(embedding.flatten(1)[:, places].T, generator)
    one = timing.compare(
        "19 landmarks in one map of 1200 x 968, 128 channels",
        {"q @ M, argmax": partial(plain_argmax, queries, embedding), "ours": partial(best_match, queries, embedding)},
        reference="q @ M, argmax",
        check=same_cells,
        rounds=options.rounds,
    )
    timing.show(one)

    sizes = [tuple(-(-length // STRIDES[-1]) * STRIDES[-1] // stride for length in IMAGE) for stride in STRIDES]
    levels = [smooth_map(64, size, generator) for size in sizes]
    points = torch.rand(LANDMARKS, 2, generator=generator) * (torch.tensor(IMAGE) - 1)
    vectors = [noisy(level, generator) for level in describe(levels, STRIDES, points)]
    five = timing.compare(
        "19 landmarks in the product of five levels of 64 channels, image of 2400 x 1936",
        {
            "upsample, multiply, argmax": partial(plain_product, vectors, levels),
            "ours": partial(product_match, vectors, levels, STRIDES),
        },
        reference="upsample, multiply, argmax",
        check=same_cells,
        rounds=options.rounds,
    )
    timing.show(five)
    if options.json:
        timing.save(options.json, [one, five], packages=["torch"])


if __name__ == "__main__":
    main()
