"""The landmark network: shapes, weights of the pretrainings, spatial configuration, export, decoding of its output."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch.nn import functional as F

from medpixcl.landmarks.heatmaps import encode_heatmaps
from medpixcl.networks import BackboneNet, LandmarkNet, MixedPrecision, SiameseNet, load_weights
from medpixcl.networks.configuration import SpatialConfiguration
from medpixcl.networks.finetuning import parameter_groups
from medpixcl.networks.landmark import decode_output
from medpixcl.networks.pixpro import PixProNet
from tests.networks.cases import CHANNELS, SIZE, make, picture

CASES = [("efficientnet-lite0", 2), ("dynunet", 2), ("dynunet", 3), ("unet", 3)]


CONFIGURATION = {"configuration_stride": 8, "configuration_channels": 5, "configuration_kernel": 3}
OPTIONS = [{}, {"encoder_only": True}, {"stride": 4}, CONFIGURATION]
BUNDLES = Path(__file__).parents[2] / "bundles"
PRETRAININGS = {
    "xray_infoaug_pretraining": True,
    "xray_depth_pixpro_pretraining": False,
    "xray_mixup_pretraining": False,
}
"""Bundles, and whether they train the up path of the backbone, too."""


def network(name: str, dims: int, landmarks: int = 3, **options) -> LandmarkNet:
    torch.manual_seed(0)
    return LandmarkNet(landmarks, spatial_dims=dims, backbone=name, channels=CHANNELS[name], **options).eval()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("name", "dims"), CASES)
def test_output(name, dims, options):
    """K heatmaps and K * D offsets at the stride; all parameters get a gradient."""
    net = network(name, dims, **options)
    out = net(picture(dims, batch=2))
    assert out.shape == (2, 3 * (1 + dims), *[n // net.stride for n in SIZE[dims]])
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_starts_from_an_embedding_network(name, dims, tmp_path):
    """Every tensor of the trunk is taken; only the heads are new, and the trunk computes the same maps."""
    source = make(name, dims).eval()
    torch.save(source.state_dict(), tmp_path / "model.pt")
    net = network(name, dims)
    report = load_weights(net, tmp_path / "model.pt", strict=False)
    assert all("head" in tensor for tensor in report.missing)
    assert not report.mismatched
    image = picture(dims)
    with torch.no_grad():
        wanted = source.backbone(image)
        found = net.backbone(image)
    for one, stride in zip(found, net.backbone.strides, strict=True):
        torch.testing.assert_close(one, wanted[source.backbone.strides.index(stride)])


@pytest.mark.parametrize(("bundle", "up_path"), PRETRAININGS.items())
def test_starts_from_every_pretraining(bundle, up_path, tmp_path):
    """What the bundle trains, built from its own settings, goes in whole; the report names what it does not hold."""
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs" / "train.json")
    parser["imagenet"] = False
    torch.manual_seed(1)
    source = parser.get_parsed_content("network_def").eval()
    torch.save(source.state_dict(), tmp_path / "model.pt")
    settings = {key: parser[key] for key in ("backbone", "channels", "norm")}
    for encoder_only in (True, False):
        net = LandmarkNet(19, encoder_only=encoder_only, **settings).eval()
        whole = {"required": ["backbone."]} if encoder_only or up_path else {"required": ["backbone.encoder."]}
        report = load_weights(net, tmp_path / "model.pt", strict=False, **whole)
        trunk = {name for name in net.state_dict() if name.startswith("backbone.")}
        given = {name for name in source.state_dict() if name.startswith("backbone.")}
        assert set(report.matched) == trunk & given
        assert set(report.missing) == set(net.state_dict()) - given
        assert not report.mismatched
        assert all(torch.equal(net.state_dict()[name], source.state_dict()[name]) for name in report.matched)
        if not (encoder_only or up_path):
            with pytest.raises(ValueError, match="must fill every tensor of the network that begins with"):
                load_weights(net, tmp_path / "model.pt", strict=False, required=["backbone."])


@pytest.mark.parametrize("dims", [2, 3])
def test_spatial_configuration_is_a_factor(dims):
    """From the definition: blocks of the local maps, convolutions, back to their size, tanh, times the local maps."""
    net, plain = network("dynunet", dims, **CONFIGURATION), network("dynunet", dims)
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if "configuration" not in name})
    image, layers = picture(dims), net.configuration
    conv, pool = (F.conv2d, F.avg_pool2d) if dims == 2 else (F.conv3d, F.avg_pool3d)
    with torch.no_grad():
        found, local = net(image), plain(image)
        x = pool(local[:, :3], 4)
        for layer in layers.inner:
            x = conv(x, layer.weight, layer.bias, padding=1)
            x = torch.where(x > 0, x, 0.1 * x)
        x = conv(x, layers.outer.weight, layers.outer.bias, padding=1)
        factor = F.interpolate(x, scale_factor=4, mode="bilinear" if dims == 2 else "trilinear").tanh()
    torch.testing.assert_close(found[:, :3], local[:, :3] * factor)
    torch.testing.assert_close(found[:, 3:], local[:, 3:])


def test_spatial_configuration_tells_twins_apart():
    """Two places that look alike: the local maps cannot know which is left, the arrangement can."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    layers = SpatialConfiguration(2, 2, factor=2, channels=8, kernel=7)
    rows = torch.randint(3, 9, (64,), generator=generator)
    left, right = (torch.randint(low, low + 4, (64,), generator=generator) for low in (1, 7))
    image = torch.arange(64)
    local = torch.zeros(64, 2, 12, 12)
    for place in (left, right):
        local[image, :, rows, place] = 12.0
    wanted = torch.stack([rows * 12 + left, rows * 12 + right], dim=1)
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy((local * layers(local)).flatten(2).flatten(0, 1), wanted.flatten()).backward()
        optimizer.step()
    assert torch.equal(local.flatten(2).argmax(2)[:, 0], local.flatten(2).argmax(2)[:, 1]), "the local maps are equal"
    with torch.no_grad():
        assert ((local * layers(local)).flatten(2).argmax(2) == wanted).double().mean() > 0.9


