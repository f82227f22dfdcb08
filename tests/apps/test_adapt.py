"""Adaptation to a few annotated images: nothing is measured on what was learnt, and the best way is taken."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import medpixcl
from medpixcl.apps.adapt import Adapted, best_way
from medpixcl.apps.adaptation_steps import DETECTOR, MATCHING, MEAN, WAYS
from medpixcl.data.phantoms import write_landmark_phantoms
from medpixcl.data.scan import scan
from medpixcl.data.templates import template_items
from tests.test_same_name_detection import TINY, distances, found_in
from tests.tiny import medpixcl as command

ANNOTATED = [f"phantom_{number:03}.png" for number in range(4)]
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images, the landmarks of four of them, and a copy of an annotated one."""
    folder = tmp_path_factory.mktemp("adapt")
    write_landmark_phantoms(folder / "images", 8, (40, 44))
    rows = (folder / "images" / "landmarks.csv").read_text().splitlines()
    (folder / "images" / "landmarks.csv").unlink()
    (folder / "all.csv").write_text("\n".join(rows))
    (folder / "marks.csv").write_text("\n".join(row for row in rows if row.split(",")[0] in ["image", *ANNOTATED]))
    (folder / "images" / "copy.png").write_bytes((folder / "images" / ANNOTATED[0]).read_bytes())
    return folder


def images_of(training: Path) -> set[str]:
    """File names of the images that a training has seen."""
    return {Path(name).name for name in json.loads((training / "training.json").read_text())["images"]}


def matcher() -> medpixcl.Matcher:
    return medpixcl.Matcher.from_bundle(settings={"working_spacing_mm": [1.0, 1.0]})


def adapted_to(data: Path, output: Path, count: int = 4, **changes: Any) -> Adapted:
    templates = [data / "images" / name for name in ANNOTATED[:count]]
    options = {"matcher": matcher(), "epochs": 2, "spacing_mm": 1.0, "settings": TINY, "device": "cpu"}
    return medpixcl.adapt(templates, data / "marks.csv", data / "images", output, **options | changes)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Adapted]:
    folder = tmp_path_factory.mktemp("run")
    return folder, adapted_to(data, folder)


def test_no_training_sees_what_is_measured(run: tuple[Path, Adapted]) -> None:
    """Neither the images held out nor another copy of their picture, not even without labels."""
    folder, _ = run
    for number, held in (1, ANNOTATED[0::2]), (2, ANNOTATED[1::2]):
        seen = images_of(folder / "folds" / str(number))
        assert seen.isdisjoint(held)
        assert ("copy.png" in seen) is (ANNOTATED[0] not in held)
        assert seen >= set(ANNOTATED) - set(held)
    seen = images_of(folder)
    assert seen >= {*ANNOTATED, "phantom_007.png"}


def test_errors_are_those_of_the_other_half(run: tuple[Path, Adapted], data: Path) -> None:
    """Found by hand with a detector and a matcher of the first half, compared with the table of the phantoms."""
    folder, adapted = run
    true = found_in(data / "all.csv", "px")
    held = [data / "images" / name for name in ANNOTATED[0::2]]
    known = [data / "images" / name for name in ANNOTATED[1::2]]
    detector = medpixcl.Detector.from_bundle(weights=folder / "folds" / "1" / "models" / "model.pt")
    half = matcher().fit(known, data / "marks.csv", spacing_mm=1.0)
    found = {
        MATCHING: half.match(held, spacing_mm=1.0),
        DETECTOR: detector.detect(held, spacing_mm=1.0),
        MEAN: half.match(held, spacing_mm=1.0, second=detector),
    }
    for way, results in found.items():
        for number, one in enumerate(results.landmarks):
            given = np.array([true[one.image][name] for name in adapted.names])
            expected = np.linalg.norm(one.px.numpy() - given, axis=1)
            np.testing.assert_allclose(adapted.errors_mm[way][number], expected, atol=1e-3)


def test_curve_matches_each_image_with_others(run: tuple[Path, Adapted], data: Path) -> None:
    _, adapted = run
    assert list(adapted.curve_mm) == [1, 2, 3]
    true = found_in(data / "all.csv", "px")
    results = (
        matcher()
        .fit([data / "images" / name for name in (ANNOTATED[3], ANNOTATED[0])], data / "marks.csv", spacing_mm=1.0)
        .match([data / "images" / ANNOTATED[2]], spacing_mm=1.0)
    )
    one = dict(zip(adapted.names, map(tuple, results.landmarks[0].px.tolist()), strict=True))
    expected = list(distances(one, true[ANNOTATED[2]]).values())
    np.testing.assert_allclose(adapted.curve_mm[2][2], expected, atol=1e-3)


