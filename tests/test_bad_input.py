"""Whatever is wrong with the input ends in one sentence that names it; what is right goes on."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medpixcl.data.phantoms import draw_phantom, write_phantoms
from medpixcl.networks import PixelEmbeddingNet
from tests.data.dicom_files import NOBODY, write_series
from tests.tiny import MATCHING, NETWORK, PRETRAINING, edited_bundle, medpixcl, write_config, write_manifest

SMALL = [word for key, value in NETWORK.items() for word in ("--set", f"{key}={json.dumps(value)}")]
RANDOM = [*SMALL, "--set", "weights=null"]
BAR = re.compile(r"^(Loading dataset: |\s*\d+%\|)")


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the program; checks exit status 2 and that stderr holds one sentence and nothing else; returns it."""

    def run(*arguments: object) -> str:
        assert medpixcl(*arguments) == 2
        shown = capfd.readouterr()
        lines = [line for line in re.split(r"[\r\n]+", shown.err) if line.strip() and not BAR.match(line)]
        assert len(lines) == 1, shown.err
        assert "Traceback" not in shown.out
        prefix, _, sentence = lines[0].partition(": ")
        assert prefix == "medpixcl"
        return sentence

    return run


@pytest.fixture
def case(tmp_path: Path) -> dict[str, Path]:
    """A template of 1 mm with two landmarks, and a folder of two good pictures."""
    write_phantoms(tmp_path / "images", 2, (40, 36), seed=3)
    shutil.move(tmp_path / "images" / "phantom_000.png", tmp_path / "template.png")
    write_phantoms(tmp_path / "images", 1, (40, 36), seed=8)
    (tmp_path / "landmarks.csv").write_text(
        "image,landmark,x_px,y_px\ntemplate.png,left,10,20\ntemplate.png,right,30,25\n"
    )
    places = {"template": "template.png", "landmarks": "landmarks.csv", "images": "images", "output": "out"}
    return {key: tmp_path / name for key, name in places.items()}


def words(case: dict[str, Path], *more: object, spacing: bool = True) -> list[object]:
    """The command line of ``match``."""
    places = [word for key, path in case.items() for word in (f"--{key}", path)]
    return ["match", "--bundle", MATCHING, *places, *(["--spacing-mm", 1] if spacing else []), *more]


def found_images(case: dict[str, Path]) -> set[str]:
    with (case["output"] / "landmarks.csv").open(newline="") as file:
        return {row["image"] for row in csv.DictReader(file)}


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# Images that cannot be used, among good ones and as the template


def test_good_images_go_on_beside_a_cut_off_one(case: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    cut_off(case["images"] / "phantom_000.png")
    (case["images"] / "empty.png").touch()
    assert medpixcl(*words(case, *RANDOM)) == 3
    shown = capfd.readouterr()
    assert shown.err == ""
    assert "rejected empty.png: is empty (0 bytes)." in shown.out
    assert re.search(r"rejected phantom_000\.png: .*cut off", shown.out)
    assert found_images(case) == {"phantom_001.png"}
    report = (case["output"] / "report.html").read_text()
    assert "empty.png" in report, "what was rejected stands in the report too"


def test_volume_with_nan(tmp_path: Path, refused: Callable[..., str], capfd: pytest.CaptureFixture[str]) -> None:
    """Among good volumes it is rejected; as the template it is refused."""
    (tmp_path / "images").mkdir()
    volume = draw_phantom((16, 14, 12), 0)
    spoilt = volume.copy()
    spoilt[3, 4, 5:7] = np.nan
    for name, values in (("template", volume), ("images/good", volume), ("images/spoilt", spoilt)):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / f"{name}.nii.gz")
    table = tmp_path / "landmarks.csv"
    table.write_text("image,landmark,x_px,y_px,z_px\ntemplate,p,3,4,5\nspoilt,p,3,4,5\n")
    volumes = {"template": tmp_path / "template.nii.gz", "landmarks": table}
    volumes |= {"images": tmp_path / "images", "output": tmp_path / "out"}
    options = [*RANDOM, "--set", "spatial_dims=3", "--set", "working_spacing_mm=[1.0, 1.0, 1.0]"]
    assert medpixcl(*words(volumes, *options)) == 3
    assert "rejected spoilt.nii.gz: holds 2 values that are not finite (NaN or Inf)." in capfd.readouterr().out
    assert found_images(volumes) == {"good.nii.gz"}

    volumes["template"] = tmp_path / "images" / "spoilt.nii.gz"
    assert refused(*words(volumes, *options)).endswith(
        "spoilt.nii.gz: holds 2 values that are not finite (NaN or Inf)."
    )


