"""Runs that are killed or stopped go on where they were, and results of two runs never lie in one folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image

from medpixcl.data.phantoms import write_phantoms
from medpixcl.networks import PixelEmbeddingNet
from tests.dask_workers import one_killed, two_workers
from tests.tiny import MATCHING, NETWORK, edited_bundle, environment, medpixcl

PROGRAM = "from medpixcl.cli.program import main; main()"
SMALL = [word for key, value in NETWORK.items() for word in ("--set", f"{key}={json.dumps(value)}")]
BARE = ("--format", "csv", "--set", "overlays=false")
NUMBER = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template with landmarks, images, weights and a bundle."""
    folder = tmp_path_factory.mktemp("data")
    write_phantoms(folder / "images", NUMBER + 1, (64, 56), seed=5)
    (folder / "images" / "phantom_000.png").rename(folder / "template.png")
    places = {"sella": (12, 30), "nasion": (40, 22), "menton": (31, 45), "gonion": (20, 12)}
    rows = [f"template.png,{name},{x},{y},0.5" for name, (x, y) in places.items()]
    (folder / "landmarks.csv").write_text("\n".join(["image,landmark,x_px,y_px,spacing_mm", *rows, ""]))
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(PixelEmbeddingNet(**NETWORK).state_dict(), folder / f"weights_{seed}.pt")
    edited_bundle(MATCHING, folder, "inference", matcher={"_target_": "medpixcl.matching.LandmarkMatcher"})
    return folder


def words(data: Path, output: Path, *more: object, weights: int = 0) -> list[str]:
    places = {"template": "template.png", "landmarks": "landmarks.csv", "images": "images", "bundle": MATCHING.name}
    given = [str(word) for name, file in places.items() for word in (f"--{name}", data / file)]
    given += ["--weights", str(data / f"weights_{weights}.pt"), "-o", str(output), "--spacing-mm", "0.5", "--trust"]
    return ["match", *given, *SMALL, *map(str, more)]


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    assert medpixcl(*words(data, output)) == 0
    return output


def files(folder: Path) -> dict[str, bytes]:
    every = [one for one in folder.rglob("*") if one.is_file()]
    return {one.relative_to(folder).as_posix(): one.read_bytes() for one in every}


def assert_equal(found: Path, expected: Path) -> None:
    """Every file byte for byte, but the run file, which holds times; it lists all the others."""
    ours, theirs = files(found), files(expected)
    runs = [json.loads(side.pop("run.json")) for side in (ours, theirs)]
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert runs[0]["state"] == runs[1]["state"] == "finished"
    assert runs[0]["files"] == runs[1]["files"] == sorted(theirs)
    assert runs[0]["made_from"] == runs[1]["made_from"]


def images_done(output: Path) -> int:
    lines = output / "run.jsonl"
    return lines.read_bytes().count(b'"image": ') if lines.is_file() else 0


