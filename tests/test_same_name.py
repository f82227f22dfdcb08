"""Two patients with an image of one name: right landmarks, right errors, nothing overwritten, through every command."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch

from medpixcl import Matcher
from medpixcl.apps.bundles import run_bundle
from medpixcl.apps.images import ImageList
from medpixcl.data.annotated import split_annotated, target_points
from medpixcl.data.images import read_image
from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import write_phantoms
from medpixcl.data.scan import scan
from medpixcl.training import without_templates
from tests.reports.test_html import Page
from tests.test_bad_input import RANDOM
from tests.test_cli_measure import face, rows, write_pictures, write_table
from tests.tiny import MATCHING, medpixcl

PATIENTS = ("p1", "p2", "p3")
BOTH = {"p2/ceph.png", "p3/ceph.png"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Patients p1 to p3, each with a ``ceph.png`` of its own, landmarks of all, and a manifest elsewhere."""
    lines = ["image,landmark,x_px,y_px,spacing_mm"]
    for number, patient in enumerate(PATIENTS):
        write_phantoms(tmp_path / "images" / patient, 1, (40, 36), seed=number)
        (tmp_path / "images" / patient / "phantom_000.png").rename(tmp_path / "images" / patient / "ceph.png")
        lines += [f"{patient}/ceph.png,left,{10 + number},20,1", f"{patient}/ceph.png,right,30,{25 + number},1"]
    (tmp_path / "images" / "landmarks.csv").write_text("\n".join([*lines, ""]))
    assert medpixcl("scan", tmp_path / "images", "-o", tmp_path / "lists" / "m.jsonl", "--spacing-mm", 1,
                    "--landmarks", tmp_path / "images" / "landmarks.csv") == 0  # fmt: skip
    return tmp_path


def test_match_and_evaluate(folder: Path) -> None:
    images, output = folder / "images", folder / "out"
    assert medpixcl("match", "--bundle", MATCHING, "--template", images / "p1" / "ceph.png", "--landmarks",
                    images / "landmarks.csv", "--images", folder / "lists" / "m.jsonl", "--output", output,
                    "--reference", images / "landmarks.csv", "--spacing-mm", 1, *RANDOM) == 0  # fmt: skip
    with (output / "landmarks.csv").open(newline="") as file:
        found = {
            (row["image"], row["landmark"]): (float(row["x_mm"]), float(row["y_mm"])) for row in csv.DictReader(file)
        }
    assert {image for image, _ in found} == BOTH
    for kind, suffix in (("markups", ".mrk.json"), ("overlays", ".png")):
        written = {path.relative_to(output / kind).as_posix() for path in (output / kind).rglob("*") if path.is_file()}
        assert written == {image.replace(".png", suffix) for image in BOTH}
    true = {"p2/ceph.png": {"left": (11, 20), "right": (30, 26)}, "p3/ceph.png": {"left": (12, 20), "right": (30, 27)}}
    assert medpixcl("evaluate", "--predictions", output / "markups", "--reference", images / "landmarks.csv", "-o",
                    folder / "e.json") == 0  # fmt: skip
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["per_image"].keys() == BOTH
    assert {"p1/ceph.png", *BOTH} <= set(re.findall(r"p\d/ceph.png", Page((output / "report.html").read_text()).text))
    assert json.loads((folder / "e.json").read_text())["mre_mm"] == pytest.approx(metrics["mre_mm"], abs=1e-3)
    for image, errors in metrics["per_image"].items():
        for name, error in errors["errors_mm"].items():
            away = [one - other for one, other in zip(found[image, name], true[image][name], strict=True)]
            assert error == pytest.approx((away[0] ** 2 + away[1] ** 2) ** 0.5, abs=1e-3)


def test_a_template_takes_no_landmarks_of_its_namesake(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "one.csv").write_text("image,landmark,x_px,y_px\nimages/p1/ceph.png,left,10,20\n")
    images = folder / "images"
    assert medpixcl("match", "--bundle", MATCHING, "--template", images / "p2" / "ceph.png", "--landmarks",
                    folder / "one.csv", "--images", images, "--output", folder / "out",
                    "--spacing-mm", 1, *RANDOM) == 2  # fmt: skip
    assert "one.csv has no landmarks of p2/ceph.png; it has those of" in capfd.readouterr().err


def test_evaluate_leaves_out_the_other_patient(tmp_path: Path) -> None:
    header = "image,landmark,x_mm,y_mm\n"
    (tmp_path / "found.csv").write_text(header + "p1/ceph.png,a,3,4\np2/ceph.png,a,1,1\n")
    (tmp_path / "true.csv").write_text(header + "p1/ceph.png,a,0,0\np3/ceph.png,a,1,1\n")
    assert medpixcl("evaluate", "--predictions", tmp_path / "found.csv", "--reference", tmp_path / "true.csv", "-o",
                    tmp_path / "e.json") == 0  # fmt: skip
    metrics = json.loads((tmp_path / "e.json").read_text())
    assert metrics["mre_mm"] == 5.0
    assert metrics["images_without_reference"] == ["p2/ceph.png"]
    assert metrics["images_without_prediction"] == ["p3/ceph.png"]


def test_training_reads_the_landmarks_of_each_image(folder: Path) -> None:
    """As finetune reads its targets, and selftrain leaves out its template."""
    items = split_annotated(folder / "lists" / "m.jsonl", fraction=0)["training"]
    for number, item in enumerate(items):
        image = read_image(item["image"], spacing_mm=item["spacing_mm"])
        points = target_points(item["landmarks"], None, ["left"], item["image"], image.affine, image.shape[1:])
        assert points[0].abs().tolist() == [10.0 + number, 20.0]
    template = [{"image": str(folder / "images" / "p2" / "ceph.png")}]
    assert [Path(item["image"]).parent.name for item in without_templates(template, items)] == ["p1", "p3"]


