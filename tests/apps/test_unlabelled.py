"""Learning before the matching, through the command line and the file it writes."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from medpixcl.apps.unlabelled import UnlabelledImages, read_population, write_population
from medpixcl.data.phantoms import write_phantoms
from medpixcl.matching import Population
from tests.tiny import MATCHING, NETWORK, medpixcl

SMALL = [word for key, value in NETWORK.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Two pictures to search, one of them and six others to learn from, among these the template itself."""
    write_phantoms(tmp_path / "unlabelled", 7, (48, 48), seed=5)
    (tmp_path / "images").mkdir()
    pictures = sorted((tmp_path / "unlabelled").glob("*.png"))
    shutil.copy(pictures[1], tmp_path / "images" / "one.png")
    shutil.copy(pictures[2], tmp_path / "images" / "two.png")
    table = tmp_path / "landmarks.csv"
    table.write_text(
        f"image,landmark,x_px,y_px\n{pictures[0].name},a,12,30\n{pictures[0].name},b,34,22\n{pictures[0].name},c,25,38\n",
        encoding="utf-8",
    )
    return {"template": pictures[0], "landmarks": table, "images": tmp_path / "images"}


def match(places: dict[str, Path], output: Path, *more: object) -> int:
    words = [word for key, value in places.items() for word in (f"--{key}", value)]
    torch.manual_seed(0)  # of the random weights
    words += ["--bundle", MATCHING, "--spacing-mm", 0.5, *SMALL, "--set", "weights=null", "--set", "overlays=false"]
    return medpixcl("match", *words, *more, "-o", output)


def positions(output: Path) -> list[str]:
    with (output / "landmarks.csv").open(newline="", encoding="utf-8") as file:
        return [row["x_mm"] + row["y_mm"] for row in csv.DictReader(file)]


class TestCommand:
    def test_learn_match_and_match_again(self, places: dict[str, Path], tmp_path: Path) -> None:
        """The file that a run writes gives another run the same matches; learning moves some."""
        unlabelled = places["template"].parent
        assert match(places, tmp_path / "plain") == 0
        assert not (tmp_path / "plain" / "population.pt").exists()
        assert match(places, tmp_path / "first", "--unlabelled", unlabelled) == 0
        learnt = tmp_path / "first" / "population.pt"
        assert match(places, tmp_path / "second", "--unlabelled", learnt) == 0
        assert positions(tmp_path / "second") == positions(tmp_path / "first") != positions(tmp_path / "plain")
        content = torch.load(learnt, weights_only=True)
        assert (content["names"], content["images"]) == (["a", "b", "c"], 6)
        assert places["template"].stem.encode() not in learnt.read_bytes()
        assert "learnt from 6 images<" in (tmp_path / "first" / "report.html").read_text(encoding="utf-8")
        assert "learnt before, from 6 images" in (tmp_path / "second" / "report.html").read_text(encoding="utf-8")

    def test_the_searched_images_themselves(self, places: dict[str, Path], tmp_path: Path) -> None:
        places["images"] = places["template"].parent
        assert match(places, tmp_path / "out", "--unlabelled", places["images"], "--unlabelled-limit", 4) == 0
        told = "learnt from 4 images; 4 of them are matched here too (transductive)"
        assert told in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    def test_nothing_beside_the_template(
        self, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for path in (places["template"], tmp_path / "alone"):
            (tmp_path / "alone").mkdir(exist_ok=True)
            assert match(places, tmp_path / "out", "--unlabelled", path) == 2
            told = " ".join(capsys.readouterr().err.split())
            assert "holds no image to learn from beside the template" in told
        assert not (tmp_path / "out" / "landmarks.csv").exists()


def test_images_of_another_dimension(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((8, 9, 10), dtype=np.float32), np.eye(4)), tmp_path / "volume.nii.gz")
    images = UnlabelledImages(str(tmp_path), spatial_dims=2)
    with pytest.raises(ValueError, match=r"beside the template \(rejected: volume.nii.gz has 3 spatial axes"):
        images.check(["a"])


def test_the_draw(tmp_path: Path) -> None:
    """So many images as asked for, the same for the same seed, never the template."""
    write_phantoms(tmp_path, 9, (24, 24))
    template = sorted(tmp_path.glob("*.png"))[3]

    def drawn(seed: int) -> list[str]:
        images = UnlabelledImages(str(tmp_path), limit=5, spacing_mm=1.0, exclude=str(template), seed=seed)
        images.check(["a"])
        return [item["image"] for item in images.items]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 5
    assert not {Path(name) for seed in range(8) for name in drawn(seed)} & {template}


@pytest.mark.parametrize("dims", [2, 3])
class TestFile:
    def population(self, dims: int) -> Population:
        number = 13 if dims == 2 else 5
        around = tuple(torch.randn(3, number**dims, 4) for _ in range(2))
        return Population(tuple(torch.randn(3, 4) for _ in range(2)), around, torch.rand(3), 8, 1.0)

    def test_rows_follow_the_names(self, dims: int, tmp_path: Path) -> None:
        network, path, made = torch.nn.Linear(2, 2), tmp_path / "new" / "population.pt", self.population(dims)
        write_population(path, made, ("a", "b", "c"), network)
        read = read_population(str(path), ("c", "a"), network)
        assert (read.images, read.cell_mm) == (8, 1.0)
        assert torch.equal(read.weights, made.weights[[2, 0]])
        for found, expected in zip((*read.vectors, *read.around), (*made.vectors, *made.around), strict=True):
            assert torch.equal(found, expected[[2, 0]])

    def test_what_does_not_fit(self, dims: int, tmp_path: Path) -> None:
        network, path = torch.nn.Linear(2, 2), tmp_path / "population.pt"
        write_population(path, self.population(dims), ("a", "b", "c"), network)
        with pytest.raises(ValueError, match="has no landmark 'd'"):
            read_population(str(path), ("a", "d"))
        with pytest.raises(ValueError, match="was learnt with other weights"):
            read_population(str(path), ("a",), torch.nn.Linear(2, 2))
        torch.save({"model": {}}, path)
        with pytest.raises(ValueError, match="is no population"):
            read_population(str(path), ("a",))
        path.write_bytes(b"text")
        with pytest.raises(ValueError, match="is no population"):
            read_population(str(path), ("a",))
        with pytest.raises(ValueError, match="no population at"):
            read_population(str(tmp_path / "none.pt"), ("a",))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"names": 3},
            {"names": [1, 2, 3]},
            {"names": ["a"]},
            {"network": None},
            {"vectors": [torch.zeros(3)]},
            {"vectors": torch.zeros(3, 4)},
            {"around": []},
            {"weights": torch.zeros(4)},
            {"weights": torch.zeros(3, dtype=torch.long)},
            {"images": "8"},
            {"cell_mm": torch.nan},
        ],
    )
    def test_wrong_parts(self, dims: int, wrong: dict[str, Any], tmp_path: Path) -> None:
        path = tmp_path / "population.pt"
        write_population(path, self.population(dims), ("a", "b", "c"), torch.nn.Linear(2, 2))
        torch.save(torch.load(path) | wrong, path)
        with pytest.raises(ValueError, match="is no population: give the population"):
            read_population(str(path), ("a",))

    def test_values_that_are_not_finite(self, dims: int, tmp_path: Path) -> None:
        path, population = tmp_path / "population.pt", self.population(dims)
        population.around[1][2, 3, 1] = torch.nan
        write_population(path, population, ("a", "b", "c"), torch.nn.Linear(2, 2))
        with pytest.raises(ValueError, match="values of around, level 1 are NaN or infinite"):
            read_population(str(path), ("a",))