@pytest.mark.parametrize("options", [{}, {"encoder_only": True, "trained_layers": 0}, CONFIGURATION], ids=str)
@pytest.mark.parametrize(("name", "dims"), CASES)
def test_export(name, dims, options):
    net, image = network(name, dims, **options), picture(dims)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(net, (image,)).module()(image), net(image))


def test_torchscript(tmp_path):
    """In a process of its own: what checks annotations in the tests cannot be scripted."""
    code = (
        "import sys, torch; from medpixcl.networks import LandmarkNet\n"
        "for dims in (2, 3):\n"
        "    net = LandmarkNet(3, spatial_dims=dims, backbone='dynunet', channels=[4, 8, 12, 16],\n"
        "                      configuration_stride=8, configuration_channels=5, configuration_kernel=3).eval()\n"
        "    torch.jit.script(net).save(f'{sys.argv[1]}/{dims}.ts')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)
    for dims in (2, 3):
        image = picture(dims)
        with torch.no_grad():
            net = network("dynunet", dims, **CONFIGURATION)
            scripted = torch.jit.load(tmp_path / f"{dims}.ts")
            net.load_state_dict(scripted.state_dict())
            found, wanted = scripted(image), net(image)
        torch.testing.assert_close(found, wanted)


def test_bfloat16_keeps_weights_and_output():
    net, image = network("dynunet", 2), picture(2)
    with torch.no_grad():
        exact, coarse = MixedPrecision(net, False)(image), MixedPrecision(net, True)(image)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(exact, net(image))
    assert 0 < (coarse - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("use_offsets", [True, False])
@pytest.mark.parametrize(("cells", "points"), [((20, 24), [[9.3, 20.8]]), ((16, 14, 18), [[12.1, 11.7, 20.2]])])
def test_decoding(cells, points, use_offsets):
    """The logarithm of a Gaussian and true offsets give the point; wrong offsets that are not used do not matter."""
    dims, truth = len(cells), torch.tensor([points])
    maps = encode_heatmaps(truth, cells, stride=2, sigma_mm=1.6, spacing_mm=[1.0] * dims)
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) for n in cells], indexing="ij")).float()
    way = ((truth[0, 0] + 0.5) / 2 - 0.5)[(..., *[None] * dims)] - grid
    output = torch.cat([maps.clamp_min(1e-30).log(), (way if use_offsets else 0 * way + 7)[None]], dim=1)
    found, confidence = decode_output(output, 1, stride=2, use_offsets=use_offsets)
    assert (found - truth).abs().max() < 0.02
    assert float(confidence) > 0.99


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_decoding_of_other_losses(activation):
    """Maps as the loss asks for them come back to the same point."""
    truth = torch.tensor([[[9.3, 20.8], [14.5, 15.5]]])
    maps = encode_heatmaps(truth, [16, 20], stride=2, sigma_mm=2.0, spacing_mm=[1.0, 1.0], normalise=False)
    inverse = {"softmax": torch.log, "sigmoid": torch.logit, "none": lambda value: value}[activation]
    output = torch.cat([inverse(maps.clamp(1e-30, 1 - 1e-7)), torch.zeros(1, 4, 16, 20)], dim=1)
    found, confidence = decode_output(output, 2, stride=2, radius=6, activation=activation)
    assert (found - truth).abs().max() < 0.02
    assert confidence.min() > 0.99


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"configuration_stride is 7; expected a multiple of stride=2"):
        LandmarkNet(1, backbone="unet", channels=[4, 8, 12, 16], configuration_stride=7)
    with pytest.raises(ValueError, match="kernel of the spatial configuration is 4; expected an odd number"):
        LandmarkNet(1, backbone="unet", channels=[4, 8, 12, 16], configuration_stride=8, configuration_kernel=4)
    with pytest.raises(ValueError, match="trained_layers is 9; the backbone has 6 layers, expected 0 to 6, or None"):
        LandmarkNet(1, backbone="unet", channels=[4, 8, 12, 16], stride=2, trained_layers=9)
    with pytest.raises(ValueError, match="landmarks is 0; expected"):
        LandmarkNet(0)
    with pytest.raises(ValueError, match="has maps at strides"):
        LandmarkNet(1, backbone="unet", channels=[4, 8, 12, 16], stride=64)


