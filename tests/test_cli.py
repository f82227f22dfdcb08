"""Every command of the program, from the words typed to the files on disk."""

import csv
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

import medpixcl as package
from medpixcl.cli.console import print_comparison
from medpixcl.data.landmarks.comparison import evaluate_positions
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.phantoms import draw_phantom, write_phantoms
from tests.tiny import (
    MATCHING,
    NETWORK,
    PRETRAINING,
    ROOT,
    checkpoint,
    edited_bundle,
    medpixcl,
    write_config,
    write_manifest,
)

SCHEMA = ROOT / ".." / "shared" / "schemas" / "slicer-markups-schema-v1.0.3.json"
SMALL = [word for key, value in NETWORK.items() for word in ("--set", f"{key}={json.dumps(value)}")]
# The finest level alone, whose cells are the pixels: then an image is most like itself at the very same pixel, whatever
# the weights, while coarser levels are interpolated.
FINEST = {"_target_": "medpixcl.matching.LandmarkMatcher", "mode": "consistent", "levels": [0]}
POINTS = {"sella": (12, 30), "nasion": (40, 22), "menton": (31, 45), "gonion": (20, 12)}  # x, y
# RAS+: axes turned by a quarter, one of them mirrored, three different spacings.
AFFINE = np.array([[0, -1.5, 0, 20], [2, 0, 0, -11], [0, 0, 1.25, 5], [0, 0, 0, 1]])


def points_table(path: Path, image: str, points: dict[str, tuple[int, int]] = POINTS) -> Path:
    rows = [f"{image},{name},{x},{y},0.5" for name, (x, y) in points.items()]
    path.write_text("\n".join(["image,landmark,x_px,y_px,spacing_mm", *rows, ""]))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """A template of 0.5 mm, and a folder with a copy of it and another picture, whose name holds brackets."""
    write_phantoms(tmp_path / "made", 2, (64, 56), seed=5)
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    shutil.copy(tmp_path / "made" / "phantom_000.png", tmp_path / "template.png")
    shutil.copy(tmp_path / "template.png", folder / "copy.png")
    shutil.copy(tmp_path / "made" / "phantom_001.png", folder / "sub" / "other [1].png")
    return {
        "template": tmp_path / "template.png",
        "landmarks": points_table(tmp_path / "landmarks.csv", "template.png"),
        "images": folder,
        "output": tmp_path / "out",
    }


def match(places: dict[str, Path], *more: object) -> int:
    torch.manual_seed(0)  # of the random weights
    words = [word for key, value in places.items() for word in (f"--{key}", value)]
    with tempfile.TemporaryDirectory() as folder:
        bundle = edited_bundle(MATCHING, Path(folder), "inference", matcher=FINEST)
        return medpixcl("match", "--bundle", bundle, "--trust", *words, *SMALL, "--set", "weights=null", *more)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def validate_markups(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.mrk.json"))
    if SCHEMA.is_file():
        from jsonschema import Draft202012Validator, validators

        schema = json.loads(SCHEMA.read_text())
        validator = validators.validator_for(schema, default=Draft202012Validator)(schema)
        for file in files:
            validator.validate(json.loads(file.read_text()))
    return files


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert medpixcl("--version") == 0
    assert capsys.readouterr().out == f"medpixcl {package.__version__}\n"
    assert medpixcl("--help") == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("scan", "pretrain", "match", "evaluate", "demo", "doctor"))
    assert medpixcl("search") == 2


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert medpixcl("doctor") == 0
    shown = capsys.readouterr().out
    assert torch.__version__ in shown
    assert "GPU" in shown


