"""One folder, one run, in Python: what is kept of an interrupted run, and what may be written where."""

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import run as run_monai
from PIL import Image
from SimpleITK import ProcessObject

from medpixcl import Matcher, Results
from medpixcl.apps.images import ImageList
from medpixcl.apps.kept_landmarks import from_data, to_data
from medpixcl.apps.register import Registration
from medpixcl.apps.results import Landmarks
from medpixcl.apps.run_folder import FinishedError
from medpixcl.coordinates import image_affine
from medpixcl.data.phantoms import write_landmark_phantoms
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.networks import PixelEmbeddingNet
from tests.tiny import MATCHING, NETWORK

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
BARE: dict[str, Any] = {"formats": ["csv"], "overlays": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom 0 is the template; phantoms 1 to 3 are searched, of which a reader moved the landmarks of the first."""
    folder = tmp_path_factory.mktemp("clinic")
    write_landmark_phantoms(folder / "images", 4, (64, 56))
    torch.manual_seed(0)
    torch.save(PixelEmbeddingNet(**NETWORK).state_dict(), folder / "weights.pt")
    return folder


@pytest.fixture
def matcher(folder: Path) -> Matcher:
    made = Matcher.from_bundle(MATCHING, device="cpu", weights=folder / "weights.pt", settings=NETWORK)
    return made.fit(folder / "images" / "phantom_000.png", folder / "images" / "landmarks.csv", spacing_mm=1.0)


def files(folder: Path) -> dict[str, bytes]:
    every = {one.relative_to(folder).as_posix(): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
    run = json.loads(every.pop("run.json"))
    assert (run["state"], run["files"]) == ("finished", sorted(every))
    return every


def counted(
    finder: type, patch: pytest.MonkeyPatch, seen: list[str], stop_after: Callable[[], int] = lambda: 10**6
) -> None:
    """Note every search of an image, and let Ctrl-C come before one."""
    find = finder.find  # type: ignore[attr-defined]

    def search(self: Any, batch: Mapping[str, Any]) -> Any:
        if len(seen) >= stop_after():
            raise KeyboardInterrupt
        seen.append(finder.__name__)
        return find(self, batch)

    patch.setattr(finder, "find", search)


def test_everything_of_landmarks_is_kept(tmp_path: Path) -> None:
    """To the last bit and type, with numbers that JSON does not know; no folder is written down."""
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(9, 8)).save(tmp_path / "a.png")
    images, random = ImageList(tmp_path / "a.png", 0.5), torch.Generator().manual_seed(1)
    source = images.datalist[0]["image"]
    voxels = torch.rand(3, 2, generator=random, dtype=torch.float64)
    voxels[1] = torch.nan
    one = Landmarks(
        image="a.png",
        points=LandmarkSet(("a", "b", "$c"), voxels, torch.rand(3, generator=random), ("", "missing", "unsure")),
        affine=image_affine((0.5, 0.7)),
        shape=(9, 8),
        files=(Path(source),),
        extras=({"radius_mm": "1.0000"}, {"radius_mm": ""}, {"radius_mm": "2.0000"}),
        stem="a",
        source=source,
        covariance_mm2=torch.rand(3, 2, 2, generator=random, dtype=torch.float64),
        radii_mm=torch.tensor([0.1, torch.nan, torch.inf], dtype=torch.float32),
        deviations=torch.tensor([-math.inf, 1e-310, 3e300], dtype=torch.float64),
        misfit=True,
        regions_mm2=torch.rand(3, 2, 2, generator=random, dtype=torch.float64),
    )
    text = json.dumps(to_data(one), allow_nan=False)
    assert str(tmp_path) not in text
    again = from_data(json.loads(text), images, source)
    for part in dataclasses.fields(Landmarks):
        mine, other = getattr(one, part.name), getattr(again, part.name)
        assert mine not in (None, "", (), False) if not isinstance(mine, torch.Tensor) else True, "a field to test"
        pairs = [(mine, other)]
        if isinstance(mine, LandmarkSet):
            pairs = [(getattr(mine, name.name), getattr(other, name.name)) for name in dataclasses.fields(LandmarkSet)]
        for first, second in pairs:
            if isinstance(first, torch.Tensor):
                torch.testing.assert_close(second, first, rtol=0, atol=0, equal_nan=True)
            else:
                assert (type(second), second) == (type(first), first), part.name


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """A registration on several threads repeats itself to a millionth of a mm only."""
    threads = ProcessObject.GetGlobalDefaultNumberOfThreads()
    ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    yield
    ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


@pytest.mark.usefixtures("_one_thread")
def test_every_search_of_a_run_is_kept(
    folder: Path, matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two ways and a reader, interrupted after every second image: nothing is searched twice, the files are equal."""
    affine = Registration("affine").fit(
        folder / "images" / "phantom_000.png", folder / "images" / "landmarks.csv", spacing_mm=1.0
    )
    found = matcher.match(folder / "images", spacing_mm=1.0).landmarks[0]
    rows = [
        f"{found.image},{name},{x + 2},{y - 1}" for name, (x, y) in zip(found.names, found.mm.tolist(), strict=True)
    ]
    (tmp_path / "read.csv").write_text("\n".join(["image,landmark,x_mm,y_mm", *rows, ""]))

    def match(name: str, *, resume: bool, **part: int) -> None:
        output = matcher.output.into(tmp_path / name, resume=resume, formats=["csv", "json"], **part)
        results = matcher.match(
            folder / "images", spacing_mm=1.0, second=affine, corrections=tmp_path / "read.csv", output=output
        )
        output.write(results)

    whole, parts, allowed = list[str](), list[str](), [2]
    with monkeypatch.context() as patch:
        for finder in (Matcher, Registration):
            counted(finder, patch, whole)
        match("whole", resume=False)
    assert len(whole) == 3 + 3 + 2, "both ways, and matching again with the corrected image as a template"
    with monkeypatch.context() as patch:
        for finder in (Matcher, Registration):
            counted(finder, patch, parts, lambda: allowed[0])
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt) as stopped:
                match("parts", resume=True)
            assert "the same command with resume=True goes on" in stopped.value.__notes__[0]
            allowed[0] += 2
        allowed[0] += 100
        match("parts", resume=True)
    assert parts == whole
    assert files(tmp_path / "parts") == files(tmp_path / "whole")

    divided = list[str]()
    with monkeypatch.context() as patch:
        for finder in (Matcher, Registration):
            counted(finder, patch, divided)
        for number in range(2):
            match("divided", resume=False, num_parts=2, part_id=number)
        assert len(divided) == 3 + 3
        match("divided", resume=False, num_parts=2)
    assert sorted(divided) == sorted(whole), "putting the parts together matches again, after the corrections of all"
    assert files(tmp_path / "divided") == files(tmp_path / "whole")


