"""Views made on the device are those that the workers would have made."""

from typing import Any

import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose

from medpixcl.data.seeded import SeededDataset
from medpixcl.training.batches import DeviceViewsPrepareBatch, PixelPairsPrepareBatch
from medpixcl.transforms import RandClassIntensityd, RandPixelPairsd, RandPixelViewsd
from tests.geometry import random_image

KEYS = ["image", "entropy_image", "class_image"]
STRENGTH = {"brightness": [0.5, 1.5], "gamma": [0.5, 2.0], "noise": [0.0, 0.1], "bias": [0.0, 0.3], "blur": [0.0, 1.0]}
SHAPES = {2: ((40, 44), (24, 20)), 3: ((20, 24, 18), (12, 14, 10))}


def items(shape: tuple[int, ...]) -> list[dict[str, Any]]:
    found = []
    for seed in range(3):
        image = random_image(shape, seed=seed)
        image = MetaTensor(image.as_tensor().sigmoid(), affine=image.affine)
        entropy = MetaTensor(
            torch.rand(image.shape, generator=torch.Generator().manual_seed(seed)), affine=image.affine
        )
        found.append({"image": image, "entropy_image": entropy, "class_image": (entropy * 3).long()})
    return found


def views(view_shape: tuple[int, ...], *, defer: bool) -> RandPixelViewsd:
    options = {"elastic_mm": 1.0, "flip_probability": 0.5, "nearest_keys": ["class_image"]}
    return RandPixelViewsd(KEYS, view_shape, defer=defer, **options)


def rest() -> list[Any]:
    sides = ["image_anchor", "image_query"]
    return [RandClassIntensityd(sides, low=STRENGTH, medium=STRENGTH, high={}), RandPixelPairsd(15)]


@pytest.mark.parametrize("dims", [2, 3])
def test_device_path_equals_worker_path(dims):
    shape, view_shape = SHAPES[dims]
    by_worker = SeededDataset(items(shape), Compose([views(view_shape, defer=False), *rest()]), seed=5, progress=False)
    sampled = SeededDataset(items(shape), Compose([views(view_shape, defer=True)]), seed=5, progress=False)
    on_device = DeviceViewsPrepareBatch(KEYS, view_shape, rest(), nearest_keys=["class_image"])
    for epoch in (1, 2):
        keys = [(epoch, index) for index in range(3)]
        expected = PixelPairsPrepareBatch()(list_data_collate([by_worker[key] for key in keys]), "cpu")
        found = on_device(list_data_collate([sampled[key] for key in keys]), "cpu")
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[2], expected[2], rtol=1e-4, atol=1e-5)
        assert found[1].keys() == expected[1].keys() == {"query", "positive", "valid", "informativeness", "pixel_class"}
        for name, value in expected[1].items():
            torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-4)
        assert expected[1]["valid"].float().mean() > 0.5
        assert type(found[0]) is torch.Tensor


@pytest.mark.gpu
def test_on_a_gpu():
    shape, view_shape = SHAPES[2]
    sampled = SeededDataset(items(shape), Compose([views(view_shape, defer=True)]), seed=5, progress=False)
    batch = list_data_collate([sampled[(1, index)] for index in range(3)])
    prepare = DeviceViewsPrepareBatch(KEYS, view_shape, rest(), nearest_keys=["class_image"])
    on_cpu, on_gpu = prepare(batch, "cpu"), prepare(batch, "cuda")
    torch.testing.assert_close(on_gpu[0].cpu(), on_cpu[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(on_gpu[1]["query"].cpu(), on_cpu[1]["query"])
    torch.testing.assert_close(on_gpu[1]["positive"].cpu(), on_cpu[1]["positive"], rtol=1e-3, atol=1e-3)
