"""What is done with an input: it is read, and what was read is used."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import torch
from ignite.engine import Engine

from medpixcl.apps.evaluate import evaluate
from medpixcl.apps.images import ImageList
from medpixcl.apps.measurement import read_names
from medpixcl.apps.readers import compare_reader_positions, read_readers
from medpixcl.apps.run_folder import FinishedError, Run, RunFolder
from medpixcl.apps.unlabelled import read_population
from medpixcl.cli.console import SOME_FAILED
from medpixcl.coordinates import image_affine
from medpixcl.data.class_labels import ClassTable
from medpixcl.data.datalist import split_validation
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import SECTIONS, Manifest
from medpixcl.data.scan import scan, scan_to_file
from medpixcl.data.series import read_series
from medpixcl.data.splits import SplitFile
from medpixcl.data.tables import write_csv
from medpixcl.landmarks.calibration import RadiusCalibration
from medpixcl.landmarks.regions import RegionCalibration
from medpixcl.matching import ShapeStatistics
from medpixcl.networks.weights import load_weights
from medpixcl.training import ResumeHandler
from medpixcl.training.settings_file import read_settings
from tests.fuzz.inputs import NAMES, SHAPE, network
from tests.tiny import MATCHING, NETWORK, medpixcl

Call = Callable[[Path], None]
PICTURE = image_affine((1.0, 1.0)), SHAPE
VOLUME = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)), (9, 9, 9)
SMALL = [word for key, value in NETWORK.items() for word in ("--set", f"{key}={json.dumps(value)}")]


class RefusedError(ValueError):
    """The program ended with status 2; the text is its sentence."""


def command(*words: object) -> str:
    """Run the program and return what it printed; a status that is not documented is no ValueError.

    Raises:
        RefusedError: If it refuses its input.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = medpixcl(*words)
    if status == 2:
        raise RefusedError(err.getvalue().strip().removeprefix("medpixcl: "))
    if status not in (0, SOME_FAILED) or "Traceback" in err.getvalue() + out.getvalue():
        raise RuntimeError(f"exit status {status}: {err.getvalue()}")
    return out.getvalue() + err.getvalue()


def landmarks(path: Path) -> None:
    file = read_landmarks(path)
    for image in file.images[:3]:
        file.for_image(path.parent / image, *(VOLUME if image.endswith(".nii.gz") else PICTURE))
    file.positions_mm(0.5)


def report_of_image(path: Path) -> None:
    read_landmarks(path).for_image(path.parents[1] / "a.dcm", *PICTURE)


def predictions(path: Path) -> None:
    found_marks = read_landmarks(path).positions_mm(1.0)
    truth = path.with_name("truth.csv")
    names = dict.fromkeys(name for marks in found_marks.values() for name in marks)
    rows = [[image, name, "1", "2"] for image in found_marks for name in names]
    write_csv(truth, [["image", "landmark", "x_mm", "y_mm"], *rows])
    evaluate(path, truth, spacing_mm=1.0)


def readers(path: Path) -> None:
    compare_reader_positions({"this run": {"a.png": {"sella": (1.0, 2.0)}}, **read_readers({path.name: path})})


def manifest(path: Path) -> None:
    read = Manifest.read(path)
    read.summary()
    repr(read)
    for section in SECTIONS:
        read.datalist(section)
    images = ImageList(path, spatial_dims=2)
    images.check()
    for item in images.datalist:
        source = item["image"] if isinstance(item["image"], str) else item["image"][0]
        assert images.name(source)
        assert images.stem(source)
        assert images.files(source) is not None
    images.digest()
    read.write(path.parent / "elsewhere" / f"again{path.suffix}")
    assert Manifest.read(path.parent / "elsewhere" / f"again{path.suffix}").summary() == read.summary()


def training_data(path: Path) -> None:
    split_validation(path)


def scanned_again(path: Path) -> None:
    scan_to_file(path.parent, path, spacing_mm=1.0)
    assert sum(1 for _ in Manifest.read(path).entries()) == 2


def split(path: Path) -> None:
    SplitFile(path).assign([path.parent / "a.png", path.parent / "b.png"])


def classes(path: Path) -> None:
    table = ClassTable(path, "label", "patient")
    table.add_to(Manifest(training=[{"image": "a.png"}, {"image": "b.png"}], base_dir=path.parent))


def image(path: Path) -> None:
    read_image(path, spacing_mm=1.0)


def series(path: Path) -> None:
    read_series(sorted(path.parent.iterdir()))


def scanned(path: Path) -> None:
    """A file is listed as usable or as rejected, and costs no other file."""
    listed = scan(path.parent, spacing_mm=1.0)
    usable = [str(entry["image"]) for _, entry in listed.entries()]
    assert "good.png" in usable, "a good neighbour is lost"
    every = [*usable, *(one["path"] for one in listed.rejected)]
    assert path.name in every, "listed neither as usable nor as rejected"


def weights(path: Path) -> None:
    load_weights(network(), path)


def radii(path: Path) -> None:
    read = RadiusCalibration.read(path)
    read.radii_of(read.names, [("", "unsure", "missing")[number % 3] for number in range(len(read.names))])
    read.stretched(2.0)


def regions(path: Path) -> None:
    read = RegionCalibration.read(path)
    read.unsure(read.regions_of(read.names, torch.eye(2).expand(len(read.names), 2, 2)))
    read.warning(torch.ones(3))
    read.stretched(2.0)


def population(path: Path) -> None:
    read = read_population(str(path), NAMES, network())
    assert (read + read).images == 2 * read.images


def resume(path: Path) -> None:
    net = network()
    ResumeHandler(str(path), {"network": net, "optimizer": torch.optim.Adam(net.parameters())}).load(
        Engine(lambda engine, batch: None)
    )


def run_folder(path: Path) -> None:
    run = Run("match", lambda: {"images": "digest"})
    with (
        contextlib.suppress(FinishedError),
        RunFolder(path.parent).opened(run, 2, resume=True) as folder,
    ):
        assert folder.lines.done >= 0


def overwritten(path: Path) -> None:
    with RunFolder(path.parent).opened(Run("match", lambda: {"images": "digest"}), 2, overwrite=True) as folder:
        folder.finish()


def names(path: Path) -> None:
    read_names(path)


def settings(path: Path) -> None:
    read = read_settings(path)
    if read.get("shape"):
        ShapeStatistics.from_data(read["shape"])


def match(path: Path, *words: object) -> None:
    """Search the images beside the file with the small network."""
    given = {
        "template": "images/phantom_000.png",
        "landmarks": "marks.csv",
        "images": "images",
        "weights": "weights.pt",
    }
    options = [word for key, name in given.items() for word in (f"--{key}", path.parent / name)]
    options += ["-o", path.parent / "out", "--bundle", MATCHING, "--spacing-mm", 1, *SMALL, *words]
    command("match", *options)


def match_with(option: str) -> Call:
    """Give the file to an option of ``match``."""
    return lambda path: match(path, f"--{option}", path)


def go_on(path: Path) -> None:
    match(path.parent, "--continue")


def measured(path: Path) -> None:
    command("measure", path, "-o", path.parent / "out", "--spacing-mm", 1)


def evaluated(path: Path) -> None:
    command("evaluate", "--predictions", path.parent / "marks.csv", "--reference", path, "-o", path.parent / "m.json")


def scan_with(option: str) -> Call:
    """Give the file to an option of ``scan``."""

    def call(path: Path) -> None:
        command("scan", path.parent / "images", "-o", path.parent / "out.json", "--spacing-mm", 1, f"--{option}", path)

    return call
