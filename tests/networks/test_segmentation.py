"""Segmentation on a pretrained backbone: linearity against einsum, a frozen trunk, transfer, sizes, export."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss, DiceFocalLoss
from monai.metrics import DiceMetric
from torch import nn
from torch.nn import functional as F

from medpixcl.networks import BackboneNet, load_weights
from medpixcl.networks.finetuning import hold_frozen, parameter_groups
from medpixcl.networks.segmentation import HEADS, LinearProbe, SegmentationNet
from tests.networks.cases import CHANNELS

ROOT = Path(__file__).parents[2]
SIZES = {2: (45, 66), 3: (33, 20, 35)}
EXPORTED = [("efficientnet-lite0", "linear", 2), ("dynunet", "linear", 3), ("dynunet", "decoder", 3)]
EACH_HEAD = pytest.mark.parametrize("head", HEADS)
EACH_DIM = pytest.mark.parametrize("dims", [2, 3])


def make(dims: int, backbone: str = "dynunet", *, classes: int = 3, **options) -> SegmentationNet:
    torch.manual_seed(0)
    given = {"backbone": backbone, "spatial_dims": dims, "channels": CHANNELS[backbone]}
    return SegmentationNet(classes, **(given | options))


def picture(dims: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 1, *SIZES[dims], generator=torch.Generator().manual_seed(1))


def train_a_little(net: nn.Module, image: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(parameter_groups(net, 0.1, 0.1), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net.train()(image).square().mean().backward()
        optimizer.step()


@EACH_DIM
@pytest.mark.parametrize("backbone", ["dynunet", "efficientnet-lite0"])
def test_linear_probe_is_einsum_and_interpolation(dims: int, backbone: str) -> None:
    """From the definition: standardise each channel, weigh, interpolate, sum over the maps, crop."""
    net = make(dims, backbone)
    train_a_little(net, picture(dims, batch=2))  # so that the running statistics are not those of the start
    net.eval()
    image, step = picture(dims), net.coarsest_stride
    whole = [-(-n // step) * step for n in SIZES[dims]]
    padded = torch.zeros(1, 1, *whole)
    padded[(..., *[slice(n) for n in SIZES[dims]])] = image
    expected = torch.zeros(1, 3, *whole)
    with torch.no_grad():
        for level, norm, layer in zip(net.backbone(2 * padded - 1), net.head.norms, net.head.weights, strict=True):
            centre, scale = (value.view(1, -1, *[1] * dims) for value in (norm.running_mean, norm.running_var))
            standard = (level - centre) / (scale + 1e-20).sqrt()
            cells = torch.einsum("bc...,kc->bk...", standard, layer.weight.flatten(1))
            cells = cells + layer.bias.view(1, -1, *[1] * dims)
            expected += F.interpolate(cells, size=whole, mode="bilinear" if dims == 2 else "trilinear")
        found = net(image)
    assert found.shape == (1, 3, *SIZES[dims])
    torch.testing.assert_close(found, expected[(..., *[slice(n) for n in SIZES[dims]])], atol=2e-5, rtol=1e-4)


@EACH_DIM
def test_linear_probe_is_linear_in_its_maps(dims: int) -> None:
    head = make(dims).eval().head
    state = torch.Generator().manual_seed(2)
    shapes = [(1, norm.num_features, *[16 // 2**n] * dims) for n, norm in enumerate(head.norms)]
    one, other = ([torch.randn(shape, generator=state) for shape in shapes] for _ in range(2))
    mixed = [0.3 * a + 0.7 * b for a, b in zip(one, other, strict=True)]
    with torch.no_grad():
        expected = 0.3 * head(one, [16] * dims) + 0.7 * head(other, [16] * dims)
        torch.testing.assert_close(head(mixed, [16] * dims), expected, atol=1e-5, rtol=1e-4)
    assert not any(True for _ in head.norms.parameters()), "nothing is learnt in the norms"


def test_probe_of_frozen_maps_has_their_statistics_over_all_batches() -> None:
    """However small they are: an untrained encoder's maps are of the order of 1e-8."""
    batches = [1e-8 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(n)) + 3e-8 for n in range(3)]
    probe = LinearProbe(2, [3], 2, frozen=True)
    for batch in batches:
        probe([batch], [16, 16])
    norm = probe.eval().norms[0]
    with torch.no_grad():
        standard = norm(batches[0])
    means, variances = (torch.stack([getattr(b, f)((0, 2, 3)) for b in batches]).mean(0) for f in ("mean", "var"))
    expected = (batches[0] - means.view(1, -1, 1, 1)) / variances.view(1, -1, 1, 1).sqrt()
    torch.testing.assert_close(standard, expected, rtol=1e-3, atol=1e-3)
    assert standard.std() > 0.9


