"""Data of the volume demo: one annotated brain template, and copies of it as volumes to search.

Every copy is made by one known change, so the true positions of its landmarks are exact: a warped copy shows the
template at known positions (:mod:`medpixcl.views`), a copy with another contrast keeps all places, and the T2w template
lies in the space of the T1w template.

Folder written by :func:`make_volume_demo_data`::

    template/T1w.nii.gz           the annotated volume
    queries/warped_1.nii.gz ...   the volumes to search, named after their group
    landmarks.csv                 image, landmark, x_mm, y_mm, z_mm (LPS+), of all volumes
    recipe.json                   what the volumes were made from, and how
    NOTICE.txt                    terms of the templates
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from medpixcl.coordinates import flip_ras_lps, voxel_to_mm, working_affine
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.demo_brain import NOTICE, WHEEL, DemoBrain, load_demo_brain
from medpixcl.data.nifti import read_nifti
from medpixcl.data.nifti_writing import write_nifti
from medpixcl.data.seeded import item_seed
from medpixcl.data.tables import write_csv
from medpixcl.transforms import LandmarkVoxelsd, RandIntensityd, RandLandmarkViewd

WARP: dict[str, Any] = {"rotation_degrees": 8.5, "scale_range": [0.9, 1.1], "shift_mm": 5.0, "elastic_mm": 3.0}
"""Ranges of a warp, see :class:`medpixcl.transforms.RandLandmarkViewd`; the three make about 15 degrees at most."""

CONTRAST = {"gamma": [0.6, 1.7], "contrast": [0.6, 1.4], "bias": [0.1, 0.3], "noise": [0.01, 0.04]}
"""Ranges of a change of contrast, see :class:`medpixcl.transforms.intensity.IntensityRanges`; none inverts the grey."""

GREATEST = 10_000.0
"""Greatest value of the templates."""


class QueryGroup(NamedTuple):
    """Volumes to search that are made in the same way.

    Args:
        name: Name of the group; files are named after it.
        sequence: Template that is shown, ``T1w`` or ``T2w``.
        copies: Number of volumes.
        warped: Whether the template is turned, scaled, shifted and bent.
        contrast: Whether its contrast is changed.
    """

    name: str
    sequence: str
    copies: int
    warped: bool = False
    contrast: bool = False

    @property
    def files(self) -> list[str]:
        """Paths of the volumes below the folder of the data."""
        stem = self.name.replace(" ", "_")
        return [f"queries/{stem}_{number}.nii.gz" for number in range(1, self.copies + 1)]


QUERIES = (
    QueryGroup("warped", "T1w", 4, warped=True),
    QueryGroup("contrast", "T1w", 3, contrast=True),
    QueryGroup("T2w", "T2w", 1),
    QueryGroup("warped T2w", "T2w", 2, warped=True),
)


class VolumeDemoData(NamedTuple):
    """Data set that :func:`make_volume_demo_data` wrote: its files, those to search by group."""

    folder: Path
    template: Path
    queries: dict[str, list[Path]]
    landmarks: Path


def make_volume_demo_data(
    out_dir: str | Path,
    *,
    groups: Sequence[QueryGroup] = QUERIES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> VolumeDemoData:
    """Write the template, the volumes to search and the landmarks of all of them.

    What an earlier demo with the same arguments wrote is used again; other queries in ``out_dir`` are replaced. The
    same arguments give the same files.

    Args:
        out_dir: Folder to write, made when missing; its layout stands at the top of this module.
        groups: Groups of the volumes to search.
        seed: Random seed of all changes.
        progress: Function called with (volumes done, volumes in all) after each volume.

    Returns:
        Paths of everything written.

    Raises:
        FileNotFoundError: If the wheel of the templates is not installed.
        ValueError: If the wheel is not the expected one.
    """
    folder, brain = Path(out_dir), load_demo_brain()
    queries = {group.name: [folder / file for file in group.files] for group in groups}
    data = VolumeDemoData(folder, folder / "template" / "T1w.nii.gz", queries, folder / "landmarks.csv")
    recipe = _recipe(groups, seed)
    if not _made_before(data, recipe):
        _remove_earlier(folder)
        _make(folder, brain, groups, seed, progress)
        write_text_atomically(folder / "NOTICE.txt", NOTICE)
        write_text_atomically(folder / "recipe.json", recipe)
    return data


def _recipe(groups: Sequence[QueryGroup], seed: int) -> str:
    """All that the data depend on, as JSON."""
    made = {"files": dict(WHEEL.checksums), "warp": WARP, "contrast": CONTRAST}
    return json.dumps({**made, "groups": [group._asdict() for group in groups], "seed": seed}, indent=2) + "\n"


def _made_before(data: VolumeDemoData, recipe: str) -> bool:
    """True if the folder holds what the recipe gives; the recipe is written last."""
    file = data.folder / "recipe.json"
    written = [data.template, data.landmarks, *(path for paths in data.queries.values() for path in paths)]
    return all(path.is_file() for path in (file, *written)) and file.read_text(encoding="utf-8") == recipe


def _remove_earlier(folder: Path) -> None:
    """Delete the recipe and the queries of an earlier demo."""
    for path in (folder / "recipe.json", *(folder / "queries").glob("*.nii.gz")):
        path.unlink(missing_ok=True)


def _make(
    folder: Path,
    brain: DemoBrain,
    groups: Sequence[QueryGroup],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write all volumes and their landmarks."""
    templates = {sequence: _read_template(path) for sequence, path in brain.images.items()}
    planned = list(_planned(groups, seed))
    rows: list[tuple[str, ...]] = [("image", "landmark", "x_mm", "y_mm", "z_mm")]
    for done, (file, group, number) in enumerate(planned, 1):
        item = _changed(templates[group.sequence], brain, group, number)
        image = item["image"]
        write_nifti(folder / file, (image[0].numpy() * GREATEST).round().astype(np.int16), image.affine.numpy())
        rows += [(file, *row) for row in _landmark_rows(item, brain.names)]
        if progress is not None:
            progress(done, len(planned))
    write_csv(folder / "landmarks.csv", rows)


