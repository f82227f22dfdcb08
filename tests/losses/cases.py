"""Arguments of the pixel InfoNCE that several test files share."""

import itertools
import math
from typing import Any

import torch


def grid(*shape: int) -> torch.Tensor:
    """Positions of all cells of a grid, in array order."""
    return torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in shape))


def one_anchor(shape: tuple[int, int], target: tuple[int, int], *, hit: bool) -> dict[str, torch.Tensor]:
    """One anchor whose cosine is 0 everywhere, or 1 at its target and 0 elsewhere."""
    index = target[0] * shape[1] + target[1]
    keys = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(math.prod(shape), 1)
    anchor = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    if hit:
        keys[index] = 0.5 * anchor
    return {"anchors": anchor, "keys": keys, "targets": torch.tensor([index]), "key_positions": grid(*shape)}


def random_case(dims: int, *, seed: int = 0, anchors: int = 9, keys: int = 40, channels: int = 5) -> dict[str, Any]:
    """Embeddings of both signs, keys on cells of three images with borders among the targets."""
    generator = torch.Generator().manual_seed(seed)
    random = {"generator": generator, "dtype": torch.float64}
    key_images = torch.randint(0, 3, (keys,), generator=generator)
    key_positions = torch.randint(0, 7, (keys, dims), generator=generator).double()
    key_positions[0], key_positions[1] = 0.0, 6.0
    targets = torch.cat([torch.tensor([0, 1]), torch.randint(0, keys, (anchors - 2,), generator=generator)])
    return {
        "anchors": torch.randn(anchors, channels, **random),
        "keys": torch.randn(keys, channels, **random),
        "targets": targets,
        "key_positions": key_positions,
        "key_images": key_images,
    }


def plain(case: dict[str, Any]) -> dict[str, Any]:
    """The same arguments as Python lists."""
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in case.items()}


def with_gradient(case: dict[str, Any]) -> dict[str, Any]:
    return case | {name: case[name].clone().requires_grad_() for name in ("anchors", "keys")}


RULES = [
    {"exclusion_radius": radius, "window": window, **shift, "clamp": clamp}
    for radius, window, shift, clamp in itertools.product(
        (0.0, 2.0), (None, 2), ({}, {"distance_slope": 0.07, "distance_cap": 0.3}), (False, True)
    )
]
