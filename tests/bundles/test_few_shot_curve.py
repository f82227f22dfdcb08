"""From trainings on few and more images to the curve in the report of an evaluation."""

import json
from pathlib import Path

import pytest

from medpixcl.apps.bundles import read_bundle
from medpixcl.apps.few_shot import read_earlier_runs
from medpixcl.reports.few_shot import FewShotResult
from tests.bundles.detection import BUNDLES, apply, train, write_manifest
from tests.tiny import medpixcl

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
CAPTION = "Error by number of annotated training images"


@pytest.mark.parametrize("dims", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_few_shot_curve_in_the_report(dims: int, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "data", dims)
    own = str(tmp_path / "data" / "landmarks.csv")
    evaluations = {}
    for images, start in ((1, "scratch"), (3, "phantoms")):
        run, test = tmp_path / str(images), tmp_path / f"test_{images}"
        train(manifest, run, dims, train_images=images, val_fraction=0.0, **({} if images == 1 else {"start": start}))
        written = json.loads((run / "models" / "inference.json").read_text())
        assert written["trained_on"] == {"images": images, "start": start}
        earlier = [str(one / "metrics.json") for one in evaluations]
        readers = {"first": own, "second": own}
        places = {"images": str(manifest), "reference": own, "readers": readers, "earlier_runs": earlier}
        evaluated = apply("evaluate", run / "models", test, dims, **places)
        evaluations[test] = evaluated.parser.get_parsed_content("writer").results
    first, last = evaluations
    results = [run.result for run in read_earlier_runs([str(first / "metrics.json"), str(last / "metrics.json")])]
    errors = [found.metrics["mre_mm"] for found in evaluations.values()]
    assert results == [FewShotResult(1, "scratch", errors[0]), FewShotResult(3, "phantoms", errors[1])]
    pages = [(folder / "report.html").read_text(encoding="utf-8") for folder in evaluations]
    assert [CAPTION in page for page in pages] == [False, True]
    assert not any("o few-shot curve" in page or "other images" in page for page in pages)


@pytest.mark.slow
def test_settings_of_earlier_trainings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `trained_on` beside the weights they detect as before, and no curve of theirs is drawn."""
    manifest = write_manifest(tmp_path / "data", 2)
    models, found = tmp_path / "run" / "models", tmp_path / "found"
    train(manifest, tmp_path / "run", 2)
    words = ["detect", "--bundle", BUNDLES[2], "--weights", models / "model.pt", "--images", manifest]
    words += ["--reference", tmp_path / "data" / "landmarks.csv", "--set", "overlays=false"]
    assert medpixcl(*words, "-o", tmp_path / "known") == 0
    assert json.loads((tmp_path / "known" / "metrics.json").read_text())["trained_on"]["images"] == 4
    content = json.loads((models / "inference.json").read_text())
    del content["trained_on"]
    (models / "inference.json").write_text(json.dumps(content))
    assert medpixcl(*words, "-o", found) == 0
    assert "trained_on" not in json.loads((found / "metrics.json").read_text())
    earlier = [str(tmp_path / "known" / "metrics.json"), str(tmp_path / "again" / "metrics.json")]
    assert medpixcl(*words, "-o", tmp_path / "again", "--set", f"earlier_runs={json.dumps(earlier)}") == 0  # own file
    page = (tmp_path / "again" / "report.html").read_text(encoding="utf-8")
    assert CAPTION not in page
    assert "No few-shot curve: these weights do not say how many images they were trained on." in page
    capsys.readouterr()
    earlier = json.dumps([str(found / "metrics.json")])
    assert medpixcl(*words, "-o", tmp_path / "no", "--set", f"earlier_runs={earlier}") == 2
    said = capsys.readouterr().err
    assert "does not say how many images the detector was trained on" in " ".join(said.split())
    assert not (tmp_path / "no" / "landmarks.csv").exists()  # said before the work begins


def test_earlier_runs_need_a_reference(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "data", 2)
    known = {"mre_mm": 1.0, "per_image": {}, "trained_on": {"images": 5, "start": "scratch"}}
    (tmp_path / "metrics.json").write_text(json.dumps(known))
    train(manifest, tmp_path / "run", 2)
    asked = {"images": str(manifest), "earlier_runs": [str(tmp_path / "metrics.json")]}
    with pytest.raises(ValueError, match="there is no reference to measure"):
        apply("inference", tmp_path / "run" / "models", tmp_path / "found", 2, **asked)


def test_the_bundles_name_their_start() -> None:
    """The start that is named is the one that is loaded."""
    for dims, name in ((2, "xray_landmark_matching"), (3, "scratch")):
        parser = read_bundle(BUNDLES[dims], "train", {})
        assert parser.get_parsed_content("start") == name
        changed = read_bundle(BUNDLES[dims], "train", {"start_weights": None, "imagenet": True})
        assert changed.get_parsed_content("start") == "imagenet"
