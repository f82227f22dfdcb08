"""Regions of detections: stored in LPS as the image lies, calibrated and measured on files, drawn."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import Compose
from PIL import Image
from scipy.stats import special_ortho_group

from medpixcl.apps import Detector, Output, Regions
from medpixcl.apps.results import lps_axes
from medpixcl.coordinates import image_affine
from medpixcl.landmarks.regions import RegionCalibration
from medpixcl.networks.weights import weights_digest
from medpixcl.transforms import LoadImageMMd

NAMES = ["a", "b"]
SPACING = [0.5, 0.8]
NETWORK = torch.nn.Linear(1, 1)


class Known(Inferer):
    """Finds given points, one image in a batch after the other."""

    def __init__(self, points: torch.Tensor, covariance: torch.Tensor) -> None:
        super().__init__()
        self.found = iter(zip(points, covariance, strict=True))

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
        points, covariance = (one[None] for one in next(self.found))
        known = torch.ones(1, len(NAMES))
        return {"points": points, "covariance_mm2": covariance, "confidence": known, "spread_mm": 0 * known}


def run(
    regions: Regions,
    files: list[str],
    reference: Path | None,
    points: torch.Tensor,
    covariance: torch.Tensor,
    folder: Path,
) -> None:
    """A detection that finds these points, written with regions."""
    output = Output(formats=["csv"], regions=regions)
    prepare = Compose([LoadImageMMd(keys="image")])
    detector = Detector(NETWORK, Known(points, covariance), prepare, NAMES, output=output)
    into = output.into(folder, overwrite=True)
    into.write(detector.detect(files, spacing_mm=SPACING, reference=reference, output=into))


def pictures(folder: Path, count: int) -> list[str]:
    """Different pictures in the order of their names."""
    files = [folder / f"{number:03}.png" for number in range(count)]
    for number, file in enumerate(files):
        picture = Image.new("L", (44, 40), number)
        picture.putpixel((0, 0), number + 1)
        picture.save(file)
    return [str(file) for file in files]


def write_truth(path: Path, points: torch.Tensor) -> Path:
    """Rows and columns as x and y in pixels; NaN is left out."""
    rows = [
        [f"{number:03}.png", name, float(column), float(row), SPACING[0]]
        for number, image in enumerate(points)
        for name, (row, column) in zip(NAMES, image, strict=True)
        if not torch.isnan(row)
    ]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "landmark", "x_mm", "y_mm"])
        writer.writerows([image, name, x * SPACING[1], y * SPACING[0]] for image, name, x, y, _ in rows)
    return path


@pytest.mark.parametrize("dims", [2, 3])
def test_lps(dims: int) -> None:
    """By hand for a flipped and permuted image; in general, places drawn in voxels have the covariance in LPS."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.from_numpy(special_ortho_group.rvs(3, random_state=np.random.default_rng(2)))
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = turn @ torch.diag(torch.tensor([0.5, 0.8, 1.2], dtype=torch.float64))
    if dims == 2:
        affine = image_affine(SPACING)
    image = MetaTensor(torch.zeros(1, *[8] * dims), affine=affine)
    spacing = torch.linalg.vector_norm(affine[:dims, :dims], dim=0)
    mixing = torch.randn(dims, dims, generator=generator, dtype=torch.float64)
    voxels = torch.randn(20_000, dims, generator=generator, dtype=torch.float64) @ mixing.T / spacing
    axes = lps_axes(image)
    ras = torch.cat([voxels, torch.zeros(20_000, 3 - dims), torch.ones(20_000, 1)], dim=1).double() @ affine.T
    places = (ras * torch.tensor([-1.0, -1.0, 1.0, 1.0]))[:, :dims]
    torch.testing.assert_close(torch.cov(places.T), axes @ mixing @ mixing.T @ axes.T, rtol=0.05, atol=0.05)


