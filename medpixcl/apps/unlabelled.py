"""Unlabelled images from which matching learns the landmarks' appearance before it starts."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from tqdm import tqdm

from medpixcl.apps.digests import path_digest, value_digest
from medpixcl.apps.images import SHOWN, ImageList, Images
from medpixcl.coordinates import spacing_of, working_affine
from medpixcl.data.datalist import files_of, without_files
from medpixcl.limits import regular_file
from medpixcl.matching import LandmarkMatcher, Population
from medpixcl.networks.checkpoints import NotACheckpointError, check_finite, read_checkpoint, write_checkpoint
from medpixcl.networks.weights import weights_digest

SUFFIX = ".pt"
"""Suffix of a file with a learnt population."""
KEYS = {"names", "network", "vectors", "around", "weights", "images", "cell_mm"}

Prepare = Callable[[dict[str, Any]], dict[str, Any]]
"""Function from an item of a datalist to its prepared image."""


class UnlabelledImages:
    """Source of a population: images to learn from, or the file of one learnt before.

    Args:
        path: Folder or manifest of images, or a ``population.pt``; None learns nothing.
        limit: Maximum number of images, drawn at random; None takes all.
        spacing_mm: Pixel size in mm of images whose file does not state it.
        exclude: Images to leave out: the templates.
        spatial_dims: Number of spatial dimensions; images of any other dimension are rejected.
        seed: Random seed for drawing the images.
    """

    def __init__(
        self,
        path: str | None,
        *,
        limit: int | None = None,
        spacing_mm: Sequence[float] | float | None = None,
        exclude: str | Sequence[str] = (),
        spatial_dims: int | None = None,
        seed: int = 0,
    ) -> None:
        if limit is not None and not (isinstance(limit, int) and limit >= 1):
            raise ValueError(f"the limit of unlabelled images is {limit!r}; expected a whole number from 1 up, or None")
        if not isinstance(seed, int):
            raise ValueError(f"the random seed is {seed!r}; expected a whole number")
        self.path = None if path is None else Path(path)
        self.limit, self.seed = limit, seed
        self.left_out = {Path(one).resolve() for one in ([exclude] if isinstance(exclude, str) else exclude)}
        self.images = ImageList(path or "", spacing_mm, exclude, spatial_dims)
        self.items: list[dict[str, Any]] = []

    @property
    def _learnt_before(self) -> bool:
        return self.path is not None and self.path.suffix == SUFFIX

    @property
    def rejected(self) -> dict[str, str]:
        """Reason for every file that cannot be learnt from."""
        return {} if self.path is None or self._learnt_before else self.images.rejected

    def check(self, names: Sequence[str]) -> None:
        """Find the images, or check the file.

        Args:
            names: Names of the template's landmarks.

        Raises:
            ValueError: If there is no image besides the template, or the file does not fit.
        """
        if self._learnt_before:
            read_population(str(self.path), names)
        elif self.path is not None:
            self.items = self._drawn()

    def adapt(
        self, matcher: LandmarkMatcher, network: nn.Module, prepare: Prepare, names: Sequence[str]
    ) -> Population | None:
        """Adapt a matcher that was fitted to the template.

        Args:
            matcher: Matcher to adapt in place.
            network: Embedding network of the matcher.
            prepare: Transforms that prepare an image.
            names: Names of the template's landmarks.

        Returns:
            The learnt population; None without a path.

        Raises:
            ValueError: If the file was learnt with other weights, or does not fit the template.
        """
        if self.path is None:
            return None
        if self._learnt_before:
            population = read_population(str(self.path), names, network)
        else:
            population = matcher.learn(self._prepared(prepare))
        matcher.adapt(population)
        return population

    def digest(self) -> str:
        """Digest of what is learnt from: the images and how they are drawn, or the file; empty without a path."""
        return path_digest(self.path) if self._learnt_before else self._drawn_digest()

    def facts(self, population: Population, searched: Images) -> dict[str, str]:
        """Facts for the report: number of images learnt from, and how many of them are also searched."""
        if self._learnt_before:
            return {"unlabelled": f"learnt before, from {population.images} images"}
        ours, theirs = (
            files_of(item for item in items if not isinstance(item["image"], MetaTensor))
            for items in (self.items, searched.datalist)
        )
        both = len(ours & theirs)
        shared = f"; {both} of them are matched here too (transductive)" if both else ""
        return {"unlabelled": f"learnt from {population.images} images{shared}"}

    def _drawn_digest(self) -> str:
        return "" if self.path is None else value_digest(self.images.digest(), self.limit, self.seed)

    def _drawn(self) -> list[dict[str, Any]]:
        items = without_files(self.images.datalist, self.left_out)
        if not items:
            reasons = [f"{name} {reason.rstrip('.')}" for name, reason in self.rejected.items()][:SHOWN]
            why = f" (rejected: {'; '.join(reasons)})" if reasons else ""
            raise ValueError(
                f"{self.path} holds no image to learn from beside the template{why}; give a folder or manifest with "
                "unlabelled images"
            )
        order = torch.randperm(len(items), generator=torch.Generator().manual_seed(self.seed))[: self.limit]
        return [items[number] for number in order.tolist()]

    def _prepared(self, prepare: Prepare) -> Iterator[tuple[Tensor, list[int], list[float]]]:
        for item in tqdm(self.items, desc="learning", unit="image", leave=False, disable=None):
            image: MetaTensor = prepare(item)["image"]
            affine = working_affine(image)
            yield image.as_tensor()[None], list(image.shape[1:]), spacing_of(affine).tolist()


def write_population(path: Path, population: Population, names: Sequence[str], network: nn.Module) -> None:
    """Write a population with its landmark names and the network's digest; the file holds no image data."""
    content = {
        "names": list(names),
        "network": weights_digest(network),
        "vectors": [rows.cpu() for rows in population.vectors],
        "around": [rows.cpu() for rows in population.around],
        "weights": population.weights.cpu(),
        "images": population.images,
        "cell_mm": population.cell_mm,
    }
    write_checkpoint(path, content)