def test_templates_of_two_patients(folder: Path) -> None:
    """Named one by one or by their folder: each with its own marks, each left out, both in the report."""
    images, output = folder / "images", folder / "out"
    each = ["--template", images / "p1" / "ceph.png", "--template", images / "p2" / "ceph.png"]
    words = ["--bundle", MATCHING, "--spacing-mm", 1, *RANDOM, "--landmarks", images / "landmarks.csv"]
    assert medpixcl("match", *words, *each, "--images", folder / "lists" / "m.jsonl", "-o", output) == 0
    with (output / "landmarks.csv").open(newline="") as file:
        assert {row["image"] for row in csv.DictReader(file)} == {"p3/ceph.png"}
    page = (output / "report.html").read_text()
    assert "the 2 templates p1/ceph.png, p2/ceph.png" in page
    assert page.count("ceph.png with its landmarks") >= 2
    assert medpixcl("match", *words, "--template", images, "--images", folder / "lists" / "m.jsonl", "-o", output) == 2


def test_measure_draws_each_patient(tmp_path: Path) -> None:
    for patient in PATIENTS:
        write_pictures(tmp_path / "pictures" / patient, ["ceph.png"])
    table = write_table(tmp_path / "l.csv", {f"{name}/ceph.png": face(n) for n, name in enumerate(PATIENTS)})
    assert medpixcl("measure", table, "-o", tmp_path / "out", "--images", tmp_path / "pictures") == 0
    assert {row["image"] for row in rows(tmp_path / "out" / "measurements.csv")} == {f"{p}/ceph.png" for p in PATIENTS}
    drawn = {
        path.relative_to(tmp_path / "out" / "tracings").as_posix() for path in (tmp_path / "out").rglob("ceph.png")
    }
    assert drawn == {f"{patient}/ceph.png" for patient in PATIENTS}
    page = Page((tmp_path / "out" / "report.html").read_text()).text
    assert all(page.count(f"{patient}/ceph.png") == 2 for patient in PATIENTS)  # in the table, below the tracing


@pytest.mark.slow
def test_measure_takes_the_pixel_size_of_each_patient(tmp_path: Path) -> None:
    """Landmarks in pixels, pictures that do not say their pixel size, and a manifest elsewhere that does."""
    for patient in PATIENTS:
        write_pictures(tmp_path / "pictures" / patient, ["ceph.png"])
    table = write_table(tmp_path / "l.csv", {f"{name}/ceph.png": face(0) for name in PATIENTS}, spacing=None)
    manifest = own_sizes(scan(tmp_path / "pictures", spacing_mm=1), tmp_path / "lists" / "m.json")
    assert medpixcl("measure", table, "-o", tmp_path / "out", "--images", manifest) == 0
    lengths = {
        row["image"]: float(row["value"])
        for row in rows(tmp_path / "out" / "measurements.csv")
        if row["measurement"] == "SN length"
    }
    assert len(lengths) == 3
    assert lengths["p2/ceph.png"] == pytest.approx(2 * lengths["p1/ceph.png"], rel=1e-3)
    assert lengths["p3/ceph.png"] == pytest.approx(3 * lengths["p1/ceph.png"], rel=1e-3)


def own_sizes(manifest: Manifest, path: Path) -> Path:
    """Write a manifest in which the pictures of p1, p2, p3 have pixels of 0.5, 1 and 1.5 mm."""
    for _, entry in manifest.entries():
        entry["spacing_mm"] = [0.5 * int(Path(entry["image"]).parent.name[1])] * 2
    manifest.write(path)
    return path


def test_the_template_has_the_pixel_size_of_its_own_entry(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Through the command line, the bundle's configuration and Python; no --spacing-mm is given."""
    images = folder / "images"
    manifest = own_sizes(Manifest.read(folder / "lists" / "m.jsonl"), folder / "lists" / "own.json")
    template = {"template": images / "p3" / "ceph.png", "landmarks": images / "landmarks.csv"}
    words = ["--bundle", MATCHING, *RANDOM, *(word for key, one in template.items() for word in (f"--{key}", one))]
    assert medpixcl("match", *words, "--images", manifest, "--output", folder / "out") == 0
    assert medpixcl("calibrate", *words, "--images", manifest, "--output", folder / "radii.json") == 2
    assert "own.json has 2 usable images" in capfd.readouterr().err  # too few, but the template was read
    settings = {key: json.loads(value) for key, value in (word.split("=", 1) for word in RANDOM[1::2])}
    run = run_bundle(
        MATCHING, "inference", {**settings, **{k: str(v) for k, v in template.items()}, "images": str(manifest),
        "output_dir": str(folder / "run")}, kind="infer"
    )  # fmt: skip
    matcher = Matcher.from_bundle(MATCHING, device="cpu", settings=settings)
    for one in (run.parser.get_parsed_content("finder"), matcher.fit(*template.values(), manifest=manifest)):
        spacing = torch.as_tensor(one.templates[0].image.meta["original_affine"])[:2, :2].abs().sum(dim=0)
        assert spacing.tolist() == [1.5, 1.5]
    capfd.readouterr()
    assert medpixcl("match", *words, "--images", images, "--output", folder / "out") == 2
    assert "--spacing-mm" in capfd.readouterr().err


def test_names_of_images_outside_the_folder_of_the_manifest(folder: Path) -> None:
    listed = ImageList(folder / "lists" / "m.jsonl")
    assert [listed.name(item["image"]) for item in listed.datalist] == [f"{patient}/ceph.png" for patient in PATIENTS]
    assert [listed.stem(item["image"]) for item in listed.datalist] == [f"{patient}/ceph" for patient in PATIENTS]
