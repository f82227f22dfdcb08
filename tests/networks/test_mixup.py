"""The network of mix-up pretraining and the classifier: shapes, gradients, export, and how their encoders move."""

import subprocess
import sys

import pytest
import torch
from monai.networks.nets import DynUNet, FlexibleUNet

from medpixcl.networks import EncoderNet, LandmarkNet, load_weights
from medpixcl.networks.classifier import ClassifierNet
from medpixcl.networks.contrast import InstanceContrastNet
from medpixcl.networks.finetuning import parameter_groups
from medpixcl.networks.mixup import DenseOpacityNet, MixUpNet
from medpixcl.networks.weights import adapt_input_channels, transfer_weights

CHANNELS = [4, 8, 12, 16]
CASES = [("dynunet", 2), ("dynunet", 3), ("unet", 2), ("unet", 3)]
SIZE = {2: (16, 24), 3: (16, 8, 8)}


def network(name="dynunet", dims=2, **options):
    torch.manual_seed(0)
    return MixUpNet(spatial_dims=dims, backbone=name, channels=CHANNELS, decoder_channels=[8, 8, 4], **options)


def picture(dims, channels=1):
    return torch.rand(2, channels, *SIZE[dims], generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_output(name, dims):
    """Both images at full size, one opacity an image; every tensor gets a gradient."""
    net = network(name, dims, reconstruct_source=True)
    out = net(picture(dims))
    assert out["target"].shape == out["source"].shape == (2, 1, *SIZE[dims])
    assert out["opacity"].shape == (2, 1)
    torch.testing.assert_close(out["opacity"], out["opacity_logits"].sigmoid())
    sum(value.square().sum() for value in out.values()).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_dense_head_is_the_scalar_head_before_the_mean():
    """The logit of an image is the mean of its cells' logits."""
    net, image = network().eval(), picture(2)
    scalar = net(image)["opacity_logits"]
    net.dense = True
    dense = net(image)
    assert dense["opacity"].shape == (2, 1, 2, 3)
    torch.testing.assert_close(dense["opacity_logits"].mean((2, 3)), scalar)


def test_ordinal_head_counts_the_borders_passed():
    """Four bins over 0.2 to 0.8; two of three borders passed: the middle of the third bin, 0.575."""
    net = network(opacity_head="ordinal", opacity_bins=4, opacity_range=[0.2, 0.8]).eval()
    torch.nn.init.zeros_(net.opacity_head.weight)
    net.opacity_head.bias.data = torch.tensor([50.0, 50.0, -50.0])
    torch.testing.assert_close(net(picture(2))["opacity"], torch.full((2, 1), 0.575))


def test_without_skips_only_the_coarsest_map_is_seen():
    """The decoder's input is one map: nothing else of the network is between the image and the reconstruction."""
    net, image = network().eval(), picture(2)
    coarsest = net.backbone(2 * image - 1)[-1]
    torch.testing.assert_close(net.decoder(coarsest), net(image)["target"])


def test_bad_arguments():
    with pytest.raises(ValueError, match="decoder_channels has 3 widths; the decoder doubles the size 5 times"):
        MixUpNet(decoder_channels=[8, 8, 8])
    with pytest.raises(ValueError, match="opacity_head is 'none'"):
        network(opacity_head="none")
    with pytest.raises(ValueError, match="opacity_bins is 1"):
        network(opacity_bins=1)
    with pytest.raises(ValueError, match="opacity_range is"):
        network(opacity_range=[0.5, 0.5])
    with pytest.raises(ValueError, match="expected 0 to 4"):
        ClassifierNet(2, backbone="dynunet", channels=CHANNELS, trained_layers=5)
    with pytest.raises(ValueError, match="classes is 0"):
        ClassifierNet(0)


@pytest.mark.parametrize(("name", "dims"), [("dynunet", 2), ("unet", 3)])
def test_export(name, dims):
    net, image = network(name, dims).eval(), picture(dims)
    with torch.no_grad():
        found, wanted = torch.export.export(net, (image,)).module()(image), net(image)
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value)


