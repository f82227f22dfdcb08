"""Self-training on made-up pictures: wrong labels do not stay, a stopped run goes on, a detector comes out."""

import csv
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.exceptions import NotComputableError

from medpixcl.apps.bundles import run_bundle
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import write_landmark_phantoms
from medpixcl.landmarks import PseudoLandmarks
from medpixcl.landmarks.heatmaps import encode_heatmaps
from medpixcl.networks import LandmarkNet
from medpixcl.networks.inferers import LandmarkInferer
from medpixcl.training import ResumeHandler
from medpixcl.training.detection import LandmarkError
from medpixcl.training.self_training import with_templates, without_templates
from tests.test_bad_input import RANDOM
from tests.tiny import MATCHING, ROOT, assert_identical, checkpoint, medpixcl

BUNDLE = ROOT / "bundles" / "xray_landmark_selftraining"
TINY: dict[str, Any] = {
    "backbone": "unet",
    "channels": [8, 16, 16, 16],
    "norm": "batch",
    "embedding_size": 8,
    "start_weights": None,
    "bfloat16": False,
    "working_spacing_mm": [1.0, 1.0],
    "view_shape": [64, 64],
    "scale_range": [0.9, 1.1],
    "shift_mm": 4.0,
    "elastic_mm": 0.5,
    "template_repeats": 2,
    "ema_momentum": 0.1,
    "learning_rate": 0.005,
    "head_learning_rate": 0.01,
    "relabel_views": [[0, 1.0], [5, 1.0]],
    "intensity": {},
    "silent": True,
}


@pytest.fixture
def phantoms(tmp_path: Path) -> Path:
    items = write_landmark_phantoms(tmp_path / "data", 16, (64, 64), landmarks=4)
    Manifest(training=items).write(tmp_path / "data" / "manifest.json")
    return tmp_path / "data"


def train(data: Path, output: Path, templates: Sequence[str] = ("phantom_000.png",), **changes: Any) -> Any:
    output.mkdir(parents=True, exist_ok=True)
    config = output / "tiny.json"
    config.write_text(json.dumps({**TINY, **changes}))
    places = {
        "landmarks": data / "landmarks.csv",
        "data_list_file_path": data / "manifest.json",
        "output_dir": output,
        "ckpt_dir": output / "models",
    }
    overrides: dict[str, Any] = {key: str(value) for key, value in places.items()} | {
        "template": [str(data / one) for one in templates]
    }
    return run_bundle(BUNDLE, "train", overrides, extra_configs=[config])


def truth(data: Path) -> dict[str, torch.Tensor]:
    """True landmarks by file, mm as inside the package: RAS+, so minus the LPS+ of the file."""
    table = read_landmarks(data / "landmarks.csv").positions_mm()
    return {
        Path(name).name: -torch.tensor(list(points.values()), dtype=torch.float64) for name, points in table.items()
    }


def weighted_error(labels: dict[str, dict[str, torch.Tensor]], true: dict[str, torch.Tensor]) -> float:
    """Mean distance in mm by weight, the template left out."""
    names = [name for name in labels["points"] if Path(name).name != "phantom_000.png"]
    distance = torch.stack([(labels["points"][n] - true[Path(n).name]).norm(dim=1) for n in names])
    weights = torch.stack([labels["weights"][n] for n in names])
    return float((weights * distance).sum() / weights.sum())


def labels_of(run: Path, data: Path) -> dict[str, Any]:
    """Landmarks in the checkpoint by the paths of their images, which it does not hold itself."""
    state = checkpoint(run)["labels"]
    labels = PseudoLandmarks(["1", "2", "3", "4"])
    labels.load_state_dict(state)
    labels.place([str(path) for path in data.glob("*.png")])
    points = {name: labels.points(name, 2) for name in labels.images}
    assert all(Path(name).is_file() for name in points)
    return {"round": labels.round, "points": points, "weights": {name: labels.weights(name) for name in points}}


def corrupted_labels(data: Path, share: float) -> dict[str, Any]:
    """True landmarks, a share of them 15 to 30 mm away, all of weight 1: what a resumed run would find."""
    generator = torch.Generator().manual_seed(0)
    points, weights = {}, {}
    for name, true in truth(data).items():
        wrong = torch.rand(4, generator=generator) < (0.0 if name == "phantom_000.png" else share)
        way = torch.nn.functional.normalize(torch.randn(4, 2, generator=generator, dtype=torch.float64))
        way = way * (15 + 15 * torch.rand(4, 1, generator=generator))
        points[str(data / name)] = true + torch.where(wrong[:, None], way, 0)
        weights[str(data / name)] = torch.ones(4)
    return {"round": 0, "points": points, "weights": weights}


