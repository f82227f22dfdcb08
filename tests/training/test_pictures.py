"""What a training leaves for TensorBoard, read back with TensorBoard's own reader."""

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.training.pictures import MatchedViewsPictures
from tests.tiny import pretrain, write_manifest

pytestmark = pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning")


def test_curves_and_pictures_of_a_training(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    workflow = pretrain(manifest, tmp_path / "run", max_epochs=2, val_interval=2, pictures=True)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    steps = {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    similar = {tag for tag in steps if tag.startswith("positive_similarity/")}
    assert all(steps.pop(tag) == [2] for tag in similar)
    assert steps == {
        "train_loss": [1, 2, 3, 4],
        "learning_rate": [1, 2, 3, 4],
        "val_pixel_error": [2],
        "val_pck_3px": [2],
    }
    metrics = workflow.parser.get_parsed_content("validate::evaluator").state.metrics
    assert events.Scalars("val_pixel_error")[0].value == pytest.approx(metrics["val_pixel_error"])
    loss = workflow.parser.get_parsed_content("train::trainer").state.output["loss"].item()
    assert events.Scalars("train_loss")[-1].value == pytest.approx(loss)
    for tag in ("validation/matched_views", "validation/similarity"):
        (image,) = events.Images(tag)
        assert image.step == 2
        assert image.encoded_image_string.startswith(b"\x89PNG")
        assert image.width > image.height > 100


def test_without_a_validation_nothing_is_drawn(tmp_path: Path) -> None:
    pictures = MatchedViewsPictures(str(tmp_path), [1, 2])
    engine = Engine(lambda engine, batch: None)
    pictures.draw(engine)
    assert list(tmp_path.iterdir()) == []


def test_similarity_is_the_cosine_to_every_cell(tmp_path: Path) -> None:
    """One level of one-hot vectors: a pixel is like its own cell (1) and like no other (0)."""
    level = torch.eye(6).view(1, 6, 2, 3)
    pictures = MatchedViewsPictures(str(tmp_path), [2])
    maps = pictures._similarity([[level], [level]], torch.tensor([[2.5, 4.5], [0.5, 0.5]]))
    assert maps.shape == (2, 2, 3)
    torch.testing.assert_close(maps.flatten(1), torch.eye(6)[[5, 0]])
