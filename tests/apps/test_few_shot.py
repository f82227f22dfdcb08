"""What evaluations of several trainings say together, and the sentences where they do not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from medpixcl.apps.few_shot import few_shot_report, read_earlier_runs, start_name


def metrics(images: int | None, mre_mm: float | None, *, start: str = "scratch", image: str = "a.png") -> dict:
    known = {} if images is None else {"trained_on": {"images": images, "start": start}}
    return {"mre_mm": mre_mm, "per_image": {image: {}}, **known}


def written(folder: Path, *contents: Any) -> list[str]:
    files = [folder / f"{number}.json" for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return [str(file) for file in files]


def points(report: tuple) -> dict[str, list[tuple[float, float]]]:
    (picture,), _ = report
    lines = [line for line in picture.image.axes[0].lines if not line.get_label().startswith("_")]
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in lines}


def test_the_curve_of_three_runs(tmp_path: Path) -> None:
    earlier = read_earlier_runs(
        written(tmp_path, metrics(5, 3.0), metrics(25, 2, start="infoaug", image="elsewhere/a.png"))
    )
    report = few_shot_report(metrics(5, 4.0), earlier, 2.5)
    found = points(report)
    assert (found["scratch"], found["infoaug"], found["between readers"][0][1]) == ([(5, 3.5)], [(25, 2.0)], 2.5)
    assert report[1] == []
    ring = report[0][0].image.axes[0].collections[-1]
    assert (ring.get_label(), ring.get_offsets().tolist()) == ("this run", [[5, 4.0]])


def test_runs_on_other_images_are_told(tmp_path: Path) -> None:
    earlier = read_earlier_runs(written(tmp_path, metrics(5, 3.0), metrics(25, 2.0, image="b.png")))
    pictures, (warning,) = few_shot_report(metrics(5, 4.0), earlier)
    assert len(pictures) == 1
    assert warning == "1 of 2 earlier runs in the few-shot curve were measured on other images."


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (metrics(None, 4.0), "these weights do not say how many images they were trained on"),
        (metrics(25, None), "no landmark of this evaluation was measured"),
        (metrics(5, 4.0), "all 2 trainings have the same number of images, 5"),
    ],
)
def test_no_curve_says_why(own: dict, said: str, tmp_path: Path) -> None:
    pictures, (warning,) = few_shot_report(own, read_earlier_runs(written(tmp_path, metrics(5, 3.0))))
    assert pictures == []
    assert warning == f"No few-shot curve: {said}."


def test_without_earlier_runs_nothing_is_said() -> None:
    assert few_shot_report(metrics(None, 4.0), []) == ([], [])


@pytest.mark.parametrize(
    "content",
    [
        metrics(None, 3.0),
        metrics(5, None),
        metrics(0, 3.0),
        {"mre_mm": 3.0, "trained_on": None},
        {"mre_mm": 3.0, "trained_on": {"images": "5", "start": "scratch"}},
        [],
    ],
)
def test_metrics_that_do_not_say_the_number(content: Any, tmp_path: Path) -> None:
    files = written(tmp_path, content)
    sentence = f"{re.escape(files[0])} does not say how many images the detector was trained on .trained_on."
    with pytest.raises(ValueError, match=sentence):
        read_earlier_runs(files)


def test_files_that_are_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.json is not there: earlier_runs takes the metrics.json"):
        read_earlier_runs([str(tmp_path / "none.json")])
    with pytest.raises(ValueError, match=r"0.json cannot be read as JSON: earlier_runs takes"):
        read_earlier_runs(written(tmp_path, "image,landmark"))
    with pytest.raises(ValueError, match=r"cannot be read as JSON: earlier_runs takes"):
        read_earlier_runs([str(tmp_path)])


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("./../xray_landmark_matching/models/model.pt", "xray_landmark_matching"),
        ("/runs/mine/models/model.pt", "mine"),
        ("/runs/mine/models/encoder.pt", "encoder"),
        ("/runs/model.pt", "model"),
    ],
)
def test_name_of_a_start(weights: str, name: str) -> None:
    assert start_name(weights) == name
    assert start_name(weights, imagenet=True) == name  # the weights replace those of ImageNet


def test_start_beside_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "models").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "mine")
    assert start_name("models/model.pt") == "mine"
