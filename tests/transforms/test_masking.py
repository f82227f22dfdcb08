"""Cells of an image are set to 0, the rest and the target are untouched, and the seed decides where."""

import pytest
import torch
from monai.data import MetaTensor

from medpixcl.transforms import RandMaskedCellsd


@pytest.mark.parametrize("shape", [(28, 21), (14, 14, 21)])
def test_masked_cells(shape: tuple[int, ...]) -> None:
    image = MetaTensor(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) + 0.5)
    masking = RandMaskedCellsd("image", shape, cells=7)
    first, again, other = (masking.set_random_state(seed)({"image": image.clone()}) for seed in (0, 0, 1))
    assert torch.equal(first["image_target"], image)
    assert first["image_opacity"].tolist() == [1.0]
    hidden = first["image"].as_tensor() == 0
    assert torch.equal(first["image"].as_tensor()[~hidden], image.as_tensor()[~hidden])
    share = float(hidden.float().mean())
    cell = 1 / 7 ** len(shape)  # of the image; as many as two thirds, less where they overlap
    assert cell <= share <= 7 ** len(shape) * 2 // 3 * cell
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])