def test_scan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_phantoms(tmp_path / "images", 3, (20, 24))
    cut = tmp_path / "images" / "phantom_001.png"
    cut.write_bytes(cut.read_bytes()[:120])
    (tmp_path / "images" / "notes.txt").write_text("nothing to see")
    table = tmp_path / "landmarks.csv"
    points_table(table, "phantom_000.png", {"tip": (3, 4)})
    split = tmp_path / "split.csv"
    split.write_text("image,split\nphantom_000.png,train\nphantom_002.png,test1\n")
    manifest = tmp_path / "new" / "manifest.json"

    options = ["--spacing-mm", 0.5, "--landmarks", table, "--split", split, "--licence", "CC0"]
    assert medpixcl("scan", tmp_path / "images", "-o", manifest, *options) == 0

    content = json.loads(manifest.read_text())
    (first,), (second,) = content["training"], content["test"]
    assert first["image"] == "../images/phantom_000.png"
    assert first["spacing_mm"] == [0.5, 0.5]
    assert first["shape"] == [20, 24]
    assert first["licence"] == "CC0"
    assert (manifest.parent / first["landmarks"]).resolve() == table.resolve()
    assert (second["image"], second["split"], second["landmarks"]) == ("../images/phantom_002.png", "test1", None)
    rejected = {entry["path"]: entry["reason"] for entry in content["rejected"]}
    assert rejected.keys() == {"../images/notes.txt", "../images/phantom_001.png"}
    assert "cut off" in rejected["../images/phantom_001.png"]
    shown = capsys.readouterr().out
    assert re.search(r"rejected +│ +│ 2", shown)
    assert "rejected notes.txt: is not an image." in shown
    assert f"not used: 2 files; {manifest} lists all under rejected, with the reasons" in shown


def test_many_rejected_files_are_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_phantoms(tmp_path / "images", 1, (20, 24))
    for number in range(30):
        (tmp_path / "images" / f"notes_{number}.txt").write_text("nothing to see")
    (tmp_path / "images" / "empty.png").touch()
    assert medpixcl("scan", tmp_path / "images", "-o", tmp_path / "m.json", "--spacing-mm", 0.5) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("rejected ")]
    assert lines == [
        "rejected 30 files, the first of them notes_0.txt: is not an image.",
        "rejected empty.png: is empty (0 bytes).",
    ]


def test_scan_with_nothing_usable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, and the manifest is there all the same: it holds the reasons."""
    write_phantoms(tmp_path / "images", 1, (20, 24))
    manifest = tmp_path / "manifest.json"
    assert medpixcl("scan", tmp_path / "images", "-o", manifest) == 2
    (entry,) = json.loads(manifest.read_text())["rejected"]
    assert (entry["path"], entry["reason"]) == (
        "images/phantom_000.png",
        "has no pixel spacing; give --spacing-mm.",
    )
    assert f"the reasons are in {manifest}" in capsys.readouterr().err


def test_pretrain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings of the command line win over a file's, a file's over the bundle's; a second call trains no more."""
    manifest, run = write_manifest(tmp_path), tmp_path / "run"
    config = write_config(tmp_path / "tiny.json", max_epochs=7, val_interval=5)
    words = ["pretrain", PRETRAINING, "--data", manifest, "-o", run, "--config", config, "--epochs", 2]
    assert medpixcl(*words, "--device", "cpu", "--set", "batch_size=4", "--set", "seed=3") == 0
    state = checkpoint(run)
    assert (state["epoch"], state["iteration"]) == (2, 2)
    assert (run / "models" / "model.pt").is_file()
    assert f"weights: {run / 'models' / 'model.pt'}" in capsys.readouterr().out
    written = (run / "models" / "model.pt").stat().st_mtime_ns
    assert medpixcl(*words, "--set", "batch_size=4", "--set", "seed=3") == 0
    assert (run / "models" / "model.pt").stat().st_mtime_ns == written


