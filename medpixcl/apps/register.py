"""Landmarks by registration: what people do without a network, to compare with, or as a second opinion."""

import logging
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from monai.transforms import Compose
from torch import nn

from medpixcl._typing import AnyPath
from medpixcl.apps.bundles import own_errors
from medpixcl.apps.digests import value_digest
from medpixcl.apps.finder import LandmarkFinder, Prediction
from medpixcl.apps.given_templates import Marks, SingleImage, given_templates
from medpixcl.apps.images import Images
from medpixcl.apps.loaded_images import Searchable
from medpixcl.apps.output import Output
from medpixcl.apps.results import Results
from medpixcl.coordinates import flip_ras_lps, mm_to_voxel, working_affine, working_spacing
from medpixcl.data.manifest import Manifest
from medpixcl.data.pixels import SpacingMM
from medpixcl.landmarks.points import outside_image
from medpixcl.matching.annotated_image import AnnotatedImage, names_of_all
from medpixcl.transforms import LoadImageMMd, WorkingSpacingd

AFFINE, CONVEXADAM, ELASTIX = "affine", "convexadam", "elastix"
PACKAGES = {AFFINE: "SimpleITK", CONVEXADAM: "convexadam", ELASTIX: "itk-elastix"}
"""Package that each method needs."""
log = logging.getLogger(__name__)

LARGEST_GRID = 2_000_000
"""Number of voxels of a template above which it is registered at a larger spacing."""


