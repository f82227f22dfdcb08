"""Blur and interpolation in one step, against the blur by convolutions and MONAI's ``Spacing``; its memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from medpixcl.blur import gaussian_blur
from medpixcl.transforms.resampling import resampled
from tests.geometry import monai_affine, oblique_affine

SIZES = {2: (37, 41), 3: (37, 70, 29)}


def in_two_steps(image: MetaTensor, spacing_mm: list[float], sigma: list[float]) -> MetaTensor:
    blurred = MetaTensor(gaussian_blur(image.as_tensor(), sigma), meta=image.meta)
    return Spacing(pixdim=spacing_mm, mode="bilinear", padding_mode="border")(blurred)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("factor", [0.6, 1.02, 1.7, 3.75, (0.7, 2.0, 1.0), (5.0, 0.9, 40.0)], ids=str)
@pytest.mark.parametrize("sheared", [False, True])
def test_equal_to_two_steps(dims: int, factor: float | tuple[float, ...], sheared: bool) -> None:
    affine, factors = oblique_affine(dims), np.broadcast_to(factor, 3)[:dims]
    if sheared:
        affine[:dims, 1] += 0.2 * affine[:dims, 0]
    values = torch.rand(1, *SIZES[dims], generator=torch.Generator().manual_seed(0)) * 3000 - 1000
    image = MetaTensor(values, affine=monai_affine(affine), meta={"original_affine": 1, "filename_or_obj": "a"})
    own = torch.linalg.vector_norm(affine[:dims, :dims], dim=0).numpy()
    sigma = [max(0.0, (one - 1) / 2) for one in factors]
    found, expected = (
        one(image, (own * factors).tolist(), sigma) for one in (resampled, in_two_steps)
    )  # the same shape, place and values, to a millionth of the range
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), rtol=0, atol=4e-3)
    torch.testing.assert_close(found.affine, expected.affine)
    assert found.meta["filename_or_obj"] == "a"
    assert found.dtype == torch.float32


def test_a_reversed_volume_needs_no_copy_of_its_size() -> None:
    """Two steps take ten times the memory of the volume."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    image = MetaTensor(torch.ones(1, 256, 256, 256), affine=torch.eye(4, dtype=torch.float64))
    resampled(MetaTensor(torch.ones(1, 16, 16, 16), affine=torch.eye(4).double()), [3.0] * 3, [1.0] * 3)
    try:
        clear.write_text("5")  # the peak begins anew
    except OSError:
        pytest.skip("the system does not tell the memory of a process from now on")

    def kilobytes(name: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))

    before = kilobytes("VmRSS")
    resampled(image, [3.0] * 3, [1.0] * 3)
    assert (kilobytes("VmHWM") - before) * 1024 < image.numel() * 4


@pytest.mark.parametrize("shape", [(1, 40, 30), (1, 20, 18, 22)])
def test_one_value_stays_one_value(shape: tuple[int, ...]) -> None:
    """To the last bit: noise of rounding would be an image to what scales it."""
    dims = len(shape) - 1
    image = MetaTensor(torch.full(shape, 7.3), affine=torch.eye(dims + 1).double())
    found = resampled(image, [1.7] * dims, [0.6] * dims)
    assert found.unique().tolist() == pytest.approx([7.3])
    assert len(found.unique()) == 1
