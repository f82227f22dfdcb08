"""The front door: what Python gets, from disk and from memory, and that all three ways write the same."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import run
from monai.data import MetaTensor
from PIL import Image

import medpixcl as package
from medpixcl import Detector, Manifest, Matcher, Results, read_image, scan
from medpixcl.apps.loaded_images import image_list, loaded_image
from medpixcl.data.phantoms import draw_phantom, write_landmark_phantoms, write_phantoms
from medpixcl.landmarks.points import LandmarkSet
from tests.tiny import MATCHING, ROOT, environment, medpixcl

DETECTION = ROOT / "bundles" / "cephalometric_landmark_detection"
MARKS = {"sella": (30.0, 12.0), "nasion": (22.0, 40.0), "menton": (45.0, 31.0), "gonion": (12.0, 20.0)}
FILES = {"landmarks.csv", "rejected.csv", "markups", "overlays", "report.html", "metrics.json"}
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A template, two pictures to search, a file that is none, and the landmarks of all three pictures."""
    write_phantoms(tmp_path / "images", 3, (64, 56), seed=5)
    (tmp_path / "images" / "phantom_000.png").rename(tmp_path / "template.png")
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    names = ("template.png", "phantom_001.png", "phantom_002.png")
    rows = [f"{image},{name},{x},{y},1.0" for image in names for name, (y, x) in MARKS.items()]
    (tmp_path / "landmarks.csv").write_text("\n".join(["image,landmark,x_px,y_px,spacing_mm", *rows, ""]))
    return tmp_path


def fitted(folder: Path) -> Matcher:
    return Matcher.from_bundle(MATCHING, device="cpu").fit(
        folder / "template.png", folder / "landmarks.csv", spacing_mm=1.0
    )


def assert_equal(found: Results, expected: Results) -> None:
    assert found.names == expected.names
    assert len(found.landmarks) == len(expected.landmarks) > 0
    for one, other in zip(found.landmarks, expected.landmarks, strict=True):
        assert one.flags == other.flags
        for key in ("voxels", "mm", "scores", "covariance_mm2"):
            assert torch.equal(getattr(one, key), getattr(other, key)), key


