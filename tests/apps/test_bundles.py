"""Finding bundles, settings from words, and errors without MONAI's frame around them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ignite.exceptions import NotComputableError

from medpixcl.apps.bundle_search import BundleError, UntrustedBundleError, find_bundle
from medpixcl.apps.bundles import (
    Reference,
    check_config,
    own_errors,
    parse_settings,
    read_bundle,
    run_bundle,
)
from tests.tiny import PRETRAINING, ROOT, edited_bundle


def test_find_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Working folder, then the variable, then the installation: a checkout of the sources here."""
    monkeypatch.delenv("MEDPIXCL_BUNDLES", raising=False)
    monkeypatch.chdir(tmp_path)
    name = PRETRAINING.name
    assert find_bundle(name) == find_bundle(None, name) == find_bundle(str(PRETRAINING)) == PRETRAINING
    (tmp_path / "shelf").mkdir()
    on_shelf = edited_bundle(PRETRAINING, tmp_path / "shelf", "train")
    monkeypatch.setenv("MEDPIXCL_BUNDLES", str(tmp_path / "shelf"))
    assert find_bundle(name) == on_shelf
    shutil.copytree(on_shelf, Path("bundles") / name)
    assert find_bundle(name) == Path("bundles") / name
    shutil.copytree(on_shelf, name)
    assert find_bundle(name) == Path(name)
    assert find_bundle(None, name) == Path("bundles") / name
    with pytest.raises(
        BundleError, match=r"no bundle at absent or bundles.absent or .*shelf.absent or .*bundles.absent: "
    ):
        find_bundle("absent")
    with pytest.raises(BundleError, match=r"^no bundle at [^ ]*nowhere: give a name of `medpixcl bundles list`"):
        find_bundle(tmp_path / "nowhere")


def test_foreign_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of it runs before somebody vouches for it; in the working folder or on the shelf it needs no question."""
    monkeypatch.delenv("MEDPIXCL_BUNDLES", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    foreign = edited_bundle(PRETRAINING, tmp_path, "train")
    for name in (foreign, Path("..") / foreign.name):
        with pytest.raises(UntrustedBundleError, match=r"xray_infoaug_pretraining is a program .* with trust=True"):
            find_bundle(name)
        assert find_bundle(name, trust=True) == name
    Path("link").symlink_to(foreign)
    with pytest.raises(UntrustedBundleError):
        find_bundle("link")
    monkeypatch.setenv("MEDPIXCL_BUNDLES", str(tmp_path))
    assert find_bundle(foreign) == foreign


@pytest.mark.parametrize(
    ("content", "program"),
    [
        ({"max_epochs": 3, "names": ["a@b", "5 $"], "handlers::1::_disabled_": True}, False),
        ({"max_epochs": "$1 + 1"}, True),
        ({"lists": [[{"inner": "%other.json::id"}]]}, True),
        ({"radius": "@other"}, True),
        ({"loss": {"_target_": "torch.nn.Identity"}}, True),
        ({"loss::_target_": "torch.nn.Identity"}, True),
        ({"loss#_target_": "torch.nn.Identity"}, True),
    ],
)
def test_foreign_configuration(content: dict, program: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of settings is put over a bundle unasked, a program is not."""
    file = tmp_path / "over.json"
    file.write_text(json.dumps(content))
    monkeypatch.chdir(ROOT)
    if program:
        with pytest.raises(UntrustedBundleError, match=r"the configuration .*over\.json is a program"):
            check_config(file)
    else:
        check_config(file)
    check_config(file, trust=True)
    monkeypatch.chdir(tmp_path)
    check_config(file)


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
        (["a=@b::0", "c=@no id", "d=$x"], {"a": Reference("b::0"), "c": "@no id", "d": "$x"}),
        (["deep=" + "[" * 100_000], {"deep": "[" * 100_000}),
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


