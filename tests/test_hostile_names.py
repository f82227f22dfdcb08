"""Names of files, folders, landmarks, weights and settings are text: none runs, none leads out of the output folder."""

import csv
import html
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import highdicom
import pytest
import torch

from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.landmarks.writing import write_landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import draw_phantom, write_landmark_phantoms, write_phantoms
from medpixcl.data.tables import read_table
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.networks import LandmarkNet, PixelEmbeddingNet
from tests.data.dicom_files import write_dicom
from tests.tiny import MATCHING, NETWORK, PRETRAINING, ROOT, medpixcl, write_config
from tests.training.test_self_training import TINY

SELFTRAINING = ROOT / "bundles" / "xray_landmark_selftraining"
DETECTION = ROOT / "bundles" / "cephalometric_landmark_detection"
DETECTOR: dict[str, Any] = {"backbone": "unet", "channels": [4, 8, 8, 8], "norm": "batch"}
CODE = "$__import__('pathlib').Path('canary').touch()"
NAMES = {
    "code": CODE,
    "reference": "@weights",
    "macro": "%device",
    "relative": "a@::device %::b",
    "hash": "case#3",
    "quotes": 'it\'s "quoted" {x}',
    "newline": "two\nlines",
    "markup": "<img src=x onerror=alert(1)>",
}
FORMULA = "=cmd|' C calc'!A0"
EVALUATED = {"code", "reference", "macro", "relative", "hash"}
"""Of these, the names that MONAI would not leave as they are."""
NOT_UTF8 = os.fsdecode(b"caf\xe9")


def options(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder; afterwards nothing has run, and nothing lies beside it."""
    folder = tmp_path / "deep" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    yield folder
    assert not list(tmp_path.rglob("canary*"))
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in folder.parent.iterdir()] == ["work"]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the program; checks exit status 2 and that stderr ends with its one sentence; returns it."""

    def run(*words: object) -> str:
        capfd.readouterr()
        assert medpixcl(*words) == 2
        shown = capfd.readouterr()
        assert "Traceback" not in shown.err
        last = shown.err.rstrip("\n").rpartition("\n")[2].rpartition("\r")[2]
        assert last.startswith("medpixcl: ")
        return last.removeprefix("medpixcl: ")

    return run


def write_table(path: Path | str, images: list[str], names: list[str]) -> None:
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "landmark", "x_px", "y_px", "spacing_mm"])
        for image in images:
            writer.writerows([image, name, 8 + 5 * number, 20 - 3 * number, 1] for number, name in enumerate(names))


def written(path: Path | str) -> set[tuple[str, str]]:
    """Images and landmarks of a table."""
    return {(row["image"], row["landmark"]) for _, row in read_table(Path(path), ()).rows}