def written(folder: Path) -> dict[str, bytes]:
    """Files of a run by name, but the run file, which lists them and holds times."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run = json.loads(files.pop("run.json"))
    assert (run["state"], run["files"]) == ("finished", sorted(files))
    return files


def test_import_loads_no_torch() -> None:
    code = "import sys, medpixcl; assert medpixcl.__version__; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_names_of_the_front_door() -> None:
    assert {"scan", "read_image", "read_landmarks", "Matcher", "Detector", "Landmarks", "Results"} < set(dir(package))
    for name in dir(package):
        assert getattr(package, name).__doc__, name


def test_arrays_find_what_files_find(folder: Path) -> None:
    """Template and queries as arrays, as tensors with an affine, and from disk: equal to the last bit."""
    files = sorted((folder / "images").glob("*.png"))
    expected = fitted(folder).match(folder / "images", spacing_mm=1.0)
    arrays = {file.name: np.asarray(Image.open(file), dtype=np.float32) for file in (folder / "template.png", *files)}
    template, *queries = arrays.values()
    matcher = Matcher.from_bundle(MATCHING, device="cpu")
    for marks in (MARKS, LandmarkSet(tuple(MARKS), torch.tensor(list(MARKS.values())))):
        matcher.fit(template, marks, spacing_mm=1.0)
        found = matcher.match(queries, spacing_mm=[1.0, 1.0])
        assert_equal(found, expected)
        assert [one.image for one in found.landmarks] == ["image_000", "image_001"]
    tensors = [read_image(file, spacing_mm=1.0) for file in files]
    assert_equal(matcher.match(tensors), expected)
    assert_equal(matcher.match({file.name: one for file, one in zip(files, tensors, strict=True)}), expected)
    assert_equal(matcher.match(files, spacing_mm=1.0), expected)
    assert_equal(matcher.match(scan(folder / "images", spacing_mm=1.0)), expected)
    own = matcher.match(queries[0], spacing_mm=1.0).landmarks[0]
    again = Matcher.from_bundle(MATCHING, device="cpu").fit(queries[0], own, spacing_mm=1.0)
    place = again.match(queries[0], spacing_mm=1.0).landmarks[0]
    assert float((place.voxels - own.voxels).abs().max()) < 1.0, "an image is most like itself"


def test_positions_by_hand(folder: Path) -> None:
    """LPS+ of a picture: column and row times the pixel size; covariances lie along the same axes, x first."""
    matcher, path = fitted(folder), folder / "images" / "phantom_001.png"
    one = matcher.match(path, spacing_mm=0.5).landmarks[0]
    torch.testing.assert_close(one.mm, 0.5 * one.voxels.flip(1))
    image = matcher.preprocessing({"image": str(path), "spacing_mm": 0.5})["image"]
    found = matcher.inferer.matcher.match(matcher.model(image.as_tensor()[None]), image.shape[1:], [0.5, 0.5])
    torch.testing.assert_close(one.covariance_mm2, found.covariance_mm2.double().flip(1, 2))


@pytest.mark.parametrize("dims", [2, 3])
def test_affine_of_a_tensor(dims: int) -> None:
    """A volume or picture with turned and mirrored axes: mm are the affine's, with x and y reversed."""
    values, shape = draw_phantom((24, 20, 22)[:dims], 3), (24, 20, 22)[:dims]
    affine = torch.tensor([[0, -1.5, 0, 20], [2, 0, 0, -11], [0, 0, 1.25, 5], [0, 0, 0, 1.0]], dtype=torch.float64)
    image = MetaTensor(torch.from_numpy(values)[None], affine=affine)
    changes = {"spatial_dims": dims, "working_spacing_mm": None, "weights": None, "backbone": "dynunet"}
    changes |= {"channels": [4, 8, 8], "embedding_size": 8}
    torch.manual_seed(0)
    matcher = Matcher.from_bundle(MATCHING, device="cpu", settings=changes)
    marks = {name: [at * n for n in shape] for name, at in (("a", 0.3), ("b", 0.5), ("c", 0.7))}
    one = matcher.fit(image, marks).match(image).landmarks[0]
    ras = one.voxels @ affine[:dims, :dims].T + affine[:dims, 3]
    torch.testing.assert_close(one.mm, ras * torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64)[:dims])


def test_several_templates(folder: Path) -> None:
    """Two templates with the landmarks in one file find each other's marks as one of them alone does, nearly."""
    images = [folder / "template.png", folder / "images" / "phantom_001.png"]
    matcher = Matcher.from_bundle(MATCHING, device="cpu").fit(images, folder / "landmarks.csv", spacing_mm=1.0)
    results = matcher.match(folder / "images", spacing_mm=1.0)
    assert [one.image for one in results.landmarks] == ["phantom_002.png"], "templates are left out"
    again = Matcher.from_bundle(MATCHING, device="cpu").fit(images, folder / "landmarks.csv", spacing_mm=0.5)
    items = [{"image": str(image), "spacing_mm": 0.5} for image in images]
    for other in (items, [images[0], images[1], images[0]]):
        matcher.fit(other, folder / "landmarks.csv", spacing_mm=0.5)
        assert matcher.files == again.files, "an image named twice is one template"
    assert len(matcher.fit(folder, folder / "landmarks.csv", spacing_mm=0.5).files) == 3, "all that have landmarks"
    twice = Matcher.from_bundle(MATCHING, device="cpu")
    twice.fit([images[0]] * 2, [folder / "landmarks.csv"] * 2, spacing_mm=1.0)
    alone = fitted(folder).match(folder / "images", spacing_mm=1.0)
    for one, other in zip(twice.match(folder / "images", spacing_mm=1.0).landmarks, alone.landmarks, strict=True):
        torch.testing.assert_close(one.mm, other.mm, rtol=0, atol=0.02)