def test_parameter_groups_hold_every_parameter_once():
    net = network("dynunet", 2)
    trunk, heads = parameter_groups(net, 0.1, 0.5)
    assert (trunk["lr"], heads["lr"]) == (0.1, 0.5)
    assert {id(p) for p in heads["params"]} == {id(p) for n, p in net.named_parameters() if "head" in n}
    assert len(trunk["params"]) + len(heads["params"]) == len(list(net.parameters()))


@pytest.mark.parametrize("shape", [(3, 3, 3), (4, 4, 2), (2, 4, 4)])
def test_gradients_in_bfloat16_are_near_those_of_float32(shape):
    """Also for two cells along the first axis, where torch's own are garbage: that layer is computed in float32."""
    conv = torch.nn.Conv3d(8, 8, 3, padding=1)
    net = MixedPrecision(conv, True)
    image = torch.rand(2, 8, *shape, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        assert net(image).dtype == (torch.float32 if shape[0] == 2 else torch.bfloat16)
        assert not torch.is_autocast_enabled("cpu")
    net(image).float().square().mean().backward()
    found, conv.weight.grad = conv.weight.grad, None
    conv(image).square().mean().backward()
    torch.testing.assert_close(found, conv.weight.grad, rtol=0.05, atol=0.01)
    with torch.no_grad():
        assert net(image).dtype == torch.bfloat16


def test_the_layer_after_one_in_float32_is_in_bfloat16_again():
    layers = torch.nn.Conv3d(2, 2, 1), torch.nn.Upsample(scale_factor=2), torch.nn.Conv3d(2, 2, 1)
    net = MixedPrecision(torch.nn.Sequential(*layers), True)
    assert net(torch.rand(1, 2, 2, 4, 4)).dtype == torch.bfloat16
    with pytest.raises(RuntimeError):
        net(torch.rand(1, 3, 2, 4, 4))
    assert net(torch.rand(1, 2, 2, 4, 4)).dtype == torch.bfloat16


@pytest.mark.parametrize("wrapper", [SiameseNet, PixProNet])
def test_two_views_compute_such_layers_in_float32_too(wrapper):
    net = wrapper(BackboneNet(spatial_dims=3, backbone="dynunet", channels=[4, 8, 8], strides=[2]), bfloat16=True)
    seen: dict[int, set[torch.dtype]] = {}

    def note(layer, given, found):
        if found.requires_grad:  # not so in the momentum encoder
            seen.setdefault(given[0].shape[2], set()).add(found.dtype)

    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.register_forward_hook(note)
    view = torch.rand(1, 1, 8, 16, 16)
    net(view, view)
    assert seen.pop(2) == {torch.float32}
    assert torch.bfloat16 in set().union(*seen.values())