@EACH_DIM
@EACH_HEAD
def test_frozen_trunk_stays_to_the_byte(dims: int, head: str) -> None:
    """Weights and batch statistics, whatever train() is called with; the head learns."""
    net = make(dims, head=head, frozen=True, norm="batch")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    train_a_little(net, picture(dims, batch=2))
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith("backbone.") for name in changed)
    for mode in (True, False):
        assert not any(module.training for module in net.train(mode).backbone.modules())
        assert net.head.training == mode


def test_frozen_trunk_survives_converted_norms() -> None:
    """As for several GPUs: the new norms are as frozen as the old ones."""
    net = torch.nn.SyncBatchNorm.convert_sync_batchnorm(make(2, frozen=True, norm="batch")).train()
    norms = [module for module in net.backbone.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_unfrozen_trunk_learns() -> None:
    net = make(2, norm="batch")
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    train_a_little(net, picture(2, batch=2))
    assert net.backbone.training
    assert any(not torch.equal(value, before[name]) for name, value in net.backbone.state_dict().items())


def test_only_whole_layers_are_held() -> None:
    """A layer with something to learn keeps its mode."""
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout()), nn.Dropout())
    net[1].requires_grad_(False)
    hold_frozen(net)
    assert [module.training for module in net.modules()] == [True, True, False, False, False, True]


def test_parameter_groups_hold_what_learns_once() -> None:
    net = make(2)
    trunk, head = parameter_groups(net, 0.1, 0.5)
    assert {id(p) for p in (*trunk["params"], *head["params"])} == {id(p) for p in net.parameters()}
    assert len(trunk["params"]) + len(head["params"]) == len(list(net.parameters()))
    assert (trunk["lr"], head["lr"]) == (0.1, 0.5)
    (only,) = parameter_groups(make(2, frozen=True), 0.1, 0.5)
    assert {id(p) for p in only["params"]}.isdisjoint({id(p) for p in trunk["params"]})
    assert len(only["params"]) == len(head["params"])


@EACH_DIM
@pytest.mark.parametrize("options", [{}, {"strides": [4]}, {"encoder_only": True, "strides": [4, 8]}], ids=str)
@pytest.mark.parametrize("backbone", ["efficientnet-lite0", "dynunet", "unet"])
def test_pretrained_backbone_goes_in_whole(dims: int, options: dict, backbone: str, tmp_path: Path) -> None:
    """All of the trunk is matched, all that is missing is the head, and the maps are those of the pretraining."""
    torch.manual_seed(3)
    source = BackboneNet(spatial_dims=dims, backbone=backbone, channels=CHANNELS[backbone], **options)
    torch.save(source.state_dict(), tmp_path / "model.pt")
    net = make(dims, backbone, **options)
    report = load_weights(net, tmp_path / "model.pt", strict=False, required=["backbone."])
    assert set(report.matched) == set(source.state_dict())
    assert not report.unexpected
    assert not report.mismatched
    assert all(name.startswith("head.") for name in report.missing)
    image = torch.rand(1, 1, *[32] * dims)
    with torch.no_grad():
        maps = net.eval().backbone(2 * image - 1)
        for tap, expected in zip(net.taps, source.eval().maps(image), strict=True):
            assert torch.equal(maps[tap], expected)