def test_many_images_are_not_all_drawn(
    folder: Path, matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report shows some of them, and says so."""
    monkeypatch.setattr("medpixcl.apps.output.MOST_DRAWN", 2)
    results = matcher.match(folder / "images", spacing_mm=1.0)
    results.write(tmp_path / "out")
    assert not (tmp_path / "out" / "overlays").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<img") == 4, "the template and three images"
    assert "none, as there are more than 2 images; overlays=true draws all" in page
    results.write(tmp_path / "out", overlays=True)
    assert len(list((tmp_path / "out" / "overlays").iterdir())) == 3


def test_results_among_the_images(
    folder: Path, matcher: Matcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pictures of an interrupted run are no images to search when it goes on, nor is anything of it rejected."""
    shutil.copytree(folder / "images", tmp_path / "images")
    (tmp_path / "images" / "landmarks.csv").unlink()
    output = matcher.output.into(tmp_path / "images" / "found", resume=True)
    for number in (0, 2):
        with monkeypatch.context() as patch:
            counted(Matcher, patch, [], lambda number=number: number)  # type: ignore[misc]
            with pytest.raises(KeyboardInterrupt):
                matcher.match(tmp_path / "images", spacing_mm=1.0, output=output)
        assert len(list((tmp_path / "images" / "found").rglob("*.png"))) == number
    results = matcher.match(tmp_path / "images", spacing_mm=1.0, output=output)
    assert (len(results.landmarks), results.rejected) == (4, {}), "the template is another file here"


def test_writing_results(folder: Path, matcher: Matcher, tmp_path: Path) -> None:
    """The same results again and in more formats; others only over them, and then nothing of the first is left."""
    first = matcher.match(folder / "images", spacing_mm=1.0)
    first.write(tmp_path / "out", **BARE)
    first.write(tmp_path / "out", ["json"], overlays=True)
    assert {"landmarks.csv", "landmarks.json", "overlays/phantom_003.png"} <= files(tmp_path / "out").keys()
    other = matcher.match(folder / "images" / "phantom_002.png", spacing_mm=1.0)
    with pytest.raises(ValueError, match=r"a finished run \(match\); give another folder, or overwrite"):
        other.write(tmp_path / "out", **BARE)
    with pytest.raises(ValueError, match="holds the results of a finished run"):
        matcher.match(folder / "images", spacing_mm=1.0, output=matcher.output.into(tmp_path / "out"))
    assert {"landmarks.json", "overlays/phantom_003.png"} <= files(tmp_path / "out").keys()
    other.write(tmp_path / "out", **BARE, overwrite=True)
    assert files(tmp_path / "out").keys() == {"landmarks.csv", "rejected.csv", "report.html"}
    assert not (tmp_path / "out" / "overlays").exists()
    output = matcher.output.into(tmp_path / "out", **BARE, resume=True)
    with pytest.raises(FinishedError):
        matcher.match(folder / "images" / "phantom_002.png", spacing_mm=1.0, output=output)
    with pytest.raises(ValueError, match=r"begun with other images \(number of images 1 then, \d now\)"):
        matcher.match(folder / "images", spacing_mm=1.0, output=output)
    described = json.loads((tmp_path / "out" / "run.json").read_text())
    for content in ({"run": 5}, described | {"failed": "many"}, described | {"failed": -3}):
        (tmp_path / "out" / "run.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"run\.json is damaged, or not of this package; give another folder, or"):
            other.write(tmp_path / "out", **BARE)


def test_a_learnt_population_is_a_file_of_the_run(folder: Path, matcher: Matcher, tmp_path: Path) -> None:
    results: Results = matcher.learn(folder / "images", spacing_mm=1.0).match(folder / "images", spacing_mm=1.0)
    results.write(tmp_path / "out", **BARE)
    assert "population.pt" in files(tmp_path / "out")
    again = matcher.learn(tmp_path / "out" / "population.pt").match(folder / "images", spacing_mm=1.0)
    for one, other in zip(again.landmarks, results.landmarks, strict=True):
        torch.testing.assert_close(one.mm, other.mm)


def test_a_bundle_replaces_its_run(folder: Path, tmp_path: Path) -> None:
    """``monai.bundle run`` twice into one folder: nothing of the first is left, a file of someone else stays."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for images, names in ((folder / "images", {1, 2, 3}), (folder / "images" / "phantom_002.png", {2})):
        run_monai(
            config_file=str(MATCHING / "configs" / "inference.json"),
            bundle_root=str(MATCHING),
            logging_file=False,
            template=str(folder / "images" / "phantom_000.png"),
            landmarks=str(folder / "images" / "landmarks.csv"),
            images=str(images),
            pixel_mm=1.0,
            output_dir=str(tmp_path / "out"),
            device="$torch.device('cpu')",
            weights=str(folder / "weights.pt"),
            **NETWORK,
        )
        (tmp_path / "out" / "notes.txt").rename(tmp_path / "notes.txt")
        kinds = {"overlays": "png", "markups": "mrk.json"}
        pictures = {f"{kind}/phantom_00{number}.{end}" for number in names for kind, end in kinds.items()}
        assert files(tmp_path / "out").keys() == pictures | {"landmarks.csv", "rejected.csv", "report.html"}
        (tmp_path / "notes.txt").rename(tmp_path / "out" / "notes.txt")


def test_changed_files_of_a_run_lead_nowhere_else(folder: Path, matcher: Matcher, tmp_path: Path) -> None:
    """A run whose lines or run file were changed removes nothing outside of its folder, and ends in one sentence."""
    place = tmp_path / "run"
    results = matcher.match(folder / "images" / "phantom_001.png", spacing_mm=1.0)
    results.write(place, **BARE)
    outside = tmp_path / ".victim.txt.123.tmp"
    outside.write_text("mine")
    run = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps({**run, "state": "unfinished", "files": ["x" * 300, 5, "../a"]}))
    lines = [{"run": run["run"]}, {"file": "../victim.txt"}, {"file": 7}]
    (place / "run.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    matcher.match(folder / "images" / "phantom_002.png", spacing_mm=1.0).write(place, overwrite=True, **BARE)
    assert outside.read_text() == "mine"
    for change in ({"to_remove": 5}, {"state": "odd"}):
        (place / "run.json").write_text(json.dumps(run | change))
        with pytest.raises(ValueError, match="is damaged, or not of this package; give another folder"):
            results.write(place, overwrite=True, **BARE)
