"""Good inputs, each in a folder of its own: a function writes the files and returns the one to damage."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import itk
import nibabel
import numpy as np
import pydicom
import SimpleITK
import torch
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import DigitalXRayImageStorageForPresentation

from medpixcl.apps.habit_file import ReadingHabit
from medpixcl.apps.match import Matcher
from medpixcl.apps.output import Output
from medpixcl.apps.run_folder import Run, RunFolder
from medpixcl.apps.unlabelled import write_population
from medpixcl.coordinates import image_affine
from medpixcl.data.landmarks.coco import write_coco
from medpixcl.data.landmarks.csv_file import write_landmarks_csv
from medpixcl.data.landmarks.json_file import write_landmarks_json
from medpixcl.data.landmarks.slicer import write_markups
from medpixcl.data.landmarks.sr import write_sr
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.landmarks.writing import table_rows
from medpixcl.data.phantoms import draw_phantom, write_phantoms
from medpixcl.data.scan import scan, scan_to_file
from medpixcl.data.tables import write_csv
from medpixcl.landmarks.calibration import GROUPS, RadiusCalibration
from medpixcl.landmarks.habit import Habit
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.landmarks.regions import RegionCalibration
from medpixcl.matching import Population
from medpixcl.networks import PixelEmbeddingNet
from tests.data.dicom_files import write_dicom, write_series
from tests.tiny import MATCHING, NETWORK

Maker = Callable[[Path], Path]
NAMES = ("sella", "nasion", "point a", "point b")
SHAPE = (40, 36)


def found(image: str = "a.png", *files: Path) -> ImageLandmarks:
    """Landmarks as a run finds them; one is missing."""
    voxels = torch.tensor([[5.0, 6.0], [20.5, 7.0], [12.0, 30.0], [torch.nan, torch.nan]], dtype=torch.float64)
    points = LandmarkSet(NAMES, voxels, torch.tensor([0.9, 0.8, 0.1, torch.nan]), ("", "", "unsure", "missing"))
    extras = tuple({"radius_mm": "2.5000"} for _ in NAMES)
    return ImageLandmarks(image, points, image_affine((1.0, 1.0)), SHAPE, files, extras)


def text(name: str, content: str) -> Maker:
    """A file of this text."""

    def make(folder: Path) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return make


def landmark_table(folder: Path) -> Path:
    write_landmarks_csv(folder / "marks.csv", [row for one in (found(), found("b.png")) for row in table_rows(one)])
    return folder / "marks.csv"


def landmark_json(folder: Path) -> Path:
    write_landmarks_json(folder / "marks.json", [found(), found("b.png")])
    return folder / "marks.json"


def coco(folder: Path) -> Path:
    write_coco(folder / "marks.coco.json", [found(), found("b.png")])
    return folder / "marks.coco.json"


def markups(folder: Path) -> Path:
    write_markups(folder / "a.mrk.json", found().points, found().affine)
    return folder / "a.mrk.json"


def report(folder: Path) -> Path:
    image = radiograph(folder)
    write_sr(folder / "sr" / "a.dcm", found("a.dcm", image))
    return folder / "sr" / "a.dcm"


def radiograph(folder: Path) -> Path:
    shared = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "Modality": "DX", "PixelSpacing": [1.0, 1.0]}
    pixels = (draw_phantom(SHAPE, 0) * 1000).astype(int)
    return write_dicom(folder / "a.dcm", pixels, StudyInstanceUID="1.2.3.4", **shared)


def slice_of_series(folder: Path) -> Path:
    return write_series(folder / "series", (draw_phantom((4, 12, 10), 0) * 1000).astype(int))[1]


def dicom(name: str) -> Maker:
    """A test file of pydicom in its own encoding, as a radiograph."""

    def make(folder: Path) -> Path:
        dataset = pydicom.dcmread(str(get_testdata_file(name)))
        dataset.SOPClassUID, dataset.Modality, dataset.PixelSpacing = (
            DigitalXRayImageStorageForPresentation,
            "DX",
            [1, 1],
        )
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "ImageType"):
            dataset.pop(keyword, None)
        dataset.save_as(folder / "image.dcm")
        return folder / "image.dcm"

    return make


def manifest(name: str) -> Maker:
    """Manifest of two phantoms, with a rejected file, a split and landmarks."""

    def make(folder: Path) -> Path:
        write_phantoms(folder, 2, SHAPE)
        text("not.txt", "text")(folder)
        rows = "".join(f"phantom_00{number}.png,left,10,20\n" for number in (0, 1))
        text("marks.csv", f"image,landmark,x_px,y_px\n{rows}")(folder)
        scan(folder, spacing_mm=1.0, landmarks=folder / "marks.csv").write(folder / name)
        return folder / name

    return make


def picture(name: str, mode: str = "L", **options: object) -> Maker:
    """A phantom as a picture."""

    def make(folder: Path) -> Path:
        values = draw_phantom(SHAPE, 0) * (60000 if mode == "I;16" else 255)
        stored = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))
        (stored if mode == "I;16" else stored.convert(mode)).save(folder / name, **options)
        return folder / name

    return make


def nifti(name: str) -> Maker:
    """A phantom as NIfTI."""

    def make(folder: Path) -> Path:
        volume = (draw_phantom((8, 7, 6), 0) * 1000).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([1.0, 1.5, 2.0, 1.0])), folder / name)
        return folder / name

    return make


def volume(name: str, compressed: bool = False) -> Maker:
    """A phantom as NRRD or MetaImage."""

    def make(folder: Path) -> Path:
        image = SimpleITK.GetImageFromArray((draw_phantom((6, 7, 8), 0) * 1000).astype(np.int16))
        image.SetSpacing((1.0, 1.5, 2.0))
        SimpleITK.WriteImage(image, str(folder / name), compressed)
        return folder / name

    return make


def minc(folder: Path) -> Path:
    itk.imwrite(itk.image_from_array((draw_phantom((6, 7, 8), 0) * 1000).astype(np.int16)), str(folder / "a.mnc"))
    return folder / "a.mnc"


def network() -> PixelEmbeddingNet:
    """The small network of the tests, always with the same weights."""
    torch.manual_seed(0)
    return PixelEmbeddingNet(**NETWORK)


def weights(folder: Path) -> Path:
    torch.save(network().state_dict(), folder / "weights.pt")
    return folder / "weights.pt"


def radii(folder: Path) -> Path:
    rows = dict.fromkeys(GROUPS, (1.0, 2.0, None, 3.5))
    made = RadiusCalibration(NAMES, 0.9, rows, dict.fromkeys(GROUPS, (20, 20, 1, 20)), "digest")
    return text("radii.json", made.to_json())(folder)


def regions(folder: Path) -> Path:
    sizes = (1.0, 2.0, None, 3.5)
    made = RegionCalibration(NAMES, 0.9, sizes, sizes, 4.0, ((20, 2), (20, 2), (1, 0), (20, 2)), 0.5, "digest")
    return text("regions.json", made.to_json())(folder)


def population(folder: Path) -> Path:
    vectors, around = ((torch.rand(4, 8),) * 2, (torch.rand(4, 5, 8),) * 2)
    write_population(folder / "population.pt", Population(vectors, around, torch.ones(4), 3, 1.0), NAMES, network())
    return folder / "population.pt"


def habit(folder: Path) -> Path:
    places = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [torch.nan, torch.nan]], dtype=torch.float64)
    learnt = Habit(NAMES, torch.full((4, 2), 0.5).double(), torch.full((4,), 0.1).double(), (3, 3, 2, 0), places)
    ReadingHabit("clinic", learnt, 3, {"finder": "Landmark matching"}).write(folder / "habit.json")
    return folder / "habit.json"


def resume(folder: Path) -> Path:
    net = network()
    optimizer = torch.optim.Adam(net.parameters())
    sum(one.sum() for one in net.parameters()).backward()
    optimizer.step()
    content = {"network": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2, "iteration": 8}
    torch.save(content | {"epoch_length": 4, "time": 1.0, "good": True}, folder / "resume.pt")
    return folder / "resume.pt"


def settings(folder: Path) -> Path:
    rows = [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]]
    shape = {"names": ["a", "b", "c"], "images": 5, "mean_mm": rows, "modes_mm": [[0.0] * 6] * 2}
    content = {"landmark_names": ["a", "b", "c"], "backbone": "unet", "channels": [4, 8], "norm": "batch"}
    content |= {"shape": shape | {"rest_mm": 1.0, "size_sd": 0.1}, "trained_on": {"images": 3, "start": "scratch"}}
    return text("inference.json", json.dumps(content))(folder)


def metrics(folder: Path) -> Path:
    content = {"mre_mm": 1.5, "trained_on": {"images": 5, "start": "scratch"}, "per_image": {"a.png": {"mre_mm": 1.5}}}
    return text("metrics.json", json.dumps(content))(folder)


def beside_good(make: Maker) -> Maker:
    """The same with a good picture beside it."""

    def both(folder: Path) -> Path:
        picture("good.png")(folder)
        return make(folder)

    return both


def known_images(name: str) -> Maker:
    """Manifest of an earlier scan into the same file."""

    def make(folder: Path) -> Path:
        write_phantoms(folder, 2, SHAPE)
        scan_to_file(folder, folder / name, spacing_mm=1.0)
        return folder / name

    return make


def run_file(name: str) -> Maker:
    """An unfinished run of one image with a table."""

    def make(folder: Path) -> Path:
        run = Run("match", lambda: {"images": "digest"}, {"images": "images"})
        with RunFolder(folder).opened(run, 2) as opened:
            write_csv(folder / "landmarks.csv", [["image"], ["a.png"]])
            opened.lines.keep({"search": "matching", "image": "a.png", "landmarks": {"scores": [1.0]}})
            opened.lines.keep({"drawn": "a.png"})
        return folder / name

    return make


def case_of_match(make: Maker) -> Maker:
    """A template with landmarks, two images to search, weights, and one more file."""

    def case(folder: Path) -> Path:
        write_phantoms(folder / "images", 3, SHAPE)
        rows = [f"phantom_000.png,{name},{10 + 3 * x},{8 + 5 * x}\n" for x, name in enumerate(NAMES)]
        text("marks.csv", "image,landmark,x_px,y_px\n" + "".join(rows))(folder)
        weights(folder)
        return make(folder)

    return case


def beside(name: str) -> Maker:
    """A file that is there already."""
    return lambda folder: folder / name


def interrupted(folder: Path) -> Path:
    """A ``match`` of two images that was stopped before it wrote its tables."""
    from tests.fuzz.calls import match

    with patch.object(Output, "write", side_effect=KeyboardInterrupt), contextlib.suppress(BaseException):
        match(folder / "marks.csv")
    assert (folder / "out" / "run.jsonl").is_file()
    return folder / "out" / "run.jsonl"


def corrected(folder: Path) -> Path:
    """A table in which a reader moved landmarks of an image that is searched."""
    rows = [f"phantom_001.png,{name},{11 + 3 * x},{8 + 5 * x}\n" for x, name in enumerate(NAMES)]
    return text("corrected.csv", "image,landmark,x_px,y_px\n" + "".join(rows))(folder)


def _matcher(folder: Path) -> Matcher:
    matcher = Matcher.from_bundle(MATCHING, weights=folder / "weights.pt", settings=NETWORK)
    return matcher.fit(folder / "images" / "phantom_000.png", folder / "marks.csv", spacing_mm=1.0)


def radii_of_match(folder: Path) -> Path:
    made = RadiusCalibration.read(radii(folder))
    return text("radii.json", replace(made, made_for=_matcher(folder).digest).to_json())(folder)


def population_of_match(folder: Path) -> Path:
    matcher = _matcher(folder).learn(folder / "images", spacing_mm=1.0)
    matcher.match(folder / "images", spacing_mm=1.0)
    matcher.write_population(folder / "population.pt")
    return folder / "population.pt"


def two_tables(folder: Path) -> Path:
    landmark_table(folder)
    return text("truth.csv", (folder / "marks.csv").read_text())(folder)
