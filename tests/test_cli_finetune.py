"""From annotations made in 3D Slicer and a folder of images to a detector and its error, by the program alone."""

import csv
import json
from pathlib import Path

import pytest
import torch

from medpixcl.data.phantoms import write_landmark_phantoms
from medpixcl.networks import PixelEmbeddingNet
from tests.bundles.detection import BUNDLES, NAMES, SHAPES
from tests.tiny import ROOT, medpixcl

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


def slicer_folder(folder: Path, dims: int) -> Path:
    """Images, and beside them what Slicer saves: a markups file for each, in mm, LPS; one point undefined."""
    write_landmark_phantoms(folder / "images", 4, SHAPES[dims])
    (folder / "annotations").mkdir()
    with (folder / "images" / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (folder / "images" / "landmarks.csv").unlink()
    unit = "px" if dims == 2 else "mm"
    for image in {row["image"] for row in rows}:
        points = [
            {
                "label": row["landmark"],
                "position": [float(row.get(f"{axis}_{unit}") or 0) for axis in "xyz"],
                "positionStatus": "defined",
            }
            for row in rows
            if row["image"] == image
        ]
        if image.startswith("phantom_001"):
            points[0] |= {"position": [0, 0, 0], "positionStatus": "undefined"}
        content = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}]}
        (folder / "annotations" / f"{image.split('.')[0]}.mrk.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("dims", [2, 3])
def test_from_slicer_to_a_detector(dims: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = slicer_folder(tmp_path / "data", dims)
    manifest, run, found = tmp_path / "manifest.json", tmp_path / "run", tmp_path / "found"
    spacing = ["--spacing-mm", 1] if dims == 2 else []
    assert medpixcl("scan", folder / "images", "-o", manifest, "--landmarks", folder / "annotations", *spacing) == 0
    source = PixelEmbeddingNet(
        spatial_dims=dims, backbone="dynunet", channels=[4, 8, 8], embedding_size=4, norm="instance"
    )
    torch.save(source.state_dict(), tmp_path / "pretrained.pt")
    tiny = {
        "backbone": "dynunet",
        "channels": [4, 8, 8],
        "batch_size": 2,
        "epoch_steps": 2,
        "bfloat16": False,
        "silent": True,
        "view_shape": [20] * dims,
        "working_spacing_mm": [1.0] * dims,
    }
    words = ["finetune", BUNDLES[dims], "--data", manifest, "-o", run, "--init", tmp_path / "pretrained.pt"]
    words += ["--train-images", 3, "--steps", 2, "--seed", 1, "--target", "mean"]
    words += [word for key, value in tiny.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    assert medpixcl(*words) == 0
    assert json.loads((run / "models" / "inference.json").read_text())["landmark_names"] == NAMES
    words = ["detect", "--bundle", BUNDLES[dims], "--weights", run / "models" / "model.pt", "-o", found, *spacing]
    words += ["--images", folder / "images", "--reference", folder / "annotations"]
    assert medpixcl(*words, "--format", "mrk.json,json", "--set", "overlays=false") == 0
    metrics = json.loads((found / "metrics.json").read_text())
    assert (metrics["images"], metrics["measured"]) == (4, 15)  # one of 16 was not marked
    words = ["evaluate", "--predictions", found / "markups", "--reference", folder / "annotations"]
    assert medpixcl(*words, "-o", tmp_path / "metrics.json") == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["mre_mm"] == pytest.approx(metrics["mre_mm"], abs=1e-3)
    assert "weights:" in capsys.readouterr().out


def test_one_sentence_for_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["finetune", BUNDLES[2], "--data", tmp_path / "m.json", "-o", tmp_path / "run"]
    assert medpixcl(*words, "--init", "a.pt", "--scratch") == 2
    assert "--init and --scratch contradict each other" in capsys.readouterr().err
    assert medpixcl(*words) == 2
    assert "does not exist; make a manifest" in capsys.readouterr().err
    segmentation = ROOT / "bundles" / "organ_segmentation_finetuning"
    assert medpixcl("finetune", segmentation, *words[2:], "--train-images", 5) == 2
    assert "has no setting train_images" in capsys.readouterr().err
