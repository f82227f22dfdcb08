"""The landmark network: shapes, weights of an embedding network, export, and decoding of its output."""

import subprocess
import sys

import pytest
import torch

from medpixcl.landmarks.heatmaps import encode_heatmaps
from medpixcl.networks import LandmarkNet, MixedPrecision, load_weights
from medpixcl.networks.landmark import decode_output, parameter_groups
from tests.networks.cases import CHANNELS, SIZE, make, picture

CASES = [("efficientnet-lite0", 2), ("dynunet", 2), ("dynunet", 3), ("unet", 3)]


def network(name: str, dims: int, landmarks: int = 3) -> LandmarkNet:
    torch.manual_seed(0)
    return LandmarkNet(landmarks, spatial_dims=dims, backbone=name, channels=CHANNELS[name]).eval()


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_output(name, dims):
    """K heatmaps and K * D offsets at half the size; all parameters get a gradient."""
    net = network(name, dims)
    out = net(picture(dims, batch=2))
    assert out.shape == (2, 3 * (1 + dims), *[n // 2 for n in SIZE[dims]])
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


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_export(name, dims):
    net, image = network(name, dims), picture(dims)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.export(net, (image,)).module()(image), net(image))


def test_torchscript(tmp_path):
    """In a process of its own: what checks annotations in the tests cannot be scripted."""
    code = (
        "import sys, torch; from medpixcl.networks import LandmarkNet\n"
        "for dims in (2, 3):\n"
        "    net = LandmarkNet(3, spatial_dims=dims, backbone='dynunet', channels=[4, 8, 12, 16]).eval()\n"
        "    torch.jit.script(net).save(f'{sys.argv[1]}/{dims}.ts')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)
    for dims in (2, 3):
        image = picture(dims)
        with torch.no_grad():
            net = network("dynunet", dims)
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


def test_bad_arguments():
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


def test_refuses_maps_on_which_bfloat16_gradients_are_garbage():
    """Two cells along the first axis, in training alone; three cells have gradients near those of float32."""
    conv = torch.nn.Conv3d(8, 8, 3, padding=1)
    net = MixedPrecision(conv)
    for shape in ((3, 3, 3), (4, 4, 2)):
        image = torch.rand(2, 8, *shape, generator=torch.Generator().manual_seed(0))
        net(image).float().square().mean().backward()
        found, conv.weight.grad = conv.weight.grad, None
        conv(image).square().mean().backward()
        torch.testing.assert_close(found, conv.weight.grad, rtol=0.05, atol=0.01)
        conv.weight.grad = None
    image = torch.rand(2, 8, 2, 4, 4)
    with pytest.raises(ValueError, match=r"a map of \(2, 4, 4\) cells, and bfloat16 gradients on a CPU are wrong"):
        net(image)
    with torch.no_grad():
        net(image)
    MixedPrecision(torch.nn.Conv3d(8, 8, 3, padding=1), False)(image)