def wait_for(ready: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "too slow"
        time.sleep(0.002)


@contextmanager
def signal_after(number: int, output: Path, which: signal.Signals) -> Iterator[None]:
    """Send a signal to this process when so many images are done."""

    def send() -> None:
        wait_for(lambda: images_done(output) >= number)
        os.kill(os.getpid(), which)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    thread.join()


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    capsys.readouterr()
    assert medpixcl(*arguments) == status
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("medpixcl: ")


def test_a_killed_run_goes_on(
    data: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed by SIGKILL in the middle; a last line is cut off, and a half picture is left, as by a power failure."""
    output = tmp_path / "out"
    command = [sys.executable, "-c", PROGRAM, *words(data, output)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: images_done(output) >= 2)
        process.send_signal(signal.SIGSTOP)
        assert "is working in" in refused(capsys, *words(data, output, "--continue"))
        assert "is working in" in refused(capsys, *words(data, output, "--overwrite"))
        process.kill()
    done = images_done(output)
    assert 2 <= done < NUMBER
    assert not (output / "landmarks.csv").exists()
    with (output / "run.jsonl").open("ab") as file:
        file.write(b'{"search": "first", "image": "phantom_0')
    (output / "overlays" / ".phantom_001.png.4711.tmp").write_bytes(b"half a pic")
    sentence = refused(capsys, *words(data, output))
    assert f"holds an unfinished run (match, {done} of {NUMBER} images); give --continue to go on, or" in sentence
    assert "--overwrite to replace it" in sentence
    assert medpixcl(*words(data, output, "--continue")) == 0
    assert_equal(output, undisturbed)
    before = files(output)
    assert medpixcl(*words(data, output, "--continue")) == 0
    assert "is finished, and nothing is left to do" in capsys.readouterr().out
    assert files(output) == before


@pytest.mark.parametrize(("which", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_says_how_to_go_on(
    which: signal.Signals,
    status: int,
    data: Path,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    with signal_after(2, output, which):
        sentence = refused(capsys, *words(data, output), status=status)
    done = images_done(output)
    assert sentence == f"stopped after {done} of {NUMBER} images; the same command with --continue goes on"
    assert signal.getsignal(which) in (signal.SIG_DFL, signal.default_int_handler)
    assert medpixcl(*words(data, output, "--continue")) == 0
    assert_equal(output, undisturbed)


def test_nothing_is_searched_twice(data: Path, tmp_path: Path) -> None:
    """What was found is taken from the lines of the run: one of them is changed here, and stands in the result."""
    output = tmp_path / "out"
    with signal_after(2, output, signal.SIGTERM):
        assert medpixcl(*words(data, output, *BARE)) == 143
    lines = (output / "run.jsonl").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if '"image"' in line)
    content = json.loads(lines[first])
    content["landmarks"]["points"]["voxels"]["values"][:2] = [12.25, 7.5]
    lines[first] = json.dumps(content)
    (output / "run.jsonl").write_text("\n".join([*lines, ""]))
    assert medpixcl(*words(data, output, *BARE, "--continue")) == 0
    assert f"{content['image']},sella,7.5000,12.2500," in (output / "landmarks.csv").read_text()


@pytest.mark.parametrize("change", ["weights", "images", "templates", "settings", "formats, overlays or keep_patient"])
def test_a_run_does_not_go_on_with_other_input(
    change: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy, output = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data, copy)
    with signal_after(1, output, signal.SIGTERM):
        assert medpixcl(*words(copy, output)) == 143
    more: list[str] = []
    typed = {
        "weights": " (weights weights_0.pt then, weights_1.pt now)",
        "images": " (number of images 5 then, 6 now)",
        "settings": " (settings none then, mode=pyramid now)",
        "formats, overlays or keep_patient": " (formats none then, json now)",
    }.get(change, "")
    if change == "images":
        picture = copy / "images" / "phantom_003.png"
        with Image.open(picture) as image:
            image.rotate(180).save(picture.with_name("late.png"))
    elif change == "templates":
        table = copy / "landmarks.csv"
        table.write_text(table.read_text().replace("12,30", "13,30"))
    elif change == "settings":
        more = ["--set", "mode=pyramid"]
    elif change == "formats, overlays or keep_patient":
        more = ["--format", "json"]
    before = files(output)
    sentence = refused(capsys, *words(copy, output, *more, "--continue", weights=int(change == "weights")))
    assert f"was begun with other {change}{typed}; give what it was begun with" in sentence
    assert files(output) == before


def test_overwriting(data: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files of the earlier run go, also those that the new one has not; files that no run wrote stay."""
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    (output / "notes.txt").write_text("mine")
    one = words(data, output, *BARE)
    one[one.index("--images") + 1] += "/phantom_003.png"
    before = files(output)
    sentence = refused(capsys, *one)
    assert "holds the results of a finished run (match); give another folder, or --overwrite to replace it" in sentence
    assert files(output) == before
    assert medpixcl(*one, "--overwrite") == 0
    assert files(output).keys() == {
        "landmarks.csv", "notes.txt", "rejected.csv", "report.html", "run.json"
    }  # fmt: skip
    assert "notes.txt" not in json.loads((output / "run.json").read_text())["files"]
    assert "also holds 1 file(s) that no run wrote, notes.txt first: they stay" in capsys.readouterr().out


def test_files_of_the_same_names_are_replaced(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder in which no run has written: only when asked to, and not without a word."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "landmarks.csv").write_text("mine")
    sentence = refused(capsys, *words(data, output, *BARE))
    assert (
        "holds landmarks.csv, which no run wrote; give an empty folder, or --overwrite to write among these" in sentence
    )
    assert medpixcl(*words(data, output, *BARE, "--overwrite")) == 0
    assert "held 1 file(s) that no run wrote, landmarks.csv first: they were replaced" in capsys.readouterr().out
    assert medpixcl(*words(data, output, *BARE, "--overwrite")) == 0
    assert "that no run wrote" not in capsys.readouterr().out


def test_other_files_are_never_removed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even where a run file was changed to name files outside of the folder."""
    output, outside = tmp_path / "out", tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "below" / "a.txt").write_text("mine")
    (output / "sub").mkdir(parents=True)
    (output / "sub" / "old.png").write_text("mine")
    assert "holds sub, which no run wrote; give an empty folder, or --overwrite" in refused(
        capsys, *words(data, output)
    )
    assert medpixcl(*words(data, output, *BARE, "--overwrite")) == 0
    (output / "link").symlink_to(outside)
    run = json.loads((output / "run.json").read_text())
    run["files"] += ["../outside/below/a.txt", str(outside / "below" / "a.txt"), "link/below/a.txt", 5]
    (output / "run.json").write_text(json.dumps(run))
    assert medpixcl(*words(data, output, *BARE, "--overwrite")) == 0
    assert (outside / "below" / "a.txt").read_text() == "mine"
    assert (output / "sub" / "old.png").read_text() == "mine"


def test_a_damaged_image_among_several(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are found; the table names it, the exit status says so. A file that is no image changes no status."""
    copy, output = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data, copy)
    (copy / "images" / "notes.txt").write_text("no image")
    assert medpixcl(*words(copy, output, *BARE)) == 0
    assert f"{NUMBER} images searched, {4 * NUMBER} landmarks" in capsys.readouterr().out
    manifest = copy / "images.json"
    assert medpixcl("scan", copy / "images", "-o", manifest, "--spacing-mm", 0.5) == 0
    picture = copy / "images" / "phantom_002.png"
    picture.write_bytes(picture.read_bytes()[:200])
    listed = words(copy, tmp_path / "listed", *BARE)
    listed[listed.index("--images") + 1] = str(manifest)
    for command, folder in (
        (words(copy, output, *BARE), output),
        (listed, tmp_path / "listed"),
    ):
        capsys.readouterr()
        assert medpixcl(*command, "--overwrite") == 3
        assert f"{NUMBER - 1} images searched, {4 * NUMBER - 4} landmarks" in capsys.readouterr().out
        assert len((folder / "landmarks.csv").read_text().splitlines()) == 1 + 4 * (NUMBER - 1)
        (line,) = [line for line in (folder / "rejected.csv").read_text().splitlines() if "phantom_002.png" in line]
        assert "cut off" in line
        assert medpixcl(*command, "--continue") == 3, "what is left to do is no success"
        assert "1 image(s) could not be searched" in capsys.readouterr().err


def test_the_run_file_holds_no_folders(data: Path, undisturbed: Path) -> None:
    text = (undisturbed / "run.json").read_text()
    assert str(data) not in text
    assert data.name not in text
    options = json.loads(text)["options"]
    assert options["template"] == ["template.png"]
    assert options["weights"] == "weights_0.pt"
    assert "formats" not in options, "it was not typed"


def part(number: int, of: int = 3) -> tuple[str, ...]:
    return ("--num-parts", str(of), "--part-id", str(number))


def test_parts_give_the_files_of_one_run(
    data: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three processes that know nothing of each other, one of them interrupted; a fourth puts their parts together."""
    output = tmp_path / "out"
    assert medpixcl(*words(data, output, *part(0))) == 0
    said = capsys.readouterr().out
    assert "2 images searched" in said
    assert "part 0 of 3 is kept" in said
    assert "lacks parts 1, 2 of 3, not begun or not finished; search with --part-id 1 first" in refused(
        capsys, *words(data, output, "--num-parts", 3)
    )
    for otherwise in ((), ("--num-parts", 2), part(0, of=4)):
        assert "parts holds parts of a run in 3 parts; give --num-parts 3 to go on with it" in refused(
            capsys, *words(data, output, *otherwise)
        )
    with signal_after(1, output / "parts" / "1-of-3", signal.SIGTERM):
        assert medpixcl(*words(data, output, *part(1))) == 143
    assert medpixcl(*words(data, output, *part(2))) == 0
    assert "lacks part 1 of 3" in refused(capsys, *words(data, output, "--num-parts", 3))
    assert medpixcl(*words(data, output, *part(1), "--continue")) == 0
    assert not (output / "landmarks.csv").exists()
    other = refused(capsys, *words(data, output, "--num-parts", 3, weights=1))
    assert "part 0 in" in other
    assert "was made with other weights (weights weights_0.pt then, weights_1.pt now) than this run" in other
    resized = words(data, output, "--num-parts", 3)
    resized[resized.index("--spacing-mm") + 1] = "0.25"
    other = refused(capsys, *resized)
    assert "was made with other templates and other images (spacing_mm 0.5 then, 0.25 now) than this run" in other
    (output / "parts" / "1-of-3" / "notes.txt").write_text("mine")
    lines = output / "parts" / "0-of-3" / "run.jsonl"
    kept = lines.read_bytes()
    lines.write_bytes(b"")
    assert "has lost the landmarks of 2 image(s); search it again with --overwrite" in refused(
        capsys, *words(data, output, "--num-parts", 3, "--continue")
    )
    lines.write_bytes(kept)
    assert medpixcl(*words(data, output, "--num-parts", 3, "--continue")) == 0
    assert "parts also holds what no part of this run wrote: it stays" in capsys.readouterr().out
    assert (output / "parts" / "1-of-3" / "notes.txt").read_text() == "mine"
    shutil.rmtree(output / "parts")
    assert_equal(output, undisturbed)
    for more in (("--num-parts", 3), part(1)):  # a job that is queued again
        assert medpixcl(*words(data, output, *more, "--continue")) == 0
        assert "is finished, and nothing is left to do" in capsys.readouterr().out
    assert "holds a run already; give another folder" in refused(capsys, *words(data, output, *part(0)))


def test_a_link_is_not_written_through(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    folder = tmp_path / "out" / "parts" / "0-of-2"
    folder.mkdir(parents=True)
    (folder / "run.jsonl").symlink_to(tmp_path / "mine.txt")
    assert "run.jsonl is a link" in refused(capsys, *words(data, tmp_path / "out", *part(0, of=2)))
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_parts_with_images_that_fail(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part may have no image that can be searched, or none at all."""
    copy, output, whole = tmp_path / "data", tmp_path / "out", tmp_path / "whole"
    shutil.copytree(data, copy)
    manifest = copy / "images.json"
    assert medpixcl("scan", copy / "images", "-o", manifest, "--spacing-mm", 0.5) == 0
    picture = copy / "images" / "phantom_002.png"
    picture.write_bytes(picture.read_bytes()[:200])

    def listed(folder: Path, *more: object) -> list[str]:
        given = words(copy, folder, *BARE, *more)
        given[given.index("--images") + 1] = str(manifest)
        return given

    assert [medpixcl(*listed(output, *part(number, of=6))) for number in range(6)] == [0, 3, 0, 0, 0, 0]
    capsys.readouterr()
    assert medpixcl(*listed(output, *part(1, of=6), "--continue")) == 3
    assert "1 image(s) could not be searched; mend them and give --overwrite" in capsys.readouterr().err
    assert medpixcl(*listed(output, "--num-parts", 6)) == 3
    assert medpixcl(*listed(whole)) == 3
    assert_equal(output, whole)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--part-id", 0), "--part-id 0 is no part: their number is unknown; give --num-parts"),
        (("--num-parts", 2, "--part-id", 2), "--part-id 2 is no part: there are 2 parts, counted from 0"),
        (("--workers", 1, "--scheduler", "tcp://localhost:1"), "give one of them"),
    ],
)
def test_parts_that_cannot_be(
    more: tuple[object, ...], said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, *words(data, tmp_path / "out", *more))
    assert not (tmp_path / "out").exists()


def test_dask_workers_give_the_files_of_one_run(
    data: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two workers is killed in the middle; an image that fails is listed as in a run of one process."""
    output = tmp_path / "out"
    with two_workers(tmp_path / "dask", ["medpixcl.apps.match"]) as address:
        with one_killed(address, lambda: images_done(output) >= 1):
            assert medpixcl(*words(data, output, "--scheduler", address)) == 0
        assert_equal(output, undisturbed)
        copy = tmp_path / "data"
        shutil.copytree(data, copy)
        manifest = copy / "images.json"
        assert medpixcl("scan", copy / "images", "-o", manifest, "--spacing-mm", 0.5) == 0
        picture = copy / "images" / "phantom_002.png"
        picture.write_bytes(picture.read_bytes()[:200])
        command = words(copy, tmp_path / "failed", *BARE, "--scheduler", address)
        command[command.index("--images") + 1] = str(manifest)
        assert medpixcl(*command) == 3
        (line,) = [one for one in (tmp_path / "failed" / "rejected.csv").read_text().splitlines() if "phantom_" in one]
        assert "cut off" in line
    sentence = refused(capsys, *words(data, tmp_path / "late", "--scheduler", address))
    assert address in sentence
    assert sentence.count("the Dask scheduler") == 1


@pytest.mark.slow
def test_workers_of_this_machine(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Ctrl-C, which reaches them all, ends them without a word of theirs."""
    output = tmp_path / "out"
    command = [sys.executable, "-m", "medpixcl", *words(data, output, "--workers", 2, "--continue")]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        wait_for(lambda: images_done(output) >= 1)
        os.killpg(run.pid, signal.SIGINT)
        said = run.communicate(timeout=120)[1]
    assert run.returncode == 130
    assert "Traceback" not in said
    subprocess.run(command, env=environment(), check=True, timeout=300)
    assert_equal(output, undisturbed)
