"""Every network runs and learns on a device, and gives the numbers of the CPU."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from medpixcl import networks
from medpixcl.networks import (
    BackboneNet,
    ClassifierNet,
    DenseOpacityNet,
    EfficientNetLiteEncoder,
    EncoderNet,
    InstanceContrastNet,
    LandmarkNet,
    MixedPrecision,
    MixUpNet,
    PixelEmbeddingNet,
    SiameseNet,
)
from medpixcl.networks.landmark import decode_output
from medpixcl.networks.pixpro import PixProNet
from medpixcl.networks.segmentation import SegmentationNet
from tests.devices.pretend import NAME, assert_same, pretend_device

SIZE = {2: (16, 32), 3: (8, 8, 16)}
FLAT_SIZE = (32, 32)  # of networks whose coarsest stride is 32
NOT_RUN = {
    "CoarseToFineInferer": "takes MetaTensors, see NOT_RUN of the device itself",
    "LandmarkInferer": "is run in test_geometry.py",
    "LevelsInferer": "is run in test_geometry.py",
    "TransferReport": "holds names, no tensor",
    "build_backbone": "is what all the networks below are built with",
    "load_network": "builds a network on the CPU from a file",
    "load_weights": "reads a file into a network of the CPU",
    "parameter_groups": "sorts parameters by name",
    "transfer_weights": "copies a state dict, whichever device a network lies on",
}


def small(dims: int, **options: Any) -> dict[str, Any]:
    return {"backbone": "dynunet", "spatial_dims": dims, "channels": [4, 8, 8]} | options


def embedding(dims: int, **options: Any) -> PixelEmbeddingNet:
    return PixelEmbeddingNet(**small(dims, embedding_size=4, **options))


def pixpro(dims: int, **options: Any) -> PixProNet:
    network = BackboneNet(**small(dims, strides=[2, 4], encoder_only=True))
    return PixProNet(network, projection_size=4, hidden_channels=8, **options)


CASES: dict[str, Callable[[int], nn.Module]] = {
    "PixelEmbeddingNet": embedding,
    "PixelEmbeddingNet on unet": lambda dims: embedding(dims, backbone="unet"),
    "BackboneNet": lambda dims: BackboneNet(**small(dims, encoder_only=True)),
    "SiameseNet": lambda dims: SiameseNet(embedding(dims)),
    "PixProNet": lambda dims: pixpro(dims, instance=True),
    "PixProNet for PixContrast": lambda dims: pixpro(dims, propagation=False),
    "EncoderNet": lambda dims: EncoderNet(**small(dims)),
    "ClassifierNet": lambda dims: ClassifierNet(3, **small(dims)),
    "InstanceContrastNet": lambda dims: InstanceContrastNet(projection_size=4, **small(dims)),
    "MixUpNet": lambda dims: MixUpNet(**small(dims, reconstruct_source=True)),
    "MixUpNet, ordinal, with skips": lambda dims: MixUpNet(**small(dims, opacity_head="ordinal", skips=True)),
    "DenseOpacityNet": lambda dims: DenseOpacityNet(**small(dims)),
    "LandmarkNet": lambda dims: LandmarkNet(2, configuration_stride=4, configuration_kernel=3, **small(dims)),
    "LandmarkNet, partly frozen": lambda dims: LandmarkNet(2, trained_layers=1, **small(dims)),
    "SegmentationNet, linear": lambda dims: SegmentationNet(3, frozen=True, **small(dims)),
    "SegmentationNet, decoder": lambda dims: SegmentationNet(3, head="decoder", **small(dims)),
    "MixedPrecision": lambda dims: MixedPrecision(LandmarkNet(2, **small(dims)), False),
}
FLAT: dict[str, Callable[[int], nn.Module]] = {
    "PixelEmbeddingNet on resnet18": lambda dims: embedding(dims, backbone="resnet18", channels=[4, 4, 8, 8]),
    "EfficientNetLiteEncoder": lambda dims: EfficientNetLiteEncoder("efficientnet-lite0", in_channels=1),
    "PixelEmbeddingNet on efficientnet-lite0": lambda dims: embedding(
        dims, backbone="efficientnet-lite0", channels=[4, 4, 8, 8]
    ),
}
EVERY = [(name, dims) for name in CASES for dims in (2, 3)] + [(name, 2) for name in FLAT]


def images(name: str, dims: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 2) if name.startswith("Instance") else (2,)
    size = FLAT_SIZE if name in FLAT else SIZE[dims]
    count = 2 if name.startswith(("Siamese", "PixPro")) else 1
    return tuple(torch.rand(*shape, 1, *size, generator=generator) for _ in range(count))


@pytest.mark.parametrize(("name", "dims"), EVERY)
def test_network(name: str, dims: int) -> None:
    """In training: outputs lie on the device, every parameter that learns gets a gradient there."""
    torch.manual_seed(0)
    made = (CASES | FLAT)[name](dims).train()
    given = images(name, dims)
    expected = copy.deepcopy(made)(*given)
    with pretend_device() as device:
        network = copy.deepcopy(made).to(device)
        found = network(*[image.to(device) for image in given])
        outputs = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        assert {output.device.type for output in outputs} == {NAME}
        torch.stack([output.square().mean() for output in outputs if output.requires_grad]).sum().backward()
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        assert {gradient.device.type for gradient in gradients} == {NAME}
        plain = tree_map_only(Tensor, lambda output: output.detach().cpu(), found)
    torch.testing.assert_close(plain, tree_map_only(Tensor, Tensor.detach, expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_pixpro_on_drawn_cells_and_its_momentum(dims: int) -> None:
    with pretend_device() as device:
        network = pixpro(dims).to(device)
        cells = [torch.zeros(2, 3, dtype=torch.long, device=device)] * 2
        found = network(*[image.to(device) for image in images("PixPro", dims)], cells, cells)
        assert found["query"]["online"][0].shape == (2, 4, 3)
        network.follow(0.9)
        network.restart()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_decoding(activation: str) -> None:
    output = torch.rand(2, 6, 8, 10, generator=torch.Generator().manual_seed(0))
    assert_same(decode_output, output, 2, stride=2, activation=activation)


def test_every_public_network_is_run() -> None:
    run = {name.split()[0].rstrip(",") for name in (*CASES, *FLAT)}
    assert set(networks.__all__) == (run & set(networks.__all__)) | NOT_RUN.keys()