def test_three_ways_write_the_same_matches(folder: Path) -> None:
    """Python, the command line, and MONAI's evaluator."""
    reference = folder / "landmarks.csv"
    results = fitted(folder).match(folder / "images", spacing_mm=1.0, reference=reference)
    assert results.write(folder / "python") == []
    words: dict[str, Any] = {"template": folder / "template.png", "landmarks": reference, "images": folder / "images"}
    options = [word for key, value in words.items() for word in (f"--{key}", value)]
    options += ["--reference", reference, "--spacing-mm", 1.0, "--bundle", MATCHING]
    assert medpixcl("match", *options, "-o", folder / "shell") == 0
    paths = {key: str(value) for key, value in words.items()}
    paths |= {"reference": str(reference), "output_dir": str(folder / "monai")}
    run(
        config_file=str(MATCHING / "configs" / "inference.json"),
        bundle_root=str(MATCHING),
        logging_file=False,
        pixel_mm=1.0,
        device="$torch.device('cpu')",
        **paths,
    )
    mine = written(folder / "python")
    assert {name.split("/")[0] for name in mine} == FILES
    assert written(folder / "shell") == mine
    del mine["report.html"]  # MONAI's run does not know the bundle's name
    assert {name: content for name, content in written(folder / "monai").items() if name != "report.html"} == mine


def test_three_ways_write_the_same_detections(tmp_path: Path) -> None:
    write_landmark_phantoms(tmp_path / "images", 2, (64, 64))
    Detector.from_bundle(DETECTION, device="cpu").detect(tmp_path / "images", spacing_mm=1.0).write(tmp_path / "python")
    words = ["--bundle", DETECTION, "--images", tmp_path / "images", "--spacing-mm", 1.0]
    assert medpixcl("detect", *words, "-o", tmp_path / "shell") == 0
    run(
        config_file=str(DETECTION / "configs" / "inference.json"),
        bundle_root=str(DETECTION),
        logging_file=False,
        images=str(tmp_path / "images"),
        pixel_mm=1.0,
        output_dir=str(tmp_path / "monai"),
        device="$torch.device('cpu')",
    )
    mine = written(tmp_path / "python")
    assert written(tmp_path / "shell") == mine
    del mine["report.html"]
    assert {name: one for name, one in written(tmp_path / "monai").items() if name != "report.html"} == mine


