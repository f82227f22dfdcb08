"""Regions of detections: stored in LPS as the image lies, calibrated and measured on files, drawn."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image
from scipy.stats import special_ortho_group

from medpixcl.apps.images import ImageList
from medpixcl.apps.regions import RegionHandler, in_lps
from medpixcl.coordinates import image_affine
from medpixcl.landmarks.regions import RegionCalibration

NAMES = ["a", "b"]
SPACING = [0.5, 0.8]


def run(handler: RegionHandler, images: list[MetaTensor], points: torch.Tensor, covariance: torch.Tensor) -> None:
    """An evaluator that finds these points, one image in a batch."""

    def step(_: Engine, number: int) -> dict[str, dict[str, torch.Tensor]]:
        engine.state.batch = {"image": MetaTensor(images[number][None], affine=images[number].affine[None])}
        engine.state.batch["image"].is_batch = True
        engine.state.batch["image"].meta["filename_or_obj"] = [images[number].meta["filename_or_obj"]]
        return {"pred": {"points": points[number][None], "covariance_mm2": covariance[number][None]}}

    engine = Engine(step)
    handler.attach(engine)
    engine.run(range(len(images)))


def pictures(folder: Path, count: int) -> list[MetaTensor]:
    made = []
    for number in range(count):
        path = folder / f"{number:03}.png"
        Image.new("L", (44, 40)).save(path)
        meta = {"filename_or_obj": str(path)}
        made.append(MetaTensor(torch.rand(1, 40, 44), affine=image_affine(SPACING), meta=meta))
    return made


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
    found = in_lps(voxels, (mixing @ mixing.T).expand(20_000, dims, dims), image)
    ras = torch.cat([voxels, torch.zeros(20_000, 3 - dims), torch.ones(20_000, 1)], dim=1).double() @ affine.T
    torch.testing.assert_close(found.places, (ras * torch.tensor([-1.0, -1.0, 1.0, 1.0]))[:, :dims])
    torch.testing.assert_close(torch.cov(found.places.T), found.covariance[0], rtol=0.05, atol=0.05)


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
    listed = ImageList(str(tmp_path), spacing_mm=0.5)
    run(RegionHandler(NAMES, listed, str(tmp_path / "cal"), reference=str(reference)), images[:20], found, covariance)
    path = tmp_path / "cal" / "region_calibration.json"
    made = RegionCalibration.read(path)
    assert made.scales == pytest.approx([1.0, 1.0], rel=1e-4)
    assert made.examples == ((20, 0), (19, 0))

    found[21, 0, 0] -= 1  # half a mm beyond the region
    found[22, 1] = torch.nan
    covariance[22, 1] = torch.nan
    covariance[23] *= 4  # larger than any example
    handler = RegionHandler(NAMES, listed, str(tmp_path / "out"), calibration=str(path), reference=str(reference))
    run(handler, images[20:], found[20:], covariance[20:])
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
    assert first["unsure"] == ""
    assert (missing["x_mm"], missing["size_mm"], missing["unsure"]) == ("", "", "unsure")
    assert large["unsure"] == "unsure"
    report = json.loads((tmp_path / "out" / "region_coverage.json").read_text())
    assert (report["examples"], report["coverage"]) == (7, pytest.approx(6 / 7))
    assert report["landmarks"]["a"]["coverage"] == pytest.approx(3 / 4)
    assert len(list((tmp_path / "out" / "regions").glob("*.png"))) == 4


def test_bad_arguments(tmp_path: Path) -> None:
    images = ImageList(str(tmp_path))
    with pytest.raises(ValueError, match="regions need a calibration, or a reference"):
        RegionHandler(NAMES, images, str(tmp_path))
    made = RegionCalibration(("a",), 0.9, (1.0,), (1.0,), (1.0,), ((9, 0),))
    (tmp_path / "made.json").write_text(made.to_json())
    with pytest.raises(ValueError, match="the calibration has no landmark 'b'"):
        RegionHandler(NAMES, images, str(tmp_path), calibration=str(tmp_path / "made.json"))
    reference = write_truth(tmp_path / "truth.csv", torch.zeros(1, 2, 2))
    handler = RegionHandler(NAMES, ImageList(str(tmp_path)), str(tmp_path / "out"), reference=str(reference))
    with pytest.raises(ValueError, match=r"truth\.csv names none of the 0 images"):
        handler.finish(Engine(lambda *_: None))
