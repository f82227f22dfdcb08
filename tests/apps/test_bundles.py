"""Finding bundles, settings from words, and errors without MONAI's frame around them."""

import json
from pathlib import Path

import pytest

from medpixcl.apps.bundles import BundleError, find_bundle, own_errors, parse_settings, run_bundle
from tests.tiny import PRETRAINING, ROOT


def test_find_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_bundle(str(PRETRAINING), "") == PRETRAINING
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("MEDPIXCL_BUNDLES", raising=False)
    assert find_bundle(None, PRETRAINING.name) == Path("bundles") / PRETRAINING.name
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"no bundle at bundles.xray_infoaug_pretraining: give --bundle, or set"):
        find_bundle(None, PRETRAINING.name)
    monkeypatch.setenv("MEDPIXCL_BUNDLES", str(ROOT / "bundles"))
    assert find_bundle(None, PRETRAINING.name) == PRETRAINING
    with pytest.raises(BundleError, match=r"no bundle at .*nowhere"):
        find_bundle(str(tmp_path / "nowhere"), PRETRAINING.name)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (
            ["max_epochs=3", "device=cpu", "view_shape=[64, 64]"],
            {"max_epochs": 3, "device": "cpu", "view_shape": [64, 64]},
        ),
        (["weights=null", "imagenet=false"], {"weights": None, "imagenet": False}),
        (['facts={"a": 1}', "path=a=b"], {"facts": {"a": 1}, "path": "a=b"}),
        (["train::trainer::max_epochs=2"], {"train::trainer::max_epochs": 2}),
    ],
)
def test_settings(words: list[str], expected: dict) -> None:
    assert parse_settings(words) == expected


@pytest.mark.parametrize("word", ["max_epochs", "=3", ""])
def test_no_setting(word: str) -> None:
    with pytest.raises(BundleError, match="is no setting: write key=value"):
        parse_settings([word])


def test_unknown_setting() -> None:
    with pytest.raises(BundleError, match=r"xray_infoaug_pretraining has no setting epochs, lr: see .*train\.json"):
        run_bundle(PRETRAINING, "train", {"epochs": 3, "lr": 0.1, "max_epochs": 1})


def test_unknown_configuration(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no configuration at .*nothing\.json"):
        run_bundle(PRETRAINING, "nothing", {})
    with pytest.raises(BundleError, match=r"no configuration at .*absent\.json"):
        run_bundle(PRETRAINING, "train", {}, extra_configs=[tmp_path / "absent.json"])


@pytest.mark.parametrize(("name", "text"), [("broken.json", '{"max_epochs": 3,}'), ("broken.yaml", "a: [1\nb: {")])
def test_broken_configuration(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BundleError, match=f"{name} is no configuration") as caught:
        run_bundle(PRETRAINING, "train", {}, extra_configs=[path])
    assert "\n" not in str(caught.value)


def test_later_files_win_and_settings_win_over_files(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text("{}")
    (bundle / "configs" / "train.json").write_text(json.dumps({"a": 1, "b": 1, "c": 1, "run": ["$@a + @b + @c"]}))
    (tmp_path / "one.json").write_text(json.dumps({"b": 2, "c": 2}))
    (tmp_path / "two.yaml").write_text("c: 3\n")
    extra = [tmp_path / "one.json", tmp_path / "two.yaml"]
    for settings, expected in (({}, [1, 2, 3]), ({"c": 4}, [1, 2, 4])):
        workflow = run_bundle(bundle, "train", settings, extra_configs=extra)
        assert [workflow.parser.get_parsed_content(key) for key in "abc"] == expected


def test_own_errors() -> None:
    """What a component raised comes out of MONAI's RuntimeErrors, with its own cause; other errors as they are."""
    raised = ValueError("damaged")
    raised.__cause__ = EOFError("deep below")
    framed = RuntimeError("applying transform ...")
    framed.__cause__ = raised
    with pytest.raises(ValueError, match=r"^damaged$") as caught, own_errors():
        raise RuntimeError("Failed to evaluate ...") from framed
    assert isinstance(caught.value.__cause__, EOFError)
    with pytest.raises(RuntimeError, match=r"^alone$"), own_errors():
        raise RuntimeError("alone")
    with pytest.raises(KeyError), own_errors():
        raise KeyError("other")
