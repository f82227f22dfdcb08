"""A scan lists every image once and everything else with a reason."""

import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from medpixcl.data.duplicates import image_fingerprint
from medpixcl.data.examination import content_sha256
from medpixcl.data.images import read_image
from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan
from tests.data.dicom_files import NOBODY, write_dicom, write_series
from tests.data.scanned import reasons


def picture(path: Path, seed: int, size: tuple[int, int] = (40, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 10), dtype=np.uint8)
    Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder as people have it."""
    root = tmp_path / "root"
    picture(root / "b" / "one.png", 1)
    picture(root / "a" / "two.png", 2)
    picture(root / "a" / ".hidden.png", 3)
    picture(root / ".cache" / "x.png", 3)
    (root / "notes.txt").write_text("hello")
    (root / "a" / "empty.dcm").touch()
    cut = picture(root / "a" / "cut.png", 4)
    cut.write_bytes(cut.read_bytes()[:-40])
    nibabel.save(nibabel.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), np.eye(4)), root / "nan.nii.gz")
    SimpleITK.WriteImage(SimpleITK.Image([4, 5, 6], SimpleITK.sitkInt16), str(root / "vol.mhd"))
    noise = np.random.default_rng(0)
    write_series(root / "good", noise.integers(0, 99, (4, 6, 5)))
    write_series(root / "two_series", noise.integers(0, 99, (3, 6, 5)), SeriesInstanceUID="1.1")
    for path in write_series(root / "tmp", noise.integers(0, 99, (3, 6, 5)), SeriesInstanceUID="1.2"):
        path.rename(root / "two_series" / f"other_{path.name}")
    (root / "tmp").rmdir()
    write_series(root / "tilted", noise.integers(0, 99, (4, 6, 5)), step=(0, 1, 2))
    write_dicom(root / "xray" / "film.dcm", np.arange(30).reshape(5, 6), Modality="DX", PixelSpacing=[0.2, 0.2])
    return root


def test_every_file_is_listed_or_rejected(mixed: Path) -> None:
    manifest = scan(mixed, spacing_mm=0.5, licence="CC0")
    images = [one["image"] for one in manifest.training]
    assert images == [
        "vol.mhd", "a/two.png", "b/one.png", "good",
        [f"two_series/im{n:03d}" for n in (0, 7, 14)],
        [f"two_series/other_im{n:03d}" for n in (0, 7, 14)],
        "xray/film.dcm",
    ]  # fmt: skip
    assert set(reasons(manifest)) == {"notes.txt", "a/empty.dcm", "a/cut.png", "nan.nii.gz", "tilted"}
    assert reasons(manifest)["notes.txt"] == "is not an image."
    assert reasons(manifest)["a/empty.dcm"] == "is empty (0 bytes)."
    assert "damaged or cut off" in reasons(manifest)["a/cut.png"]
    assert reasons(manifest)["nan.nii.gz"] == "holds 64 values that are not finite (NaN or Inf)."
    assert "gantry tilt of 26.6 degrees" in reasons(manifest)["tilted"]
    tilted = next(one for one in manifest.rejected if one["path"] == "tilted")
    assert tilted["files"] == [f"im{n:03d}" for n in (0, 7, 14, 21)]


def test_entries_say_what_is_needed_and_no_names(mixed: Path, tmp_path: Path) -> None:
    manifest = scan(mixed, spacing_mm=(0.5, 0.25), licence="CC0")
    by_image, file = {str(one["image"]): one for one in manifest.training}, mixed / "b" / "one.png"
    assert by_image["b/one.png"] == {
        "image": "b/one.png",
        "spacing_mm": [0.5, 0.25],
        "spacing_source": "given",
        "shape": [40, 50],
        "modality": None,
        "sha256": hashlib.sha256((mixed / "b" / "one.png").read_bytes()).hexdigest(),
        "licence": "CC0",
        "split": None,
        "duplicate_group": None,
        "landmarks": None,
        "stamp": f"{file.stat().st_size}-{file.stat().st_mtime_ns}",
        "fingerprint": image_fingerprint(np.asarray(Image.open(file), dtype=np.float32)).to_text(),
    }
    assert by_image["good"]["spacing_mm"] == [0.75, 0.5, 2.5]
    assert by_image["good"]["shape"] == [5, 6, 4]
    assert (by_image["good"]["modality"], by_image["xray/film.dcm"]["modality"]) == ("CT", "DX")
    assert by_image["xray/film.dcm"]["spacing_mm"] == [0.2, 0.2]
    manifest.write(tmp_path / "m.json")
    assert NOBODY not in (tmp_path / "m.json").read_text()


def test_what_is_listed_can_be_read_from_the_written_manifest(mixed: Path, tmp_path: Path) -> None:
    scan(mixed, spacing_mm=0.5).write(tmp_path / "deep" / "m.json")
    items = Manifest.read(tmp_path / "deep" / "m.json").datalist("training")
    assert len(items) == 7
    for item in items:
        image = read_image(item["image"], spacing_mm=item["spacing_mm"])
        assert list(image.shape[1:]) == item["shape"]
        assert image.pixdim.tolist() == pytest.approx(item["spacing_mm"], abs=1e-5)


def test_progress_is_told(mixed: Path) -> None:
    """First of the files, then of the images among them."""
    told: list[tuple[str, int, int]] = []
    scan(
        mixed,
        spacing_mm=0.5,
        header_progress=lambda done, total: told.append(("files", done, total)),
        progress=lambda done, total: told.append(("images", done, total)),
    )
    files = sum(path.is_file() and "/." not in str(path) and path.name != "vol.raw" for path in mixed.rglob("*"))
    assert told[:files] == [("files", done, files) for done in range(1, files + 1)]
    assert told[files:] == [("images", done, 10) for done in range(1, 11)]


def test_pictures_without_spacing_are_rejected(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    manifest = scan(tmp_path)
    assert not manifest.training
    assert reasons(manifest) == {"a.png": "has no pixel spacing; give spacing_mm."}


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize(("name", "size"), [("a.png", (24, 32)), ("a.bmp", (1, 1)), ("a.tif", (1, 9))])
def test_pictures_of_one_value_are_rejected(tmp_path: Path, name: str, size: tuple[int, int], value: int) -> None:
    """Also one that is transparent everywhere, and a volume of one such slice."""
    Image.fromarray(np.full(size, value, np.uint8)).save(tmp_path / name)
    Image.new("RGBA", (8, 5), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 1), value, np.int16), np.eye(4)), tmp_path / "slice.nii")
    manifest = scan(tmp_path, spacing_mm=1)
    assert not manifest.training
    told = f"shows nothing: all of its pixels have the value {value}."
    assert reasons(manifest) == {
        name: told, "clear.png": "shows nothing: all of its pixels have the value 0.", "slice.nii": told
    }  # fmt: skip


def test_several_paths_and_single_files(tmp_path: Path) -> None:
    one, two = picture(tmp_path / "x" / "a.png", 1), picture(tmp_path / "y" / "b.png", 2)
    manifest = scan([one, two.parent, two], spacing_mm=1)
    assert [entry["image"] for entry in manifest.training] == ["x/a.png", "y/b.png"]
    assert [entry["image"] for entry in scan(one, spacing_mm=1).training] == ["a.png"]


def test_detached_data_counts_in_the_checksum(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.Image([4, 5, 6], SimpleITK.sitkInt16), str(tmp_path / "vol.mhd"))
    files = [tmp_path / "vol.raw", tmp_path / "vol.mhd"]
    before = content_sha256(files)
    # as `sha256sum vol.mhd vol.raw | sha256sum` prints
    listing = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(files))
    assert before == hashlib.sha256(listing.encode()).hexdigest() == scan(tmp_path).training[0]["sha256"]
    files[0].write_bytes(bytes([1]) + files[0].read_bytes()[1:])
    assert scan(tmp_path).training[0]["sha256"] != before


def test_splits_go_to_sections(tmp_path: Path) -> None:
    for number, name in enumerate(["a", "b", "c", "d", "e"]):
        picture(tmp_path / f"{name}.png", number)
    (tmp_path / "splits.csv").write_text("image,split\na.png,train_2\nb,val\nc.png,test1\nd.png,holdout\nz.png,train\n")
    manifest = scan(tmp_path, spacing_mm=1, split=tmp_path / "splits.csv")
    sections = {
        section: [one["image"] for one in getattr(manifest, section)] for section in ("training", "validation", "test")
    }
    assert sections == {"training": ["a.png"], "validation": ["b.png"], "test": ["c.png", "d.png"]}
    assert [one["split"] for one in manifest.test] == ["test1", "holdout"]
    assert reasons(manifest) == {
        "e.png": "is not named in splits.csv; give it a split.",
        "splits.csv": "gives a split to 1 image(s) that are not among those taken: z.png.",
    }


def test_declared_repeats_join_those_found(tmp_path: Path) -> None:
    for number, name in enumerate(["a", "b", "c"]):
        picture(tmp_path / f"{name}.png", number)
    (tmp_path / "copy.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "s.csv").write_text("id,official_split,duplicate_of\na,train,\nb,test1,a\nc,test1,\ncopy,test1,\n")
    manifest = scan(tmp_path, spacing_mm=1, split=tmp_path / "s.csv")
    groups = {one["image"]: one["duplicate_group"] for _, one in manifest.entries()}
    assert groups == {"a.png": "repeat-001", "b.png": "repeat-001", "c.png": None, "copy.png": "repeat-001"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image,part\na.png,train\n", "has the columns image, part; expected image"),
        ("image,split\na.png,\n", "line 2 names no image or no split"),
        ("image,split\na.png,train\na.png,test\n", "line 3: 'a.png' stands twice"),
        ("image,split\nimg/a.png,train\n./img/a.png,test\n", r"a\.png may be any of"),
    ],
)
def test_bad_split_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    picture(tmp_path / "img" / "a.png", 1)
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        scan(tmp_path / "img", spacing_mm=1, split=tmp_path / "s.csv")


def test_landmark_file_is_named_and_checked(tmp_path: Path) -> None:
    picture(tmp_path / "img" / "a.png", 1)
    picture(tmp_path / "img" / "b.png", 2)
    table = tmp_path / "l.csv"
    table.write_text("image,landmark,x_px,y_px\nimg/a.png,1,10,10\nimg/z.png,1,10,10\n")
    manifest = scan(tmp_path / "img", spacing_mm=1, landmarks=table)
    assert [one["landmarks"] for one in manifest.training] == ["../l.csv", None]
    assert reasons(manifest) == {"../l.csv": "gives landmarks to 1 image(s) that are not among those taken: img/z.png."}
    manifest.write(tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["training"][0]["landmarks"] == "l.csv"
    table.write_text("image,landmark,x_px,y_px\nimg/a.png,1,100,10\n")
    with pytest.raises(ValueError, match=r"line 2: landmark '1' .* outside the image"):
        scan(tmp_path / "img", spacing_mm=1, landmarks=table)


def test_links_are_followed_once_and_dead_ones_are_listed(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "a.png", 1)
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(root)
    (root / "dead.png").symlink_to(tmp_path / "gone.png")
    manifest = scan(root, spacing_mm=1)
    assert [one["image"] for one in manifest.training] == ["linked/a.png"]
    assert reasons(manifest) == {"dead.png": "cannot be opened (No such file or directory)."}


def test_absent_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; expected a folder or an image"):
        scan(tmp_path / "none")
    with pytest.raises(ValueError, match="no path to scan"):
        scan([])
    with pytest.raises(ValueError, match=r"s\.csv does not exist"):
        scan(tmp_path, split=tmp_path / "s.csv")


SERIES = {
    "ct_abdomen_no_extension": ([512, 512, 20], [0.977, 0.977, 2.0]),
    "d2n_generic_anatomical_001": ([256, 256, 4], [1.0, 1.0, 1.0]),
    "d2n_generic_anatomical_002_non_isotropic": ([64, 28, 4], [6.4, 4.0, 0.5]),
    "d2n_generic_compressed_j2k_001": ([256, 256, 4], [1.0, 1.0, 1.0]),
    "d2n_generic_compressed_rle_001": ([256, 256, 4], [1.0, 1.0, 1.0]),
    "d2n_hyperfine_anatomical_001/001.dcm": ([112, 138, 8], [1.59, 1.61, 5.0]),
    "d2n_philips_enhanced_anatomical_001/IM-0001-0170-0001.dcm": ([256, 256, 8], [1.0, 1.0, 1.2]),
    "d2n_hitachi_anatomical_001": ([64, 64, 4], [2.344, 2.344, 4.0]),
    "mr_hippocampus_crop_tiny": ([35, 51, 32], [1.0, 1.0, 1.0]),
}


@pytest.mark.data
def test_dicom_series_as_they_come(data_dir: Path) -> None:
    root = data_dir / "dicom_kit" / "series"
    manifest = scan(root)
    diffusion = [one for one in manifest.training if isinstance(one["image"], list)]
    assert [one["shape"] for one in diffusion] == [[64, 64, 4]] * 4  # four directions of one series
    assert all(one["spacing_mm"] == pytest.approx([3.4375, 3.4375, 3.8], abs=1e-3) for one in diffusion)
    found = {one["image"]: (one["shape"], one["spacing_mm"]) for one in manifest.training if one not in diffusion}
    assert found.keys() == SERIES.keys()
    for name, (shape, spacing) in SERIES.items():
        assert found[name][0] == shape
        assert found[name][1] == pytest.approx(spacing, abs=1e-3)
    used = {name.split("/")[0] for name in SERIES} | {"d2n_ge_dti_002"}
    refused = {folder: "" for folder in sorted(path.name for path in root.iterdir()) if folder not in used}
    for one in manifest.rejected:
        refused[Path(one["path"]).parts[0]] += one["reason"]
    for folder, reason in {
        "d2n_failing_gantrytilting_001": "gantry tilt of 14.0 degrees",
        "d2n_failing_slicecount_001": "is a copy of slice d2n_generic_anatomical_001",
        "d2n_failing_sliceincrement_001": "5.00 to 10.00 mm apart",
        "d2n_failing_sliceorientation_001": "series of 2 slice(s): too few",
        "d2n_ge_anatomical_001_single_slice": "too few",
        "d2n_generic_compressed_jpeg_001": "pylibjpeg-libjpeg",
        "d2n_generic_rgb_001": "is a colour image",
        "mixed_sizes_and_rgb_sc": "without pixels",
    }.items():
        assert reason in refused.pop(folder)
    assert not refused


@pytest.mark.data
@pytest.mark.parametrize("folder", ["other", "broken", "transfer_syntaxes"])
def test_dicom_that_is_no_image_is_rejected_file_by_file(data_dir: Path, folder: str) -> None:
    root = data_dir / "dicom_kit" / folder
    manifest = scan(root, spacing_mm=1)
    assert not manifest.training
    listed = {path for one in manifest.rejected for path in one.get("files", [Path(one["path"]).name])}
    assert listed == {path.name for path in root.rglob("*") if path.is_file()}


@pytest.mark.data
def test_formats_of_volumes(data_dir: Path) -> None:
    root = data_dir / "nifti_format_kit"
    manifest = scan(root, landmarks=root / "landmarks.csv")
    assert len(manifest.training) == 12
    assert set(reasons(manifest)) == {
        "SOURCE.md", "nibabel_minc2_4d.mnc", "nibabel_example4d.nii.gz", "nibabel_example_nifti2.nii.gz",
        "sct_dmri_4d_oblique.nii.gz",
    }  # fmt: skip
    with_landmarks = {one["image"] for one in manifest.training if one["landmarks"]}
    assert with_landmarks == {"pam50_small_t2.nii.gz", "tptbox_sub-ct_label-22_ct.nii.gz"}
