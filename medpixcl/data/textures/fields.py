"""Random fields with structure on many scales: 1/f noise and gradient noise, in any number of dimensions."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32


def unit_range(values: Float[np.ndarray, "*s"]) -> Float32[np.ndarray, "*s"]:
    """Scale values so that the lowest is 0 and the highest 1; a constant field becomes 0.

    Example:
        >>> unit_range(np.array([2.0, 4.0, 3.0])).tolist()
        [0.0, 1.0, 0.5]
    """
    low, high = float(values.min()), float(values.max())
    return ((values - low) / (high - low or 1.0)).astype(np.float32)


def power_noise(shape: Sequence[int], random: np.random.Generator, *, beta: float = 2.0) -> Float32[np.ndarray, "*s"]:
    """Draw 1/f^beta noise: power falls with frequency as ``f ** -beta`` in any number of dimensions.

    The field is periodic. An axis of length one changes only the shape.

    Args:
        shape: Spatial shape.
        random: Source of all random numbers.
        beta: Exponent of the power law; 0 is white noise, larger values are smoother.

    Returns:
        Values from 0 to 1.

    Reference:
        Baradad et al., "Learning to See by Looking at Noise", NeurIPS 2021 (as a source of training images).
    """
    shape = check_shape(shape)
    frequencies = [np.fft.fftfreq(size) for size in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    squared = np.zeros(tuple(len(one) for one in frequencies))
    for axis, one in enumerate(frequencies):
        squared = squared + on_axis(one**2, axis, len(shape))
    squared.flat[0] = np.inf  # the mean: it is set by the range below
    axes = tuple(range(len(shape)))
    spectrum = np.fft.rfftn(random.standard_normal(shape), axes=axes) * squared ** (-beta / 4)
    return unit_range(np.fft.irfftn(spectrum, s=shape, axes=axes))


def perlin_noise(
    shape: Sequence[int],
    random: np.random.Generator,
    *,
    cell: float = 32.0,
    octaves: int = 4,
) -> Float32[np.ndarray, "*s"]:
    """Draw Perlin's gradient noise, summed over octaves (fractional Brownian motion).

    Args:
        shape: Spatial shape.
        random: Source of all random numbers.
        cell: Side of a lattice cell of the first octave in voxels; every further octave has half the side, down to 2,
            and half the amplitude.
        octaves: Number of octaves; 1 is plain Perlin noise.

    Returns:
        Values from 0 to 1.

    Reference:
        K. Perlin, "Improving noise", SIGGRAPH 2002.
    """
    shape = check_shape(shape)
    total = np.zeros(shape)
    for octave in range(octaves):
        side = cell / 2**octave
        if octave and side < 2:
            break
        lattice = [math.ceil(size / side) + 2 for size in shape]
        gradients = random.standard_normal((len(shape), *lattice))
        gradients /= np.linalg.norm(gradients, axis=0)
        origin = random.uniform(0, 1, len(shape))
        total += 0.5**octave * gradient_noise(shape, gradients, cell=side, origin=origin)
    return unit_range(total)


def gradient_noise(
    shape: Sequence[int], gradients: Float[np.ndarray, " d *g"], *, cell: float, origin: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "*s"]:
    """Compute one octave of Perlin noise: ramps through zero at the lattice points, blended with quintic weights.

    Args:
        shape: Spatial shape.
        gradients: Slope of the ramp at every lattice point, one component per axis.
        cell: Distance between lattice points in voxels.
        origin: Position of the first voxel, in cells from the first lattice point.
    """
    dims = len(shape)
    places = [origin[axis] + np.arange(size) / cell for axis, size in enumerate(shape)]
    lower = [np.floor(place).astype(int) for place in places]
    inside = [place - low for place, low in zip(places, lower, strict=True)]
    fade = [one**3 * (one * (6 * one - 15) + 10) for one in inside]
    total = np.zeros(tuple(shape))
    for corner in np.ndindex(*[2] * dims):
        lattice = np.ix_(*[low + step for low, step in zip(lower, corner, strict=True)])
        ramp = np.zeros(tuple(shape))
        for axis, step in enumerate(corner):
            ramp += gradients[axis][lattice] * on_axis(inside[axis] - step, axis, dims)
        for axis, step in enumerate(corner):
            ramp *= on_axis(fade[axis] if step else 1 - fade[axis], axis, dims)
        total += ramp
    return total


def on_axis(values: Float[np.ndarray, " n"], axis: int, dims: int) -> Float[np.ndarray, "..."]:
    """Reshape a vector to lie along one of ``dims`` axes, for broadcasting."""
    return values.reshape([-1 if one == axis else 1 for one in range(dims)])


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape as a tuple of ints.

    Raises:
        ValueError: If there are not two or three positive sizes.
    """
    sizes = tuple(int(size) for size in shape)
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise ValueError(f"the shape of a texture is {sizes}; expected two or three positive sizes.")
    return sizes
