"""Estimate without labels how strongly brightness and contrast may change per informativeness class.

The mutual information of two patches of the same anatomy in different people serves as the threshold: a patch may be
changed as long as its mutual information with the unchanged patch stays at least that high.

Reference: Quan et al., arXiv 2211.07118, section on the estimation of the augmentation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.apps.patches import PatchPairs
from medpixcl.mutual_information import count_vector_mutual_information, joint_mutual_information
from medpixcl.transforms.intensity import CLASS_NAMES

BRIGHTNESS_STEP, CONTRAST_STEP = 0.03, 0.04
STEPS_DOWN, STEPS_UP = 24, 100
"""Limits of the search in steps: brightness 0.28 and contrast 0.04 downwards, 4 and 5 upwards."""
BINS = {"joint": 32, "counts": 256}
"""Number of grey levels between 0 and 1: as for the informativeness, and as in the original code."""
PATCHES_AT_ONCE = 16

Information = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ClassJitter:
    """Estimate for one informativeness class.

    Attributes:
        name: ``low``, ``medium`` or ``high``.
        mean: Mean mutual information of corresponding patches, in nats.
        deviation: Standard deviation of the mutual information between the pairs, in nats.
        number: Number of patch pairs.
        threshold: Mutual information that a changed patch must keep.
        brightness: Smallest and largest factor of brightness, mean over the patches.
        contrast: Smallest and largest factor of contrast, mean over the patches.
        at_limit: Share of the patches that stayed above the threshold to the end of the search, down and up.
    """

    name: str
    mean: float
    deviation: float
    number: int
    threshold: float
    brightness: tuple[float, float]
    contrast: tuple[float, float]
    at_limit: tuple[float, float]


def change_intensity(patches: Float[Tensor, " n *s"], brightness: float, contrast: float) -> Float[Tensor, " n *s"]:
    """``clip(((x - m) * contrast + m) * brightness, 0, 1)`` with m the mean of each patch.

    Same operation as :class:`medpixcl.transforms.intensity.Intensity` on a whole view.

    Example:
        >>> change_intensity(torch.tensor([[0.2, 0.6]]), 1.0, 3.0)
        tensor([[0., 1.]])
    """
    mean = patches.flatten(1).mean(1).view(-1, *[1] * (patches.ndim - 1))
    return ((patches - mean) * contrast + mean).mul_(brightness).clamp_(0, 1)


def strongest_change(
    patches: Float[Tensor, " n *s"], threshold: float, information: Information, *, upwards: bool
) -> Int[Tensor, " n"]:
    """Number of steps by which each patch can be changed before its information falls below the threshold.

    Starting from no change, brightness moves in steps of 0.03 and contrast, jointly, in steps of 0.04. The search
    ends before the first step with less information than the threshold.

    Args:
        patches: Grey levels between 0 and 1, shape (N, *window).
        threshold: Mutual information in nats that a changed patch must keep.
        information: Function from two batches of patches to their mutual information, one value per pair.
        upwards: Increase brightness and contrast if True, decrease them if False.

    Returns:
        Number of steps, shape (N,), at most :data:`STEPS_UP` or :data:`STEPS_DOWN`.
    """
    parts = patches.split(PATCHES_AT_ONCE)  # small enough for the cache
    return torch.cat([_steps_kept(part, threshold, information, upwards) for part in parts])


def _steps_kept(patches: Tensor, threshold: float, information: Information, upwards: bool) -> Int[Tensor, " n"]:
    steps = torch.zeros(len(patches), dtype=torch.long)
    rows = torch.arange(len(patches))
    sign, last = (1, STEPS_UP) if upwards else (-1, STEPS_DOWN)
    for step in range(1, last + 1):
        changed = change_intensity(patches[rows], *_factors(float(sign * step)))
        rows = rows[information(patches[rows], changed) >= threshold]
        if not len(rows):
            break
        steps[rows] = step
    return steps


def _factors(steps: float) -> tuple[float, float]:
    """Factors of brightness and contrast after a number of steps, downwards if negative."""
    return 1 + BRIGHTNESS_STEP * steps, 1 + CONTRAST_STEP * steps


def information_measure(measure: str, bins: int | None = None) -> Information:
    """Mutual information of patches with values between 0 and 1.

    Args:
        measure: ``joint`` compares the grey levels at the same pixels; ``counts``, as in the original code, compares
            the counts of the two histograms.
        bins: Number of grey levels; None takes 32 (``joint``) or 256 (``counts``).

    Raises:
        ValueError: If there is no such measure.
    """
    if measure not in BINS:
        raise ValueError(f"measure is {measure!r}; expected 'joint' or 'counts'.")
    function = joint_mutual_information if measure == "joint" else count_vector_mutual_information
    return partial(function, bins=BINS[measure] if bins is None else bins, value_range=(0, 1))


def estimate_jitter(
    pairs: PatchPairs,
    information: Information,
    *,
    alpha: float = 1.0,
    stop: str = "mean",
    most: int = 200,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ClassJitter]:
    """Estimate ranges of brightness and contrast for each informativeness class.

    Args:
        pairs: Pairs of corresponding patches.
        information: Measure of information, see :func:`information_measure`.
        alpha: Share of the mean information of corresponding patches that a changed patch must keep; 1 in the paper.
        stop: ``mean``: the threshold is ``alpha * mean``. ``mean_minus_sd``: less one standard deviation, as in the
            code of the paper.
        most: Maximum number of patches per class to change; the mean is taken over all.
        progress: Function called with the number of classes done and in total.

    Returns:
        One estimate per class: low, medium, high.

    Raises:
        ValueError: If a class has fewer than two pairs, or an argument is out of range.
    """
    if alpha <= 0 or most < 1:
        raise ValueError(f"alpha is {alpha} and most is {most}; expected positive numbers.")
    if stop not in ("mean", "mean_minus_sd"):
        raise ValueError(f"stop is {stop!r}; expected 'mean' or 'mean_minus_sd'.")
    found = []
    for label, name in enumerate(CLASS_NAMES):
        rows = (pairs.classes == label).nonzero().squeeze(1)
        if len(rows) < 2:
            raise ValueError(
                f"{len(rows)} of {pairs.drawn} pixels drawn are of {name} informativeness and have a mutual match; "
                "expected at least 2 in every class: give more images or pairs, or another network"
            )
        patches = pairs.patches[rows]
        values = information(patches, pairs.partners[rows]).double()
        threshold = alpha * float(values.mean()) - (float(values.std()) if stop == "mean_minus_sd" else 0.0)
        down, up = (strongest_change(patches[:most], threshold, information, upwards=up) for up in (False, True))
        found.append(_summary(name, values, threshold, down, up))
        progress(label + 1, len(CLASS_NAMES))
    return found


def _summary(name: str, values: Tensor, threshold: float, down: Tensor, up: Tensor) -> ClassJitter:
    least, greatest = _factors(-float(down.double().mean())), _factors(float(up.double().mean()))
    ends = float((down == STEPS_DOWN).double().mean()), float((up == STEPS_UP).double().mean())
    return ClassJitter(
        name=name,
        mean=float(values.mean()),
        deviation=float(values.std()),
        number=len(values),
        threshold=threshold,
        brightness=(least[0], greatest[0]),
        contrast=(least[1], greatest[1]),
        at_limit=ends,
    )


def jitter_fragment(
    classes: Sequence[ClassJitter], ranges: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Part of a configuration that sets the changes of intensity of every class.

    Args:
        classes: Estimate for every class.
        ranges: The bundle's own ranges by class name; all except brightness and contrast are kept.
        facts: Settings of the estimate, stored under ``jitter`` for the record; no component reads them.
    """
    fragment: dict[str, Any] = {}
    report: dict[str, Any] = dict(facts)
    for one in classes:
        own = {"brightness": _rounded(one.brightness), "contrast": _rounded(one.contrast)}
        fragment[f"intensity_{one.name}"] = {**ranges[one.name], **own}
        report[one.name] = {
            "information_mean": round(one.mean, 4),
            "information_sd": round(one.deviation, 4),
            "pairs": one.number,
            "threshold": round(one.threshold, 4),
            "share_at_limit": _rounded(one.at_limit),
        }
    return {**fragment, "jitter": report}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in values]
