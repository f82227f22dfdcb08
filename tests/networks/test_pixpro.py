"""PixPro's network: propagation against loops, heads, and the momentum copy."""

import json
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from medpixcl.networks import BackboneNet
from medpixcl.networks.embedding import LevelsNet
from medpixcl.networks.pixpro import PixelPropagation, PixProNet, ProjectionHead
from tests.networks.cases import CHANNELS, make, picture
from tests.reference import pixpro

DIMS = pytest.mark.parametrize("dims", [2, 3])
SMALL = {"projection_size": 6, "hidden_channels": 10}


def backbone(dims: int, **options: Any) -> BackboneNet:
    torch.manual_seed(0)
    given = {"backbone": "dynunet", "spatial_dims": dims, "channels": CHANNELS["dynunet"], "strides": [4, 8]}
    return BackboneNet(**(given | options))


def training(dims: int = 2, **options: Any) -> PixProNet:
    return PixProNet(backbone(dims), **(SMALL | options))


def views(dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    return picture(dims, batch=2), picture(dims, batch=2, seed=1)


class TestPropagation:
    def test_golden(self):
        x = torch.tensor([[[1.0, 0.5**0.5], [0.0, 0.5**0.5]]]).view(1, 2, 2, 1)
        y = PixelPropagation(2, 2, transform_layers=0)(x)
        torch.testing.assert_close(y[0, :, 0], torch.tensor([1.3536, 0.3536]), atol=1e-4, rtol=0)
        torch.testing.assert_close(F.normalize(y, dim=1)[0, :, 0], torch.tensor([0.9675, 0.2527]), atol=1e-4, rtol=0)

    def test_opposed_vectors_do_not_mix(self):
        x = torch.tensor([[[1.0, -1.0], [0.0, 0.0]]]).view(1, 2, 1, 2)
        assert torch.equal(PixelPropagation(2, 2, transform_layers=0)(x), x.flatten(2))

    def test_length_changes_nothing(self):
        x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        module = PixelPropagation(2, 4, transform_layers=0)
        torch.testing.assert_close(module(5 * x), module(x))

    @DIMS
    @pytest.mark.parametrize("layers", [0, 1, 2])
    @pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
    @pytest.mark.parametrize("normalise", [True, False])
    def test_against_loops(self, dims, layers, gamma, normalise):
        torch.manual_seed(0)
        module = PixelPropagation(
            dims, 4, gamma=gamma, transform_layers=layers, normalise_values=normalise, norm="instance"
        )
        x = torch.randn(1, 4, *(3, 2, 2)[:dims])
        vectors, values = (v[0].flatten(1).mT.tolist() for v in (x, module.transform(x)))
        expected = torch.tensor(pixpro.propagate(vectors, values, gamma, normalise)).mT
        # The published code adds 1e-6 under a root.
        torch.testing.assert_close(module(x)[0], expected, atol=2e-2 if gamma < 1 else 1e-5, rtol=1e-4)

    @DIMS
    def test_chosen_cells(self, dims):
        torch.manual_seed(0)
        module, x = PixelPropagation(dims, 4), torch.randn(2, 4, *(4, 3, 2)[:dims])
        cells = torch.tensor([[5, 0, 3], [1, 1, 2]])
        expected = module(x).gather(2, cells[:, None].expand(-1, 4, -1))
        torch.testing.assert_close(module(x, cells), expected)

    def test_flat_volume_is_a_picture(self):
        torch.manual_seed(0)
        flat, deep = PixelPropagation(2, 4), PixelPropagation(3, 4)
        deep.load_state_dict({name: v[..., None] if v.ndim == 4 else v for name, v in flat.state_dict().items()})
        x = torch.randn(2, 4, 3, 5)
        torch.testing.assert_close(deep(x[..., None]), flat(x))

    def test_autocast(self):
        torch.manual_seed(0)
        module, x = PixelPropagation(2, 4, transform_layers=0), torch.randn(1, 4, 3, 3)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = module(x)
        assert torch.equal(found, module(x))

    def test_memory(self):
        """24^3 cells, 16 of them chosen: no tensor larger than 16 rows of similarities."""
        module, x = PixelPropagation(3, 4, transform_layers=0), torch.randn(1, 4, 24, 24, 24)
        with Largest() as largest:
            module(x, torch.arange(16)[None])
        assert largest.bytes <= 16 * 24**3 * 4

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"gamma": 0.0}, "gamma is 0.0; expected a positive"), ({"transform_layers": 3}, "is 3; expected 0, 1 or 2")],
    )
    def test_bad_input(self, options, words):
        with pytest.raises(ValueError, match=words):
            PixelPropagation(2, 4, **options)