def test_template_cut_off(case: dict[str, Path], refused: Callable[..., str]) -> None:
    cut_off(case["template"])
    assert re.search(r"template\.png: .*cut off", refused(*words(case, *RANDOM)))


def test_template_of_another_dimension(case: dict[str, Path], refused: Callable[..., str]) -> None:
    write_phantoms(case["output"].parent / "volumes", 1, (8, 8, 8))
    case["template"] = case["output"].parent / "volumes" / "phantom_000.nii.gz"
    sentence = refused(*words(case, *RANDOM))
    assert sentence.endswith("phantom_000.nii.gz: has 3 spatial axes; the working spacing has 2: take 2D images.")


def test_missing_spacing(case: dict[str, Path], refused: Callable[..., str]) -> None:
    assert refused(*words(case, *RANDOM, spacing=False)).endswith(
        "template.png: has no pixel spacing; give --spacing-mm."
    )


def test_empty_folder(case: dict[str, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    case["images"] = tmp_path / "empty"
    assert "empty holds no image to search; give a folder or manifest" in refused(*words(case, *RANDOM))
    assert "nothing usable found in" in refused("scan", tmp_path / "empty", "-o", tmp_path / "manifest.json")
    assert not case["output"].exists()


def test_image_damaged_after_the_scan(case: dict[str, Path], tmp_path: Path) -> None:
    """It is rejected with the reason, and the other images are searched."""
    manifest = tmp_path / "manifest.json"
    assert medpixcl("scan", case["images"], "-o", manifest, "--spacing-mm", 1) == 0
    cut_off(case["images"] / "phantom_001.png")
    case["images"] = manifest
    assert medpixcl(*words(case, *RANDOM)) == 3
    assert re.search(r"phantom_001\.png,.*cut off", (case["output"] / "rejected.csv").read_text())
    assert "phantom_000.png" in (case["output"] / "landmarks.csv").read_text()


def test_no_patient_in_messages(tmp_path: Path, case: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    volume = np.arange(4 * 8 * 8).reshape(4, 8, 8)
    write_series(tmp_path / "dicom" / "good", volume)
    write_series(tmp_path / "dicom" / "gap", volume, positions=[0, 1, 2, 5])
    case["images"] = tmp_path / "dicom"
    assert medpixcl("scan", case["images"], "-o", tmp_path / "manifest.json") == 0
    assert medpixcl(*words(case, *RANDOM)) == 2
    shown = capfd.readouterr()
    for text in (shown.out, shown.err, (tmp_path / "manifest.json").read_text()):
        assert NOBODY not in text
        assert NOBODY.split("^")[1] not in text


# Landmarks


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            "image,landmark,x_px,y_px\ntemplate.png,left,10,20\ntemplate.png,right,300,25\n",
            r"line 3: .*'right'.*outside",
        ),
        (
            "image,landmark,x_px,y_px\nother.png,left,10,20\n",
            r"of .*template\.png; it has those of .other\.png., and an image is found",
        ),
        ("image,landmark,x_px,y_px\ntemplate.png,left,,\n", r"no landmark with a position in template\.png; mark at"),
        ("image,landmark,x_px,y_px\na/template.png,p,1,2\nb/template.png,p,1,2\n", r"template\.png may be any of"),
        ("image,landmark,x_px,y_px\ntemplate.png,left,ten,20\n", r"line 2: .*expected numbers"),
        ("image,landmark,x_px,y_px\ntemplate.png,p,1,2\ntemplate.png,p,3,4\n", r"line 3: .*stands at line 2 already"),
        ("image,name,x,y\ntemplate.png,left,10,20\n", r"has the columns image, name, x, y, .*; expected"),
        ("", r"has the columns \(none\), .*; expected"),
    ],
)
def test_landmark_file(case: dict[str, Path], table: str, sentence: str, refused: Callable[..., str]) -> None:
    case["landmarks"].write_text(table)
    found = refused(*words(case, *RANDOM))
    assert re.search(sentence, found)
    assert "landmarks.csv" in found


