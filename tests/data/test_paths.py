"""What is no path is refused in one sentence that says what was expected."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
from monai.transforms import Compose
from pydicom import Dataset

from medpixcl.apps.images import ImageList
from medpixcl.apps.output import Output
from medpixcl.apps.results import Results
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.data.paths import checked_file, checked_folder, checked_path, checked_paths
from medpixcl.data.scan import scan, scan_to_file


@pytest.fixture(autouse=True)
def as_without_tests() -> Iterator[None]:
    """Call as a user does, without the type checks that the tests add."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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


def test_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("kept")
    assert checked_file(file, "the table") == file
    assert checked_folder(tmp_path / "new", "the results") == tmp_path / "new"
    with pytest.raises(ValueError, match=r"^the table .* is a folder; expected the name of a file$"):
        checked_file(tmp_path, "the table")
    with pytest.raises(ValueError, match=r"^the results .*a\.csv is a file; expected the name of a folder$"):
        checked_folder(file, "the results")
    with pytest.raises(ValueError, match="is a folder"):
        write_text_atomically(tmp_path, "")
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]


def test_a_header_given_by_mistake_does_not_name_the_patient() -> None:
    header = Dataset()
    header.PatientName = "Doe^Jane"
    for call in (read_image, scan, Manifest.read, read_landmarks):
        with pytest.raises(ValueError, match="expected its path") as caught:
            call(header)  # type: ignore[operator]
        assert "Doe" not in str(caught.value)


@pytest.mark.parametrize("wrong", [5, None, b"a", ""])
def test_wrong_types_in_calls(wrong: Any, tmp_path: Path) -> None:
    calls: list[Any] = [
        scan,
        lambda one: scan([one]),
        read_image,
        lambda one: read_image([one]),
        read_landmarks,
        Manifest.read,
        Manifest().write,
        lambda one: scan_to_file(tmp_path, one),
        lambda one: scan(tmp_path, split=one) if one is not None else read_image(one),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="expected its path"):
            call(wrong)


@pytest.mark.parametrize("wrong", ["x", "0.5", -1, 0, True, [], [1, 2, 3, 4], [1, float("nan")], [[1, 1]]])
def test_wrong_pixel_size(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^spacing_mm is .*; expected one positive number in mm"):
        scan(tmp_path, spacing_mm=wrong)


@pytest.mark.parametrize("name", ["a.png", "manifest", "out.txt"])
def test_a_manifest_overwrites_no_other_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("kept")
    with pytest.raises(ValueError, match=r"expected \.json or \.jsonl$"):
        scan_to_file(tmp_path, tmp_path / name)
    assert (tmp_path / name).read_text() == "kept"


@pytest.mark.parametrize(
    "settings",
    [{"formats": 5}, {"formats": "csv"}, {"formats": [5]}, {"overlays": "x"}, {"keep_patient": "maybe"}, {"folder": 5}],
)
def test_wrong_output_settings(settings: dict[str, Any]) -> None:
    name = next(iter(settings))
    what = "the folder of the results" if name == "folder" else name
    with pytest.raises(ValueError, match=f"^{what} is .*; expected"):
        Output(**settings)


@pytest.mark.parametrize("wrong", [5, None, ""])
def test_results_are_written_to_paths_alone(wrong: Any) -> None:
    nothing = Results("title", (), ImageList("images"), Compose([]), Output())
    for call in (nothing.write, nothing.report, Output().into):
        with pytest.raises(ValueError, match="expected its path"):
            call(wrong)
    with pytest.raises(ValueError, match=r"^formats is 5"):
        nothing.write("results", formats=5)  # type: ignore[arg-type]