@pytest.mark.slow
def test_training_beats_wrong_pseudo_landmarks(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the labels is far off; after a round they are nearer to the truth, and so is the network."""
    start = corrupted_labels(phantoms, 0.2)
    true = truth(phantoms)
    made = PseudoLandmarks.__init__

    def filled(self: PseudoLandmarks, names: Any) -> None:
        made(self, names)
        self.load_state_dict(start)

    monkeypatch.setattr(PseudoLandmarks, "__init__", filled)
    workflow = train(phantoms, tmp_path / "run", max_epochs=30, rounds=2, val_interval=30)
    labels = labels_of(tmp_path / "run", phantoms)
    before, after = weighted_error(start, true), weighted_error(labels, true)
    assert labels["round"] == 1
    assert before > 3.0
    assert after < 0.5 * before
    network = workflow.parser.get_parsed_content("average").definition
    inferer = LandmarkInferer(network, [1.0, 1.0])
    dataset = workflow.parser.get_parsed_content("train::dataset")
    errors = []
    for number in range(2, len(dataset.data)):  # two times the template first
        image = dataset.prepared[number]["image"]
        with torch.no_grad():
            found = inferer(image[None], network)["points"][0]
        place = -torch.stack([found[:, 1], found[:, 0]], dim=1).double()  # LPS+ of a picture is (column, row)
        errors.append((place - true[Path(image.meta["filename_or_obj"]).name]).norm(dim=1))
    assert float(torch.stack(errors).mean()) < 0.5 * before


class PowerCutError(Exception):
    """Ends a training in the middle."""


def test_resume_equals_an_undisturbed_run(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the first of three epochs, and gone on with: the same weights, average and labels."""
    settings = {"rounds": 3, "max_epochs": 3}
    train(phantoms, tmp_path / "whole", **settings)
    save = ResumeHandler.save

    def save_and_die(self: ResumeHandler, engine: Any) -> None:
        save(self, engine)
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(ResumeHandler, "save", save_and_die)
        with pytest.raises(PowerCutError):
            train(phantoms, tmp_path / "parts", **settings)
    assert checkpoint(tmp_path / "parts")["epoch"] == 1
    train(phantoms, tmp_path / "parts", **settings)
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert whole["labels"]["round"] == 2
    assert_identical(parts, whole)
    with zipfile.ZipFile(tmp_path / "parts" / "resume.pt") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert not any(text.encode() in content for text in (str(tmp_path), "phantom_"))


def test_several_templates(phantoms: Path, tmp_path: Path) -> None:
    """Their own marks stay through all rounds; a landmark that one lacks is found in it by the others."""
    table = phantoms / "landmarks.csv"
    lines = table.read_text().splitlines()
    lacking = next(line for line in lines if line.startswith("phantom_001.png,2,"))
    table.write_text("\n".join(line for line in lines if line != lacking))
    true = truth(phantoms)
    templates = ["phantom_000.png", "phantom_001.png"]
    train(phantoms, tmp_path / "run", templates, rounds=2, max_epochs=2)
    labels = labels_of(tmp_path / "run", phantoms)
    assert labels["round"] == 1
    complete, partial = (str(phantoms / name) for name in templates)
    first, second = labels["weights"][complete], labels["weights"][partial]
    assert first.tolist() == [1.0] * 4
    assert [weight == 1.0 for weight in second.tolist()] == [True, False, True, True]
    torch.testing.assert_close(labels["points"][complete], true["phantom_000.png"])
    assert not labels["points"][partial].isnan().any()


def test_commands(phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """`selftrain`, then `detect` with what it wrote: the names and the network of the training."""
    run, out = tmp_path / "run", tmp_path / "out"
    settings = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items() if "::" not in key]
    common = ["--bundle", BUNDLE, "--spacing-mm", 1]
    template = ["--template", phantoms / "phantom_000.png", "--landmarks", phantoms / "landmarks.csv"]
    data = ["--data", phantoms / "manifest.json"]
    assert medpixcl("selftrain", *template, *data, "-o", run, *common, "--epochs", 1, "--rounds", 1, *settings) in (
        0,
        None,
    )
    assert {file.name for file in (run / "models").iterdir()} == {"model.pt", "inference.json"}
    assert json.loads((run / "models" / "inference.json").read_text())["shape"]["names"] == ["1", "2", "3", "4"]
    images = ["--images", phantoms, "--reference", phantoms / "landmarks.csv"]
    assert medpixcl("detect", *images, "-o", out, *common, "--weights", run / "models" / "model.pt") in (0, None)
    with (out / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16 * 4
    assert {row["landmark"] for row in rows} == {"1", "2", "3", "4"}
    assert (out / "report.html").is_file()
    assert len(list((out / "markups").glob("*.mrk.json"))) == 16
    assert json.loads((out / "metrics.json").read_text())["images"] == 16
    assert medpixcl("detect", "--images", tmp_path / "none", "-o", out, *common) == 2
    both = ["match", *template, "--images", phantoms, "--spacing-mm", 1, "--bundle", MATCHING, *RANDOM]
    assert medpixcl(*both, "--detector", run / "models" / "model.pt", "-o", tmp_path / "both") == 0
    assert "mean of landmark matching and landmark detection" in (tmp_path / "both" / "report.html").read_text()
    assert len(list((tmp_path / "both" / "overlays").iterdir())) == 15, "the template is left out"
    capsys.readouterr()


class Painted(torch.nn.Module):
    """A "network" whose heatmap is that of a bright dot's place in the image; offsets 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = torch.nn.functional.avg_pool2d(x, 2)
        return torch.cat([grid.clamp_min(1e-6).log(), torch.zeros_like(grid).repeat(1, 2, 1, 1)], dim=1)


@pytest.mark.parametrize("views", [[[0.0, 1.0]], [[0.0, 1.0], [8.0, 0.9], [-8.0, 1.1]]])
def test_inferer_maps_views_back(views: list[list[float]]) -> None:
    """A smooth dot is found where it is, on an image whose size is no multiple of the stride, in turned views too."""
    point = torch.tensor([[[31.3, 22.6]]])
    image = encode_heatmaps(point, [61, 53], stride=1, sigma_mm=4.0, spacing_mm=[1.0, 1.0], normalise=False)
    definition = LandmarkNet(1, backbone="unet", channels=[4, 4, 4])
    found = LandmarkInferer(definition, [1.0, 1.0], views, radius=6)(image, Painted())
    assert (found["points"] - point).abs().max() < 0.1
    assert found["spread_mm"].max() < 0.1
    assert found["confidence"].min() > 0.9


def test_error_by_weight() -> None:
    """By hand: 3-4-5 triangles at half a mm, weights 1 and 3; NaN does not count."""
    metric = LandmarkError([0.5, 0.5])
    given = {"points": torch.zeros(1, 3, 2), "weights": torch.tensor([[1.0, 3.0, 5.0]])}
    found = {"points": torch.tensor([[[3.0, 4.0], [6.0, 8.0], [torch.nan, 0.0]]])}
    metric.update((found, given))
    assert metric.compute() == pytest.approx((2.5 + 3 * 5.0) / 4)


def test_validation_without_a_landmark(caplog: pytest.LogCaptureFixture) -> None:
    """An error by default; NaN and a warning where the training does not depend on it."""
    nothing = {"points": torch.full((1, 2, 2), torch.nan), "weights": torch.zeros(1, 2)}
    for metric in (LandmarkError([1.0, 1.0]), LandmarkError([1.0, 1.0], required=False)):
        metric.reset()
        metric.update(({"points": torch.ones(1, 2, 2)}, nothing))
        if metric.required:
            with pytest.raises(NotComputableError, match="give more images"):
                metric.compute()
        else:
            assert math.isnan(metric.compute())
            assert "no validation image has a landmark" in caplog.text


def test_templates_among_the_images(tmp_path: Path) -> None:
    """All templates are shown alike, about so many times together; no other image is left out."""
    items = [{"image": str(tmp_path / name), "spacing_mm": [1.0, 1.0]} for name in ("a.png", "b.png", "c.png")]
    first = [{"image": str(tmp_path / "folder" / ".." / "a.png")}]
    assert with_templates(first, items, 2) == [*first, *first, *items[1:]]
    assert with_templates(items[:2], items, 2) == [*items[:2], *items[:2], items[2]]
    assert with_templates(items[:2], items, 1) == items
    assert without_templates(first, items) == items[1:]
    with pytest.raises(ValueError, match="no image to train on beside the template"):
        with_templates(first, items[:1], 2)
    with pytest.raises(ValueError, match="no image to train on beside the 3 templates"):
        with_templates(items, items, 2)