def _planned(groups: Sequence[QueryGroup], seed: int) -> Iterator[tuple[str, QueryGroup, int]]:
    """File, group and random seed of the template and of every query."""
    yield "template/T1w.nii.gz", QueryGroup("template", "T1w", 1), seed
    for number, group in enumerate(groups):
        for index, file in enumerate(group.files):
            yield file, group, item_seed(seed, number, index)


def _read_template(path: Path) -> MetaTensor:
    """A template (1, I, J, K) with values of 0 to 1."""
    pixels = read_nifti(path)
    return MetaTensor(torch.from_numpy(pixels.values)[None] / GREATEST, affine=torch.from_numpy(pixels.affine))


def _changed(template: MetaTensor, brain: DemoBrain, group: QueryGroup, seed: int) -> dict[str, Any]:
    """The template as a query shows it, with ``points``, landmarks in its voxels, and their ``weights``."""
    view = RandLandmarkViewd("image", template.shape[1:], **WARP) if group.warped else LandmarkVoxelsd("image")
    changes = Compose([view, *([RandIntensityd("image", CONTRAST)] if group.contrast else [])])
    changes.set_random_state(seed=seed)
    item = {"image": template, "points": brain.landmarks, "weights": torch.ones(len(brain.names))}
    changed: dict[str, Any] = changes(item)
    return changed


def _landmark_rows(item: dict[str, Any], names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Name and position (x, y, z) in mm, LPS+, of every landmark that lies in the volume."""
    places = flip_ras_lps(voxel_to_mm(item["points"].double(), working_affine(item["image"])))
    for name, place, weight in zip(names, places.tolist(), item["weights"].tolist(), strict=True):
        if weight > 0:
            yield name, *(f"{value:.4f}" for value in place)
