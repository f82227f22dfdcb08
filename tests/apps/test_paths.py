"""What is no path is refused in one sentence that says what was expected."""

from pathlib import Path
from typing import Any

import pytest

from medpixcl.apps.paths import checked_path, checked_paths


@pytest.mark.parametrize("path", [5, None, True, 1.5, "", b"a", [], {"a": 1}, [Path("a")]])
def test_no_path(path: Any) -> None:
    with pytest.raises(ValueError, match=r"^the file of weights is .*; expected its path, as text or pathlib\.Path$"):
        checked_path(path, "the file of weights")


def test_one_or_several() -> None:
    assert checked_paths("a/b.json", "a file") == checked_paths(Path("a/b.json"), "a file") == [Path("a/b.json")]
    assert checked_paths(("a", Path("b")), "a file") == [Path("a"), Path("b")]
    assert checked_paths([], "a file") == []
    for wrong in (5, ["a", 5], None, b"a"):
        with pytest.raises(ValueError, match=r"^a file is"):
            checked_paths(wrong, "a file")