@pytest.fixture
def pictures() -> Callable[[str], list[str]]:
    """Makes a folder of a name with three pictures of that name, a table of their landmarks and weights of networks."""

    def make(name: str) -> list[str]:
        write_phantoms("made", 3, (40, 36), seed=3)
        Path(name).mkdir()
        images = [f"{name}{number}.png" for number in range(3)]
        for image, made in zip(images, sorted(Path("made").iterdir()), strict=True):
            made.rename(Path(name) / image)
        write_table("marks.csv", images, [name, "b", "c"])
        torch.save(PixelEmbeddingNet(**NETWORK).state_dict(), f"{name}.pt")
        torch.save(LandmarkNet(3, **DETECTOR).state_dict(), f"{name}.detector.pt")
        return images

    return make


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_scan_match_evaluate(name: str, pictures: Callable[[str], list[str]], refused: Callable[..., str]) -> None:
    """Names come out as they went in, from a folder and from a manifest, in every format."""
    images, out = pictures(name), Path(f"{name}.out")
    assert medpixcl("scan", name, "-o", f"{name}.json", "--spacing-mm", 1, "--landmarks", "marks.csv") == 0
    assert {Path(entry["image"]).name for _, entry in Manifest.read(f"{name}.json").entries()} == set(images)
    template = ["--template", Path(name) / images[0], "--landmarks", "marks.csv", "--spacing-mm", 1]
    network = ["--bundle", MATCHING, "--weights", f"{name}.pt", *options(NETWORK)]
    formats = ["--reference", "marks.csv", "--format", "csv,json,mrk.json,coco"]
    assert medpixcl("match", *template, *network, *formats, "--images", name, "-o", out) == 0
    expected = {(image, mark) for image in images[1:] for mark in (name, "b", "c")}
    assert written(out / "landmarks.csv") == expected
    for file in ("landmarks.json", "landmarks.coco.json"):
        found = read_landmarks(out / file).positions_mm()
        assert {(image, mark) for image, marks in found.items() for mark in marks} == expected
    markups = read_landmarks(out / "markups").positions_mm()
    assert {mark for marks in markups.values() for mark in marks} == {name, "b", "c"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert html.escape(name).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    again = ["--images", f"{name}.json", "-o", f"{name}.again", "--set", "overlays=false"]
    assert medpixcl("match", *template, *network, *again) == 0
    assert written(Path(f"{name}.again") / "landmarks.csv") == {(f"{name}/{image}", mark) for image, mark in expected}
    compared = ["--predictions", out / "landmarks.csv", "--reference", "marks.csv"]
    assert medpixcl("evaluate", *compared, "-o", f"{name}.metrics.json") == 0
    assert name in json.loads(Path(f"{name}.metrics.json").read_text())["per_landmark"]
    assert "no image to search is DICOM" in refused(
        "match", *template, *network, "--images", name, "-o", f"{name}.sr", "--format", "sr"
    )


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_other_commands(name: str, pictures: Callable[[str], list[str]], refused: Callable[..., str]) -> None:
    images = pictures(name)
    marked = {**DETECTOR, "landmark_names": [name, "b", "c"], "working_spacing_mm": [1.0, 1.0], "overlays": False}
    detector = ["--bundle", SELFTRAINING, "--weights", f"{name}.detector.pt", *options(marked)]
    assert medpixcl("detect", *detector, "--images", name, "-o", f"{name}.out", "--spacing-mm", 1) == 0
    assert written(Path(f"{name}.out") / "landmarks.csv") == {
        (image, mark) for image in images for mark in (name, "b", "c")
    }
    exported = ["export", SELFTRAINING, "-o", f"{name}.pt2", "--shape", "40,36", *detector[2:]]
    assert medpixcl(*exported[:-2]) == 0
    assert json.loads(Path(f"{name}.json").read_text())["landmark_names"] == [name, "b", "c"]
    network = ["--bundle", MATCHING, "--weights", f"{name}.pt", *options(NETWORK), "--spacing-mm", 1, "--images", name]
    assert medpixcl("choose-template", *network, "-o", f"{name}.choice") == 0
    ranking = read_table(Path(f"{name}.choice") / "ranking.csv", ()).rows
    assert {row["image"] for _, row in ranking} == set(images)
    template = ["--template", Path(name) / images[0], "--landmarks", "marks.csv"]
    assert "needs at least 11" in refused("calibrate", *network, *template, "-o", f"{name}.calibration.json")


@pytest.mark.parametrize("name", [*NAMES.values(), FORMULA, "../../up", ".."], ids=[*NAMES, "formula", "up", "parent"])
def test_measure(name: str) -> None:
    """The image that a table names may have any name; its values are found under it."""
    write_table(f"{name.replace('/', '_')}.csv", [name], ["sella", "nasion", "point a", "point b", name])
    assert medpixcl("measure", f"{name.replace('/', '_')}.csv", "-o", "out") == 0
    assert {row["image"] for _, row in read_table(Path("out/measurements.csv"), ()).rows} == {name}
    assert "<img src=x" not in Path("out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["../../up", "..", "a/b", "nul\0l"])
def test_landmarks_and_images_that_lead_elsewhere(name: str, pictures: Callable[[str], list[str]]) -> None:
    """A name of a landmark may be any text; the files lie in the output folder."""
    images = pictures("plain")
    write_table("marks.csv", images, [name, "b", "c"])
    words = ["--template", f"plain/{images[0]}", "--landmarks", "marks.csv", "--spacing-mm", 1, "--bundle", MATCHING]
    words += ["--weights", "plain.pt", *options(NETWORK), "--images", "plain", "-o", "out", "--format", "csv,mrk.json"]
    assert medpixcl("match", *words) in (0, 2)
    assert {path.name for path in Path().iterdir()} <= {
        "made",
        "plain",
        "marks.csv",
        "plain.pt",
        "plain.detector.pt",
        "out",
    }


@pytest.mark.parametrize("name", ["../up.png", "/up.png", "a/../../up.png"])
def test_files_of_an_image_stay_in_the_folder(name: str) -> None:
    points = LandmarkSet(("p",), torch.zeros(1, 2))
    one = ImageLandmarks(image=name, points=points, affine=torch.eye(4).double(), shape=(4, 4))
    with pytest.raises(ValueError, match=r"up\.png', which leads out of the folder; rename it"):
        write_landmarks("out", [one], ["mrk.json"])
    assert not Path("out").exists()


def test_manifest_of_somebody_else(pictures: Callable[[str], list[str]], refused: Callable[..., str]) -> None:
    """Its paths are paths: images outside of its folder keep their own names, and what is made of them stays inside."""
    images = pictures("plain")
    Path("lists").mkdir()
    entries = [{"image": f"../plain/{image}", "spacing_mm": [1.0, 1.0], "shape": [40, 36]} for image in images]
    for hostile in (CODE, "@weights", "%device"):
        path = Path("lists") / f"{hostile[:8]}.json".replace("/", "_")
        path.write_text(
            json.dumps({"training": [], "validation": [], "test": [*entries, {"image": hostile}], "rejected": []})
        )
        words = [
            "--template",
            f"plain/{images[0]}",
            "--landmarks",
            "marks.csv",
            "--spacing-mm",
            1,
            "--bundle",
            MATCHING,
        ]
        words += ["--weights", "plain.pt", *options(NETWORK), "--images", path, "-o", "out", "--overwrite"]
        assert medpixcl("match", *words) == 3, "the image that is not there is rejected"
        assert {image for image, _ in written("out/landmarks.csv")} == set(images[1:])
    assert {path.name for path in Path("out/overlays").iterdir()} == set(images[1:])


def test_names_that_are_not_utf8(pictures: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str]) -> None:
    """An image is rejected by name and the others go on; folders and weights may be called so."""
    images = pictures("plain")
    Path("plain", images[2]).rename(Path("plain", f"{NOT_UTF8}.png"))
    Path("plain").rename(NOT_UTF8)
    Path("plain.pt").rename(f"{NOT_UTF8}.pt")
    assert medpixcl("scan", NOT_UTF8, "-o", f"{NOT_UTF8}.json", "--spacing-mm", 1) == 0
    words = [
        "--template",
        f"{NOT_UTF8}/{images[0]}",
        "--landmarks",
        "marks.csv",
        "--spacing-mm",
        1,
        "--bundle",
        MATCHING,
    ]
    words += ["--weights", f"{NOT_UTF8}.pt", *options(NETWORK)]
    for searched in (NOT_UTF8, f"{NOT_UTF8}.json"):
        capfd.readouterr()
        assert medpixcl("match", *words, "--images", searched, "-o", f"{NOT_UTF8}.out", "--overwrite") == 3
        assert r"caf\xe9.png: has a name that is not UTF-8; rename it." in capfd.readouterr().out
        assert {Path(image).name for image, _ in written(f"{NOT_UTF8}.out/landmarks.csv")} == {images[1]}


ATTACKS = [
    {"overlays": CODE},
    {"landmark_names": [CODE, "b", "c"]},
    {"landmark_names": ["@device", "b", "c"]},
    {"backbone": {"_target_": "pathlib.Path.touch", "self": "canary"}},
    {"network_def::_target_": "os.getcwd"},
    {"imports": [f"$import {__name__}"]},
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_settings_beside_weights(attack: dict[str, Any], refused: Callable[..., str]) -> None:
    """`inference.json` beside foreign weights is data of known names, or refused in one sentence that names it."""
    write_phantoms("images", 1, (40, 36))
    torch.save(LandmarkNet(3, **DETECTOR).state_dict(), "model.pt")
    Path("inference.json").write_text(json.dumps({**DETECTOR, "landmark_names": ["a", "b", "c"], **attack}))
    detect = ["detect", "--bundle", SELFTRAINING, "--images", "images", "-o", "out", "--spacing-mm", 1]
    for words in (detect, ["export", SELFTRAINING, "-o", "net.pt2", "--shape", "40,36"]):
        assert refused(*words, "--weights", "model.pt").startswith("inference.json: ")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "setting",
    [
        f"imports=[{json.dumps(CODE)}]",
        f"device={CODE}",
        "network_def::_target_=os.getcwd",
        'network_def={"_target_": "os.getcwd"}',
        "$x=1",
        f"{CODE}=1",
        "inferer=@inferer",
        "device=@absent",
    ],
)
def test_settings(setting: str, pictures: Callable[[str], list[str]], refused: Callable[..., str]) -> None:
    images = pictures("plain")
    words = ["--template", f"plain/{images[0]}", "--landmarks", "marks.csv", "--spacing-mm", 1, "--bundle", MATCHING]
    words += ["--weights", "plain.pt", *options(NETWORK), "--images", "plain", "-o", "out"]
    refused("match", *words, "--set", setting)


def self_training(name: str) -> list[object]:
    """The command line of a training of one epoch, on images and landmarks of a name."""
    items = write_landmark_phantoms(Path(name).absolute(), 16, (64, 64), landmarks=4)
    with Path(name, "landmarks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = rows[0]["landmark"]
    for table in (f"{name}.csv", "landmarks.csv"):  # of the template, and of all images, which the manifest names
        with Path(name, table).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(row | ({"landmark": name} if row["landmark"] == first else {}) for row in rows)
    Manifest(training=items).write(f"{name}.json")
    settings = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items() if "::" not in key]
    words: list[object] = ["selftrain", "--template", f"{name}/phantom_000.png", "--landmarks", f"{name}/{name}.csv"]
    return [*words, "--data", f"{name}.json", "-o", f"{name}.run", "--spacing-mm", 1, "--epochs", 1, *settings]


@pytest.mark.parametrize("name", [NAMES["newline"], NAMES["quotes"]], ids=["newline", "quotes"])
def test_selftrain_then_detect(name: str) -> None:
    assert medpixcl(*self_training(name), "--rounds", 1) == 0
    weights = Path(f"{name}.run") / "models" / "model.pt"
    assert medpixcl("detect", "--images", name, "-o", "out", "--spacing-mm", 1, "--weights", weights) == 0
    assert name in {mark for _, mark in written("out/landmarks.csv")}


@pytest.mark.parametrize("name", [NAMES[key] for key in sorted(EVALUATED)], ids=sorted(EVALUATED))
def test_names_that_a_settings_file_cannot_hold(name: str, refused: Callable[..., str]) -> None:
    """They are refused before the training, by both commands that write such a file."""
    words = self_training(name)
    assert f"landmark_names[0] is {name!r}, but MONAI would evaluate" in refused(*words)
    assert not (Path(f"{name}.run") / "models" / "model.pt").exists()
    assert medpixcl("scan", name, "-o", "marked.json", "--spacing-mm", 1, "--landmarks", f"{name}/{name}.csv") == 0
    tiny = {**DETECTOR, "view_shape": [16, 16], "working_spacing_mm": [2.0, 2.0], "silent": True, "batch_size": 1}
    words = ["finetune", DETECTION, "--data", "marked.json", "-o", "run", "--scratch", "--steps", 1, *options(tiny)]
    assert f"landmark_names[0] is {name!r}, but MONAI would evaluate" in refused(*words)


def test_pretrain() -> None:
    write_phantoms(CODE, 5, (48, 48))
    for number, path in enumerate(sorted(Path(CODE).iterdir())):
        path.rename(path.with_name(f"{number}{list(NAMES.values())[number]}.png"))
    assert medpixcl("scan", CODE, "-o", f"{CODE}.json", "--spacing-mm", 1) == 0
    config = write_config(Path(f"{CODE}.config.json"), max_epochs=1)
    words = ["pretrain", PRETRAINING, "--data", f"{CODE}.json", "-o", "@weights", "--config", config]
    assert medpixcl(*words) == 0
    assert Path("@weights/models/model.pt").is_file()


def test_dicom_headers() -> None:
    """Text of a header, and a landmark's name in the structured report made from the image."""
    Path("images").mkdir()
    pixels = (draw_phantom((40, 36), 0) * 1000).astype(int)
    texts = dict.fromkeys(("PatientName", "StudyDescription", "SeriesDescription", "InstitutionName"), CODE)
    shared = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX", "PixelSpacing": [1.0, 1.0]}
    for name in ("a.dcm", "b.dcm"):
        write_dicom(Path("images") / name, pixels, StudyInstanceUID="1.2.3.4", StudyID="@weights", **texts, **shared)
    torch.save(LandmarkNet(3, **DETECTOR).state_dict(), "model.pt")
    marked = {**DETECTOR, "landmark_names": [CODE, "@device", "%x"], "working_spacing_mm": [1.0, 1.0]}
    words = ["detect", "--bundle", SELFTRAINING, "--weights", "model.pt", *options(marked), "--images", "images"]
    assert medpixcl(*words, "-o", "out", "--format", "csv,sr", "--keep-patient", "--set", "overlays=false") == 0
    assert written("out/landmarks.csv") == {(i, mark) for i in ("a.dcm", "b.dcm") for mark in (CODE, "@device", "%x")}
    groups = highdicom.sr.srread("out/sr/a.dcm").content.get_planar_roi_measurement_groups()
    assert {group.tracking_identifier for group in groups} == {CODE, "@device", "%x"}