class Registration(LandmarkFinder):
    """Carries the landmarks of one or several annotated images to others by registration; several are averaged.

    Args:
        method: ``affine``, ``convexadam`` (volumes) or ``elastix``, see :mod:`medpixcl.matching.registration`.
        working_spacing_mm: Voxel size in mm, along every axis, at which images are registered; None takes that of the
            first template, made equal along all axes, and larger if it has more than 2 million voxels.

    Raises:
        ValueError: If there is no such method.
        ModuleNotFoundError: If its package is not installed.
    """

    title = "Registration"
    command = "register"
    templates: Sequence[AnnotatedImage] = ()

    def __init__(self, method: str = CONVEXADAM, *, working_spacing_mm: float | None = None) -> None:
        _require_package(method)
        self.method, self.working_spacing_mm = method, working_spacing_mm
        super().__init__(nn.Identity(), SimpleInferer(), _loading(None))
        self.seconds: list[float] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the templates' landmarks."""
        return names_of_all(self._fitted())

    @property
    def device(self) -> torch.device:
        """Registration runs on the CPU."""
        return torch.device("cpu")

    @property
    def digest(self) -> str:
        """Empty: there are no weights that a calibration could belong to."""
        return ""

    def made_from(self, results: Results) -> dict[str, str]:
        """Digests as of any finder, and of the method with its package."""
        spacing = working_spacing(self._fitted()[0].image)
        settings = value_digest(self.method, version(PACKAGES[self.method]), spacing)
        return super().made_from(results) | {"weights": "", "settings": settings}

    @own_errors()
    def fit(
        self,
        images: SingleImage | Sequence[SingleImage],
        landmarks: Marks | Sequence[Marks],
        *,
        spacing_mm: SpacingMM | None = None,
        manifest: AnyPath | Manifest | None = None,
    ) -> "Registration":
        """Set one or several annotated images as templates, given as for :meth:`medpixcl.Matcher.fit`.

        Raises:
            ValueError: If an image or its landmarks are bad, or the method takes volumes only.
        """
        given = given_templates(images, landmarks, spacing_mm=spacing_mm, manifest=manifest)
        first = AnnotatedImage(*given[0], _loading(None)).image
        self.spatial_dims = first.ndim - 1
        if self.method == CONVEXADAM and self.spatial_dims != 3:
            raise ValueError(
                f"{CONVEXADAM} registers volumes, and the template has {self.spatial_dims} axes; take elastix"
            )
        self.preprocessing = _loading([self.working_spacing_mm or _equal_spacing(first)] * self.spatial_dims)
        self.templates = [AnnotatedImage(item, points, self.preprocessing) for item, points in given]
        return self

    def match(
        self,
        images: Searchable,
        *,
        spacing_mm: SpacingMM | None = None,
        reference: AnyPath | None = None,
        output: Output | None = None,
        workers: int | None = None,
        scheduler: str | None = None,
    ) -> Results:
        """Carry the templates' landmarks to images, with arguments as of :meth:`medpixcl.Matcher.match`.

        Raises:
            ValueError: If no template was given, or the input is bad; one sentence that names the file.
            ModuleNotFoundError: If workers are asked for and Dask is not installed.
            OSError: If the scheduler does not answer, or is lost.
        """
        exclude = [str(template.path) for template in self._fitted()]
        self.seconds = []
        results = self.run(
            images,
            spacing_mm=spacing_mm,
            exclude=exclude,
            reference=reference,
            output=output,
            workers=workers,
            scheduler=scheduler,
        )
        if self.seconds:
            results.facts["time"] = f"{sum(self.seconds) / len(self.seconds):.1f} s an image"
        return results

    def start(self, images: Images, **choices: Any) -> Results:
        """Start as :meth:`LandmarkFinder.start` does; name the method and the spacing."""
        results = super().start(images, **choices)
        results.templates = self._fitted()
        spacing = working_spacing(self.templates[0].image)[0]
        results.facts |= {"method": self.method, "registered at": f"{spacing:.3g} mm"}
        return results

    def find(self, batch: Mapping[str, Any]) -> Prediction:
        """Register every template with the one prepared image of a batch."""
        start, image = time.monotonic(), batch["image"][0]
        assert isinstance(image, MetaTensor)
        places = torch.stack([self._carried(template, image) for template in self.templates]).nanmean(dim=0)
        voxels = mm_to_voxel(flip_ras_lps(places), working_affine(image))
        voxels = voxels.masked_fill(outside_image(voxels, image.shape[1:])[:, None], torch.nan)
        self.seconds.append(time.monotonic() - start)
        dims = voxels.shape[1]
        unknown = torch.full((len(voxels), dims, dims), torch.nan)
        confidence = torch.where(voxels.isnan().any(dim=1), 0.0, 1.0)
        return {"points": voxels[None], "confidence": confidence[None], "covariance_mm2": unknown[None]}

    def flags(self, prediction: Prediction, number: int) -> tuple[str, ...]:
        """``"missing"`` for landmarks that were carried out of the image."""
        gone = prediction["points"][number].isnan().any(dim=1).tolist()
        return tuple("missing" if one else "" for one in gone)

    def _carried(self, template: AnnotatedImage, image: MetaTensor) -> torch.Tensor:
        """Landmarks of a template in another image in mm, LPS+, (K, D); NaN where it lacks them."""
        from medpixcl.matching import registration

        ways = {
            AFFINE: registration.carry_affine,
            CONVEXADAM: registration.carry_convexadam,
            ELASTIX: registration.carry_elastix,
        }
        points = flip_ras_lps(template.mm_of(self.names))
        there = ~points.isnan().any(dim=1)
        carried = points.clone()
        try:
            carried[there] = ways[self.method](template.image, image, points[there])
        except RuntimeError as error:  # of ITK, as where the two images have nothing in common
            name, reason = image.meta["filename_or_obj"], str(error).strip().splitlines()[-1]
            log.warning("%s could not be registered with %s (%s): no landmark", name, template.path.name, reason)
            carried[:] = torch.nan
        return carried

    def _fitted(self) -> Sequence[AnnotatedImage]:
        if not self.templates:
            raise ValueError("the registration has no template; call fit with an annotated image first")
        return self.templates


def _loading(spacing_mm: Sequence[float] | None) -> Compose:
    return Compose([LoadImageMMd("image"), WorkingSpacingd("image", spacing_mm)])


def _equal_spacing(image: MetaTensor) -> float:
    """Voxel size along all axes of as many voxels as the image has, and at most ``LARGEST_GRID``."""
    sizes = torch.tensor(working_spacing(image), dtype=torch.float64)
    volume = float(sizes.prod()) * max(1.0, image.as_tensor()[0].numel() / LARGEST_GRID)
    return volume ** (1 / len(sizes))


def _require_package(method: str) -> None:
    """Raise an error if a method is unknown, or its package not installed."""
    if method not in PACKAGES:
        raise ValueError(f"there is no registration {method!r}; take one of {', '.join(PACKAGES)}")
    try:
        version(PACKAGES[method])
    except PackageNotFoundError:
        raise ModuleNotFoundError(
            f"the registration {method} needs the package {PACKAGES[method]}: pip install 'medpixcl[registration]'",
            name=PACKAGES[method],
        ) from None
