"""Classification of whole images in MONAI's engines: what is measured, and the predictions in a table."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from ignite.metrics import EpochMetric
from jaxtyping import Float, Int
from monai.data import decollate_batch
from monai.metrics import calibration_binning, compute_roc_auc
from torch import Tensor
from torch.nn import functional as F

from medpixcl.engines.image_list import ImageList

BINS = 15


def area_under_curve(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Mean over the classes of the area under the ROC curve of one against the rest; NaN where a class is absent."""
    truth = F.one_hot(labels, probabilities.shape[1])
    if bool((truth.sum(0) == 0).any()):
        return float("nan")
    return float(compute_roc_auc(probabilities, truth, average="macro"))


def expected_calibration_error(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = BINS
) -> float:
    """Mean difference between how sure the predictions are and how often they are right, over equally wide bins.

    Reference: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.

    Example:
        >>> import torch
        >>> sure = torch.tensor([[0.75, 0.25], [0.75, 0.25]])
        >>> expected_calibration_error(sure, torch.tensor([0, 1]), bins=1)
        0.25
    """
    sure, chosen = probabilities.max(dim=1)
    right = (chosen == labels).to(sure)
    said, true, counts = (values[0, 0] for values in calibration_binning(sure[None, None], right[None, None], bins))
    return float((said - true).abs().mul(counts).nansum() / counts.sum())


def scores(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> dict[str, float]:
    """``auc``, ``accuracy``, ``ece`` and ``cross_entropy`` of predictions."""
    return {
        "auc": area_under_curve(probabilities, labels),
        "accuracy": float((probabilities.argmax(1) == labels).float().mean()),
        "ece": expected_calibration_error(probabilities, labels),
        "cross_entropy": float(F.nll_loss(probabilities.clamp_min(1e-12).log(), labels)),
    }


class ClassificationScore(EpochMetric):
    """One of the :func:`scores` over all images.

    Args:
        name: Which.
        output_transform: From the engine's output to (logits, labels); MONAI's ``from_engine(["pred", "label"])``.
    """

    def __init__(self, name: str, output_transform: Callable = lambda output: output) -> None:
        super().__init__(
            lambda logits, labels: scores(logits.softmax(1), labels.long())[name],
            output_transform=output_transform,
            check_compute_fn=False,
        )


class PredictionWriter:
    """Writes ``predictions.csv``: image, class, probability of every class.

    Args:
        images: The images that the evaluator runs over.
        class_names: In the order of the logits.
        output_dir: Folder of the result.
    """

    def __init__(self, images: ImageList, class_names: Sequence[str], output_dir: str) -> None:
        self.images, self.class_names, self.output_dir = images, list(class_names), Path(output_dir)
        self.rows: list[list[Any]] = []

    def attach(self, engine: Engine) -> None:
        """Collect, and write at the end."""
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
        self.output_dir.mkdir(parents=True, exist_ok=True)
        with (self.output_dir / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["image", "class", *self.class_names], *self.rows])
