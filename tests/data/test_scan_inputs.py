"""Arguments of wrong types end a scan before anything is read, in one sentence that names the argument."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from medpixcl.data.scan import scan, scan_to_file
from tests.data.scanned import picture


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    """No check of types at run time, as outside of the tests: the hook would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


WRONG: list[tuple[str, Any, str]] = [
    ("licence", 5, "licence is 5; expected text"),
    ("licence", ["CC0"], "licence is of type list; expected text"),
    ("progress", 5, "progress is 5; expected a function"),
    ("header_progress", 5, "header_progress is 5; expected a function"),
    ("progress", "yes", "progress is 'yes'; expected a function"),
    ("check_content", 1, "check_content is 1; expected True or False"),
    ("check_content", "no", "check_content is 'no'; expected True or False"),
    ("workers", 0, "workers is 0; expected a whole number"),
    ("workers", "2", "workers is '2'; expected a whole number"),
    ("workers", True, "workers is True; expected a whole number"),
    ("scheduler", 8786, "scheduler is 8786; expected its address"),
    ("scheduler", "", "scheduler is ''; expected its address"),
    ("known", 5, "the earlier manifest is 5; expected its path"),
    ("split", 5, "the split file is 5; expected its path"),
    ("landmarks", 5, "the landmark file is 5; expected its path"),
    ("landmarks", {5: "a.csv"}, "landmarks has the reader 5; expected a name"),
    ("landmarks", {"senior": 5}, "landmarks of senior is 5; expected its path"),
    ("exogenous", "depth", "exogenous is 'depth'; expected a mapping"),
    ("exogenous", [], "exogenous is of type list; expected a mapping"),
    ("exogenous", {"depth": 5}, "the folder of the exogenous channel 'depth' is 5; expected its path"),
    ("labels", 5, "the folder of the label 'label' is 5; expected its path"),
    ("labels", {5: "folder"}, "the label is named 5; expected one word"),
    ("resample_tilt", True, "the folder of resampled series is True; expected its path"),
    ("spacing_mm", "wide", "spacing_mm is 'wide'; expected one positive number"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), WRONG, ids=[f"{name}={value}" for name, value, _ in WRONG])
def test_a_wrong_type_is_one_sentence(tmp_path: Path, name: str, value: Any, sentence: str) -> None:
    picture(tmp_path / "images" / "a.png", 0)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        scan(tmp_path / "images", **{name: value})
    with pytest.raises(ValueError, match=f"^{sentence}"):
        scan_to_file(tmp_path / "images", tmp_path / "m.jsonl", **{name: value})
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_an_option_that_is_none_is_named(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / "images" / "a.png", 0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'license'"):
        scan_to_file(tmp_path / "images", tmp_path / f"m{suffix}", license="CC0")
