"""The ISBI 2015 cephalograms for the benchmarks: which images are measured, how they are loaded, where landmarks lie.

``test1`` leaves out the 20 images that repeat a training image, ``published`` has all 150 of it; ``dev`` is 40 training
images that are neither templates nor repeated elsewhere: settings are chosen there.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from medpixcl import Matcher
from medpixcl.coordinates import working_voxels
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.landmarks.metrics import summarise_errors
from medpixcl.matching import LandmarkMatcher
from medpixcl.networks.embedding import LevelsNet
from medpixcl.networks.inferers import EmbeddingModel

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundles" / "xray_landmark_matching"
DATA = Path(os.environ.get("MEDPIXCL_DATA", ROOT.parent / "shared" / "data"))
FILE_SPACING = 0.5
"""Pixel size in mm of the stored pictures."""
TARGETS = ("landmarks", "landmarks_senior", "landmarks_junior")
"""True positions: mean of both readers, senior reader, junior reader."""
TEMPLATES = ("125", "010", "114", "050", "077")
"""Templates of the tables."""
DEV_IMAGES = 40


class Cephalograms:
    """Images and true landmarks at a working spacing, prepared as the matching bundle does.

    Args:
        data: Folder of the data sets.
        spacing_mm: Working spacing.
        target: One of ``TARGETS``.
    """

    def __init__(self, *, data: Path = DATA, spacing_mm: float = 0.5, target: str = "landmarks") -> None:
        self.folder, self.spacing_mm = data / "ceph_isbi2015", spacing_mm
        self.prepare = self.matcher().preprocessing
        self.table = read_landmarks(self.folder / f"{target}.csv")

    def matcher(self, weights: Path | None = None, **settings: Any) -> Matcher:
        """Matcher of the bundle at the working spacing, with its own weights or others."""
        spacing = {"working_spacing_mm": [self.spacing_mm] * 2}
        return Matcher.from_bundle(BUNDLE, weights=weights, settings={**spacing, **settings})

    def path(self, name: str) -> Path:
        """File of an image."""
        return self.folder / "images" / f"{name}.png"

    def load(self, name: str) -> MetaTensor:
        """Image (1, H, W)."""
        return self.prepare({"image": str(self.path(name)), "spacing_mm": FILE_SPACING})["image"]

    def truth(self, name: str, image: MetaTensor) -> Tensor:
        """True voxels (K, 2) of an image that was loaded."""
        affine = torch.as_tensor(image.meta["original_affine"])
        points = self.table.for_image(str(self.path(name)), affine, list(image.meta["spatial_shape"]))
        return working_voxels(points.voxels, image).float()

    def images(self, split: str) -> list[str]:
        """Names of the images of a split: ``train`` (all), ``dev`` (a part of it), ``test1`` or ``published``."""
        with (self.folder / "splits.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        training = {row["id"] for row in rows if row["official_split"] == "train"}
        if split == "published":
            return [row["id"] for row in rows if row["official_split"] == "test1"]
        if split == "test1":
            return [r["id"] for r in rows if r["official_split"] == "test1" and r["duplicate_of"] not in training]
        if split == "train":
            return sorted(training)
        repeated = {row["duplicate_of"] for row in rows}
        free = sorted(training - repeated - set(TEMPLATES))
        return sorted(np.random.default_rng(0).permutation(free)[:DEV_IMAGES].tolist())

    def unlabelled(self, split: str, count: int, templates: Sequence[str]) -> list[str]:
        """Training images to learn from without their labels: no template, and for ``dev`` none that is measured."""
        taken = {*TEMPLATES, *templates, *(self.images("dev") if split == "dev" else [])}
        free = [name for name in self.images("train") if name not in taken]
        return np.random.default_rng(1).permutation(free)[:count].tolist()

    def matching_errors(
        self,
        network: LevelsNet,
        images: Sequence[str],
        templates: Sequence[str],
        *,
        modes: Sequence[str] = ("argmax", "consistent"),
        unlabelled: Sequence[str] = (),
    ) -> dict[str, dict[str, Tensor]]:
        """Errors in mm, by mode and template, shape (images, landmarks).

        A template such as ``125+010`` is a set of annotated images. With unlabelled images, every template's last mode
        learns from them first, and all its modes match with that. They are all in memory, 17 MB each at 0.5 mm.
        """
        embed, spacing = EmbeddingModel(network), [self.spacing_mm, self.spacing_mm]
        matchers = {}
        for name in templates:
            pictures = {one: self.load(one) for one in name.split("+")}
            batches = [picture.as_tensor()[None] for picture in pictures.values()]
            landmarks = [self.truth(one, picture) for one, picture in pictures.items()]
            for mode in modes:
                matchers[mode, name] = LandmarkMatcher(mode=mode).fit(
                    embed, network.strides, batches, landmarks, spacing
                )
        learnt_from = []
        for image in unlabelled:
            picture = self.load(image)
            learnt_from.append((embed(picture.as_tensor()[None]), picture.shape[1:], spacing))
        for name in templates if learnt_from else ():
            population = matchers[modes[-1], name].learn(learnt_from)
            for mode in modes:
                matchers[mode, name].adapt(population)
        errors: dict[str, dict[str, list[Tensor]]] = {}
        for image in images:
            picture = self.load(image)
            levels, true = embed(picture.as_tensor()[None]), self.truth(image, picture)
            for (mode, name), matcher in matchers.items():
                found = matcher.match(levels, picture.shape[1:], spacing).voxels
                distance = torch.linalg.vector_norm(found - true, dim=1) * self.spacing_mm
                errors.setdefault(mode, {}).setdefault(name, []).append(distance)
        return {mode: {name: torch.stack(rows) for name, rows in rows_of.items()} for mode, rows_of in errors.items()}


def summaries(errors: Mapping[str, Tensor]) -> dict[str, dict]:
    """MRE, SDR and the rest for every template."""
    return {
        name: summarise_errors(rows, [str(number + 1) for number in range(rows.shape[1])])
        for name, rows in errors.items()
    }


def one_line(rows: Mapping[str, dict]) -> str:
    """MRE / SDR 2 mm of every template, their means, and the spread of the MRE."""
    errors, rates = ([value(row) for row in rows.values()] for value in (_mre, _sdr))
    each = "  ".join(f"{name}: {_mre(row):.2f} / {_sdr(row):.1f}" for name, row in rows.items())
    spread = float(np.std(errors, ddof=1)) if len(errors) > 1 else 0.0
    return f"{each}  | mean {np.mean(errors):.2f} (spread {spread:.2f}) / {np.mean(rates):.1f}"


def _mre(row: Mapping) -> float:
    return row["mre_mm"]


def _sdr(row: Mapping) -> float:
    return row["sdr_percent"]["2"]