class Largest(TorchDispatchMode):
    """Size of the largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.bytes = max(self.bytes, value.untyped_storage().nbytes())
        return out


class TestBackboneNet:
    @DIMS
    def test_image_alone(self, dims):
        """What is kept of a training: no head, no second input; exported it gives the same for another image."""
        net = training(dims).network.eval()
        image = picture(dims)
        with torch.no_grad():
            exported = torch.jit.trace(net, picture(dims, seed=1))
            torch.testing.assert_close(exported(image), net(image))
            levels = net.levels(image)
        assert len(list(exported.graph.inputs())) == 2  # itself and the image
        assert [level.shape[2:] for level in levels] == [tuple(n // s for n in image.shape[2:]) for s in (4, 8)]
        assert not any("project" in name or "momentum" in name for name in net.state_dict())

    def test_weights_fit_where_they_are_used(self):
        net = backbone(2, strides=None)
        other = make("dynunet", 2)
        report = other.load_state_dict(net.state_dict(), strict=False)
        assert all(name.startswith("heads.") for name in report.missing_keys)
        assert report.unexpected_keys == []

    def test_strides(self):
        with pytest.raises(ValueError, match=r"the backbone dynunet has maps at strides \[1, 2, 4, 8\], found"):
            backbone(2, strides=[3])


class TestForward:
    @DIMS
    @pytest.mark.parametrize("trunk", ["backbone", "embedding"])
    def test_shapes(self, dims, trunk):
        network = backbone(dims) if trunk == "backbone" else make("dynunet", dims, strides=[4, 8])
        net = PixProNet(network, **SMALL, instance=True)
        query, anchor = views(dims)
        out = net(query, anchor)
        assert net.strides == [4, 8]
        assert net.network is network
        for view in ("query", "anchor"):
            for side in ("online", "keys"):
                for level, stride in zip(out[view][side], net.strides, strict=True):
                    count = torch.tensor(query.shape[2:]).div(stride).long().prod()
                    assert level.shape == (2, 6, count)
                    torch.testing.assert_close(level.norm(dim=1), torch.ones(2, count))
            assert out[view]["instance_online"].shape == out[view]["instance_keys"].shape == (2, 6)

    @DIMS
    def test_drawn_cells(self, dims):
        net, cells = training(dims), [torch.tensor([[3, 1], [0, 2]]), torch.tensor([[1], [0]])]
        whole, drawn = net(*views(dims)), net(*views(dims), query_cells=cells)
        for level, index in enumerate(cells):
            expected = whole["query"]["online"][level].gather(2, index[:, None].expand(-1, 6, -1))
            torch.testing.assert_close(drawn["query"]["online"][level], expected)
        torch.testing.assert_close(drawn["query"]["keys"], whole["query"]["keys"])
        torch.testing.assert_close(drawn["anchor"]["online"], whole["anchor"]["online"])

    def test_parts(self):
        """Projection, propagation and the instance branch, put together by hand."""
        net, query = training(instance=True), picture(2, batch=2)
        out = net(query, query)["query"]
        maps = net.network.maps(query)
        x = net.online.projectors[1](maps[1])
        torch.testing.assert_close(out["online"][1], F.normalize(net.propagation[1](x), dim=1))
        torch.testing.assert_close(out["keys"][1], F.normalize(x.flatten(2), dim=1))
        instance = net.online.instance_projector(maps[1])
        torch.testing.assert_close(out["instance_keys"], F.normalize(instance.mean((2, 3)), dim=1))
        predicted = net.predictor(instance).mean((2, 3))
        torch.testing.assert_close(out["instance_online"], F.normalize(predicted, dim=1))

    def test_pix_contrast_has_no_propagation(self):
        net, query = training(propagation=False), picture(2, batch=2)
        out = net(query, query)["query"]
        torch.testing.assert_close(out["online"], out["keys"])
        assert not any("propagation" in name for name in net.state_dict())

    @pytest.mark.parametrize("options", [{}, {"instance": True}, {"propagation": False}], ids=str)
    def test_gradient(self, options):
        """Reaches every weight that is trained, and none of the copy."""
        net = training(**options)
        out = net(*views(2))
        total = sum(level[:, 0].sum() for view in out.values() for level in view["online"])
        if "instance" in options:
            total = total + sum(view["instance_online"][:, 0].sum() for view in out.values())
        total.backward()
        for name, weight in net.named_parameters():
            assert (weight.grad is None) == name.startswith("momentum"), name
        assert not any(level.requires_grad for view in out.values() for level in view["keys"])

    def test_bfloat16(self):
        """Directions of the vectors: the cosine to those in float32."""
        plain, half = (training(bfloat16=on, instance=True)(*views(2)) for on in (False, True))
        for view, parts in half.items():
            for level, expected in zip(parts["keys"], plain[view]["keys"], strict=True):
                assert level.dtype == torch.float32
                assert not torch.equal(level, expected)
                assert F.cosine_similarity(level, expected, dim=1).mean() > 0.999
            assert all(level.dtype == torch.float32 for level in parts["online"])
            assert parts["instance_online"].dtype == parts["instance_keys"].dtype == torch.float32

    def test_from_json(self):
        trunk = {"_target_": "medpixcl.networks.BackboneNet", "backbone": "dynunet", "channels": [4, 8, 8]}
        config = {"_target_": "medpixcl.networks.PixProNet", "network": trunk, **SMALL}
        config["norm"] = ["group", {"num_groups": 2}]
        net = ConfigParser(json.loads(json.dumps({"net": config}))).get_parsed_content("net")
        assert len(net(*views(2))["query"]["online"]) == 3

    def test_network_without_widths(self):
        with pytest.raises(ValueError, match="the network is a LevelsNet; expected a BackboneNet"):
            PixProNet(LevelsNet())


class TestMomentum:
    def test_follows(self):
        net = training()
        before = [key.clone() for key in net.momentum.parameters()]
        with torch.no_grad():
            for own in net.online.parameters():
                own.add_(1.0)
        net.follow(0.75)
        for key, old, own in zip(net.momentum.parameters(), before, net.online.parameters(), strict=True):
            torch.testing.assert_close(key, 0.75 * old + 0.25 * own)
        net.follow(1.0)
        net.restart()
        for key, own in zip(net.momentum.parameters(), net.online.parameters(), strict=True):
            assert torch.equal(key, own)

    def test_statistics_of_its_own(self):
        """Parameters follow, the running statistics do not: each side has those of its own maps."""
        net = training()
        with torch.no_grad():
            for own in net.online.projectors.parameters():
                own.mul_(3.0)
        net(*views(2))
        own, key = net.online.projectors[0][1], net.momentum.projectors[0][1]
        assert key.num_batches_tracked == own.num_batches_tracked == 2
        assert not torch.equal(own.running_var, key.running_var)
        held = key.running_var.clone()
        net.follow(0.0)
        assert torch.equal(key.running_var, held)

    def test_resumed(self):
        """The state dict holds the copy: a training that was interrupted ends like one that was not."""

        def steps(net: PixProNet, number: int) -> None:
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
            for _ in range(number):
                net.follow(0.9)
                out = net(*views(2))
                loss = -sum((out["query"]["online"][n] * out["anchor"]["keys"][n]).mean() for n in (0, 1))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        whole, first, second = training(), training(), training()
        steps(whole, 4)
        steps(first, 2)
        with torch.no_grad():
            for weight in second.parameters():
                weight.zero_()
        second.load_state_dict(first.state_dict())
        steps(second, 2)
        for name, value in whole.state_dict().items():
            assert torch.equal(second.state_dict()[name], value), name


def test_head_is_the_originals():
    """Convolutions with biases; 1 x 1; batch norm between."""
    head = ProjectionHead(2, 3)
    assert [type(layer).__name__ for layer in head] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    assert (head[0].out_channels, head[3].out_channels) == (4096, 256)
    assert all(layer.kernel_size == (1, 1) and layer.bias is not None for layer in (head[0], head[3]))
