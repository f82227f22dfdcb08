"""MONAI's own loading transforms with the reader of this package, against ``read_image`` and MONAI's readers."""

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged, Spacingd
from PIL import Image

from medpixcl.data import MedpixclReader
from medpixcl.data.images import ImageFileError, read_image
from medpixcl.data.pixels import MissingSpacingError
from medpixcl.transforms import LoadImageMMd
from tests.data.dicom_files import write_dicom, write_series

NAME = "medpixcl.data.MedpixclReader"
NOISE = np.random.default_rng(0).integers(0, 2000, (6, 4, 5))
OBLIQUE = {"orientation": (0.8, 0.6, 0.0, -0.36, 0.48, 0.8), "step": tuple(2.5 * np.array([0.48, -0.64, 0.6]))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of each kind."""
    folder = tmp_path_factory.mktemp("images")
    write_series(folder / "series", NOISE, **OBLIQUE)
    write_dicom(folder / "cr.dcm", NOISE[0], Modality="CR", PixelSpacing=[0.2, 0.2])
    Image.fromarray(NOISE[0].astype(np.uint8)).save(folder / "a.png")
    affine = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1]])
    volume = nibabel.Nifti1Image(NOISE.astype(np.int16), affine)
    volume.header.set_xyzt_units("mm")
    nibabel.save(volume, folder / "v.nii.gz")
    image = SimpleITK.GetImageFromArray(NOISE.astype(np.int16))
    image.SetSpacing((0.5, 0.75, 2.5))
    image.SetOrigin((3.0, -4.0, 5.0))
    SimpleITK.WriteImage(image, str(folder / "v.nrrd"))
    SimpleITK.WriteImage(image, str(folder / "v.mha"))
    return folder


EVERY = ("series", "cr.dcm", "a.png", "v.nii.gz", "v.nrrd", "v.mha")


@pytest.mark.parametrize("name", EVERY)
def test_the_image_is_that_of_read_image(folder: Path, name: str) -> None:
    found = LoadImage(reader=NAME, ensure_channel_first=True, spacing_mm=0.4)(folder / name)
    expected = read_image(folder / name, spacing_mm=0.4)
    assert isinstance(found, MetaTensor)
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    np.testing.assert_array_equal(found.affine.numpy(), expected.affine.numpy())
    np.testing.assert_array_equal(found.pixdim.numpy(), expected.pixdim.numpy())
    for key in ("filename_or_obj", "modality", "spacing_source", "spatial_shape", "space"):
        assert found.meta[key] == (expected.meta[key] if key != "filename_or_obj" else str(folder / name))
    assert LoadImage(reader=NAME, spacing_mm=0.4)(folder / name).shape == expected.shape[1:]


@pytest.mark.parametrize(
    ("name", "reader"),
    [("series", "ITKReader"), ("v.nrrd", "ITKReader"), ("v.mha", "ITKReader"), ("v.nii.gz", "NibabelReader")],
)
def test_volumes_are_those_of_monais_readers(folder: Path, name: str, reader: str) -> None:
    found = LoadImage(reader=NAME, ensure_channel_first=True)(folder / name)
    expected = LoadImage(reader=reader, ensure_channel_first=True)(folder / name)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())
    np.testing.assert_allclose(found.affine.numpy(), expected.affine.numpy(), atol=1e-5)
    assert found.meta["space"] == "RAS"


def test_a_list_of_files_is_one_series(folder: Path) -> None:
    files = sorted((folder / "series").iterdir())
    found = LoadImage(reader=MedpixclReader, ensure_channel_first=True)(files)
    np.testing.assert_array_equal(found.numpy(), read_image(folder / "series").numpy())


def test_in_a_chain_of_transforms_over_processes_and_caches(folder: Path) -> None:
    """Digit by digit what the bundles' own transform loads."""
    items = [{"image": str(folder / name)} for name in ("series", "v.nii.gz", "v.nrrd")]
    stock = Compose([LoadImaged("image", reader=NAME, ensure_channel_first=True), Spacingd("image", pixdim=(1, 1, 2))])
    own = Compose([LoadImageMMd("image"), Spacingd("image", pixdim=(1, 1, 2))])
    cached = CacheDataset(items, stock, num_workers=2, progress=False)
    loaded = list(DataLoader(Dataset(items, stock), batch_size=1, num_workers=1))
    for number, item in enumerate(items):
        expected = own(item)["image"]
        for found in (cached[number]["image"], loaded[number]["image"][0]):
            np.testing.assert_array_equal(found.numpy(), expected.numpy())
            np.testing.assert_array_equal(found.affine.numpy(), expected.affine.numpy())


def test_channels_first_as_a_transform_of_its_own(folder: Path) -> None:
    load = Compose([LoadImaged("image", reader=NAME), EnsureChannelFirstd("image")])
    assert load({"image": folder / "v.nii.gz"})["image"].shape == (1, *NOISE.shape)


def test_what_is_refused_goes_to_no_other_reader(tmp_path: Path) -> None:
    """MONAI's own readers take a series without one of its slices, and a picture without a size."""
    write_series(tmp_path / "gap", NOISE, positions=[0, 1, 2, 4, 5, 6])
    Image.fromarray(NOISE[0].astype(np.uint8)).save(tmp_path / "a.png")
    assert LoadImage(reader="ITKReader")(tmp_path / "gap").shape == (5, 4, 6)
    load = LoadImage(reader=NAME)
    with pytest.raises(ImageFileError, match="is one missing"):
        load(tmp_path / "gap")
    with pytest.raises(MissingSpacingError, match="has no pixel spacing"):
        load(tmp_path / "a.png")
    with pytest.raises(ImageFileError, match="does not exist"):
        load(tmp_path / "absent.nii.gz")


def test_options_of_the_reader(tmp_path: Path) -> None:
    places = [0, 1, 2.15, 3, 3.85, 5]
    write_series(tmp_path / "shaky", NOISE, positions=places)
    Image.fromarray(NOISE[0].astype(np.uint8)).save(tmp_path / "a.png")
    assert LoadImage(reader=NAME, tolerance_mm=0.6)(tmp_path / "shaky").shape == (5, 4, 6)
    assert LoadImage(reader=NAME, allow_missing_spacing=True)(tmp_path / "a.png").pixdim.tolist() == [1, 1]
    reader = pickle.loads(pickle.dumps(MedpixclReader(spacing_mm=(0.2, 0.3))))
    assert LoadImage(reader=reader)(tmp_path / "a.png").pixdim.tolist() == pytest.approx([0.2, 0.3])
    request = reader.read(tmp_path / "a.png", spacing_mm=2)
    assert reader.get_data(request)[1]["affine"][0, 1] == pytest.approx(-2)


def test_a_reader_among_others_says_what_it_reads(folder: Path, tmp_path: Path) -> None:
    reader = MedpixclReader()
    assert all(reader.verify_suffix(folder / name) for name in EVERY)
    (tmp_path / "note.txt").write_text("no image")
    assert not reader.verify_suffix([tmp_path / "note.txt"])
    assert not reader.verify_suffix(tmp_path)
    load = LoadImage()
    load.register(reader)
    assert load(folder / "cr.dcm").meta["spacing_source"] == "PixelSpacing"


def test_a_bundle_names_it(folder: Path) -> None:
    """As docs/guide/bundles.md has it."""
    component = {"_target_": "LoadImaged", "keys": "image", "reader": NAME, "ensure_channel_first": True}
    load = ConfigParser({"load": component}).get_parsed_content("load")
    np.testing.assert_array_equal(load({"image": folder / "v.nrrd"})["image"], read_image(folder / "v.nrrd"))
