"""One training on two manifests: what each contributes, over the command line and over a resume."""

import json
from collections import Counter
from pathlib import Path

import pytest

from medpixcl.apps.bundles import run_bundle
from tests.tiny import PRETRAINING, assert_identical, checkpoint, medpixcl, write_config, write_manifest

pytestmark = pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning")


@pytest.fixture
def manifests(tmp_path: Path) -> list[Path]:
    """Seven images and three, of another size; two and one of them are held out."""
    return [
        write_manifest(tmp_path / "many", number=7),
        write_manifest(tmp_path / "few", number=3, shape=(40, 44)),
    ]


def words(manifests: list[Path], config: Path, output: Path) -> list[object]:
    data = [word for manifest in manifests for word in ("--data", manifest)]
    return ["pretrain", PRETRAINING, *data, "-o", output, "--trust", "--config", config]


def test_on_the_command_line(manifests: list[Path], tmp_path: Path) -> None:
    """Seven training images, hence four of each manifest, in two steps an epoch; resumed it ends the same."""
    config = write_config(tmp_path / "tiny.json", val_fraction=0.25, batch_size=4, max_epochs=2)
    assert medpixcl(*words(manifests, config, tmp_path / "whole")) == 0
    state = checkpoint(tmp_path / "whole")
    assert (state["epoch"], state["iteration"]) == (2, 4)

    stop = write_config(
        tmp_path / "stop.json",
        val_fraction=0.25,
        batch_size=4,
        max_epochs=2,
        imports=["$import ignite"],
        **{
            "+initialize": [
                "$@train::trainer.add_event_handler(ignite.engine.Events.EPOCH_STARTED(once=2), lambda: 1 / 0)"
            ]
        },
    )
    with pytest.raises(ZeroDivisionError):
        medpixcl(*words(manifests, stop, tmp_path / "parts"))
    assert checkpoint(tmp_path / "parts")["epoch"] == 1
    assert medpixcl(*words(manifests, config, tmp_path / "parts")) == 0
    assert_identical(checkpoint(tmp_path / "parts"), state)


@pytest.mark.parametrize(("balance", "expected"), [(True, {"many": 4, "few": 4}), (False, {"many": 5, "few": 2})])
def test_images_of_each(balance: bool, expected: dict[str, int], manifests: list[Path], tmp_path: Path) -> None:
    config = write_config(tmp_path / "tiny.json", val_fraction=0.25, max_epochs=1, balance=balance)
    overrides = {"data_list_file_path": list(map(str, manifests)), "output_dir": str(tmp_path / "run")}
    overrides["ckpt_dir"] = str(tmp_path / "run" / "models")
    workflow = run_bundle(PRETRAINING, "train", overrides, extra_configs=[config])
    keys = list(workflow.parser.get_parsed_content("train::sampler"))
    split = workflow.parser.get_parsed_content("split")
    folders = [Path(split["training"][index % 7]["image"]).parents[1].name for _, index in keys]
    assert Counter(folders) == expected
    held = Counter(Path(item["image"]).parents[1].name for item in split["validation"])
    assert held == {"many": 2, "few": 1}


def test_one_without_spacing(manifests: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads(manifests[1].read_text())
    for entry in content["training"]:
        entry["spacing_mm"] = None
    manifests[1].write_text(json.dumps(content))
    config = write_config(tmp_path / "tiny.json")
    assert medpixcl(*words(manifests, config, tmp_path / "run")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith("has no pixel spacing; give --spacing-mm.")
    assert "few" in error
