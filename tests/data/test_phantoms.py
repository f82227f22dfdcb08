"""Made-up images: readable, reproducible, and informative enough to train on."""

import numpy as np
import pytest
import torch

from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.data.phantoms import draw_phantom, write_phantoms
from medpixcl.informativeness import local_entropy
from medpixcl.transforms import LoadImageMMd

SHAPES = pytest.mark.parametrize("shape", [(40, 56), (16, 20, 24)], ids=["2d", "3d"])


@SHAPES
def test_picture(shape):
    image = draw_phantom(shape, 3)
    assert image.shape == shape
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() == 1
    np.testing.assert_array_equal(image, draw_phantom(shape, 3))
    assert np.abs(image - draw_phantom(shape, 4)).mean() > 0.05


@SHAPES
def test_it_has_structure_of_every_strength(shape):
    entropy = local_entropy(torch.from_numpy(draw_phantom(shape, 0))[None, None], radius=3, bins=16)
    assert entropy.max() - entropy.min() > 1


@SHAPES
def test_written_files_are_what_was_drawn(shape, tmp_path):
    datalist = write_phantoms(tmp_path / "new" / "folder", 3, shape, seed=7)
    assert len(datalist) == 3
    for number, entry in enumerate(datalist):
        image = LoadImageMMd("image")(entry)["image"]
        values = image[0].numpy() / (255 if len(shape) == 2 else 1)
        np.testing.assert_allclose(values, draw_phantom(shape, 7 + number), atol=0.5 / 255 + 1e-6)
        assert spacing_of(spatial_affine(image.affine, len(shape))).tolist() == pytest.approx([1.0] * len(shape))