def test_takes_the_way_with_the_least_error(run: tuple[Path, Adapted], data: Path) -> None:
    folder, adapted = run
    means = {way: float(adapted.errors_mm[way].mean()) for way in WAYS}
    assert adapted.way == min(means, key=means.__getitem__)
    written = json.loads((folder / "adapted.json").read_text())
    assert written["way"] == adapted.way
    assert {way: one["mre_mm"] for way, one in written["expected"].items()} == pytest.approx(means)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Where it is unsure" in page
    assert not any(name in page for name in ANNOTATED)
    new = data / "images" / "phantom_006.png"
    found = adapted.find(new, spacing_mm=1.0).landmarks[0].mm
    direct = adapted.matcher.match(new, spacing_mm=1.0).landmarks[0].mm
    detected = adapted.detector.detect(new, spacing_mm=1.0).landmarks[0].mm
    by_way = {MATCHING: direct, DETECTOR: detected, MEAN: (direct + detected) / 2}
    torch.testing.assert_close(found, by_way[adapted.way])


def test_same_call_goes_on(run: tuple[Path, Adapted], data: Path) -> None:
    """A finished run gives the same again without a step of training."""
    folder, adapted = run
    before = {path: path.read_bytes() for path in folder.rglob("model.pt")}
    again = adapted_to(data, folder)
    assert {path: path.read_bytes() for path in folder.rglob("model.pt")} == before
    for way in WAYS:
        assert torch.equal(again.errors_mm[way], adapted.errors_mm[way])


def test_one_image_cannot_be_validated(data: Path, tmp_path: Path) -> None:
    adapted = adapted_to(data, tmp_path, 1)
    assert adapted.way == MEAN
    assert not adapted.errors_mm
    assert not adapted.curve_mm
    assert "nothing says which way" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "folds").exists()


def test_command_names_the_next_one(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
    status = command("adapt", "--template", data / "images", "--landmarks", data / "marks.csv", "--images",
                     data / "images", "-o", tmp_path / "a b", "--folds", 0, "--epochs", 1, "--spacing-mm", 1,
                     *settings)  # fmt: skip
    said = capsys.readouterr().out
    assert status == 0
    assert "taken: mean of both" in said
    assert f"--detector '{tmp_path / 'a b' / 'models' / 'model.pt'}' --spacing-mm 1 --images NEW -o FOUND" in said


def test_one_fold_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="number of folds is 1; give 0 for no cross-validation, or at least 2"):
        adapted_to(data, tmp_path, folds=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("count", "changes", "other"),
    [(3, {}, "annotated images or weights"), (4, {"folds": 4}, "settings"), (4, {"epochs": 3}, "settings")],
)
def test_trainings_of_other_inputs_are_not_taken_over(
    run: tuple[Path, Adapted], data: Path, count: int, changes: dict[str, Any], other: str
) -> None:
    folder, _ = run
    with pytest.raises(ValueError, match=f"{folder} holds an adaptation with other {other}; give another folder"):
        adapted_to(data, folder, count, **changes)


def test_copies_are_held_out_wherever_they_lie(data: Path, tmp_path: Path) -> None:
    """Templates beside the folder of images, which holds a copy of one; and one picture annotated under two names."""
    for name in ANNOTATED:
        (tmp_path / "marked" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "marked" / name).write_bytes((data / "images" / name).read_bytes())
    (tmp_path / "marked" / "twice.png").write_bytes((data / "images" / ANNOTATED[1]).read_bytes())
    rows = (data / "marks.csv").read_text().splitlines()
    rows += [row.replace(ANNOTATED[1], "twice.png") for row in rows if row.startswith(ANNOTATED[1])]
    (tmp_path / "marked" / "landmarks.csv").write_text("\n".join(rows))
    images = tmp_path / "images"
    images.mkdir()
    for number, name in enumerate((ANNOTATED[0], *(f"phantom_{one:03}.png" for one in (4, 5, 6, 7)))):
        (images / f"{number}.png").write_bytes((data / "images" / name).read_bytes())
    medpixcl.adapt(tmp_path / "marked", tmp_path / "marked" / "landmarks.csv", images, tmp_path / "out",
                   matcher=matcher(), epochs=1, spacing_mm=1.0, settings=TINY, device="cpu")  # fmt: skip
    for number in 1, 2:
        seen = images_of(tmp_path / "out" / "folds" / str(number))
        assert ("0.png" in seen) is (ANNOTATED[0] in seen)
        assert ("twice.png" in seen) is (ANNOTATED[1] in seen)
    assert len(seen & {*ANNOTATED, "twice.png"}) in (2, 3)


