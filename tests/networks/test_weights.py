"""Weights from a file: what fits is loaded, what does not is said."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from medpixcl.networks import load_weights
from medpixcl.networks.weights import weights_digest


def network(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1, bias=False))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.pt"


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"model": s, "optimizer": {"state": {}}}], ids=["flat", "model"]
)
def test_everything_fits(path, wrap):
    source, target = network(), network()
    torch.save(wrap(source.state_dict()), path)
    report = load_weights(target, path)
    assert report.complete
    assert report.matched == tuple(target.state_dict())
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)
    assert str(report) == "8 tensors matched, 0 missing, 0 unexpected, 0 of another shape"


def test_path_as_text(path):
    torch.save(network().state_dict(), path)
    assert load_weights(network(), str(path)).complete


def test_what_fits_is_loaded_and_the_rest_is_named(path):
    source, target = network(), network()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    state = source.state_dict()
    del state["0.bias"]
    state["2.weight"] = torch.zeros(5, 3, 1, 1)
    state["head.weight"] = torch.zeros(2)
    torch.save(state, path)
    report = load_weights(target, path, strict=False)
    assert report.missing == ("0.bias",)
    assert report.mismatched == ("2.weight",)
    assert report.unexpected == ("head.weight",)
    assert set(report.matched) == before.keys() - {"0.bias", "2.weight"}
    assert not report.complete
    for name, value in target.state_dict().items():
        assert torch.equal(value, state[name] if name in report.matched else before[name])


def one_sentence(text: str) -> bool:
    return "\n" not in text and ". " not in text


class TestErrors:
    def refused(self, path: Path, **options: Any) -> str:
        target = network()
        before = {name: value.clone() for name, value in target.state_dict().items()}
        with pytest.raises(ValueError, match=path.name) as caught:
            load_weights(target, path, **options)
        assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())
        assert one_sentence(str(caught.value))
        return str(caught.value)

    def test_another_architecture(self, path):
        torch.save(network(width=4).state_dict(), path)
        message = self.refused(path)
        assert "are of another architecture than this network (1 tensors matched, 0 missing" in message
        assert "7 of another shape" in message

    def test_nothing_fits(self, path):
        torch.save({"other.weight": torch.zeros(3)}, path)
        message = self.refused(path, strict=False)
        assert "0 tensors matched, 8 missing, 1 unexpected" in message

    def test_missing_file(self, path):
        assert self.refused(path).startswith("no weights at ")

    def test_folder(self, tmp_path):
        assert self.refused(tmp_path).startswith("no weights at ")

    @pytest.mark.parametrize(
        "content", [b"", b"text, not weights", b"\x89PNG\r\n\x1a\n" + bytes(200), b"PK\x03\x04" + bytes(50)]
    )
    def test_not_a_checkpoint(self, path, content):
        path.write_bytes(content)
        assert "is not a checkpoint of tensors" in self.refused(path)

    def test_checkpoint_cut_off(self, path):
        torch.save(network().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-400])
        assert "is not a checkpoint of tensors" in self.refused(path)

    def test_checkpoint_with_code(self, path):
        """A whole pickled network could run anything; it is not opened."""
        torch.save(network(), path)
        assert "is not a checkpoint of tensors" in self.refused(path)

    @pytest.mark.parametrize(
        "content",
        [torch.zeros(3), [torch.zeros(3)], {}, {"epoch": 3}, {"model": torch.zeros(3)}, {"model": [torch.zeros(3)]}],
        ids=["tensor", "list", "empty", "numbers", "model is a tensor", "model is a list"],
    )
    def test_no_state_dict(self, path, content):
        torch.save(content, path)
        assert "holds no state dict of a network" in self.refused(path)


def test_digest_sees_every_weight() -> None:
    """Also of half precision, of counters and of a changed last bit."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 2).bfloat16(), torch.nn.BatchNorm1d(2))
    before = weights_digest(network)
    assert weights_digest(network) == before
    network[1].num_batches_tracked += 1
    counted = weights_digest(network)
    network[0].weight.data[1, 2] *= 1.01
    assert len({before, counted, weights_digest(network)}) == 3
