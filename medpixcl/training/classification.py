"""Metrics for classification of whole images in MONAI's engines."""

from collections.abc import Callable

from ignite.metrics import EpochMetric
from jaxtyping import Float, Int
from monai.metrics import calibration_binning, compute_roc_auc
from torch import Tensor
from torch.nn import functional as F

_BINS = 15


def area_under_curve(probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"]) -> float:
    """Area under the ROC curve of each class against the rest, mean over the classes; NaN if a class is absent."""
    truth = F.one_hot(labels, probabilities.shape[1])
    if bool((truth.sum(0) == 0).any()):
        return float("nan")
    return float(compute_roc_auc(probabilities, truth, average="macro"))


def expected_calibration_error(
    probabilities: Float[Tensor, "n k"], labels: Int[Tensor, " n"], bins: int = _BINS
) -> float:
    """Mean difference between confidence and accuracy of the predictions, over bins of equal width.

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
    """Ignite metric for one of the :func:`scores` over all images.

    Args:
        name: Name of the score.
        output_transform: Function from the engine's output to (logits, labels), such as MONAI's
            ``from_engine(["pred", "label"])``.
    """

    def __init__(self, name: str, output_transform: Callable = lambda output: output) -> None:
        super().__init__(
            lambda logits, labels: scores(logits.softmax(1), labels.long())[name],
            output_transform=output_transform,
            check_compute_fn=False,
        )