def test_torchscript(tmp_path):
    """In a process of its own: what checks annotations in the tests cannot be scripted."""
    code = (
        "import sys, torch; from medpixcl.networks.mixup import MixUpNet\n"
        "from medpixcl.networks.classifier import ClassifierNet\n"
        "torch.manual_seed(0)\n"
        "given = {'backbone': 'dynunet', 'channels': [4, 8, 12, 16]}\n"
        "nets = [MixUpNet(decoder_channels=[8, 8, 4], **given), ClassifierNet(2, trained_layers=1, **given)]\n"
        "nets += [MixUpNet(decoder_channels=[8, 8, 4], opacity_head='ordinal', spatial_dims=3, **given)]\n"
        "for number, net in enumerate(nets):\n"
        "    torch.jit.script(net.eval()).save(f'{sys.argv[1]}/{number}.ts')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)
    for number, net in enumerate(
        [
            network(),
            ClassifierNet(2, backbone="dynunet", channels=CHANNELS),
            network(dims=3, opacity_head="ordinal"),
        ]
    ):
        image = picture(3 if number == 2 else 2)
        scripted = torch.jit.load(tmp_path / f"{number}.ts")
        net.eval().load_state_dict(scripted.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(scripted(image), net(image))


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_moves_into_a_classifier_and_a_landmark_network(name, dims, tmp_path):
    source = network(name, dims)
    torch.save(source.state_dict(), tmp_path / "model.pt")
    encoder = source.backbone.state_dict()
    classifier = ClassifierNet(2, spatial_dims=dims, backbone=name, channels=CHANNELS)
    landmarks = LandmarkNet(2, spatial_dims=dims, backbone=name, channels=CHANNELS, norm="batch")
    for target in (classifier, landmarks):
        report = load_weights(target, tmp_path / "model.pt", strict=False)
        assert sorted(report.matched) == sorted(f"backbone.{key}" for key in encoder)
        assert not report.mismatched
        assert all(key.startswith(("decoder.", "opacity_head.")) for key in report.unexpected)
        for key, value in encoder.items():
            assert torch.equal(target.backbone.state_dict()[key], value)
    image = picture(dims)
    with torch.no_grad():
        found, wanted = classifier.eval().backbone(image)[-1], source.eval().backbone(image)[-1]
    assert torch.equal(found, wanted)
    torch.testing.assert_close(classifier.embedding((image + 1) / 2).detach(), wanted.flatten(2).mean(2))


@pytest.mark.parametrize("dims", [2, 3])
def test_moves_into_a_segmentation_network_with_four_channels(dims):
    """MONAI's FlexibleUNet: the whole encoder, its first convolution spread over the four channels."""
    source = MixUpNet(spatial_dims=dims).state_dict()
    target = FlexibleUNet(
        in_channels=4,
        out_channels=2,
        backbone="efficientnet-lite0",
        spatial_dims=dims,
        decoder_channels=(8, 8, 8, 8, 8),
    )
    report = transfer_weights(
        target,
        source,
        strict=False,
        rename={"backbone.encoder.": "encoder."},
        adapt_channels=True,
        required=["encoder."],
    )
    assert report.adapted == ("encoder.stem.conv.weight",)
    assert set(report.matched) == {key for key in target.state_dict() if key.startswith("encoder.")}
    stem = target.state_dict()["encoder.stem.conv.weight"]
    torch.testing.assert_close(stem.sum(1, keepdim=True), source["backbone.encoder.stem.conv.weight"])


def test_moves_into_dynunet_itself():
    """Its layers go by other names, and some by two names."""
    source = network()
    kernels, strides = [3] * 4, [1, 2, 2, 2]
    target = DynUNet(2, 1, 2, kernels, strides, strides[1:], filters=CHANNELS, norm_name="batch")
    names = ["input_block.", "downsamples.0.", "downsamples.1.", "bottleneck."]
    rename = {f"backbone.down.{number}.": name for number, name in enumerate(names)}
    report = transfer_weights(target, source.state_dict(), strict=False, rename=rename, required=names)
    assert all("upsample" in name or "output" in name for name in report.missing)
    assert torch.equal(target.bottleneck.conv1.conv.weight, source.backbone.down[3].conv1.conv.weight)


@pytest.mark.parametrize(("old", "new"), [(1, 4), (4, 1), (3, 2)])
@pytest.mark.parametrize("name", ["dynunet", "unet"])
def test_channels_of_the_image(name, old, new):
    """An image repeated over the channels gives the same maps; the shortcut beside the first layer is adapted too."""
    source, target = network(name, in_channels=old).eval(), network(name, in_channels=new).eval()
    report = transfer_weights(target.backbone, source.backbone.state_dict(), adapt_channels=True)
    assert len(report.adapted) == (2 if name == "unet" else 1)
    assert f"{len(report.adapted)} adapted to the input channels" in str(report)
    image = picture(2)
    with torch.no_grad():
        found = target.backbone(image.expand(-1, new, -1, -1))[-1]
        wanted = source.backbone(image.expand(-1, old, -1, -1))[-1]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_adapted_weights_by_hand():
    weight = torch.tensor([[[[1.0]], [[2.0]], [[6.0]]]])
    assert adapt_input_channels(weight, 2).flatten().tolist() == [4.5, 4.5]
    assert adapt_input_channels(weight, 1).flatten().tolist() == [9.0]


def test_incomplete_encoder_is_refused():
    state = network().state_dict()
    del state["backbone.down.1.conv1.conv.weight"]
    target = ClassifierNet(2, backbone="dynunet", channels=CHANNELS)
    before = target.backbone.down[0].conv1.conv.weight.clone()
    with pytest.raises(ValueError, match=r"begins with 'backbone.', but 1 of \d+ are not in it"):
        transfer_weights(target, state, strict=False, required=["backbone."])
    with pytest.raises(ValueError, match="but it has none"):
        transfer_weights(target, state, strict=False, required=["trunk."])
    assert torch.equal(target.backbone.down[0].conv1.conv.weight, before)


@pytest.mark.parametrize(("trained", "frozen"), [(None, 0), (0, 4), (1, 3)])
def test_frozen_layers_do_not_change(trained, frozen):
    """Neither weights nor batch statistics of a frozen layer; the others do."""
    net = ClassifierNet(2, backbone="dynunet", channels=CHANNELS, trained_layers=trained).train()
    before = [{key: value.clone() for key, value in layer.state_dict().items()} for layer in net.backbone.down]
    optimizer = torch.optim.SGD(parameter_groups(net, 0.1, 0.1), lr=0.1)
    net(picture(2)).square().sum().backward()
    optimizer.step()
    changed = [
        any(not torch.equal(value, old[key]) for key, value in layer.state_dict().items())
        for layer, old in zip(net.backbone.down, before, strict=True)
    ]
    assert changed == [False] * frozen + [True] * (4 - frozen)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_networks_of_the_baselines_share_the_encoder(name, dims):
    """All tensors of the encoder move between them, and every tensor gets a gradient."""
    options = {"spatial_dims": dims, "backbone": name, "channels": CHANNELS}
    dense, contrast = DenseOpacityNet(3, **options), InstanceContrastNet(projection_size=6, **options)
    logits, projected = dense(picture(dims)), contrast(picture(dims)[:, None].repeat_interleave(2, 1))
    assert logits.shape == (2, 3, *SIZE[dims])
    assert projected.shape == (2, 2, 6)
    (logits.square().sum() + projected.square().sum()).backward()
    for net in (dense, contrast):
        assert all(p.grad is not None for p in net.parameters())
        transfer_weights(network(name, dims), net.state_dict(), strict=False, required=["backbone."])


def test_each_view_is_embedded_by_itself():
    net = InstanceContrastNet(backbone="dynunet", channels=CHANNELS).eval()
    views = torch.rand(3, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for number in (0, 1):
        alone = net.projection_head(net.embedding(views[:, number]))
        torch.testing.assert_close(net(views)[:, number], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "dims"), [("efficientnet-lite0", 2), ("resnet18", 2), ("dynunet", 3)])
def test_batch_statistics_arrive_within_a_short_training(name, dims):
    """After 50 steps on one batch the first layer's running mean is that of the batch, not that of the start."""
    net = EncoderNet(backbone=name, spatial_dims=dims, channels=CHANNELS)
    norm = next(m for m in net.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm))
    norm.register_forward_pre_hook(lambda layer, given: seen.append(given[0].transpose(0, 1).flatten(1).mean(1)))
    seen = []
    image = 0.5 + torch.rand(2, 1, *[32] * dims, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(50):
            net(image)
    torch.testing.assert_close(norm.running_mean, seen[-1], rtol=0.01, atol=1e-5)