HOSTILE = [
    "$__import__('pathlib').Path('canary').touch()",
    "$import os",
    "@weights",
    "@",
    "%weights",
    "%other.json::id",
    "a@::weights",
    "@#weights",
    "case#3/img#2.png",
    'it\'s "quoted" \\ {braces}',
    "two\nlines\tand \x1b[31m",
    "not UTF-8: \udce9",
    "ümlaut 名 😀",
    "",
]


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that takes text in every way a configuration can."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    config = {
        "weights": "of the author",
        "text": None,
        "copy": "@text",
        "macro": "%text",
        "joined": "$[@text] + [@text]",
        "folder": "$@bundle_root",
        "component": {"_target_": "collections.OrderedDict", "inner": "@text", "listed": ["@text", {"deep": "@text"}]},
        "components": [{"_target_": "collections.OrderedDict"}],
        "size": 3,
        "sized": {"_target_": "fractions.Fraction", "numerator": "@size"},
        "run": ["$@component"],
    }
    (tmp_path / "configs" / "train.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: [text, {"key": [text, 1]}]], ids=["text", "nested"])
def test_settings_are_data(text: str, wrap: Callable[[str], Any], author: Path) -> None:
    """Wherever the configuration uses it, a setting comes out as it went in."""
    value = wrap(text)
    parser = run_bundle(author, "train", {"text": value}).parser
    for key in ("text", "copy", "macro"):
        assert parser.get_parsed_content(key) == value
    assert parser.get_parsed_content("joined") == [value, value]
    assert parser.get_parsed_content("component") == {"inner": value, "listed": [value, {"deep": value}]}
    assert not Path("canary").exists()


@pytest.mark.parametrize("name", [text for text in HOSTILE if text])
def test_name_of_the_bundle_is_data(name: str, author: Path) -> None:
    folder = author / name.replace("/", "_")
    shutil.copytree(author / "configs", folder / "configs")
    assert run_bundle(folder, "train", {}).parser.get_parsed_content("folder") == str(folder)
    assert not Path("canary").exists()


def test_references(author: Path) -> None:
    """A reference is one that the author could have written; another is text."""
    for word, expected in {
        "text=@weights": "of the author",
        "text=@absent": "@absent",
        'text=["@weights"]': ["@weights"],
    }.items():
        assert read_bundle(author, "train", parse_settings([word])).get_parsed_content("text") == expected


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"text": {"_target_": "os.system", "command": "touch canary"}}, "of which MONAI makes a component"),
        ({"text": [{"_mode_": "callable"}]}, "of which MONAI makes a component"),
        ({"text": {"a::b": 1}}, "at which MONAI would split it"),
        ({"component::_target_": "os.system"}, "is part of the program"),
        ({"component#_target_": "os.system"}, "is part of the program"),
        ({"component": "text"}, "the setting component is a part of the program, and 'text' is data"),
        ({"component": Reference("absent")}, "the setting component is a part of the program"),
        ({"components": 5}, "the setting components is a part of the program, and 5 is data"),
        ({"$text": 1}, r"has no setting \$text: see"),
        ({"": 1}, "has no setting"),
        ({"bundle_root": "/"}, "has no setting bundle_root"),
        ({"+run": ["$1"]}, r"has no setting \+run"),
        ({"config_file": "other.json"}, "has no setting config_file"),
    ],
)
def test_settings_that_are_none(settings: dict, sentence: str, author: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        run_bundle(author, "train", settings)
    assert not Path("canary").exists()


def test_components_may_be_left_out_or_exchanged(author: Path) -> None:
    parser = read_bundle(author, "train", {"component": None, "components": [], "sized": Reference("components")})
    assert [parser.get_parsed_content(key) for key in ("component", "components", "sized")] == [None, [], []]


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_settings_of_another_kind(value: Any, author: Path) -> None:
    """What a constructor cannot take is told in one sentence."""
    with (
        pytest.raises(
            ValueError, match=r"^fractions\.Fraction cannot be built with the settings it is given \(TypeError: "
        ),
        own_errors(),
    ):
        read_bundle(author, "train", {"size": value}).get_parsed_content("sized")


@pytest.mark.parametrize("config", ["train", "inference"])
@pytest.mark.parametrize(
    "settings",
    [{"embedding_size": -1}, {"network_def::in_channels": -1}, {"channels": [-1, 8, 8]}, {"spatial_dims": 7}],
)
def test_sizes_that_no_network_has(settings: dict[str, Any], config: str) -> None:
    small = {"backbone": "dynunet", "channels": [4, 8, 8], "embedding_size": 4, "device": "cpu"}
    imagenet = {"imagenet": False} if config == "train" else {}
    with (
        pytest.raises(
            ValueError, match=r"^medpixcl\.networks\.PixelEmbeddingNet cannot be built with the settings .+\)$"
        ),
        own_errors(),
    ):
        read_bundle(PRETRAINING, config, {**small, **imagenet, **settings}).get_parsed_content("network")


@pytest.mark.parametrize("config", ["train", "inference"])
def test_no_number_stands_for_a_network(config: str) -> None:
    with pytest.raises(BundleError, match=r"^the setting network is a part of the program, and 3 is data"):
        read_bundle(PRETRAINING, config, {"network": 3})


def test_metric_without_an_example() -> None:
    with pytest.raises(ValueError, match=r"^give more images$"), own_errors():
        raise RuntimeError("Failed to evaluate ...") from NotComputableError("give more images")


def test_program_of_a_caller(author: Path) -> None:
    """What the package itself puts over a configuration may be a program."""
    parser = read_bundle(author, "train", {"weights": "$1"}, extra_configs=[{"text": "$1 + 1", "+run": ["@copy"]}])
    assert parser.get_parsed_content("copy") == 2
    assert parser["run"] == ["$@component", "@copy"]


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
