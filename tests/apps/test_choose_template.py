"""Choosing templates through the command line, on phantoms whose likeness is known."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medpixcl.data.phantoms import draw_phantom, write_phantoms
from medpixcl.data.scan import scan
from tests.tiny import MATCHING, NETWORK, medpixcl

SIZE = 160
SMALL = [word for key, value in NETWORK.items() for word in ("--set", f"{key}={json.dumps(value)}")]
RANDOM = [*SMALL, "--set", "weights=null", "--set", "working_spacing_mm=[1.0, 1.0]"]


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(255 * image).astype(np.uint8)).save(path)


def family(folder: Path, name: str, seed: int) -> None:
    """A picture, and four others in each of which another quarter shows something else."""
    base, half = draw_phantom((SIZE, SIZE), seed), SIZE // 2
    save(folder / f"{name}_base.png", base)
    for number, (row, column) in enumerate([(0, 0), (0, half), (half, 0), (half, half)]):
        changed = base.copy()
        other = draw_phantom((SIZE, SIZE), 100 * seed + number)
        changed[row : row + half, column : column + half] = other[row : row + half, column : column + half]
        save(folder / f"{name}_quarter_{number}.png", changed)


def choose(images: Path, output: Path, *more: object) -> int:
    torch.manual_seed(0)  # of the random weights
    words = ["--bundle", MATCHING, "--images", images, "-o", output, "--spacing-mm", 1.0]
    return medpixcl("choose-template", *words, *RANDOM, *more)


def choose_trained(images: Path, output: Path, *more: object) -> int:
    """With the bundle's own weights."""
    words = ["--bundle", MATCHING, "--images", images, "-o", output, "--spacing-mm", 0.5]
    return medpixcl("choose-template", *words, *more)


def ranking(output: Path) -> list[dict[str, str]]:
    with (output / "ranking.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_picture_that_shares_most_with_all_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three quarters with each of them; they share half of it with one another."""
    family(tmp_path / "images", "one", 1)
    (tmp_path / "images" / "notes.png").write_text("no picture")
    assert choose_trained(tmp_path / "images", tmp_path / "out") == 0
    rows = ranking(tmp_path / "out")
    assert [rows[0]["image"], rows[0]["chosen"]] == ["one_base.png", "1"]
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert {row["chosen"] for row in rows[1:]} == {""}
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert 0 <= scores[-1] <= scores[0] <= 1
    shown = capsys.readouterr().out
    assert "annotate: one_base.png" in shown
    assert "rejected" in shown
    assert "notes.png" in shown
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["chosen_1_one_base.png", "scores.png"]


def test_two_families_get_a_template_each(tmp_path: Path) -> None:
    family(tmp_path / "images", "one", 1)
    family(tmp_path / "images", "two", 2)
    assert choose_trained(tmp_path / "images", tmp_path / "out", "-k", 2) == 0
    chosen = {row["image"] for row in ranking(tmp_path / "out") if row["chosen"]}
    assert {name.split("_")[0] for name in chosen} == {"one", "two"}


def test_the_seed_decides(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "images", 4, (48, 40))
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert choose(tmp_path / "images", tmp_path / name, "--seed", seed) == 0
    texts = [(tmp_path / name / "ranking.csv").read_text() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_split_repeats_and_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A repeat is no evidence that an image is like others; the test section is not looked at."""
    folder = tmp_path / "images"
    write_phantoms(folder, 6, (48, 40))
    (folder / "repeat.png").write_bytes((folder / "phantom_001.png").read_bytes())
    split = tmp_path / "split.csv"
    split.write_text("image,split\n" + "".join(f"phantom_00{n}.png,{'test' if n > 3 else 'train'}\n" for n in range(6)))
    scan(folder, spacing_mm=1.0, split=split).write(tmp_path / "manifest.json")
    assert choose(tmp_path / "manifest.json", tmp_path / "out", "--split", "training") == 0
    assert {Path(row["image"]).name for row in ranking(tmp_path / "out")} == {f"phantom_00{n}.png" for n in range(4)}
    assert "repeats" in capsys.readouterr().out
    assert choose(tmp_path / "manifest.json", tmp_path / "few", "--limit", 3) == 0
    assert len(ranking(tmp_path / "few")) == 3
    assert choose(tmp_path / "manifest.json", tmp_path / "none", "--split", "nowhere") == 2
    assert "no image of the split 'nowhere'" in capsys.readouterr().err


def test_volumes(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "images", 3, (20, 24, 16))
    more = ["--set", "spatial_dims=3", "--set", "working_spacing_mm=[1.0, 1.0, 1.0]"]
    assert choose(tmp_path / "images", tmp_path / "out", *more) == 0
    assert len(ranking(tmp_path / "out")) == 3
    assert len(list((tmp_path / "out").glob("chosen_1_*.png"))) == 1


def test_an_empty_picture_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_phantoms(tmp_path / "images", 2, (48, 40))
    save(tmp_path / "images" / "grey.png", np.full((48, 40), 0.5))
    assert choose(tmp_path / "images", tmp_path / "out") == 0
    assert "rejected grey.png: shows nothing: all of its pixels have the value" in capsys.readouterr().out
    assert len(ranking(tmp_path / "out")) == 2


@pytest.mark.parametrize(("number", "count", "least"), [(1, 1, 2), (2, 3, 3)])
def test_too_few_images(
    number: int, count: int, least: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms(tmp_path / "images", number, (48, 40))
    assert choose(tmp_path / "images", tmp_path / "out", "-k", count) == 2
    error = capsys.readouterr().err
    assert f"has {number} image(s) to compare; choosing {count} needs at least {least}" in error
    assert not (tmp_path / "out").exists()


def test_bad_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_phantoms(tmp_path / "images", 2, (48, 40))
    assert choose(tmp_path / "images", tmp_path / "out", "--set", "no_such=1") == 2
    assert "no setting no_such" in capsys.readouterr().err
    assert choose_trained(tmp_path / "images", tmp_path / "out", "--weights", tmp_path / "none.pt") == 2
    assert "no weights at" in capsys.readouterr().err


@pytest.mark.parametrize("inverted", [False, True])
def test_match_warns_of_a_poor_template(inverted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the console and in the report; a template whose grey levels are inverted looks like no other image."""
    family(tmp_path / "images", "one", 1)
    base = draw_phantom((SIZE, SIZE), 1)
    save(tmp_path / "template.png", 1 - base if inverted else base)
    points = [(50, 60), (100, 40), (80, 80), (70, 110), (110, 100), (60, 85)]
    table = [f"template.png,{number},{x},{y},0.5" for number, (x, y) in enumerate(points)]
    (tmp_path / "landmarks.csv").write_text("\n".join(["image,landmark,x_px,y_px,spacing_mm", *table, ""]))
    files = ["--template", tmp_path / "template.png", "--landmarks", tmp_path / "landmarks.csv"]
    words = ["--bundle", MATCHING, "--images", tmp_path / "images", "-o", tmp_path / "out", "--spacing-mm", 0.5]
    assert medpixcl("match", *files, *words) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert ("choose-template" in page) is inverted
    assert ("choose-template" in capsys.readouterr().out) is inverted