def test_no_landmark_file(case: dict[str, Path], refused: Callable[..., str]) -> None:
    case["landmarks"].unlink()
    assert "landmarks.csv does not exist" in refused(*words(case, *RANDOM))


def test_one_landmark_is_enough(case: dict[str, Path], tmp_path: Path) -> None:
    """It is searched by its looks alone, and says so."""
    case["landmarks"].write_text("image,landmark,x_px,y_px\ntemplate.png,left,10,20\n")
    shutil.copy(case["template"], case["images"] / "copy.png")
    options = {"_target_": "medpixcl.matching.LandmarkMatcher", "levels": [0], "max_ratio": 99.0, "max_cycle_mm": 99.0}
    bundle = edited_bundle(MATCHING, tmp_path, "inference", matcher=options)
    assert medpixcl(*words(case, *RANDOM, "--bundle", bundle, "--trust")) == 0
    with (case["output"] / "landmarks.csv").open(newline="") as file:
        flags = {row["image"]: row["flag"] for row in csv.DictReader(file)}
    assert flags["copy.png"] == "no geometry"
    assert flags.keys() == {"copy.png", "phantom_000.png", "phantom_001.png"}


def test_the_template_comes_first(case: dict[str, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    """Before a folder of images that may be large, and before anything is written."""
    case["template"].unlink()
    case["images"] = tmp_path / "nowhere"
    sentence = refused(*words(case, *RANDOM))
    assert sentence.endswith("template.png: does not exist.")
    assert not case["output"].exists()


def test_reference_comes_before_the_work(case: dict[str, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    case["images"] = tmp_path / "nowhere"
    assert "truth.csv does not exist" in refused(*words(case, *RANDOM, "--reference", tmp_path / "truth.csv"))


# Networks, bundles, settings


def test_weights_of_another_architecture(case: dict[str, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    torch.save(PixelEmbeddingNet(**{**NETWORK, "channels": [4, 8, 16]}).state_dict(), tmp_path / "other.pt")
    sentence = refused(*words(case, *SMALL, "--weights", tmp_path / "other.pt"))
    assert "other.pt are of another architecture than this network" in sentence
    (tmp_path / "text.pt").write_text("no weights")
    assert "text.pt is not a checkpoint" in refused(*words(case, *SMALL, "--weights", tmp_path / "text.pt"))
    assert "no weights at" in refused(*words(case, *SMALL, "--weights", tmp_path / "nothing.pt"))


def test_settings_and_bundles(case: dict[str, Path], tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "has no setting working_spacing: see" in refused(*words(case, "--set", "working_spacing=1"))
    assert "'working_spacing_mm' is no setting" in refused(*words(case, "--set", "working_spacing_mm"))
    assert "unknown backbone 'resnet'" in refused(*words(case, *RANDOM, "--set", "backbone=resnet"))
    assert "no bundle at" in refused(*words(case, "--bundle", tmp_path / "nowhere"))


def test_output_is_a_file(case: dict[str, Path], refused: Callable[..., str]) -> None:
    case["output"].write_text("in the way")
    assert "out" in refused(*words(case, *RANDOM))
    assert case["output"].read_text() == "in the way"


# Pretraining


@pytest.fixture
def training(tmp_path: Path) -> list[object]:
    manifest, config = write_manifest(tmp_path), write_config(tmp_path / "tiny.json", max_epochs=2)
    return ["pretrain", PRETRAINING, "--config", config, "-o", tmp_path / "run", "--data", manifest]


def test_pretrain_data(training: list[object], tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "absent.json does not exist" in refused(*training[:-1], tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text("{,}")
    assert "broken.json is not JSON (line 1)" in refused(*training[:-1], tmp_path / "broken.json")
    one = tmp_path / "one.json"
    assert medpixcl("scan", tmp_path / "images" / "phantom_000.png", "-o", one, "--spacing-mm", 1) == 0
    assert "has 1 image(s) to train and validate on" in refused(*training[:-1], one)
    assert not (tmp_path / "run").exists()


def test_pretrain_image_lost_after_the_scan(
    training: list[object], tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "images" / "phantom_002.png").unlink()
    assert refused(*training).endswith("phantom_002.png: does not exist.")


def test_pretrain_volumes_with_a_configuration_for_pictures(
    training: list[object], tmp_path: Path, refused: Callable[..., str]
) -> None:
    write_phantoms(tmp_path / "volumes", 2, (8, 8, 8))
    assert medpixcl("scan", tmp_path / "volumes", "-o", tmp_path / "volumes.json") == 0
    assert "has 3 spatial axes; the working spacing has 2" in refused(*training[:-1], tmp_path / "volumes.json")


def test_pretrain_settings(training: list[object], tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "has no setting epoch" in refused(*training, "--set", "epoch=3")
    assert "the device 'gpu' cannot be used" in refused(*training, "--device", "gpu")
    if not torch.cuda.is_available():
        assert "the device 'cuda' cannot be used" in refused(*training, "--device", "cuda")
    assert "no configuration at" in refused(*training, "--config", tmp_path / "absent.json")
    assert "no bundle at" in refused("pretrain", tmp_path / "nowhere", *training[2:])
    assert "cannot draw 9999 pixels" in refused(*training, "--set", "anchors_per_image=9999")


def test_pretrain_diverges(training: list[object], refused: Callable[..., str]) -> None:
    sentence = refused(*training, "--set", "learning_rate=1e30", "--set", "max_epochs=6")
    assert re.search(
        r"the loss is (nan|inf) at iteration \d+, made from .*phantom_00\d\.png, .*lower the learning", sentence
    )


def test_pretrain_into_the_run_of_another_network(
    training: list[object], tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert medpixcl(*training) == 0
    before = (tmp_path / "run" / "resume.pt").read_bytes()
    sentence = refused(*training, "--set", "channels=[4, 8, 12]")
    said = "resume.pt is damaged or of a run with another network or an earlier version: give another output folder"
    assert said in sentence
    assert (tmp_path / "run" / "resume.pt").read_bytes() == before


# The other commands


def test_scan_input(tmp_path: Path, case: dict[str, Path], refused: Callable[..., str]) -> None:
    target = tmp_path / "manifest.json"
    assert "nowhere does not exist" in refused("scan", tmp_path / "nowhere", "-o", target)
    options = ["-o", target, "--spacing-mm", 1]
    assert "split.csv does not exist" in refused("scan", case["images"], *options, "--split", tmp_path / "split.csv")
    case["landmarks"].write_text("image,landmark,x_px,y_px\nphantom_001.png,p,99,2\n")
    assert "outside the image" in refused("scan", case["images"], *options, "--landmarks", case["landmarks"])
    assert not target.exists()


def test_evaluate_input(tmp_path: Path, case: dict[str, Path], refused: Callable[..., str]) -> None:
    table = tmp_path / "mm.csv"
    table.write_text("image,landmark,x_mm,y_mm\na.png,p,1,2\n")
    output = ["-o", tmp_path / "metrics.json"]
    ok = ["--predictions", table, "--reference", table]
    assert "does not exist" in refused("evaluate", "--predictions", tmp_path / "no.csv", "--reference", table, *output)
    assert "without spacing_mm" in refused("evaluate", *ok[:-1], case["landmarks"], *output)
    sentence = refused("evaluate", *ok, *output, "--exclude", tmp_path / "no.txt")
    assert sentence == f"{tmp_path / 'no.txt'}: No such file or directory"
