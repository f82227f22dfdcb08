"""Two patients with an image of one name: through scan, selftrain, detect and evaluate, and as series of volumes."""

import csv
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from medpixcl.data.phantoms import draw_phantom, write_landmark_phantoms
from medpixcl.landmarks.pseudo import PseudoLandmarks
from tests.data.dicom_files import write_series
from tests.test_bad_input import RANDOM
from tests.tiny import MATCHING, ROOT, checkpoint, medpixcl

PATIENTS = ("p1", "p2", "p3", "p4")
SELFTRAINING = ROOT / "bundles" / "xray_landmark_selftraining"
TINY = {
    "working_spacing_mm": [1.0, 1.0],
    "view_shape": [32, 32],
    "backbone": "dynunet",
    "channels": [4, 8, 8],
    "embedding_size": 8,
    "bfloat16": False,
    "start_weights": None,
    "batch_size": 2,
    "template_repeats": 2,
    "relabel_views": [[0.0, 1.0]],
    "silent": True,
    "learn_appearance": False,
}
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
Place = tuple[float, ...]


def found_in(table: Path, unit: str = "mm") -> dict[str, dict[str, Place]]:
    """Positions (x, y[, z]) by image and landmark."""
    places: dict[str, dict[str, Place]] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            place = tuple(float(row[key]) for axis in "xyz" if (key := f"{axis}_{unit}") in row)
            places.setdefault(row["image"], {})[row["landmark"]] = place
    return places


def distances(found: dict[str, Place], true: dict[str, Place]) -> dict[str, float]:
    """Distance in mm between the two positions of every landmark."""
    return {name: float(np.linalg.norm(np.subtract(place, true[name]))) for name, place in found.items()}


def written(folder: Path) -> set[str]:
    """Files of a folder and its subfolders."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def spelled(form: str, name: str) -> str:
    return unicodedata.normalize(form, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Patients p1 to p4, each with a ``Schädel.png`` of its own, and a manifest elsewhere.

    The files are spelled with composed letters (NFC), the table names them with decomposed ones (NFD).
    """
    write_landmark_phantoms(tmp_path / "made", len(PATIENTS), (40, 44))
    table = (tmp_path / "made" / "landmarks.csv").read_text()
    for number, patient in enumerate(PATIENTS):
        (tmp_path / "images" / patient).mkdir(parents=True)
        picture = tmp_path / "images" / patient / spelled("NFC", "Schädel.png")
        shutil.copy(tmp_path / "made" / f"phantom_{number:03}.png", picture)
        table = table.replace(f"phantom_{number:03}.png", f"{patient}/{spelled('NFD', 'Schädel.png')}")
    (tmp_path / "images" / "landmarks.csv").write_text(table, encoding="utf-8")
    assert medpixcl("scan", tmp_path / "images", "-o", tmp_path / "lists" / "m.jsonl", "--spacing-mm", 1,
                    "--landmarks", tmp_path / "images" / "landmarks.csv") == 0  # fmt: skip
    return tmp_path


