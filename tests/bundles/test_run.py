"""The bundles of pixel embeddings through MONAI's own entry points, without the program of this package."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run

from medpixcl import Matcher
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.phantoms import write_phantoms
from tests.tiny import MATCHING, PRETRAINING, VOLUME_MATCHING, VOLUME_PRETRAINING, checkpoint, run_apart

BUNDLES = {bundle.name: bundle for bundle in (PRETRAINING, MATCHING, VOLUME_PRETRAINING, VOLUME_MATCHING)}
pytestmark = pytest.mark.filterwarnings(
    "ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning",
    "ignore:parsing config_file:UserWarning",
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as ``dataset_dir`` wants it: template.png, landmarks.csv, and pictures beside them."""
    folder = tmp_path / "data"
    write_phantoms(folder, 3, (96, 80), seed=1)
    (folder / "phantom_000.png").rename(folder / "template.png")
    points = {"left": (20, 40), "right": (60, 41), "low": (39, 80)}
    rows = [
        f"{image},{name},{x},{y},1"
        for image in ("template.png", "phantom_001.png", "phantom_002.png")
        for name, (x, y) in points.items()
    ]
    (folder / "landmarks.csv").write_text("\n".join(["image,landmark,x_px,y_px,spacing_mm", *rows]) + "\n")
    return folder


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """The same of volumes, whose voxels of 1 mm run along RAS; landmarks are in LPS."""
    folder = tmp_path / "volumes"
    write_phantoms(folder, 2, (26, 22, 24), seed=1)
    (folder / "phantom_000.nii.gz").rename(folder / "template.nii.gz")
    points = {"left": (7, 9, 8), "right": (17, 12, 10), "low": (12, 8, 16), "high": (10, 15, 12)}
    rows = [
        f"{image},{name},{-x},{-y},{z}"
        for image in ("template.nii.gz", "phantom_001.nii.gz")
        for name, (x, y, z) in points.items()
    ]
    (folder / "landmarks.csv").write_text("\n".join(["image,landmark,x_mm,y_mm,z_mm", *rows]) + "\n")
    return folder


def run_at_a_shell(bundle: Path, *names: str, **settings: object) -> None:
    """``python -m monai.bundle run`` as it is typed."""
    files = [str(bundle / "configs" / f"{name}.json") for name in names]
    words = ["--config_file", str(files), "--bundle_root", str(bundle)]
    words += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    run_apart("-m", "monai.bundle", "run", *words)


def inference_network(bundle: Path) -> torch.nn.Module:
    parser = ConfigParser(ConfigParser.load_config_file(bundle / "configs" / "inference.json"))
    return parser.get_parsed_content("network_def")


def run_config(bundle: Path, *names: str, **settings: Any) -> None:
    """``python -m monai.bundle run`` in this process, with logging left as it is."""
    files = [str(bundle / "configs" / f"{name}.json") for name in names]
    run(config_file=files, bundle_root=str(bundle), logging_file=False, **settings)


def workflow(bundle: Path, kind: str, *names: str, **settings: Any) -> ConfigWorkflow:
    files = [str(bundle / "configs" / f"{name}.json") for name in names]
    made = ConfigWorkflow(files, workflow_type=kind, logging_file=False, bundle_root=str(bundle), **settings)
    made.initialize()
    return made


@pytest.mark.parametrize(
    "bundle",
    [PRETRAINING, pytest.param(VOLUME_PRETRAINING, marks=pytest.mark.slow)],
    ids=lambda path: path.name,
)
def test_train_then_evaluate(bundle: Path, tmp_path: Path) -> None:
    """The smoke configuration trains and keeps weights that load; evaluate measures those."""
    output = tmp_path / "out"
    run_at_a_shell(bundle, "train", "smoke", output_dir=output, bfloat16=False)  # each process measures its CPU
    assert checkpoint(output)["epoch"] == 2
    network = inference_network(bundle)
    network.load_state_dict(torch.load(output / "models" / "model.pt", weights_only=True))

    run_config(
        bundle, "train", "evaluate", "smoke", output_dir=str(output), ckpt_dir=str(output / "models"), bfloat16=False
    )
    with (output / "metrics.csv").open(newline="") as file:
        measured = dict(csv.reader(file))
    assert 0 <= float(measured["val_pck_3px"]) <= 1
    assert float(measured["val_pixel_error"]) == pytest.approx(checkpoint(output)["best"]["best_metric"], rel=1e-3)


