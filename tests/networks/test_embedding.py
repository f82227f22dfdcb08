"""Pixel embeddings of every backbone, in 2D and 3D."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medpixcl.networks import BackboneNet, EncoderNet, MixUpNet, PixelEmbeddingNet, SiameseNet, build_backbone
from medpixcl.networks.embedding import dense_embedding
from tests.networks.cases import CHANNELS, SIZE, make, picture

STRIDES = {
    "efficientnet-lite0": [2, 4, 8, 16, 32],
    "resnet18": [2, 4, 8, 16, 32],
    "dynunet": [1, 2, 4, 8],
    "unet": [2, 4, 8],
}
EVERY = [(name, dims) for name in CHANNELS for dims in (2, 3)]
BACKBONES = pytest.mark.parametrize(("name", "dims"), EVERY)
SCRIPTABLE = pytest.mark.parametrize(("name", "dims"), [pair for pair in EVERY if pair[0] != "resnet18"])


class TestBackbone:
    @BACKBONES
    def test_maps_are_what_is_promised(self, name, dims):
        backbone = build_backbone(name, spatial_dims=dims, in_channels=2, channels=CHANNELS[name]).eval()
        with torch.no_grad():
            maps = backbone(torch.rand(1, 2, *SIZE[dims]))
        assert backbone.strides == STRIDES[name]
        assert len(maps) == len(backbone.channels) == len(backbone.strides)
        for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
            assert found.shape == (1, channels, *[n // stride for n in SIZE[dims]])

    @pytest.mark.parametrize("name", CHANNELS)
    def test_finest_map_sees_coarse_context(self, name):
        """The up path is used: a change far outside the fine layers' reach moves the finest map."""
        torch.manual_seed(0)  # some weights let no gradient through to the middle
        backbone = build_backbone(name, spatial_dims=2, in_channels=1, channels=CHANNELS[name]).eval()
        image = picture(2).requires_grad_()
        finest = backbone(image)[0]
        centre = (0, slice(None), *[n // 2 for n in finest.shape[2:]])
        finest[centre].sum().backward()
        reach = (image.grad.abs().amax((0, 1)) > 0).nonzero()
        assert (reach.amax(0) - reach.amin(0)).max() > 20

    @pytest.mark.parametrize("name", ["dynunet", "unet"])
    @pytest.mark.parametrize("norm", ["batch", ["group", {"num_groups": 2}]], ids=str)
    def test_norm(self, name, norm):
        backbone = build_backbone(name, spatial_dims=2, in_channels=1, channels=[4, 4, 8], norm=norm)
        kinds = {type(module).__name__ for module in backbone.modules() if "Norm" in type(module).__name__}
        assert kinds == {"BatchNorm2d" if norm == "batch" else "GroupNorm"}

    def test_unknown(self):
        message = r"^unknown backbone 'vgg'; use one of dynunet, unet, .*efficientnet-lite0"
        with pytest.raises(ValueError, match=message):
            build_backbone("vgg", spatial_dims=2, in_channels=1, channels=[8, 8, 8])

    @pytest.mark.parametrize("name", ["dynunet", "unet"])
    def test_no_pretrained_weights(self, name):
        message = rf"^there are no pretrained weights for the backbone {name}; use pretrained=False$"
        with pytest.raises(ValueError, match=message):
            build_backbone(name, spatial_dims=2, in_channels=1, channels=[8, 8, 8], pretrained=True)

    @pytest.mark.parametrize("network", [PixelEmbeddingNet, BackboneNet, EncoderNet, MixUpNet])
    def test_unknown_option(self, network):
        """What a network does not know goes to its backbone, which names what it does not know."""
        with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'chanels'$"):
            network(backbone="dynunet", chanels=[4, 8, 8])


class TestEmbedding:
    @BACKBONES
    def test_unit_vectors_at_every_level(self, name, dims):
        net = make(name, dims).eval()
        assert net.strides == STRIDES[name]
        with torch.no_grad():
            levels = net.levels(picture(dims, batch=2))
        for level, stride in zip(levels, net.strides, strict=True):
            assert level.shape == (2, 6, *[n // stride for n in SIZE[dims]])
            torch.testing.assert_close(level.norm(dim=1), torch.ones_like(level[:, 0]), rtol=0, atol=1e-5)

    @BACKBONES
    def test_forward_is_the_mean_of_the_cosines(self, name, dims):
        """The scalar product of two pixels: the mean over levels of the cosine of their interpolated vectors."""
        net = make(name, dims).eval()
        image = picture(dims)
        with torch.no_grad():
            dense, levels = net(image), net.levels(image)
        assert torch.equal(dense, dense_embedding(levels))
        assert dense.shape[1] == 6 * len(levels)
        mode = "bilinear" if dims == 2 else "trilinear"
        pixels = torch.randint(0, dense[0, 0].numel(), (2, 40), generator=torch.Generator().manual_seed(1))
        cosines = []
        for level in levels:
            fine = F.interpolate(level, size=dense.shape[2:], mode=mode, align_corners=False).flatten(2)[0]
            cosines.append(F.cosine_similarity(fine[:, pixels[0]], fine[:, pixels[1]], dim=0))
        first, second = (dense.flatten(2)[0][:, one] for one in pixels)
        torch.testing.assert_close((first * second).sum(0), torch.stack(cosines).mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(first.norm(dim=0), torch.ones(40), rtol=0, atol=1e-5)

    @BACKBONES
    def test_gradient_reaches_every_parameter(self, name, dims):
        net = make(name, dims)
        weights = torch.Generator().manual_seed(2)
        levels = net.levels(picture(dims, batch=2))
        sum((level * torch.randn(level.shape, generator=weights)).sum() for level in levels).backward()
        without = [n for n, p in net.named_parameters() if p.grad is None]
        assert not without
        assert all(parameter.grad.isfinite().all() for parameter in net.parameters())

    def test_images_are_mapped_to_the_range_of_imagenet(self):
        net = make("efficientnet-lite0", 2).eval()
        with torch.no_grad():
            by_hand = net.backbone(picture(2) * 2 - 1)
            for level, head, found in zip(net.levels(picture(2)), net.heads, by_hand, strict=True):
                torch.testing.assert_close(level, F.normalize(head(found), dim=1))

    def test_chosen_strides(self):
        net = make("efficientnet-lite0", 2, strides=[4, 16]).eval()
        whole = make("efficientnet-lite0", 2).eval()
        report = whole.backbone.load_state_dict(net.backbone.state_dict(), strict=False)
        assert report.missing_keys  # the layers of stride 2, which no loss would reach, are left out
        assert not report.unexpected_keys
        for own, other in ((0, 1), (1, 3)):
            whole.heads[other].load_state_dict(net.heads[own].state_dict())
        with torch.no_grad():
            chosen, every = net.levels(picture(2)), whole.levels(picture(2))
        for found, expected in zip(chosen, (every[1], every[3]), strict=True):
            torch.testing.assert_close(found, expected)

    @BACKBONES
    def test_gradient_reaches_every_parameter_with_chosen_strides(self, name, dims):
        """DistributedDataParallel refuses parameters that no loss reaches."""
        net = make(name, dims, strides=STRIDES[name][1::2])
        sum(level[:, 0].sum() for level in net.levels(picture(dims, batch=2))).backward()
        assert not [n for n, p in net.named_parameters() if p.grad is None]

    def test_stride_that_is_not_there(self):
        message = r"^the backbone dynunet has maps at strides \[1, 2, 4, 8\], found strides=\[2, 16\]$"
        with pytest.raises(ValueError, match=message):
            make("dynunet", 2, strides=[2, 16])

    def test_encoder_alone(self):
        net = BackboneNet(encoder_only=True, strides=[2, 8, 32]).eval()
        image = picture(2)
        with torch.no_grad():
            maps = net.backbone.encoder(2 * image - 1)
            for level, number in zip(net.levels(image), (0, 2, 4), strict=True):
                torch.testing.assert_close(level, maps[number] / maps[number].norm(dim=1, keepdim=True))
            assert net(image).shape == (1, 16 + 40 + 320, 16, 32)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TorchScript files, made in a process whose functions are not wrapped by the type checker of the tests."""
    folder = tmp_path_factory.mktemp("scripts")
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(Path(__file__).with_name("script_process.py")), str(folder)]
    names = [f"{name}-{dims}" for name, dims in EVERY if name != "resnet18"]
    done = subprocess.run([*command, *names], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


class TestExport:
    @SCRIPTABLE
    def test_script(self, name, dims, scripts):
        saved = torch.load(scripts / f"{name}-{dims}-expected.pt")
        scripted = torch.jit.load(scripts / f"{name}-{dims}.ts")
        with torch.no_grad():
            torch.testing.assert_close(scripted(saved["image"]), saved["dense"])
            torch.testing.assert_close(scripted.levels(saved["image"]), saved["levels"])

    @pytest.mark.parametrize(
        ("name", "dims"),
        [
            *[pair for pair in EVERY if pair[0] != "resnet18"],
            pytest.param("resnet18", 2, marks=pytest.mark.xfail(reason="MONAI's shortcut is a constant", strict=True)),
        ],
    )
    def test_trace(self, name, dims):
        net = make(name, dims).eval()
        traced = torch.jit.trace(net, picture(dims))
        with torch.no_grad():
            other = picture(dims, seed=1)
            torch.testing.assert_close(traced(other), net(other))

    @pytest.mark.parametrize(("name", "dims"), [("efficientnet-lite0", 2), ("dynunet", 3)])
    def test_export(self, name, dims):
        net = make(name, dims).eval()
        exported = torch.export.export(net, (picture(dims),)).module()
        other = picture(dims, seed=1)
        with torch.no_grad():
            torch.testing.assert_close(exported(other), net(other))


class TestSiameseNet:
    @BACKBONES
    def test_together_equals_one_by_one(self, name, dims):
        """In evaluation, where no statistics of the batch are taken."""
        net = make(name, dims)
        siamese = SiameseNet(net).eval()
        query, anchor = picture(dims, seed=1), picture(dims, seed=2)
        with torch.no_grad():
            both = siamese(query, anchor)
            expected = [net.levels(query), net.levels(anchor)]
        torch.testing.assert_close(both, expected, rtol=1e-3, atol=1e-4)

    def test_views_of_two_shapes(self):
        siamese = SiameseNet(make("dynunet", 2)).eval()
        with torch.no_grad():
            query, anchor = siamese(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 48, 64))
        assert query[0].shape[2:] == (32, 32)
        assert anchor[0].shape[2:] == (48, 64)

    def test_batch_statistics_are_shared(self):
        """Training with batch norm: both views are normalised together."""
        net = make("efficientnet-lite0", 2).train()
        copied = copy.deepcopy(net)
        query, anchor = picture(2, batch=2, seed=1), picture(2, batch=2, seed=2)
        found = SiameseNet(net)(query, anchor)
        whole = copied.levels(torch.cat([query, anchor]))
        for level, (one, other) in zip(whole, zip(*found, strict=True), strict=True):
            torch.testing.assert_close(torch.cat([one, other]), level)

    @BACKBONES
    def test_bfloat16_is_close(self, name, dims):
        """Directions of the vectors: the cosine to those in float32."""
        net = make(name, dims)
        plain, half = SiameseNet(net).eval(), SiameseNet(net, bfloat16=True).eval()
        views = picture(dims, seed=1), picture(dims, seed=2)
        with torch.no_grad():
            for expected, found in zip(plain(*views), half(*views), strict=True):
                for one, other in zip(expected, found, strict=True):
                    assert other.dtype == torch.float32
                    assert not torch.equal(one, other)
                    assert F.cosine_similarity(one, other, dim=1).mean() > 0.999
        assert all(parameter.dtype == torch.float32 for parameter in net.parameters())

    def test_encoder_alone_in_bfloat16_gives_float32(self):
        half = SiameseNet(BackboneNet(encoder_only=True, strides=[2, 4]), bfloat16=True).eval()
        with torch.no_grad():
            levels = half(picture(2), picture(2))[0]
        assert [level.dtype for level in levels] == [torch.float32] * 2


def test_dense_embedding_of_one_level_is_that_level():
    level = F.normalize(torch.randn(1, 4, 5, 6), dim=1)
    assert torch.equal(dense_embedding([level]), level)
    assert isinstance(make("dynunet", 2), nn.Module)
