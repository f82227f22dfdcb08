"""Write the predictions of a classifier into a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.data import decollate_batch

from medpixcl.apps.images import ImageList
from medpixcl.data.tables import write_csv


class PredictionWriter:
    """Writes ``predictions.csv``: image, class, probability of every class.

    Args:
        images: The images that the evaluator runs over.
        class_names: Names of the classes, in the order of the logits.
        output_dir: Folder of the result.
    """

    def __init__(self, images: ImageList, class_names: Sequence[str], output_dir: str) -> None:
        self.images, self.class_names, self.output_dir = images, list(class_names), Path(output_dir)
        self.rows: list[list[Any]] = []

    def attach(self, engine: Engine) -> None:
        """Collect predictions in every iteration, and write them at the end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def __call__(self, engine: Engine) -> None:
        """Keep the predictions of this iteration."""
        output: Mapping[str, Any] = engine.state.output
        images = decollate_batch(engine.state.batch["image"])
        for image, row in zip(images, output["pred"].float().softmax(1).cpu(), strict=True):
            name = self.images.name(str(image.meta["filename_or_obj"]))
            self.rows.append([name, self.class_names[int(row.argmax())], *(f"{value:.4f}" for value in row.tolist())])

    def write(self, engine: Engine) -> None:
        """Write the table."""
        write_csv(self.output_dir / "predictions.csv", [["image", "class", *self.class_names], *self.rows])
