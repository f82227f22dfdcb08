"""The whole way in 3D on real volumes: scan, pretrain with the example's settings, match with the weights."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from medpixcl.data.landmarks.reading import read_landmarks
from tests.tiny import MATCHING, PRETRAINING, ROOT, checkpoint, medpixcl

EXAMPLE = ROOT / "examples" / "hippocampus_3d.json"


@pytest.mark.slow
@pytest.mark.data
def test_hippocampi(data_dir: Path, tmp_path: Path) -> None:
    source, manifest, run = data_dir / "hippocampus_mr", tmp_path / "manifest.json", tmp_path / "run"
    (tmp_path / "images").mkdir()
    volumes = sorted((source / "images").glob("*.nii.gz"))[:6]
    for volume in volumes:
        shutil.copy(volume, tmp_path / "images")
    assert medpixcl("scan", tmp_path / "images", "-o", manifest) == 0
    words = ["--data", manifest, "-o", run, "--config", EXAMPLE, "--epochs", 2]
    assert medpixcl("pretrain", PRETRAINING, *words) == 0
    state = checkpoint(run)
    assert (state["epoch"], state["iteration"]) == (2, 4)
    assert all(value.isfinite().all() for value in state["network"].values())
    assert 0 < state["best"]["best_metric"] < 32 * 3**0.5, "pixels of a view of 32"

    example = json.loads(EXAMPLE.read_text())
    network = ("spatial_dims", "backbone", "channels", "embedding_size")
    settings = [word for key in network for word in ("--set", f"{key}={json.dumps(example[key])}")]
    settings += ["--set", f"working_spacing_mm={json.dumps(example['working_spacing_mm'])}"]
    places = ["--template", tmp_path / "images" / volumes[0].name, "--images", tmp_path / "images"]
    places += ["--landmarks", source / "landmarks.csv", "--reference", source / "landmarks.csv"]
    weights = ["--weights", run / "models" / "model.pt"]
    assert medpixcl("match", "--bundle", MATCHING, *places, *weights, *settings, "-o", tmp_path / "out") == 0
    with (tmp_path / "out" / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == {volume.name for volume in volumes[1:]}
    assert len(rows) == 5 * 4
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    true = {Path(name).name: points for name, points in read_landmarks(source / "landmarks.csv").positions_mm().items()}
    found = torch.tensor([[float(row[f"{axis}_mm"]) for axis in "xyz"] for row in rows])
    wanted = torch.tensor([true[row["image"]][row["landmark"]] for row in rows])
    assert metrics["mre_mm"] == pytest.approx((found - wanted).norm(dim=1).mean().item(), rel=1e-4)
