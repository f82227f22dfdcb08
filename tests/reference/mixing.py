"""Mixed images and textures voxel by voxel, written from the equations in plain numpy."""

import numpy as np


def mixed(target: np.ndarray, source: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """x = l t + (1 - l) s at every voxel; images (C, *s), opacity (1, *s)."""
    result = np.empty_like(target)
    for place in np.ndindex(*target.shape):
        share = opacity[(0, *place[1:])]
        result[place] = share * target[place] + (1 - share) * source[place]
    return result


def matched(source: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(s - mean s) / std s * std t + mean t, the moments over the voxels of the mask (*s), channel by channel."""
    result = np.empty_like(source)
    for channel in range(len(source)):
        s = np.array([source[channel][place] for place in np.ndindex(*mask.shape) if mask[place]])
        t = np.array([target[channel][place] for place in np.ndindex(*mask.shape) if mask[place]])
        spread_s = np.sqrt(((s - s.mean()) ** 2).mean())
        spread_t = np.sqrt(((t - t.mean()) ** 2).mean())
        result[channel] = (source[channel] - s.mean()) / spread_s * spread_t + t.mean()
    return result


def spectral_slope(field: np.ndarray) -> float:
    """Slope of log power over log frequency, by least squares over all frequencies below one half."""
    power = np.abs(np.fft.fftn(field)) ** 2
    squared = sum(np.meshgrid(*[np.fft.fftfreq(size) ** 2 for size in field.shape], indexing="ij"))
    inside = (squared > 0) & (squared < 0.25)
    slope, _ = np.polyfit(0.5 * np.log(squared[inside]), np.log(power[inside]), 1)
    return float(slope)


def perlin(shape, gradients: np.ndarray, cell: float, origin: np.ndarray) -> np.ndarray:
    """Perlin noise at one voxel after the other."""
    dims = len(shape)
    result = np.zeros(shape)
    for place in np.ndindex(*shape):
        position = [origin[axis] + place[axis] / cell for axis in range(dims)]
        base = [int(np.floor(one)) for one in position]
        for corner in np.ndindex(*[2] * dims):
            node = tuple(base[axis] + corner[axis] for axis in range(dims))
            ramp = sum(gradients[(axis, *node)] * (position[axis] - node[axis]) for axis in range(dims))
            for axis in range(dims):
                t = position[axis] - base[axis]
                fade = 6 * t**5 - 15 * t**4 + 10 * t**3
                ramp *= fade if corner[axis] else 1 - fade
            result[place] += ramp
    return result
