"""`medpixcl bundles`: what is at hand, and a copy to edit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medpixcl.apps.bundle_copies import copy_bundle, list_bundles
from medpixcl.apps.bundle_search import BundleError, find_bundle
from tests.tiny import MATCHING, PRETRAINING, ROOT, edited_bundle, medpixcl


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.delenv("MEDPIXCL_BUNDLES", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_list_names_what_find_bundle_finds(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed = {one.name: one for one in list_bundles()}
    assert installed.keys() == {path.name for path in (ROOT / "bundles").iterdir() if path.is_dir()}
    facts = json.loads((MATCHING / "configs" / "metadata.json").read_text())
    assert (installed[MATCHING.name].version, installed[MATCHING.name].task) == (facts["version"], facts["task"])
    assert installed[MATCHING.name].weights
    own = edited_bundle(MATCHING, elsewhere, "inference")  # without weights; the first found counts
    for one in list_bundles():
        assert one.place.resolve() == find_bundle(one.name).resolve()
        assert one.weights == (one.place.resolve() != own)
    assert medpixcl("bundles", "list") == 0
    shown = capsys.readouterr().out
    assert f"xray_landmark_matching {facts['version']}, weights: no\n    {facts['task']}\n" in shown


def test_list_loads_no_torch(elsewhere: Path) -> None:
    """The list is there at once: reading what bundles say of themselves needs no network."""
    code = "import sys; from medpixcl.cli import app; app(['bundles', 'list'], standalone_mode=False)"
    code += "; assert not {'torch', 'monai'} & set(sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    assert PRETRAINING.name in run.stdout


def test_metadata_that_is_none(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(PRETRAINING / "configs", elsewhere / "mine" / "configs")
    (elsewhere / "mine" / "configs" / "metadata.json").write_text("[]")
    assert medpixcl("bundles", "list") == 2
    assert "metadata.json is no metadata of a bundle" in capsys.readouterr().err


def test_copy_is_a_bundle_to_edit(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert medpixcl("bundles", "copy", MATCHING.name, "mine") == 0
    assert find_bundle("mine") == Path("mine")
    assert (elsewhere / "mine" / "models" / "model.pt").stat().st_size == (
        (MATCHING / "models" / "model.pt").stat().st_size
    )
    file = elsewhere / "mine" / "configs" / "inference.json"
    file.write_text("edited")
    assert medpixcl("bundles", "copy", MATCHING.name, "mine") == 2
    assert "mine exists already" in capsys.readouterr().err
    assert file.read_text() == "edited"


def test_copy_into_itself(elsewhere: Path) -> None:
    edited_bundle(PRETRAINING, elsewhere, "train")
    with pytest.raises(BundleError, match="lies inside the bundle"):
        copy_bundle(PRETRAINING.name, elsewhere / PRETRAINING.name / "configs" / "copy")
    with pytest.raises(BundleError, match="no bundle at absent"):
        copy_bundle("absent", elsewhere / "copy")


def test_folder_without_metadata(elsewhere: Path) -> None:
    shutil.copytree(PRETRAINING / "configs", elsewhere / "mine" / "configs")
    (elsewhere / "mine" / "configs" / "metadata.json").unlink()
    with pytest.raises(BundleError, match=r"^mine is no bundle without configs/metadata\.json: copy the file"):
        find_bundle("mine")
    assert find_bundle(PRETRAINING.name) == PRETRAINING


def test_copy_into_new_folders_is_used(elsewhere: Path) -> None:
    assert medpixcl("bundles", "copy", PRETRAINING.name, "some/nested/new/dir") == 0
    assert find_bundle("some/nested/new/dir") == Path("some/nested/new/dir")
    assert medpixcl("bundles", "copy", "some/nested/new/dir", "again") == 0
    assert (elsewhere / "again" / "models" / "model.pt").is_file()
