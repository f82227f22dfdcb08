"""Exported networks find the same landmarks, read back by the runtime of each format."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from medpixcl.apps.export import example_image, export_network
from medpixcl.networks import LandmarkNet
from medpixcl.networks.landmark import decode_output
from tests.tiny import ROOT, environment, medpixcl

SHAPES = {2: (40, 50), 3: (16, 20, 24)}
BOTH = pytest.mark.parametrize("dims", [2, 3])
BUNDLE = ROOT / "bundles" / "cephalometric_landmark_detection"


def make(dims: int, **changes: object) -> LandmarkNet:
    torch.manual_seed(dims)
    network = LandmarkNet(3, spatial_dims=dims, backbone="dynunet", channels=[4, 8, 12], **changes)
    with torch.no_grad():
        for head in network.heatmap_heads:
            head.weight *= 30  # peaks, and not a flat map, whose landmarks are nowhere
    return network.eval()


def landmarks(network: LandmarkNet, output: torch.Tensor) -> torch.Tensor:
    return decode_output(output, network.landmarks, stride=network.stride)[0]


@BOTH
def test_onnx(dims: int, tmp_path: Path) -> None:
    """By onnxruntime, on another image than the one that the export looked at."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = make(dims)
    assert export_network(network, tmp_path / "net.onnx", SHAPES[dims]) < 0.01
    image = 1 - example_image(network, SHAPES[dims])
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        wanted = network(image)
    torch.testing.assert_close(torch.from_numpy(found), wanted, atol=1e-3, rtol=1e-3)
    assert (landmarks(network, torch.from_numpy(found)) - landmarks(network, wanted)).abs().max() < 0.01


@BOTH
def test_torch_export(dims: int, tmp_path: Path) -> None:
    network = make(dims)
    assert export_network(network, tmp_path / "net.pt2", SHAPES[dims]) < 0.01
    image = 1 - example_image(network, SHAPES[dims])
    with torch.no_grad():
        found, wanted = torch.export.load(tmp_path / "net.pt2").module()(image), network(image)
    assert (landmarks(network, found) - landmarks(network, wanted)).abs().max() < 0.01


@pytest.mark.slow
def test_torchscript(tmp_path: Path) -> None:
    """Of any size, in a process without the hook."""
    command = [sys.executable, "-m", "tests.apps.script_export", str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, cwd=ROOT, env=environment())
    for dims in SHAPES:
        network, scripted = make(dims), torch.jit.load(tmp_path / f"{dims}.ts")
        network.load_state_dict(scripted.state_dict())
        image = example_image(network, [size + 16 for size in SHAPES[dims]])
        with torch.no_grad():
            found, wanted = scripted(image), network(image)
        assert (landmarks(network, found) - landmarks(network, wanted)).abs().max() < 0.01


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = make(2)
    settings = {"landmark_names": ["a", "b", "c"], "backbone": "dynunet", "channels": [4, 8, 12]}
    (tmp_path / "inference.json").write_text(json.dumps(settings))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    words = ["export", BUNDLE, "--weights", tmp_path / "model.pt", "-o", tmp_path / "out" / "net.pt2"]
    assert medpixcl(*words, "--shape", "40,50") == 0
    facts = json.loads((tmp_path / "out" / "net.json").read_text())
    assert (facts["landmark_names"], facts["stride"], facts["multiple_of"]) == (["a", "b", "c"], 2, 4)
    assert facts["working_spacing_mm"] == [0.5, 0.5]
    capsys.readouterr()
    assert medpixcl(*words, "--shape", "40") == 2
    assert "shape is [40]; expected 2 sizes" in capsys.readouterr().err
    assert medpixcl(*words[:-1], tmp_path / "net.exe", "--shape", "40,50") == 2
    assert "no suffix of an export" in capsys.readouterr().err


def test_a_file_that_finds_other_landmarks_is_refused(tmp_path: Path) -> None:
    """A network whose output depends on how often it ran: the exported one gives what the first run gave."""

    class Restless(LandmarkNet):
        runs = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.runs += 1
            return super().forward(x).roll(3 * self.runs, dims=2)

    network = Restless(3, backbone="dynunet", channels=[4, 8, 12])
    with pytest.raises(ValueError, match=r"finds landmarks .* pixels from those of the network; do not use this file"):
        export_network(network, tmp_path / "net.pt2", SHAPES[2])
