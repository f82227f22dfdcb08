"""Matching in volumes: the bundle that fits the images, and one spacing for all of them, which the template gives."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from medpixcl import Matcher, scan
from medpixcl.apps import default_bundles
from medpixcl.apps.match import matching_bundle
from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.data.phantoms import write_landmark_phantoms, write_phantoms
from medpixcl.landmarks.calibration import RadiusCalibration
from tests.tiny import MATCHING, VOLUME_MATCHING, medpixcl

SHAPE = (32, 30, 28)
COARSE: dict[str, Any] = {"longest_side": 24, "overlays": False}
"""Settings with which a volume is matched in a fraction of a second."""
WORDS = [word for key, value in COARSE.items() for word in ("--set", f"{key}={json.dumps(value)}")]
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four volumes of one anatomy, and their landmarks."""
    folder = tmp_path_factory.mktemp("volumes")
    write_landmark_phantoms(folder, 4, SHAPE)
    return folder


def volume(folder: Path, number: int) -> Path:
    return folder / f"phantom_{number:03}.nii.gz"


def matcher(**settings: Any) -> Matcher:
    return Matcher.from_bundle(VOLUME_MATCHING, device="cpu", settings=COARSE | settings)


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "landmarks.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def working_sizes(one: Matcher, path: Path) -> list[float]:
    """Voxel size in mm of the image that the network sees."""
    image = one.prepare({"image": str(path)})["image"]
    return spacing_of(spatial_affine(torch.as_tensor(image.affine), image.ndim - 1)).tolist()


class TestMatchingBundle:
    @pytest.fixture
    def mixed(self, tmp_path: Path) -> Path:
        write_phantoms(tmp_path / "flat", 2, (16, 16))
        write_phantoms(tmp_path / "deep", 2, (9, 10, 11))
        (tmp_path / "none").mkdir()
        return tmp_path

    @pytest.mark.parametrize(("kind", "dims"), [("flat", 2), ("deep", 3), ("none", 2)])
    def test_folder(self, mixed: Path, kind: str, dims: int) -> None:
        assert matching_bundle(mixed / kind) == default_bundles.MATCHING[dims]
        assert matching_bundle([mixed / "none", mixed / kind]) == default_bundles.MATCHING[dims]

    @pytest.mark.parametrize(("name", "dims"), [("flat/phantom_001.png", 2), ("deep/phantom_001.nii.gz", 3)])
    def test_file(self, mixed: Path, name: str, dims: int) -> None:
        assert matching_bundle(mixed / name) == default_bundles.MATCHING[dims]
        assert matching_bundle([mixed / name]) == default_bundles.MATCHING[dims]

    @pytest.mark.parametrize(("kind", "dims"), [("flat", 2), ("deep", 3)])
    def test_manifest(self, mixed: Path, kind: str, dims: int) -> None:
        scan(mixed / kind, spacing_mm=1.0).write(mixed / "manifest.json")
        assert matching_bundle(mixed / "manifest.json") == default_bundles.MATCHING[dims]

    def test_both_are_bundles_of_the_installation(self) -> None:
        assert [default_bundles.MATCHING[dims] for dims in (2, 3)] == [MATCHING.name, VOLUME_MATCHING.name]


class TestSpacing:
    def test_every_fit_takes_that_of_its_template(self, folder: Path, tmp_path: Path) -> None:
        """A matcher that is fitted again is as one that was fitted for the first time."""
        write_landmark_phantoms(tmp_path, 2, (44, 40, 36))
        one = matcher(detail=1).fit(volume(tmp_path, 0), tmp_path / "landmarks.csv")
        assert working_sizes(one, volume(folder, 1)) == pytest.approx([44 / 24] * 3)
        one.fit(volume(folder, 0), folder / "landmarks.csv")
        assert working_sizes(one, volume(tmp_path, 1)) == pytest.approx([32 / 24] * 3)
        fresh = matcher(detail=1).fit(volume(folder, 0), folder / "landmarks.csv")
        found, expected = (each.match(volume(folder, 1)).landmarks[0].mm for each in (one, fresh))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)

    def test_a_spacing_that_the_user_sets_stays(self, folder: Path) -> None:
        one = matcher(working_spacing_mm=[2.0, 2.0, 2.0]).fit(volume(folder, 0), folder / "landmarks.csv")
        assert working_sizes(one, volume(folder, 1)) == pytest.approx([2.0] * 3)

    def test_pictures_keep_that_of_their_bundle(self, tmp_path: Path) -> None:
        write_landmark_phantoms(tmp_path, 2, (48, 48))
        one = Matcher.from_bundle(MATCHING, device="cpu")
        before = one.preprocessing
        one.fit(tmp_path / "phantom_000.png", tmp_path / "landmarks.csv", spacing_mm=1.0)
        assert one.preprocessing is before

    def test_a_picture_is_rejected_with_its_reason(self, folder: Path, tmp_path: Path) -> None:
        write_phantoms(tmp_path, 1, (20, 20))
        one = matcher().fit(volume(folder, 0), folder / "landmarks.csv")
        with pytest.raises(ValueError, match=r"phantom_000\.png has 2 spatial axes"):
            one.match(tmp_path / "phantom_000.png", spacing_mm=1.0)