def test_pixel_size_of_a_manifest_is_enough(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the pictures nor the table nor an option states it; the command named next works as it stands."""
    rows = (data / "marks.csv").read_text().splitlines()
    (tmp_path / "marks.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    scan(data / "images", spacing_mm=1.0).write(tmp_path / "images.json")
    settings = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
    status = command("adapt", "--template", data / "images" / ANNOTATED[0], "--landmarks", tmp_path / "marks.csv",
                     "--images", tmp_path / "images.json", "-o", tmp_path / "out", "--epochs", 1,
                     *settings)  # fmt: skip
    assert status == 0
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next: medpixcl "))
    given = shlex.split(said.removeprefix("next: medpixcl "))
    places = {"NEW": str(data / "images" / "phantom_005.png"), "FOUND": str(tmp_path / "found")}
    assert command(*[places.get(word, word) for word in given]) == 0
    assert (tmp_path / "found" / "landmarks.csv").is_file()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"folds": 5}, "the number of folds is 5; give at most one for each of 4 annotated images"),
        ({"settings": {"nosuch": 1}}, "has no setting nosuch"),
        (
            {"settings": {"data_list_file_path": "x.json"}},
            "data_list_file_path is no setting of a bundle here; give it",
        ),
        ({"training_bundle": "xray_landmark_matching"}, "xray_landmark_matching"),
        ({"training_bundle": "xray_infoaug_pretraining"}, "is not made for self-training; give one that is"),
    ],
)
def test_refused_before_anything_is_trained(data: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        adapted_to(data, tmp_path / "out", **{"settings": {}} | changes)
    assert not list(tmp_path.iterdir()), "the folder is free for the next try"


def test_folder_with_other_files_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "images.json").write_text("{}")
    with pytest.raises(ValueError, match="holds other files; give a new folder"):
        adapted_to(data, tmp_path)
    assert (tmp_path / "images.json").read_text() == "{}"


def test_too_few_images_to_learn_from(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has 0 image\(s\) besides the annotated ones; give at least 2"):
        medpixcl.adapt(data / "images" / ANNOTATED[0], data / "marks.csv", data / "images" / ANNOTATED[0],
                       tmp_path / "out", matcher=matcher(), spacing_mm=1.0, device="cpu")  # fmt: skip


def test_ways_are_compared_where_all_found_the_landmark() -> None:
    errors = {MATCHING: torch.tensor([[1.0, torch.nan]]), DETECTOR: torch.tensor([[0.5, 35.0]])}
    assert best_way(errors | {MEAN: torch.tensor([[0.7, 35.0]])}) == DETECTOR
    assert best_way({way: torch.full((1, 2), torch.nan) for way in WAYS}) == MEAN


def test_damaged_annotated_image_is_named(data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(data / "images", tmp_path / "t")
    (tmp_path / "t" / ANNOTATED[1]).write_bytes((data / "images" / ANNOTATED[1]).read_bytes()[:100])
    shutil.copy(data / "marks.csv", tmp_path / "marks.csv")
    items = template_items(tmp_path / "t", tmp_path / "marks.csv", spacing_mm=1.0)
    assert len(items) == 3
    assert f"{ANNOTATED[1]} has landmarks, and is left out: it " in caplog.text


def test_more_images_to_learn_from_need_another_folder(data: Path, run: tuple[Path, Adapted], tmp_path: Path) -> None:
    images = shutil.copytree(data / "images", tmp_path / "images")
    templates = [data / "images" / name for name in ANNOTATED]
    with pytest.raises(ValueError, match="holds an adaptation with other images to learn from; give another folder"):
        medpixcl.adapt(templates, data / "marks.csv", images, run[0], matcher=matcher(), epochs=2, spacing_mm=1.0,
                       settings=TINY, device="cpu")  # fmt: skip