def test_pretrain_goes_on_from_weights(tmp_path: Path) -> None:
    """With a learning rate of zero, the weights of the first run are those of the second."""
    data = ["--data", write_manifest(tmp_path), "--epochs", 1, "--config", write_config(tmp_path / "tiny.json")]
    assert medpixcl("pretrain", PRETRAINING, *data, "-o", tmp_path / "first") == 0
    weights = tmp_path / "first" / "models" / "model.pt"
    still = ["--set", "learning_rate=0.0", "--set", "weight_decay=0.0", "--init", weights]
    assert medpixcl("pretrain", PRETRAINING, *data, "-o", tmp_path / "second", *still) == 0
    first, second = (torch.load(tmp_path / run / "models" / "model.pt") for run in ("first", "second"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_match_pictures(pictures: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """All that is written; a picture that equals the template has its landmarks where the template has them."""
    assert match(pictures, "--spacing-mm", 0.5) == 0
    output = pictures["output"]
    text = (output / "landmarks.csv").read_text()
    assert text.splitlines()[0] == "image,landmark,x_px,y_px,x_mm,y_mm,score,flag"
    found = rows(output / "landmarks.csv")
    assert [(row["image"], row["landmark"]) for row in found] == [
        (image, name) for image in ("copy.png", "sub/other [1].png") for name in POINTS
    ]
    for row in found[: len(POINTS)]:
        x, y = POINTS[row["landmark"]]
        assert (float(row["x_px"]), float(row["y_px"])) == pytest.approx((x, y), abs=0.6)
        assert 0.9 < float(row["score"]) <= 1.0001
    for row in found:  # a picture's LPS+ mm: column and row times the pixel size
        assert float(row["x_mm"]) == pytest.approx(0.5 * float(row["x_px"]), abs=1e-3)
        assert float(row["y_mm"]) == pytest.approx(0.5 * float(row["y_px"]), abs=1e-3)

    files = validate_markups(output / "markups")
    assert [file.relative_to(output / "markups").as_posix() for file in files] == [
        "copy.mrk.json",
        "sub/other [1].mrk.json",
    ]
    markups = read_landmarks(files[0]).positions_mm()["copy"]
    for row in found[: len(POINTS)]:
        expected = (float(row["x_mm"]), float(row["y_mm"]))
        assert markups[row["landmark"]][:2] == pytest.approx(expected, abs=1e-3)
    for name in ("copy.png", "sub/other [1].png"):
        with Image.open(output / "overlays" / name) as overlay:
            overlay.load()
            assert min(overlay.size) > 100
    report = (output / "report.html").read_text()
    assert "copy.png" in report
    assert "other [1].png" in report
    assert not (output / "metrics.json").exists()
    assert f"report: {output / 'report.html'}" in capsys.readouterr().out


def test_match_the_template_itself(pictures: dict[str, Path]) -> None:
    """Asked for by name, it is searched."""
    places = pictures | {"images": pictures["template"]}
    assert match(places, "--spacing-mm", 0.5) == 0
    found = rows(pictures["output"] / "landmarks.csv")
    assert [row["image"] for row in found] == ["template.png"] * len(POINTS)
    for row in found:
        assert (float(row["x_px"]), float(row["y_px"])) == pytest.approx(POINTS[row["landmark"]], abs=0.6)


def test_match_measures(pictures: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Against a reference that lies 1.5 and 2 mm beside the truth, so 2.5 mm away."""
    beside = {name: (x + 3, y + 4) for name, (x, y) in POINTS.items()}
    reference = points_table(pictures["output"].parent / "reference.csv", "copy.png", beside)
    (pictures["images"] / "sub" / "other [1].png").unlink()
    assert match(pictures, "--spacing-mm", 0.5, "--reference", reference) == 0
    metrics = json.loads((pictures["output"] / "metrics.json").read_text())
    assert metrics["mre_mm"] == pytest.approx(2.5, abs=0.36)  # the peak may lie half a pixel off
    assert metrics["sdr_percent"]["2"] == 0.0
    assert metrics["sdr_percent"]["4"] == 100.0
    assert "MRE" in capsys.readouterr().out


def test_match_from_a_manifest(pictures: dict[str, Path]) -> None:
    manifest = pictures["output"].parent / "manifest.json"
    assert medpixcl("scan", pictures["images"], "-o", manifest, "--spacing-mm", 0.5) == 0
    places = pictures | {"images": manifest}
    assert match(places, "--spacing-mm", 0.5, "--set", "overlays=false") == 0
    names = {row["image"] for row in rows(pictures["output"] / "landmarks.csv")}
    assert names == {"images/copy.png", "images/sub/other [1].png"}
    assert not (pictures["output"] / "overlays").exists()


def test_match_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Landmarks in mm, LPS+, of a volume with turned and mirrored axes, found again in a copy of it."""
    voxels = np.array([[5, 6, 7], [20, 9, 11], [11, 18, 5], [14, 12, 15]])
    lps = (voxels @ AFFINE[:3, :3].T + AFFINE[:3, 3]) * [-1, -1, 1]
    (tmp_path / "images").mkdir()
    image = nibabel.Nifti1Image(draw_phantom((26, 24, 20), 7), AFFINE)
    for name in ("template.nii.gz", "images/copy.nii.gz"):
        nibabel.save(image, tmp_path / name)
    table = [f"template.nii.gz,p{k},{x},{y},{z}" for k, (x, y, z) in enumerate(lps)]
    (tmp_path / "landmarks.csv").write_text("\n".join(["image,landmark,x_mm,y_mm,z_mm", *table, ""]))
    places = {
        "template": tmp_path / "template.nii.gz",
        "landmarks": tmp_path / "landmarks.csv",
        "images": tmp_path / "images",
        "output": tmp_path / "out",
    }
    assert match(places, "--set", "spatial_dims=3", "--set", "working_spacing_mm=null") == 0
    header = "image,landmark,x_px,y_px,z_px,x_mm,y_mm,z_mm,score,flag"
    assert (tmp_path / "out" / "landmarks.csv").read_text().splitlines()[0] == header
    for number, row in enumerate(rows(tmp_path / "out" / "landmarks.csv")):
        assert row["image"] == "copy.nii.gz"
        assert [float(row[f"{axis}_px"]) for axis in "xyz"] == pytest.approx(voxels[number], abs=0.6)
        assert [float(row[f"{axis}_mm"]) for axis in "xyz"] == pytest.approx(lps[number], abs=1.2)
        assert row["flag"] in ("", "unsure")
    (markups,) = validate_markups(tmp_path / "out" / "markups")
    content = json.loads(markups.read_text())["markups"][0]
    assert content["coordinateSystem"] == "LPS"
    positions = [point["position"] for point in content["controlPoints"]]
    np.testing.assert_allclose(positions, lps, atol=1.2)
    assert (tmp_path / "out" / "overlays" / "copy.png").is_file()
    assert (tmp_path / "out" / "report.html").is_file()


def write_positions(path: Path, positions: dict[str, dict[str, tuple[float, float]]]) -> Path:
    lines = ["image,landmark,x_mm,y_mm"]
    lines += [f"{image},{name},{x},{y}" for image, points in positions.items() for name, (x, y) in points.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors of 0, 5 and 1 mm; without the image that --exclude names, 0 and 5."""
    true: dict[str, Any] = {"a.png": {"p": (0, 0), "q": (10, 10)}, "my image.png": {"p": (5, 5)}}
    found: dict[str, Any] = {"a.png": {"p": (0, 0), "q": (13, 14)}, "my image.png": {"p": (5, 6)}}
    words = ["evaluate", "--predictions", write_positions(tmp_path / "found.csv", found)]
    words += ["--reference", write_positions(tmp_path / "true.csv", true), "-o", tmp_path / "metrics.json"]
    assert medpixcl(*words) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["mre_mm"] == pytest.approx(2.0)
    assert "2.00" in capsys.readouterr().out

    (tmp_path / "exclude.txt").write_text("\nmy image.png\n\n")
    assert medpixcl(*words, "--exclude", tmp_path / "exclude.txt") == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["mre_mm"] == pytest.approx(2.5)
    assert metrics["images"] == 1
    assert metrics["sdr_percent"]["2"] == 50.0


def test_a_comparison_shows_a_dash_for_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    """One image has no interval; a method that found nothing has no error."""
    truth = {"a.nii.gz": {"AC": (0.0, 0.0, 0.0), "PC": (9.0, 0.0, 0.0)}}
    found = {"a.nii.gz": {"AC": (3.0, 0.0, 0.0), "PC": (9.0, 4.0, 0.0)}}
    runs = {"one": found, "none": {"a.nii.gz": {}}}
    print_comparison([(name, evaluate_positions(positions, truth)) for name, positions in runs.items()])
    rows = [[cell.strip() for cell in line.strip("│ \n").split("│")] for line in capsys.readouterr().out.splitlines()]
    assert ["one", "3.5", "–", "3.5"] in rows
    assert ["none", "–", "–", "–"] in rows
