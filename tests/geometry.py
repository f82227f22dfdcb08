"""Images with a position in space, for the tests of views and correspondence."""

import numpy as np
import torch
from monai.data import MetaTensor

SHAPES = {2: (44, 52), 3: (26, 32, 24)}


def oblique_affine(dims: int, *, seed: int = 0) -> torch.Tensor:
    """Voxel -> mm, (D+1, D+1) float64: turned axes, another spacing along each, an origin far away."""
    state = np.random.default_rng(seed)
    affine = np.eye(dims + 1)
    turn = np.linalg.qr(state.normal(size=(dims, dims)))[0]
    affine[:dims, :dims] = turn * [0.5, 0.8, 1.4][:dims]
    affine[:dims, dims] = state.uniform(-200, 200, dims)
    return torch.from_numpy(affine)


def monai_affine(affine: torch.Tensor) -> torch.Tensor:
    """The same as 4 x 4, as MONAI keeps it in 2D too."""
    dims = len(affine) - 1
    whole = torch.eye(4, dtype=torch.float64)
    whole[:dims, :dims], whole[:dims, 3] = affine[:dims, :dims], affine[:dims, dims]
    return whole


def random_image(shape: tuple[int, ...], *, seed: int = 0, smooth: bool = True) -> MetaTensor:
    """Oblique and anisotropic image, (1, *shape) float32."""
    state = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    waves = sum(np.sin(axis * state.uniform(0.1, 0.3) + state.uniform(0, 6)) for axis in axes)
    values = waves if smooth else state.uniform(size=shape)
    affine = monai_affine(oblique_affine(len(shape), seed=seed))
    return MetaTensor(torch.from_numpy(values).float()[None], affine=affine)


def random_points(shape: tuple[int, ...], number: int, *, seed: int = 0) -> torch.Tensor:
    """Points between the centres of the first and the last voxel, (number, D) float64."""
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, np.array(shape) - 1, (number, len(shape))))
