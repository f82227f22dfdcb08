"""The compiled loops and plain torch give the same numbers, and both those of scikit-image."""

import numpy as np
import pytest
import torch
from skimage.filters.rank import entropy as rank_entropy
from skimage.morphology import ball, disk

from medpixcl._kernels import entropy_numba, entropy_torch
from medpixcl._kernels.compiled import compiled
from medpixcl._kernels.window import Window, ball_window, box_window

KERNELS = pytest.mark.parametrize(
    "kernel", [entropy_numba.compiled_window_entropy, entropy_torch.window_entropy], ids=["numba", "torch"]
)


def footprint(window: Window) -> np.ndarray:
    """Window as an array of ones and zeros."""
    reach = np.arange(-window.half[-1], window.half[-1] + 1)
    return (np.abs(reach) <= window.chords[..., None]).astype(np.uint8)


def random_levels(shape: tuple[int, ...], count: int, seed: int = 0) -> torch.Tensor:
    """Bin numbers with flat regions, so that blocks lack some bins and windows hold one bin only."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, count, shape)
    levels[: shape[0] // 3] = count - 1
    return torch.from_numpy(levels.astype(np.uint8 if count < 256 else np.int16))


def run(kernel, levels: torch.Tensor, count: int, window: Window) -> np.ndarray:
    out = torch.full(levels.shape, torch.nan)
    kernel(levels, count, window, out)
    return out.numpy()


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 5, 10])
def test_ball_is_that_of_scikit_image(radius):
    window = ball_window(float(radius), [1.0, 1.0], [99, 99])
    np.testing.assert_array_equal(footprint(window), disk(radius))
    assert window.area == disk(radius).sum()
    window = ball_window(float(radius), [1.0, 1.0, 1.0], [99, 99, 99])
    np.testing.assert_array_equal(footprint(window), ball(radius))


def test_ball_of_anisotropic_voxels():
    window = ball_window(3.0, [2.0, 1.0, 0.5], [99, 99, 99])
    z, y, x = np.meshgrid(np.arange(-1, 2) * 2.0, np.arange(-3, 4), np.arange(-6, 7) * 0.5, indexing="ij")
    np.testing.assert_array_equal(footprint(window), z**2 + y**2 + x**2 <= 9)


def test_ball_is_cut_off_at_the_limit():
    np.testing.assert_array_equal(footprint(ball_window(5.0, [1.0, 1.0], [1, 2])), np.ones((3, 5)))


@KERNELS
@pytest.mark.parametrize("count", [1, 5, 32, 200])
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((150, 77), box_window([10, 10])),
        ((150, 77), ball_window(10.0, [1.0, 1.0], [99, 99])),
        ((20, 70, 33), box_window([1, 3, 2])),
        ((20, 70, 33), ball_window(4.0, [1.0, 1.0, 1.0], [99, 99, 99])),
        ((9, 8), box_window([8, 7])),
        ((1, 1), ball_window(3.0, [1.0, 1.0], [0, 0])),
    ],
    ids=["box 2D", "disk 2D", "box 3D", "ball 3D", "window of the whole image", "one pixel"],
)
def test_equals_scikit_image_up_to_the_borders(kernel, count, shape, window):
    levels = random_levels(shape, count)
    expected = rank_entropy(levels.numpy().astype(np.uint8), footprint(window))
    np.testing.assert_allclose(run(kernel, levels, count, window), expected, atol=1e-5)


@pytest.mark.parametrize("count", [32, 1000], ids=["bin by bin", "sliding"])
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((40, 300), box_window([2, 140])),
        ((300, 270), box_window([130, 130])),
        ((60, 290), ball_window(135.0, [20.0, 1.0], [59, 289])),
        ((7, 40, 50), ball_window(6.0, [2.5, 1.0, 0.7], [6, 39, 49])),
    ],
    ids=["wide chord", "more than 65535 pixels", "wide ellipse", "ellipsoid"],
)
def test_compiled_equals_torch(count, shape, window):
    levels = random_levels(shape, count)
    levels[torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3] = count  # does not count
    results = [
        run(kernel, levels, count, window)
        for kernel in (entropy_numba.compiled_window_entropy, entropy_torch.window_entropy)
    ]
    assert results[1].max() > 4
    np.testing.assert_allclose(results[0], results[1], atol=1e-5)


@KERNELS
@pytest.mark.parametrize("count", [8, 300])
def test_window_of_one_bin_is_exactly_zero(kernel, count):
    levels = torch.full((64, 50), 3, dtype=torch.int16)
    levels[:, 25:] = count - 1
    result = run(kernel, levels if count > 255 else levels.to(torch.uint8), count, box_window([6, 6]))
    assert (result[:, :19] == 0).all()
    assert (result[:, 31:] == 0).all()
    assert (result[:, 19:31] > 0.2).all()


@KERNELS
@pytest.mark.parametrize("count", [8, 200])
def test_window_without_counted_pixels_is_zero(kernel, count):
    levels = random_levels((30, 30), count)
    levels[:, 10:] = count
    result = run(kernel, levels, count, ball_window(2.0, [1.0, 1.0], [29, 29]))
    assert (result[:, 12:] == 0).all()
    assert np.isfinite(result).all()


def test_compiles_where_nothing_can_be_kept_on_disk():
    space: dict = {}
    exec("def twice(a):\n    return 2 * a", space)  # a function without a file has no place in numba's cache
    assert compiled(space["twice"])(21) == 42
