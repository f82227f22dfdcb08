"""The baseline by registration through its command and its class: files of any orientation, and what is refused."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medpixcl.apps.register import Registration
from tests.matching.test_registration import bent_copy
from tests.test_same_name_detection import found_in
from tests.tiny import medpixcl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Template, its landmarks, a turned copy in two orientations and a file that is no image."""
    folder = tmp_path_factory.mktemp("volumes")
    (folder / "images").mkdir()
    template, image, points, true = bent_copy(3, 0.0)
    for name, one in (("T [1].nii.gz", template), ("images/p1 é.nii.gz", image)):
        nibabel.save(nibabel.Nifti1Image(one.as_tensor()[0].numpy(), one.affine.numpy()), folder / name)
    same = nibabel.load(folder / "images" / "p1 é.nii.gz")
    nibabel.save(same.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]])), folder / "images" / "turned.nii.gz")
    (folder / "images" / "broken.nii.gz").write_bytes(b"no image")
    for file, places in (("marks.csv", {"T [1].nii.gz": points}), ("true.csv", {"p1 é": true, "turned": true})):
        rows = [
            f"{image},L{number},{','.join(f'{value:.4f}' for value in place)}"
            for image, row in places.items()
            for number, place in enumerate(row[:6].tolist())
        ]
        (folder / file).write_text("\n".join(["image,landmark,x_mm,y_mm,z_mm", *rows, ""]), encoding="utf-8")
    return folder


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same place whatever the orientation of the file; one damaged file does not end the work."""
    assert medpixcl("register", "--template", folder / "T [1].nii.gz", "--landmarks", folder / "marks.csv",
                    "--images", folder / "images", "--method", "affine", "--reference", folder / "true.csv",
                    "-o", tmp_path) == 3  # fmt: skip
    table, true = found_in(tmp_path / "landmarks.csv"), found_in(folder / "true.csv")
    assert table.keys() == {"p1 é.nii.gz", "turned.nii.gz"}
    for image, found in table.items():
        known = true[image.removesuffix(".nii.gz")]
        away = [np.linalg.norm(np.subtract(found[name], known[name])) for name in known]
        assert max(away) < 0.4, image
    assert "broken.nii.gz" in (tmp_path / "rejected.csv").read_text(encoding="utf-8")
    assert "s an image" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "markups" / "turned.mrk.json").is_file()


def test_an_image_that_cannot_be_registered_has_no_landmarks(folder: Path, tmp_path: Path) -> None:
    """A volume of one value has no mutual information with anything; the others keep their landmarks."""
    image = nibabel.load(folder / "images" / "turned.nii.gz")
    shutil.copy(folder / "images" / "turned.nii.gz", tmp_path / "b.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.full(image.shape, 7.0, np.float32), image.affine), tmp_path / "a.nii.gz")
    registration = Registration("affine").fit(folder / "T [1].nii.gz", folder / "marks.csv")
    flat, good = registration.match(tmp_path).landmarks
    assert set(flat.flags) == {"missing"}
    assert set(good.flags) == {""}


def test_several_templates_are_averaged(folder: Path, tmp_path: Path) -> None:
    """A second template that lacks a landmark and has the others 2 mm further along x."""
    shutil.copy(folder / "T [1].nii.gz", tmp_path / "second.nii.gz")
    lines = (folder / "marks.csv").read_text(encoding="utf-8").splitlines()
    moved = [line.replace("T [1]", "second").split(",") for line in lines[2:]]
    rows = [",".join([image, name, str(float(x) + 2), y, z]) for image, name, x, y, z in moved]
    (tmp_path / "marks.csv").write_text("\n".join([*lines, *rows, ""]), encoding="utf-8")
    one = Registration("affine").fit(folder / "T [1].nii.gz", folder / "marks.csv")
    two = Registration("affine").fit([folder / "T [1].nii.gz", tmp_path / "second.nii.gz"], tmp_path / "marks.csv")
    image = folder / "images" / "turned.nii.gz"
    alone, both = (found.match(image).landmarks[0].mm for found in (one, two))
    torch.testing.assert_close(both[0], alone[0], rtol=0, atol=0.02)
    assert (both - alone)[1:, 0].mean() == pytest.approx(1, abs=0.05)


def test_what_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(tmp_path / "a.png")
    (tmp_path / "marks.csv").write_text("image,landmark,x_px,y_px\na.png,L,3,4\n")
    with pytest.raises(ValueError, match="convexadam registers volumes, and the template has 2 axes; take elastix"):
        Registration().fit(tmp_path / "a.png", tmp_path / "marks.csv", spacing_mm=1.0)
    with pytest.raises(ValueError, match="there is no registration 'sift'; take one of affine, convexadam, elastix"):
        Registration("sift")
    with pytest.raises(ValueError, match="has no template; call fit"):
        Registration("affine").match(tmp_path / "a.png")
    assert medpixcl("register", "--template", folder / "T [1].nii.gz", "--landmarks", folder / "marks.csv",
                    "--images", folder / "images", "--method", "$x", "-o", tmp_path / "out") == 2  # fmt: skip
    assert "there is no registration '$x'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
