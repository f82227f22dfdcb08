"""Random patterns of edges and repeats: cells, Gabor patches, warped checkers, in two or three dimensions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from medpixcl.data.textures.fields import check_shape, on_axis, power_noise, unit_range


def worley_cells(
    shape: Sequence[int], random: np.random.Generator, *, points: int = 40, flat: float = 0.5
) -> Float32[np.ndarray, "*s"]:
    """Draw Worley's cellular noise: a voxel's value depends on its nearest point and its distance to a cell border.

    Args:
        shape: Spatial shape.
        random: Source of all random numbers.
        points: Number of random points, at least two.
        flat: Weight of the constant value of a cell; the rest is F2 - F1, the extra distance to the second point.

    Returns:
        Values from 0 to 1.

    Raises:
        ValueError: If there are fewer than two points.

    Reference:
        S. Worley, "A cellular texture basis function", SIGGRAPH 1996.
    """
    shape = check_shape(shape)
    if points < 2:
        raise ValueError(f"cells have {points} points; give at least 2.")
    places = random.uniform(0, 1, (points, len(shape))) * np.asarray(shape) - 0.5
    greys = random.uniform(0, 1, points)
    first, second, nearest = two_nearest(shape, places)
    return unit_range(flat * greys[nearest] + (1 - flat) * unit_range(second - first))


def two_nearest(
    shape: Sequence[int], points: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s"], np.ndarray]:
    """Compute each voxel's distance to its nearest and second nearest point, and the index of the nearest."""
    first, second = np.full(tuple(shape), np.inf), np.full(tuple(shape), np.inf)
    nearest = np.zeros(tuple(shape), dtype=np.int64)
    for number, point in enumerate(points):
        squared = np.zeros(tuple(shape))
        for axis, size in enumerate(shape):
            squared += on_axis((np.arange(size) - point[axis]) ** 2, axis, len(shape))
        nearest[squared < first] = number
        second = np.minimum(second, np.maximum(first, squared))
        first = np.minimum(first, squared)
    return np.sqrt(first), np.sqrt(second), nearest


def gabor_patches(
    shape: Sequence[int],
    random: np.random.Generator,
    *,
    number: int = 60,
    wavelength: Sequence[float] = (4.0, 20.0),
) -> Float32[np.ndarray, "*s"]:
    """Draw a sum of waves under Gaussian windows, each with its own place, direction, length and phase.

    Args:
        shape: Spatial shape.
        random: Source of all random numbers.
        number: Number of patches.
        wavelength: Shortest and longest wavelength in voxels, drawn on a logarithmic scale; it is also the sigma of the
            window.

    Returns:
        Values from 0 to 1.
    """
    shape = check_shape(shape)
    total = np.zeros(shape)
    for _ in range(number):
        centre = random.uniform(0, 1, len(shape)) * np.asarray(shape)
        direction = random.standard_normal(len(shape))
        direction /= np.linalg.norm(direction)
        length = float(np.exp(random.uniform(*np.log(wavelength))))
        phase, height = random.uniform(0, 2 * np.pi), random.uniform(0.3, 1.0)
        window = tuple(_reach(c, 3 * length, size) for c, size in zip(centre, shape, strict=True))
        total[window] += height * _gabor(window, centre, direction / length, length, phase)
    return unit_range(total)


def _reach(centre: float, radius: float, size: int) -> slice:
    return slice(max(int(centre - radius), 0), min(int(centre + radius) + 1, size))


def _gabor(
    window: tuple[slice, ...], centre: np.ndarray, frequency: np.ndarray, sigma: float, phase: float
) -> Float[np.ndarray, "*s"]:
    """One wave under its Gaussian, on the part of the grid that it reaches."""
    dims = len(window)
    offsets = [on_axis(np.arange(part.start, part.stop) - centre[axis], axis, dims) for axis, part in enumerate(window)]
    turns = sum(offset * frequency[axis] for axis, offset in enumerate(offsets))
    distance = sum(offset**2 for offset in offsets)
    return np.exp(-0.5 * distance / sigma**2) * np.cos(2 * np.pi * turns + phase)


def warped_checkers(
    shape: Sequence[int], random: np.random.Generator, *, cell: float = 12.0, warp: float = 10.0, soft: float = 0.15
) -> Float32[np.ndarray, "*s"]:
    """Draw a rotated checkerboard with soft edges, bent by smooth noise.

    Args:
        shape: Spatial shape.
        random: Source of all random numbers.
        cell: Side of a square (cube) in voxels.
        warp: Range of the displacement along each axis in voxels; 0 leaves the edges straight.
        soft: Width of an edge as a share of the wave between two squares; 0 is hard.

    Returns:
        Values from 0 to 1.
    """
    shape = check_shape(shape)
    dims = len(shape)
    turn, _ = np.linalg.qr(random.standard_normal((dims, dims)))
    phases = random.uniform(0, 2, dims)
    places = np.stack(np.meshgrid(*[np.arange(size, dtype=float) for size in shape], indexing="ij"))
    for axis in range(dims):
        places[axis] += warp * (power_noise(shape, random, beta=4.5) - 0.5)
    turned = np.tensordot(turn, places, axes=1) / cell
    wave = np.prod(np.sin(np.pi * (turned + phases.reshape(-1, *[1] * dims))), axis=0)
    return unit_range(np.tanh(wave / soft) if soft else np.sign(wave))