def test_what_is_rejected(folder: Path) -> None:
    """Of files and of arrays, with the reason; the rest goes on."""
    matcher = fitted(folder)
    results = matcher.match(folder / "images", spacing_mm=1.0)
    assert results.rejected == {"notes.txt": "is not an image."}
    unsure = sum(flag == "unsure" for one in results.landmarks for flag in one.flags)
    assert str(results) == (
        "<Results of 'Landmark matching': 2 images searched for 4 landmarks each, "
        f"{unsure} landmarks unsure, 1 images rejected>"
    )
    assert str(results.landmarks[0]).startswith("<Landmarks of 'phantom_001.png': 4 landmarks, 0 missing, ")
    assert str(results.images.manifest) == "<Manifest 'images': 2 in training, 0 in validation, 0 in test, 1 rejected>"
    results.write(folder / "found", ["csv"], overlays=False)
    with (folder / "found" / "rejected.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["image", "format", "reason"], ["notes.txt", "", "is not an image."]]
    assert not (folder / "found" / "overlays").exists()
    good, bad = draw_phantom((40, 40), 1), draw_phantom((40, 40), 2)
    bad[3, 4] = np.nan
    results = matcher.match({"good": good, "bad": bad, "volume": np.zeros((8, 9, 10))}, spacing_mm=1.0)
    assert [one.image for one in results.landmarks] == ["good"]
    assert results.rejected == {
        "bad": "holds 1 values that are not finite (NaN or Inf).",
        "volume": "has 3 spatial axes; the network takes 2.",
    }


def test_settings_beside_the_weights(tmp_path: Path) -> None:
    """They name the landmarks; a text that MONAI would evaluate is refused, and a config file goes over them."""
    write_landmark_phantoms(tmp_path / "images", 1, (48, 48))
    names = [f"point {number}" for number in range(19)]
    weights = tmp_path / "model.pt"
    weights.write_bytes((DETECTION / "models" / "model.pt").read_bytes())
    (tmp_path / "inference.json").write_text(json.dumps({"landmark_names": names}))
    detector = Detector.from_bundle(DETECTION, weights=weights, device="cpu")
    assert list(detector.names) == names
    assert detector.facts == {"bundle": DETECTION.name, "weights": "model.pt"}
    (tmp_path / "over.json").write_text(json.dumps({"landmark_names": [name.upper() for name in names]}))
    changed = Detector.from_bundle(DETECTION, weights=weights, device="cpu", config=[tmp_path / "over.json"])
    assert changed.names[0] == "POINT 0"
    (tmp_path / "inference.json").write_text(json.dumps({"landmark_names": ["$1", *names[1:]]}))
    with pytest.raises(ValueError, match=r"inference\.json: landmark_names\[0\] is '\$1'"):
        Detector.from_bundle(DETECTION, weights=weights, device="cpu")


def test_data_frame(folder: Path) -> None:
    """The columns of the written table, as numbers."""
    pytest.importorskip("pandas")
    results = fitted(folder).match(folder / "images", spacing_mm=1.0)
    frame = results.to_dataframe()
    results.write(folder / "found", ["csv"], overlays=False)
    with (folder / "found" / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(frame.columns) == list(rows[0])
    assert frame["image"].tolist() == [row["image"] for row in rows]
    assert frame["x_mm"].tolist() == pytest.approx([float(row["x_mm"]) for row in rows], abs=1e-4)


@pytest.mark.parametrize(
    ("images", "more", "sentence"),
    [
        ([], {}, "the list of images is empty"),
        (np.zeros((20, 20)), {}, "image_000 is an array without an affine; give the size of its voxels as spacing_mm"),
        (np.zeros((20, 20)), {"spacing_mm": [1.0, 1.0, 1.0]}, "expected a positive number or one for each of 2 axes"),
        (np.zeros((3, 4, 20, 20)), {"spacing_mm": 1.0}, r"image_000 has the shape \(3, 4, 20, 20\)"),
        (np.zeros((8, 9, 10)), {"spacing_mm": 1.0}, "none of the images in memory can be searched .image_000 has 3"),
        (Manifest(), {}, "holds no image to search"),
    ],
)
def test_bad_images(images: Any, more: dict[str, Any], sentence: str) -> None:
    matcher = Matcher.from_bundle(MATCHING, device="cpu").fit(draw_phantom((40, 40), 1), MARKS_INSIDE, spacing_mm=1.0)
    with pytest.raises(ValueError, match=sentence):
        matcher.match(images, **more)


MARKS_INSIDE = {"left": (10, 8), "right": (12, 30), "low": (33, 20)}


def test_bad_templates() -> None:
    matcher, image = Matcher.from_bundle(MATCHING, device="cpu"), draw_phantom((40, 40), 1)
    with pytest.raises(ValueError, match="the matcher has no template; call fit"):
        matcher.match(image, spacing_mm=1.0)
    with pytest.raises(ValueError, match="found 2 templates and landmarks of 1"):
        matcher.fit([image, image], [MARKS_INSIDE], spacing_mm=1.0)
    with pytest.raises(ValueError, match="the landmarks given has no landmark with a position in image_000"):
        matcher.fit(image, {"left": (np.nan, np.nan)}, spacing_mm=1.0)
    with pytest.raises(ValueError, match="found 2 templates and landmarks of 1"):
        matcher.fit([image, image], MARKS_INSIDE, spacing_mm=1.0)
    with pytest.raises(ValueError, match="a template is a mapping without the path of an image"):
        matcher.fit({"picture": "a.png"}, MARKS_INSIDE, spacing_mm=1.0)
    with pytest.raises(ValueError, match="images is no setting of a bundle here"):
        Matcher.from_bundle(MATCHING, settings={"images": "folder"})
    with pytest.raises(
        ValueError, match="is not made for landmark matching; give one that is, such as xray_landmark_matching"
    ):
        Matcher.from_bundle(DETECTION)
    with pytest.raises(ValueError, match="the device 'gpu9' cannot be used"):
        Matcher.from_bundle(MATCHING, device="gpu9")


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ({}, "the mapping of images is empty"),
        (["images", np.zeros((4, 4))], "the list of images holds str, ndarray; give either paths alone"),
        (np.zeros((4, 4), dtype=complex), "is no image but complex128"),
        (np.array([["a"]]), "is no image but <U1"),
        (np.zeros((0, 4)), r"has the shape \(1, 0, 4\)"),
        (torch.zeros(4, 4).to_sparse(), "or a dense tensor of real numbers"),
        (torch.zeros(4, 4, device="meta"), "or a dense tensor of real numbers"),
        (MetaTensor(torch.zeros(1, 4, 4), affine=torch.zeros(4, 4)), "the affine of image_000 has no inverse"),
        (MetaTensor(torch.zeros(1, 4, 4), affine=torch.full((4, 4), torch.nan)), "the affine of image_000 has no"),
        *(({name: np.zeros((4, 4))}, "cannot name an image") for name in ("../up", "a/../../up", "/up", "", "a\0b")),
    ],
)
def test_what_is_no_image_in_memory(images: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        image_list(images, spacing_mm=1.0)


@pytest.mark.parametrize("spacing_mm", [float("nan"), float("inf"), 0.0, [], [1.0, 2.0, 3.0]])
def test_what_is_no_spacing(spacing_mm: Any) -> None:
    with pytest.raises(
        ValueError, match=r"spacing_mm of image_000 is .*; expected a positive number or one for each of 2"
    ):
        loaded_image(np.zeros((4, 4)), spacing_mm=spacing_mm)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int32", ">f4", "float16", "bool"])
def test_grey_values_of_any_kind(kind: str) -> None:
    values = np.arange(12).reshape(3, 4).astype(kind)
    image = loaded_image(values, spacing_mm=1.0)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.as_tensor()[0].numpy(), values.astype("float32"))