def read_population(path: str, names: Sequence[str], network: nn.Module | None = None) -> Population:
    """Read a population from its file, in the order of the given landmarks.

    Raises:
        ValueError: If the file is not a population, lacks a landmark, or was learnt with other weights.
    """
    content = _content(path)
    known = list(content["names"])
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"{path} has no landmark {unknown[0]!r}: learn it again with this template")
    if network is not None and content["network"] != weights_digest(network):
        raise ValueError(f"{path} was learnt with other weights: learn it again with these")
    order = [known.index(name) for name in names]
    return Population(
        vectors=tuple(rows[order] for rows in content["vectors"]),
        around=tuple(rows[order] for rows in content["around"]),
        weights=content["weights"][order],
        images=content["images"],
        cell_mm=content["cell_mm"],
    )


def _content(path: str) -> dict[str, Any]:
    if not regular_file(path).is_file():
        raise ValueError(f"no population at {path}: give the population.pt of an earlier run, or a folder of images")
    try:
        content = read_checkpoint(path)
    except NotACheckpointError:
        content = None
    if not isinstance(content, dict) or content.keys() != KEYS or not _fits(**content):
        raise ValueError(f"{path} is no population: give the population.pt of an earlier run")
    several = {kind: content[kind] for kind in ("vectors", "around")}
    tensors = {f"{kind}, level {level}": rows for kind in several for level, rows in enumerate(several[kind])}
    check_finite(path, tensors | {"weights": content["weights"]})
    return content


def _fits(names: Any, network: Any, vectors: Any, around: Any, weights: Any, images: Any, cell_mm: Any) -> bool:
    """Whether the parts of a population have the types and the shapes that :func:`write_population` gives them."""
    return (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and isinstance(network, str)
        and isinstance(images, int)
        and isinstance(cell_mm, float)
        and cell_mm > 0
        and isinstance(vectors, list)
        and isinstance(around, list)
        and len(vectors) == len(around) > 0
        and all(_is_rows(one, len(names), 2) for one in vectors)
        and all(_is_rows(one, len(names), 3) for one in around)
        and _is_rows(weights, len(names), 1)
    )


def _is_rows(value: Any, rows: int, dims: int) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim == dims and len(value) == rows