def test_calibrates_then_stores_draws_and_counts(tmp_path: Path) -> None:
    """Errors of one standard deviation along the rows only: the scale is 1, and a region holds what it should."""
    images = pictures(tmp_path, 24)
    generator = torch.Generator().manual_seed(0)
    found = 10 + 20 * torch.rand(24, 2, 2, generator=generator)
    covariance = torch.diag(torch.tensor([4.0, 1.0])).expand(24, 2, 2, 2).clone()  # mm^2 along rows and columns
    truth = found.clone()
    truth[:20, :, 0] += 2.0 / SPACING[0]
    truth[20:, :, 0] += 1.99 / SPACING[0]
    truth[3, 1] = torch.nan
    reference = write_truth(tmp_path / "truth.csv", truth)
    run(Regions(), images[:20], reference, found[:20], covariance[:20], tmp_path / "cal")
    path = tmp_path / "cal" / "region_calibration.json"
    made = RegionCalibration.read(path)
    assert made.scales == pytest.approx([1.0, 1.0], rel=1e-4)
    assert made.examples == ((20, 0), (19, 0))

    found[21, 0, 0] -= 1  # half a mm beyond the region
    found[22, 1] = torch.nan
    covariance[22, 1] = torch.nan
    covariance[23] *= 4  # larger than any example
    run(Regions(str(path)), images[20:], reference, found[20:], covariance[20:], tmp_path / "out")
    with (tmp_path / "out" / "regions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["landmark"]) for row in rows] == [
        (f"{n:03}.png", k) for n in range(20, 24) for k in NAMES
    ]
    first, missing, large = rows[0], rows[5], rows[6]
    assert float(first["x_mm"]) == pytest.approx(float(found[20, 0, 1]) * SPACING[1], abs=1e-3)
    assert float(first["y_mm"]) == pytest.approx(float(found[20, 0, 0]) * SPACING[0], abs=1e-3)
    assert [float(first[f"axis{n}_mm"]) for n in (1, 2)] == pytest.approx([2.0, 1.0], rel=2e-3)
    assert abs(float(first["axis1_y"])) == pytest.approx(1.0), "the long axis runs down the rows"
    assert float(first["size_mm"]) == pytest.approx(2**0.5, rel=2e-3)
    assert first["flag"] == ""
    assert (missing["x_mm"], missing["size_mm"], missing["flag"]) == ("", "", "missing")
    assert large["flag"] == "unsure"
    with (tmp_path / "out" / "landmarks.csv").open(newline="") as file:
        assert [row["flag"] for row in csv.DictReader(file)] == [row["flag"] for row in rows]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    section = page[page.index('id="flagged"') :].partition("</section>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td>', section) == [("023.png", "a, b")]
    assert "matched" not in page
    section = page[page.index("median 90 % radius (mm)") :].partition("</table>")[0]
    assert re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', section) == [
        ("a", "4", "1.41"),
        ("b", "3", "1.41"),
    ]
    report = json.loads((tmp_path / "out" / "region_coverage.json").read_text())
    assert (report["examples"], report["coverage"]) == (7, pytest.approx(6 / 7))
    assert report["landmarks"]["a"]["coverage"] == pytest.approx(3 / 4)
    assert len(list((tmp_path / "out" / "regions").glob("*.png"))) == 4


@pytest.mark.slow
def test_calibrates_on_the_marks_of_each_reader(tmp_path: Path) -> None:
    """One reader marks 1 mm, the other 3 mm beside what is found: half the examples each, the mean is no example."""
    images, found = pictures(tmp_path, 20), 10 + 20 * torch.rand(20, 2, 2)
    readers = {}
    for name, away_mm in (("near", 1.0), ("far", 3.0)):
        marks = found.clone()
        marks[..., 0] += away_mm / SPACING[0]
        readers[name] = str(write_truth(tmp_path / f"{name}.csv", marks))
    mean = found.clone()
    mean[..., 0] += 2.0 / SPACING[0]
    reference, spread = write_truth(tmp_path / "mean.csv", mean), torch.eye(2).expand(20, 2, 2, 2)
    for coverage, scale in ((0.4, 1.0), (0.9, 3.0)):
        run(Regions(coverage=coverage, readers=readers), images, reference, found, spread, tmp_path / "out")
        made = RegionCalibration.read(tmp_path / "out" / "region_calibration.json")
        assert made.scales == pytest.approx([scale, scale], rel=1e-3)
        assert made.examples == ((40, 0), (40, 0))


def test_bad_arguments(tmp_path: Path) -> None:
    images, found, spread = pictures(tmp_path, 2), torch.ones(2, 2, 2), torch.eye(2).expand(2, 2, 2, 2)
    made = RegionCalibration(("a",), 0.9, (1.0,), (1.0,), 1.0, ((9, 0),), weights=weights_digest(NETWORK))
    (tmp_path / "made.json").write_text(made.to_json())
    (tmp_path / "other.json").write_text(replace(made, weights="0").to_json())
    for regions, said in (
        (Regions(), r"regions need a calibration \(the setting region_calibration\), or a reference"),
        (Regions(str(tmp_path / "made.json")), "the calibration has no landmark 'b'"),
        (Regions(str(tmp_path / "other.json")), r"other\.json was calibrated with other weights"),
    ):
        with pytest.raises(ValueError, match=said):
            run(regions, images, None, found, spread, tmp_path / "out")
    reference = tmp_path / "truth.csv"
    reference.write_text("image,landmark,x_mm,y_mm\nother.png,a,1,1\n")
    with pytest.raises(ValueError, match="none of the 2 predicted images is among the 1 reference images"):
        run(Regions(), images, reference, found, torch.eye(2).expand(2, 2, 2, 2), tmp_path / "out")