@pytest.mark.parametrize(
    ("marks", "sentence"),
    [
        ({}, "have no positions of two or of three"),
        ({"a": (1, 2, 3)}, "the landmarks given have 3 coordinates, and image_000 has 2 axes"),
        ({"a": (1, 40)}, r"the landmark 'a' lies at voxel \[1.0, 40.0\], outside image_000 of size \(40, 40\)"),
        ({"a": (np.inf, 1)}, "outside image_000"),
    ],
)
def test_what_are_no_landmarks(marks: Any, sentence: str) -> None:
    matcher, image = Matcher.from_bundle(MATCHING, device="cpu"), draw_phantom((40, 40), 1)
    with pytest.raises(ValueError, match=sentence):
        matcher.fit(image, marks, spacing_mm=1.0)


def test_what_is_no_template(tmp_path: Path) -> None:
    matcher, image = Matcher.from_bundle(MATCHING, device="cpu"), draw_phantom((40, 40), 1)
    for given, sentence in (
        (tmp_path / "absent.png", r"absent\.png: does not exist"),
        (np.zeros((8, 8, 8)), "has 3 spatial axes; the working spacing has 2"),
        (np.where(image > image.mean(), np.nan, image), "values that are not finite"),
    ):
        with pytest.raises(ValueError, match=sentence):
            matcher.fit(given, MARKS_INSIDE, spacing_mm=1.0)
    for spacing_mm in (1e-9, 1e9):
        with pytest.raises(ValueError, match=r"has pixels of .* mm, but the working spacing is .* mm: check both"):
            matcher.fit(image, MARKS_INSIDE, spacing_mm=spacing_mm)


