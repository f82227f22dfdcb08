"""From a batch of views and pixel pairs to the inputs of MONAI's trainer."""

import torch
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose

from medpixcl.training.batches import PixelPairsPrepareBatch
from medpixcl.transforms import RandPixelPairsd, RandPixelViewsd
from tests.geometry import random_image


def test_views_and_pairs_reach_the_trainer_as_plain_tensors() -> None:
    image = random_image((40, 44))
    item = {"image": image, "entropy_image": MetaTensor(image.as_tensor().sigmoid(), affine=image.affine)}
    chain = Compose([RandPixelViewsd(["image", "entropy_image"], (24, 20)), RandPixelPairsd(15)])
    batch = list_data_collate([chain.set_random_state(seed=seed)(item) for seed in (0, 1)])
    query, pairs, (anchor,), options = PixelPairsPrepareBatch()(batch, "cpu")
    assert type(query) is type(anchor) is torch.Tensor
    assert torch.equal(query, batch["image_query"].as_tensor())
    assert torch.equal(anchor, batch["image_anchor"].as_tensor())
    assert pairs.keys() == {"query", "positive", "valid", "informativeness"}, "the item has no classes"
    for name, value in pairs.items():
        assert torch.equal(value, torch.as_tensor(batch[name]))
    assert options == {}
