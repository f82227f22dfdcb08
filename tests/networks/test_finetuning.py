"""Which layers of a backbone learn, and how fast."""

from itertools import pairwise

import pytest
import torch

from medpixcl.networks import LandmarkNet
from medpixcl.networks.finetuning import backbone_layers, parameter_groups
from tests.networks.cases import CHANNELS, picture

LAYERS = {"efficientnet-lite0": 12, "resnet18": 14, "dynunet": 6, "unet": 6}
"""At stride 2: stem, (norm,) stages or blocks, and the four of the decoder; down and up path of the others."""
CASES = [("efficientnet-lite0", 2), ("resnet18", 2), ("dynunet", 2), ("dynunet", 3), ("unet", 3)]


def make(name: str, dims: int, **options) -> LandmarkNet:
    torch.manual_seed(0)
    return LandmarkNet(2, spatial_dims=dims, backbone=name, channels=CHANNELS[name], norm="batch", **options)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_layers_come_in_the_order_of_the_image(name, dims):
    """Each begins to work after the one before has; together they hold every parameter of the backbone once."""
    backbone = make(name, dims).backbone
    layers, called = backbone_layers(backbone), []
    assert len(layers) == LAYERS[name]
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(lambda *_, n=number: called.append(n))
    backbone.eval()(picture(dims))
    assert called == list(range(len(layers)))
    held = [id(parameter) for layer in layers for parameter in layer.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in backbone.parameters())


@pytest.mark.parametrize(("name", "dims"), CASES)
@pytest.mark.parametrize("trained", [None, 0, 2])
def test_only_the_last_layers_change(name, dims, trained):
    """Weights and batch statistics of the others stay to the byte, through two steps of training."""
    net = make(name, dims, trained_layers=trained)
    layers = backbone_layers(net.backbone)
    before = [{key: value.clone() for key, value in layer.state_dict().items()} for layer in layers]
    optimizer = torch.optim.SGD(parameter_groups(net, 0.1, 0.1), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net.train()(picture(dims, batch=2)).square().mean().backward()
        optimizer.step()
    same = [
        all(torch.equal(value, old[key]) for key, value in layer.state_dict().items())
        for layer, old in zip(layers, before, strict=True)
    ]
    learning = len(layers) if trained is None else trained
    assert same == [True] * (len(layers) - learning) + [False] * learning


@pytest.mark.parametrize(("name", "dims"), CASES)
@pytest.mark.parametrize("options", [{}, {"trained_layers": 3}, {"trained_layers": 0}, {"encoder_only": True}], ids=str)
def test_each_layer_learns_slower_than_the_next(name, dims, options):
    net = make(name, dims, **options)
    *trunk, head = parameter_groups(net, 0.1, 0.5, layer_decay=0.8)
    assert head["lr"] == 0.5
    expected = options.get("trained_layers", len(backbone_layers(net.backbone)))
    assert len(trunk) == expected
    rates = [group["lr"] for group in trunk]
    assert rates[-1:] == [0.1] * bool(trunk)
    assert all(slower == pytest.approx(0.8 * rate) for slower, rate in pairwise(rates))
    held = [id(parameter) for group in (*trunk, head) for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in net.parameters() if parameter.requires_grad)
    for group, layer in zip(reversed(trunk), reversed(backbone_layers(net.backbone)), strict=False):
        assert [id(p) for p in group["params"]] == [id(p) for p in layer.parameters()]


def test_what_no_layer_holds_is_in_a_group():
    """MONAI's EfficientNet has a classifier that nothing calls."""
    net = LandmarkNet(1, backbone="efficientnet-b0", channels=[4, 4, 4, 4])
    held = [id(p) for group in parameter_groups(net, 0.1, 0.1, layer_decay=0.5) for p in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in net.parameters())


@pytest.mark.parametrize("decay", [0.0, 1.1, -1.0])
def test_bad_decay(decay):
    with pytest.raises(ValueError, match="expected a factor above 0 and at most 1"):
        parameter_groups(make("unet", 2), 0.1, 0.1, layer_decay=decay)


def test_a_wholly_frozen_copy_goes_into_evaluation():
    """As Ignite's EMAHandler makes one of the network that is trained."""
    copy = make("dynunet", 2).requires_grad_(False)
    assert not any(module.training for module in copy.train().modules())
    assert not any(module.training for module in copy.eval().modules())
