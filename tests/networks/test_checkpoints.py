"""Files of tensors are whole or refused: flipped bits, NaN and infinity, other files in the place of shipped ones."""

import hashlib
import random
import zipfile
from pathlib import Path

import pytest
import torch

from medpixcl.networks.checkpoints import SUMS, read_checkpoint, shipped_digests, write_checkpoint
from medpixcl.networks.weights import read_state_dict
from tests.tiny import ROOT, assert_identical

STATE = {"0.weight": torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), "0.bias": torch.ones(40)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "model.pt", STATE)
    return tmp_path / "model.pt"


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=path.name) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read_again(path: Path) -> None:
    assert_identical(read_checkpoint(path), STATE)
    assert [one.name for one in path.parent.iterdir()] == ["model.pt"]


def test_flipped_bits_are_refused_or_without_effect(path: Path) -> None:
    """Every byte of the weights and of their description is covered; of the rest, some say nothing, such as dates."""
    whole, chosen = path.read_bytes(), random.Random(0)
    start = whole.index(STATE["0.weight"].numpy().tobytes())
    in_weights = [chosen.randrange(start, start + 4 * 320) for _ in range(150)]
    anywhere = [chosen.randrange(len(whole)) for _ in range(250)]
    accepted = 0
    for number, place in enumerate(in_weights + anywhere):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chosen.randrange(8)
        path.write_bytes(damaged)
        if number < len(in_weights):
            refusal(path)
            continue
        try:
            found = read_state_dict(path)
        except ValueError:
            refusal(path)
        else:
            assert_identical(found, STATE)
            accepted += 1
    assert accepted < len(anywhere)


def test_message_of_a_wrong_checksum(path: Path) -> None:
    whole = path.read_bytes()
    place = whole.index(STATE["0.weight"].numpy().tobytes())
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert "model.pt is damaged: the checksum (CRC-32) of archive/data/0 in it is wrong" in refusal(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.complex64])
def test_values_that_are_not_finite(path: Path, value: float, kind: torch.dtype) -> None:
    wrong = STATE["0.weight"].to(kind, copy=True)
    wrong[3, 5] = value
    torch.save(STATE | {"0.weight": wrong, "steps": torch.tensor(3)}, path)
    assert "1 of 320 values of 0.weight are NaN or infinite; give weights of another training" in refusal(path)


def test_compressed_archives(path: Path) -> None:
    """Nothing that `torch.save` writes is compressed; what is may claim any size."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(path.with_name("z.pt"), "w", zipfile.ZIP_DEFLATED) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    assert "archive/data.pkl in it is compressed" in refusal(path.with_name("z.pt"))


def test_files_of_the_old_format(path: Path) -> None:
    """Before PyTorch 1.6 no file had checksums; it is read."""
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    assert_identical(dict(read_state_dict(path)), STATE)


def test_list_of_shipped_weights_is_complete_and_right() -> None:
    """Make it anew by `cd bundles && sha256sum */models/*.pt > weights.sha256`."""
    files = sorted((ROOT / "bundles").glob("*/models/*.pt"))
    found = {
        one.relative_to(ROOT / "bundles").as_posix(): hashlib.sha256(one.read_bytes()).hexdigest() for one in files
    }
    assert shipped_digests(ROOT / "bundles" / SUMS) == found
    assert found


def test_other_weights_in_the_place_of_shipped_ones(path: Path, tmp_path: Path) -> None:
    """Whole and finite, but not those that were shipped; elsewhere they may be read."""
    models = tmp_path / "bundles" / "matching" / "models"
    models.mkdir(parents=True)
    shipped = path.rename(models / "model.pt")
    digest = hashlib.sha256(shipped.read_bytes()).hexdigest()
    (tmp_path / "bundles" / SUMS).write_text(f"{digest}  matching/models/model.pt\n")
    assert_identical(read_state_dict(shipped), STATE)
    write_checkpoint(shipped, STATE | {"0.bias": torch.zeros(40)})
    assert "is not the file that was shipped: its SHA-256 is" in refusal(shipped)
    write_checkpoint(models / "mine.pt", STATE | {"0.bias": torch.zeros(40)})
    assert read_state_dict(models / "mine.pt")["0.bias"].sum() == 0