@pytest.mark.parametrize("bundle", [MATCHING, VOLUME_MATCHING], ids=lambda path: path.name)
def test_matching_goes_on_from_its_weights(bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    weights = bundle / "models" / "model.pt"
    frozen = {"learning_rate": 0.0, "weight_decay": 0.0, "max_epochs": 1, "start_weights": str(weights)}
    run_config(bundle, "train", "smoke", output_dir=str(output), **frozen)
    start = torch.load(weights, weights_only=True)
    end = torch.load(output / "models" / "model.pt", weights_only=True)
    assert end.keys() == start.keys()
    trained = [name for name, _ in inference_network(bundle).named_parameters()]
    assert all(torch.equal(end[name], start[name]) for name in trained)
    assert weights.stat().st_mtime < (output / "models" / "model.pt").stat().st_mtime, "its own weights stay"


def test_embeddings(data: Path, tmp_path: Path) -> None:
    bundle = PRETRAINING
    run_config(bundle, "inference", dataset_dir=str(data), pixel_mm=1.0, output_dir=str(tmp_path / "out"))
    with np.load(tmp_path / "out" / "phantom_001.npz") as kept:
        assert kept["strides"].tolist() == [2, 4, 8, 16, 32]
        assert kept["level_0"].shape == (64, 96, 80)  # at half a mm, 192 x 160 pixels and stride 2


def test_embeddings_of_volumes(volumes: Path, tmp_path: Path) -> None:
    run_config(VOLUME_PRETRAINING, "inference", dataset_dir=str(volumes), output_dir=str(tmp_path / "out"))
    with np.load(tmp_path / "out" / "phantom_001.npz") as kept:
        assert kept["strides"].tolist() == [2, 4, 8]
        assert kept["level_0"].shape == (64, 8, 4, 8)  # at 3 mm 9 x 8 x 9 voxels, padded to 16 x 8 x 16, and stride 2


@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_matching(name: str, data: Path, tmp_path: Path) -> None:
    bundle, output = MATCHING, tmp_path / "out"
    start = run_at_a_shell if name == "inference" else run_config
    start(bundle, *dict.fromkeys(["inference", name]), dataset_dir=str(data), pixel_mm=1.0, output_dir=str(output))
    with (output / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["landmark"]) for row in rows] == [
        (f"phantom_00{number}.png", point) for number in (1, 2) for point in ("left", "right", "low")
    ]
    assert len(list((output / "markups").glob("*.mrk.json"))) == 2
    assert (output / "report.html").is_file()
    assert (output / "overlays").is_dir() == (name == "inference")
    assert (output / "metrics.json").is_file() == (name == "evaluate")
    if name == "evaluate":
        metrics = json.loads((output / "metrics.json").read_text())
        assert (metrics["images"], metrics["measured"]) == (2, 6)


@pytest.mark.parametrize("name", ["inference", "evaluate"])
def test_matching_in_volumes(name: str, volumes: Path, tmp_path: Path) -> None:
    """What MONAI's evaluator writes is what the matcher in Python finds, at the spacing of the template."""
    output, choices = tmp_path / "out", {"longest_side": 16}
    configs = dict.fromkeys(["inference", name])
    run_config(VOLUME_MATCHING, *configs, dataset_dir=str(volumes), output_dir=str(output), **choices)
    assert len(list((output / "markups").glob("*.mrk.json"))) == 1
    assert (output / "overlays").is_dir() == (name == "inference")
    assert (output / "metrics.json").is_file() == (name == "evaluate")

    matcher = Matcher.from_bundle(VOLUME_MATCHING, settings=choices)
    matcher.fit(volumes / "template.nii.gz", volumes / "landmarks.csv")
    matcher.match(volumes / "phantom_001.nii.gz").write(tmp_path / "python", formats=["csv"], overlays=False)
    own = (tmp_path / "python" / "landmarks.csv").read_text(encoding="utf-8")
    assert (output / "landmarks.csv").read_text(encoding="utf-8") == own
    assert [row.split(",")[1] for row in own.splitlines()[1:]] == ["left", "right", "low", "high"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        *((name, "inference") for name in BUNDLES),
        *((name, "evaluate") for name in (MATCHING.name, VOLUME_MATCHING.name)),
    ],
)
def test_initialises_without_data(name: str, config: str, tmp_path: Path) -> None:
    """Every property that MONAI requires can be built on an empty folder; the run then says what is missing."""
    made = workflow(BUNDLES[name], "infer", *dict.fromkeys(["inference", config]), dataset_dir=str(tmp_path))
    assert made.check_properties() == []
    with pytest.raises(RuntimeError) as caught:
        made.run()
    causes = [caught.value.__cause__]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__)
    assert any("holds no image to search" in str(cause) for cause in causes)


@pytest.mark.parametrize("name", BUNDLES)
def test_properties_of_training(name: str, tmp_path: Path) -> None:
    made = workflow(BUNDLES[name], "train", "train", "smoke", output_dir=str(tmp_path))
    assert made.check_properties() == []


@pytest.mark.parametrize("name", BUNDLES)
def test_weights_are_a_flat_state_dict_of_the_network(name: str) -> None:
    bundle = BUNDLES[name]
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    inference_network(bundle).load_state_dict(state)


@pytest.mark.data
def test_published_weights_find_the_template_in_itself(data_dir: Path, tmp_path: Path) -> None:
    """All 19 landmarks of a cephalogram nobody trained on, within a cell of the finest level: two pixels of 0.5 mm."""
    images = data_dir / "ceph_isbi2015" / "images"
    template = tmp_path / "copy.png"
    shutil.copy(images / "200.png", template)
    run_config(
        MATCHING,
        "inference",
        template=str(images / "200.png"),
        landmarks=str(data_dir / "ceph_isbi2015" / "landmarks.csv"),
        images=str(template),
        pixel_mm=0.5,
        output_dir=str(tmp_path / "out"),
        overlays=False,
    )
    true = read_landmarks(data_dir / "ceph_isbi2015" / "landmarks.csv").positions_mm()
    points = next(points for name, points in true.items() if Path(name).stem == "200")
    with (tmp_path / "out" / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 19
    for row in rows:
        assert math.dist((float(row["x_mm"]), float(row["y_mm"])), points[row["landmark"]]) < 1.0
        assert row["flag"] == ""