def test_selftrain_detect_evaluate(folder: Path) -> None:
    name, images, run, out = spelled("NFC", "Schädel"), folder / "images", folder / "run", folder / "out"
    settings = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
    assert medpixcl("selftrain", "--template", images / "p2" / f"{name}.png", "--landmarks", images / "landmarks.csv",
                    "--data", folder / "lists" / "m.jsonl", "-o", run, "--bundle", SELFTRAINING, "--epochs", 2,
                    "--rounds", 2, *settings) == 0  # fmt: skip
    true = {spelled("NFC", image): places for image, places in found_in(images / "landmarks.csv", "px").items()}
    labels, paths = PseudoLandmarks(list(true[f"p2/{name}.png"])), [images / one / f"{name}.png" for one in PATIENTS]
    labels.load_state_dict(checkpoint(run)["labels"])
    labels.place(map(str, paths))
    assert set(labels.images) == set(map(str, paths))
    kept = labels.points(str(images / "p2" / f"{name}.png"), 2)  # RAS+ of a picture is (-column, -row)
    torch.testing.assert_close(-kept, torch.tensor(list(true[f"p2/{name}.png"].values()), dtype=torch.float64))
    weights = run / "models" / "model.pt"
    assert medpixcl("detect", "--bundle", SELFTRAINING, "--weights", weights, "--images", folder / "lists" / "m.jsonl",
                    "--reference", images / "landmarks.csv", "-o", out) == 0  # fmt: skip
    found = found_in(out / "landmarks.csv")
    assert found.keys() == true.keys() == {f"{patient}/{name}.png" for patient in PATIENTS}
    assert written(out / "markups") == {f"{patient}/{name}.mrk.json" for patient in PATIENTS}
    assert written(out / "overlays") == {f"{patient}/{name}.png" for patient in PATIENTS}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert all(f"{patient}/{name}.png" in page for patient in PATIENTS)
    alone = folder / "alone"
    assert medpixcl("detect", "--bundle", SELFTRAINING, "--weights", weights, "--images", folder / "made",
                    "--spacing-mm", 1, "-o", alone) == 0  # fmt: skip
    for number, (patient, single) in enumerate(zip(PATIENTS, found_in(alone / "landmarks.csv").items(), strict=True)):
        assert single[0] == f"phantom_{number:03}.png"
        assert found[f"{patient}/{name}.png"] == single[1]
    metrics = json.loads((out / "metrics.json").read_text())
    for image, entry in metrics["per_image"].items():
        assert entry["errors_mm"] == pytest.approx(distances(found[image], true[image]), abs=1e-3)
    assert medpixcl("evaluate", "--predictions", out / "markups", "--reference", images / "landmarks.csv",
                    "-o", folder / "e.json") == 0  # fmt: skip
    assert json.loads((folder / "e.json").read_text())["mre_mm"] == pytest.approx(metrics["mre_mm"], abs=1e-3)


def series(folder: Path, seed: int) -> Path:
    """A volume of 12 slices in the folder of a CT series; every patient lies elsewhere."""
    volume = 1000 * draw_phantom((12, 20, 18), seed)
    origin = (-10.0 + 3 * seed, -20.0, 30.0 + seed)
    identity = {"SeriesInstanceUID": f"1.2.{seed}", "StudyInstanceUID": f"1.3.{seed}", "FrameOfReferenceUID": "1.4"}
    write_series(folder, volume.astype(np.int16), origin=origin, spacing=(1.0, 1.0), step=(0, 0, 1.5), **identity)
    return folder


@pytest.mark.slow
def test_series_in_folders_of_one_name(tmp_path: Path) -> None:
    lines = ["image,landmark,x_mm,y_mm,z_mm"]
    for seed, patient in enumerate(PATIENTS[:3], start=1):
        series(tmp_path / "images" / patient / "CT", seed)
        lines += [f"{patient}/CT,a,{-4 + 3 * seed},-12,{36 + seed}", f"{patient}/CT,b,{-1 + 3 * seed},-8,{39 + seed}"]
    table = tmp_path / "images" / "landmarks.csv"
    table.write_text("\n".join([*lines, ""]))
    manifest, out = tmp_path / "lists" / "m.json", tmp_path / "out"
    assert medpixcl("scan", tmp_path / "images", "-o", manifest, "--landmarks", table) == 0
    entries = json.loads(manifest.read_text())["training"]
    assert [entry["landmarks"] for entry in entries] == 3 * ["../images/landmarks.csv"]
    volumes = ["--set", "spatial_dims=3", "--set", "working_spacing_mm=[1.5, 1.5, 1.5]"]
    options = ["--bundle", MATCHING, "--images", manifest, "--reference", table, *RANDOM, *volumes]
    assert medpixcl("match", "--template", tmp_path / "images" / "p2" / "CT", "--landmarks", table, "-o", out,
                    *options) == 0  # fmt: skip
    found, true = found_in(out / "landmarks.csv"), found_in(table)
    assert found.keys() == {"p1/CT", "p3/CT"}
    metrics = json.loads((out / "metrics.json").read_text())["per_image"]
    for image, places in found.items():
        assert metrics[image]["errors_mm"] == pytest.approx(distances(places, true[image]), abs=1e-3)
    assert written(out / "markups") == {f"{image}.mrk.json" for image in found}
    assert written(out / "overlays") == {f"{image}.png" for image in found}
