"""Find images that are repeats of each other, by their content.

A repeat is the same picture again: the same file, or the same values, or the same film saved with another contrast,
compression or size. Two exposures of one patient or two neighbouring slices are not repeats; two breathing phases of
one CT look alike enough to count as such. A picture that was cropped, shifted, turned or mirrored is not recognised.

Every image becomes two small unit vectors: an overview (32 x 32, mean removed) that finds candidates, and a detail
(64 x 64, local mean removed) that decides. Its limit lies between what was measured on 976 radiographs, CT slices and
photographs, repeats looked at one by one: 0.963 and above for the 25 repeats, 0.868 and below for all other pairs.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

OVERVIEW_LIMIT = 0.9
DETAIL_LIMIT = 0.92
_OVERVIEW, _DETAIL, _LOCAL = 32, 64, 9
_CHUNK = 1024


@dataclass(frozen=True)
class Fingerprint:
    """Summary of one image by which its repeats are found.

    Attributes:
        digest: SHA-256 of shape and values.
        overview: Unit vector of the small picture; zero for a constant image.
        detail: Unit vector of the larger picture without its local mean.
    """

    digest: str
    overview: Float[Tensor, " n"]
    detail: Float[Tensor, " m"]


def image_fingerprint(values: Float32[np.ndarray, "*s"]) -> Fingerprint:
    """Compute the fingerprint of a picture, or of a volume's three middle slices.

    Args:
        values: Image of shape (rows, columns) or (i, j, k).
    """
    planes = [values]
    if values.ndim == 3:
        planes = [values.take(size // 2, axis=axis) for axis, size in enumerate(values.shape)]
    pictures = [torch.from_numpy(np.ascontiguousarray(plane))[None, None] for plane in planes]
    overview = [F.adaptive_avg_pool2d(picture, _OVERVIEW) for picture in pictures]
    detail = [_without_local_mean(F.adaptive_avg_pool2d(picture, _DETAIL)) for picture in pictures]
    content = hashlib.sha256(repr(values.shape).encode())
    content.update(np.ascontiguousarray(values).tobytes())
    return Fingerprint(content.hexdigest(), _unit(overview), _unit(detail))


def duplicate_groups(prints: Sequence[Fingerprint], *, declared: Iterable[tuple[int, int]] = ()) -> list[str | None]:
    """Name the group of every image that has a repeat.

    Args:
        prints: Fingerprint of each image.
        declared: Pairs of indices of images that are known to be repeats.

    Returns:
        ``repeat-001``, ... in order of first appearance; None for an image without repeat.
    """
    leader = list(range(len(prints)))

    def find(index: int) -> int:
        while leader[index] != index:
            index = leader[index]
        return index

    for first, second in [*declared, *_equal_pairs(prints), *_similar_pairs(prints)]:
        low, high = sorted((find(first), find(second)))
        leader[high] = low
    roots = [find(index) for index in range(len(prints))]
    repeated = [root for root, members in Counter(roots).items() if members > 1]
    names = {root: f"repeat-{number:03d}" for number, root in enumerate(repeated, start=1)}
    return [names.get(root) for root in roots]


def _equal_pairs(prints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    first: dict[str, int] = {}
    return [(seen, index) for index, one in enumerate(prints) if (seen := first.setdefault(one.digest, index)) < index]


def _similar_pairs(prints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Pairs above both limits; pictures are compared with pictures, volumes with volumes."""
    pairs = []
    for length in {len(one.overview) for one in prints}:
        members = [index for index, one in enumerate(prints) if len(one.overview) == length]
        overviews = torch.stack([prints[index].overview for index in members])
        for start in range(0, len(members), _CHUNK):
            alike = overviews[start : start + _CHUNK] @ overviews.T > OVERVIEW_LIMIT
            for row, column in alike.triu(diagonal=start + 1).nonzero().tolist():
                pair = members[start + row], members[column]
                if float(prints[pair[0]].detail @ prints[pair[1]].detail) > DETAIL_LIMIT:
                    pairs.append(pair)
    return pairs


def _without_local_mean(picture: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    margin = _LOCAL // 2
    padded = F.pad(picture, (margin, margin, margin, margin), mode="replicate")
    return picture - F.avg_pool2d(padded, _LOCAL, stride=1)


def _unit(pictures: Sequence[Float[Tensor, "1 1 h w"]]) -> Float[Tensor, " n"]:
    """Mean removed from each picture and scaled to unit length, so that each counts the same; joined to unit length."""
    parts = [F.normalize((picture - picture.mean()).flatten(), dim=0) for picture in pictures]
    return torch.cat(parts) / len(parts) ** 0.5