class TestCommands:
    """Without ``--bundle``, on volumes."""

    def words(self, folder: Path, images: Path | None = None) -> Sequence[object]:
        return ["--template", volume(folder, 0), "--landmarks", folder / "landmarks.csv", "--images", images or folder]

    def test_match_takes_the_bundle_for_volumes(self, folder: Path, tmp_path: Path) -> None:
        assert medpixcl("match", *self.words(folder), *WORDS, "-o", tmp_path / "out") == 0
        one = matcher().fit(volume(folder, 0), folder / "landmarks.csv")
        one.match(folder).write(tmp_path / "python", overlays=False)
        assert rows(tmp_path / "out") == rows(tmp_path / "python")
        assert {row["image"] for row in rows(tmp_path / "out")} == {volume(folder, k).name for k in (1, 2, 3)}
        assert VOLUME_MATCHING.name in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")

    @pytest.mark.slow
    def test_learn_from_volumes(self, folder: Path, tmp_path: Path) -> None:
        assert medpixcl("match", *self.words(folder), "--unlabelled", folder, *WORDS, "-o", tmp_path / "first") == 0
        learnt = tmp_path / "first" / "population.pt"
        assert torch.load(learnt, weights_only=True)["images"] == 3
        assert medpixcl("match", *self.words(folder), "--unlabelled", learnt, *WORDS, "-o", tmp_path / "again") == 0
        assert rows(tmp_path / "first") == rows(tmp_path / "again")

    @pytest.mark.slow
    def test_calibrate_then_match(self, folder: Path, tmp_path: Path) -> None:
        write_landmark_phantoms(tmp_path / "images", 12, SHAPE)  # ten examples, a template and a first detour
        words = [*self.words(tmp_path / "images"), "--set", "longest_side=16", "--set", "overlays=false"]
        assert medpixcl("calibrate", *words, "-o", tmp_path / "radii.json") == 0
        made = RadiusCalibration.read(tmp_path / "radii.json")
        assert len(made.names) == 4
        assert medpixcl("match", *words, "--calibration", tmp_path / "radii.json", "-o", tmp_path / "out") == 0
        assert all(float(row["radius_mm"]) > 0 for row in rows(tmp_path / "out"))


def test_a_reader_corrects_one_volume(folder: Path, tmp_path: Path) -> None:
    """It keeps the reader's places and is left out of what is searched again; the next run knows the habit."""
    one = matcher().fit(volume(folder, 0), folder / "landmarks.csv")
    found = one.match(folder)
    found.write(tmp_path / "found", overlays=False)
    step = torch.tensor([2.0, -1.0, 1.5], dtype=torch.float64)
    file = tmp_path / "found" / "markups" / "phantom_001.mrk.json"
    content = json.loads(file.read_text())
    for point in content["markups"][0]["controlPoints"]:
        point["position"] = [at + float(move) for at, move in zip(point["position"], step, strict=True)]
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / file.name).write_text(json.dumps(content))

    results = one.match(folder, corrections=tmp_path / "read")
    assert results.corrected == (volume(folder, 1).name,)
    torch.testing.assert_close(results.landmarks[0].mm, found.landmarks[0].mm + step, rtol=0, atol=1e-3)
    for after, before in zip(results.landmarks[1:], found.landmarks[1:], strict=True):
        assert (after.mm - before.mm).mean(dim=0) @ step > 0.1 * step @ step, "towards the reader's"
    results.write(tmp_path / "out", overlays=False)
    later = one.match(volume(folder, 2), habit=tmp_path / "out" / "habit.json").landmarks[0]
    assert results.reading is not None
    torch.testing.assert_close(later.mm, results.reading.habit.apply(found.landmarks[1].mm), rtol=0, atol=1e-6)


def test_several_templates_of_different_size(folder: Path, tmp_path: Path) -> None:
    """All are searched at the spacing of the first; their landmarks are found in a volume that is neither."""
    write_landmark_phantoms(tmp_path, 1, (44, 40, 36), seed=0)
    larger = tmp_path / "larger.nii.gz"
    volume(tmp_path, 0).rename(larger)
    table = (tmp_path / "landmarks.csv").read_text().replace("phantom_000.nii.gz", larger.name)
    (tmp_path / "landmarks.csv").write_text(table)
    one = matcher(detail=1).fit([volume(folder, 0), larger], [folder / "landmarks.csv", tmp_path / "landmarks.csv"])
    assert [len(template.image.shape) - 1 for template in one.templates] == [3, 3]
    for template in one.templates:
        sizes = spacing_of(spatial_affine(torch.as_tensor(template.image.affine), 3)).tolist()
        assert sizes == pytest.approx([32 / 24] * 3)
    results = one.match(volume(folder, 2))
    assert results.landmarks[0].mm.isfinite().all()


@pytest.mark.data
def test_learn_from_hippocampi(data_dir: Path, tmp_path: Path) -> None:
    """Three volumes without labels; one of them is then matched by what was learnt, not as before."""
    source = data_dir / "hippocampus_mr"
    first, *others = sorted((source / "images").glob("*.nii.gz"))[:4]
    for path in others:
        shutil.copy(path, tmp_path)
    one = matcher(longest_side=32).fit(first, source / "landmarks.csv")
    plain = one.match(others[-1]).landmarks[0].mm
    one.learn(tmp_path)
    learnt = one.match(others[-1])
    assert one.population is not None
    assert one.population.images == 3
    assert learnt.facts["unlabelled"].startswith("learnt from 3 images")
    assert learnt.landmarks[0].mm.isfinite().all()
    assert not torch.equal(learnt.landmarks[0].mm, plain)