def test_images_that_went_away(folder: Path) -> None:
    """The tables are there, the sentence names the image; without an image there is a table without rows, no report."""
    results = fitted(folder).match(folder / "images", spacing_mm=1.0)
    (folder / "images" / "phantom_001.png").unlink()
    with pytest.raises(ValueError, match=r"phantom_001\.png: does not exist"):
        results.write(folder / "found")
    assert package.read_landmarks(folder / "found" / "landmarks.csv").names == tuple(MARKS)
    with pytest.raises(ValueError, match="formats is 'csv'"):
        results.write(folder / "found", formats="csv")
    results.landmarks.clear()
    assert results.to_dataframe().empty
    with pytest.raises(ValueError, match="there are no landmarks to report"):
        results.report(folder / "report.html")
    assert not (folder / "report.html").exists()


def test_an_image_that_fails_in_the_run_leaves_the_others(folder: Path) -> None:
    """A pixel size far from the working spacing shows when the image is prepared; alone it ends the run."""
    files = sorted((folder / "images").glob("*.png"))
    pictures = {file.name: np.asarray(Image.open(file), dtype=np.float32) for file in files}
    good, bad = pictures
    mixed = {
        bad: MetaTensor(pictures[bad], affine=torch.diag(torch.tensor([1e-4, 1e-4, 1.0, 1.0]))),
        good: pictures[good],
    }
    matcher = fitted(folder)
    found = matcher.match(mixed, spacing_mm=1.0)
    assert_equal(found, matcher.match({good: pictures[good]}, spacing_mm=1.0))
    assert list(found.rejected) == [bad]
    assert found.rejected[bad].startswith("has pixels of 0.0001 x 0.0001 mm, but the working spacing is")
    with pytest.raises(ValueError, match="check both"):
        matcher.match({bad: mixed[bad]})


def test_no_reference(folder: Path) -> None:
    with pytest.raises(ValueError, match="the list of references is empty"):
        package.evaluate(folder / "landmarks.csv", [])


WRONG_TYPES = """
import numpy as np
from medpixcl import Matcher, evaluate, read_landmarks
from medpixcl.networks.precision import Precision
from medpixcl.transforms import WorkingSpacingd
image, matcher = np.eye(40), Matcher.from_bundle("xray_landmark_matching", device="cpu")
calls = [
    *(lambda a=a: matcher.fit(image, a, spacing_mm=1.0) for a in (None, 5, np.eye(2), {"a": "xy"}, {"a": None})),
    *(lambda one=one: matcher.fit(one, {"a": (1, 2)}, spacing_mm=1.0) for one in (None, 5, b"a.png", {"a": image})),
    *(lambda size=size: matcher.fit(image, {"a": (1, 2)}, spacing_mm=size) for size in ("wide", [None, 1], object())),
    lambda: matcher.fit(image, {"a": (1, 2)}, spacing_mm=np.float32(1.0)) and 1 / 0,  # the one that is right
    *(lambda a=a: matcher.match(a, spacing_mm=1.0) for a in (None, 5, b"", [1], [image, None], {"a": "b"}, {5: image})),
    lambda: matcher.match(image, spacing_mm=1.0, output="found"),
    lambda: matcher.match(image, spacing_mm=1.0, reference=5),
    lambda: evaluate(5, "a.csv"),
    lambda: read_landmarks(None),
    lambda: Matcher.from_bundle("xray_landmark_matching", settings=[1]),
    lambda: Matcher.from_bundle("xray_landmark_matching", settings={"channels": 3}),
    *(lambda size=size: WorkingSpacingd("image", size) for size in (1.0, "text", [None, 1.0])),
    *(lambda given=given: Precision(given) for given in (1, 0, None, [True])),
]
for call in calls:
    try:
        call()
        print("nothing")
    except Exception as error:
        print(type(error).__name__)
"""


def test_wrong_types() -> None:
    """Without the type checks of these tests, as a user's program runs."""
    done = subprocess.run(
        [sys.executable, "-c", WRONG_TYPES], env=environment(), capture_output=True, text=True, check=True
    )
    words = done.stdout.split()
    assert words.pop(12) == "ZeroDivisionError"
    assert words == ["ValueError"] * 32, words