def test_incomplete_pretraining_is_refused(tmp_path: Path) -> None:
    coarse = BackboneNet(backbone="dynunet", channels=CHANNELS["dynunet"], strides=[4])
    torch.save(coarse.state_dict(), tmp_path / "model.pt")
    with pytest.raises(ValueError, match="must fill every tensor of the network"):
        load_weights(make(2, strides=[1, 4]), tmp_path / "model.pt", strict=False, required=["backbone."])


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks scripted in a process of their own, see script_segmentation.py."""
    folder = tmp_path_factory.mktemp("scripts")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(Path(__file__).with_name("script_segmentation.py")), str(folder)]
    names = [f"{backbone}-{head}-{dims}" for backbone, head, dims in EXPORTED]
    done = subprocess.run([*command, *names], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(("backbone", "head", "dims"), EXPORTED)
def test_exported_it_takes_the_image_alone_in_any_size(backbone: str, head: str, dims: int, scripts: Path) -> None:
    net = make(dims, backbone, head=head).eval()
    image = picture(dims)
    with torch.no_grad():
        expected = net(image)
        assert expected.shape == (1, 3, *SIZES[dims])
        assert expected.dtype == torch.float32
        scripted = torch.jit.load(scripts / f"{backbone}-{head}-{dims}.ts")
        torch.testing.assert_close(scripted(image), expected, atol=1e-5, rtol=1e-4)
        smaller = image[..., :-3]
        torch.testing.assert_close(scripted(smaller), net(smaller), atol=1e-5, rtol=1e-4)
        exported = torch.export.export(net, (image,)).module()
        torch.testing.assert_close(exported(image), expected, atol=1e-5, rtol=1e-4)


@EACH_DIM
@EACH_HEAD
def test_padding_changes_nothing_inside(dims: int, head: str) -> None:
    """An image that ends in zeros gives what the smaller one gives, so the padding is zero and at the end."""
    net, size = make(dims, head=head).eval(), SIZES[dims]
    step = net.coarsest_stride
    whole = torch.zeros(1, 1, *[-(-n // step) * step for n in size])
    whole[(..., *[slice(n) for n in size])] = picture(dims)
    with torch.no_grad():
        torch.testing.assert_close(net(picture(dims)), net(whole)[(..., *[slice(n) for n in size])])


@EACH_HEAD
def test_a_flat_volume_is_a_picture(head: str) -> None:
    """3D of one plane per level equals 2D where the kernels have the same middle plane."""
    options = {"strides": [1], "head": head}
    flat, deep = make(2, **options).eval(), make(3, **options).eval()
    state = {}
    for (name, small), large in zip(flat.head.state_dict().items(), deep.head.state_dict().values(), strict=True):
        state[name] = torch.zeros_like(large)
        if large.ndim == 5:
            state[name][..., large.shape[-1] // 2] = small
        else:
            state[name] = small
    deep.head.load_state_dict(state)
    level = torch.randn(1, CHANNELS["dynunet"][0], 6, 8)
    with torch.no_grad():
        expected = flat.head([level], [12, 16])
        found = deep.head([level[..., None]], [12, 16, 1])
    torch.testing.assert_close(found[..., 0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "classes is 0"),
        ({"head": "linnear"}, "expected one of linear, decoder"),
        ({"strides": [3]}, "has maps at strides"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(2, **options)


def test_losses_of_the_bundle_against_their_formulas() -> None:
    """Dice over the batch and cross-entropy, per class for masks that overlap, over the classes for maps."""
    state = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 5, 6, generator=state)
    masks = (torch.rand(2, 3, 5, 6, generator=state) > 0.5).float()

    def dice_loss(p: np.ndarray, y: np.ndarray) -> float:
        axes = (0, 2, 3)
        return float(np.mean(1 - (2 * (p * y).sum(axes) + 1e-5) / (p.sum(axes) + y.sum(axes) + 1e-5)))

    p, y = 1 / (1 + np.exp(-logits.numpy())), masks.numpy()
    expected = dice_loss(p, y) - np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert float(DiceFocalLoss(sigmoid=True, gamma=0.0, batch=True)(logits, masks)) == pytest.approx(expected, rel=1e-4)

    numbers = torch.randint(0, 3, (2, 1, 5, 6), generator=state)
    e = np.exp(logits.numpy())
    p, y = e / e.sum(1, keepdims=True), np.moveaxis(np.eye(3)[numbers.numpy()[:, 0]], -1, 1)
    expected = dice_loss(p, y) - np.mean((y * np.log(p)).sum(1))
    found = DiceCELoss(softmax=True, to_onehot_y=True, batch=True)(logits, numbers.float())
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_dice_metric_leaves_out_what_an_image_has_not() -> None:
    """MONAI's Dice, as the bundle uses it, against 2 |A and B| / (|A| + |B|); NaN where the label is empty."""
    state = torch.Generator().manual_seed(0)
    found, label = (torch.rand(3, 2, 8, 9, generator=state) > 0.6 for _ in range(2))
    label[1, 0] = False
    a, b = found.numpy(), label.numpy()
    each = 2.0 * (a & b).sum((2, 3)) / (a.sum((2, 3)) + b.sum((2, 3)))
    each[1, 0] = np.nan
    metric = DiceMetric(include_background=True, reduction="mean")
    np.testing.assert_allclose(metric(found.float(), label.float()).numpy(), each, rtol=1e-5)
    assert float(metric.aggregate()) == pytest.approx(np.nanmean(np.nanmean(each, axis=1)), rel=1e-5)
