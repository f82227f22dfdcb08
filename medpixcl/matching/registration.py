"""Landmarks carried from an annotated image to another one by registration: affine, then ConvexAdam or B-splines.

The template is the fixed image, so that the transform maps its points to the other image. All in mm, LPS+.

Reference: Siebert et al., ConvexAdam: Self-Configuring Dual-Optimization-Based 3D Multitask Medical Image Registration,
IEEE TMI 44 (2025) 738-748 (package convexadam); Klein et al., elastix: A Toolbox for Intensity-Based Medical Image
Registration, IEEE TMI 29 (2010) 196-205 (package itk-elastix).
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK  # noqa: TID253 (this module is imported only where images are registered)
import torch
from jaxtyping import Float
from monai.data import MetaTensor
from torch import Tensor

from medpixcl.coordinates import flip_ras_lps, mm_to_voxel, spacing_of, voxel_to_mm, working_affine

SAMPLES = 20_000
"""Number of voxels that the metric of the affine registration is computed on, at most all."""
SEED = 1
"""Seed for choosing them; SimpleITK takes the clock for 0."""
LEVELS = {4: 2.0, 2: 1.0, 1: 0.0}
"""Factors by which images are shrunk, coarsest first, and deviation in voxels of the smoothing before it."""
STEP_VOXELS = 0.5
"""First step of the search in voxels: small, so that no step leaves the overlap of the images."""
LEAST_VOXELS = 2000
"""Number of voxels of a shrunk template below which the metric says too little."""
ELASTIX_STEPS = ("rigid", "affine", "bspline")


def as_sitk(image: MetaTensor) -> SimpleITK.Image:
    """Convert an image (1, *spatial) to SimpleITK; its index axes are those of the array, in the same order."""
    values = image.as_tensor()[0].float().cpu().numpy()
    affine = working_affine(image)
    dims, spacing = values.ndim, spacing_of(affine)
    converted = SimpleITK.GetImageFromArray(np.ascontiguousarray(values.transpose(*reversed(range(dims)))))
    converted.SetSpacing(spacing.tolist())
    directions = flip_ras_lps((affine[:dims, :dims] / spacing).T).T
    converted.SetDirection(directions.flatten().tolist())
    converted.SetOrigin(flip_ras_lps(affine[None, :dims, dims])[0].tolist())
    return converted


def affine_registration(template: SimpleITK.Image, image: SimpleITK.Image) -> SimpleITK.Transform:
    """Register rigidly, then with an affine transform, by mutual information.

    Returns:
        Transform from points of the template to points of the image.
    """
    dims = template.GetDimension()
    rigid = SimpleITK.Euler3DTransform() if dims == 3 else SimpleITK.Euler2DTransform()
    with _one_thread():
        start = SimpleITK.CenteredTransformInitializer(
            template, image, rigid, SimpleITK.CenteredTransformInitializerFilter.GEOMETRY
        )
        turned = _optimised(template, image, start)
        whole = SimpleITK.AffineTransform(dims)
        whole.SetCenter(turned.GetCenter())
        whole.SetMatrix(turned.GetMatrix())
        whole.SetTranslation(turned.GetTranslation())
        return _optimised(template, image, whole)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let SimpleITK compute in one thread: several add up in the order in which they end, each time otherwise."""
    before = SimpleITK.ProcessObject.GetGlobalDefaultNumberOfThreads()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _optimised(template: SimpleITK.Image, image: SimpleITK.Image, start: SimpleITK.Transform) -> SimpleITK.Transform:
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    voxels, dims = int(np.prod(template.GetSize())), template.GetDimension()
    levels = [factor for factor in LEVELS if factor == 1 or voxels / factor**dims >= LEAST_VOXELS]
    share = min(1.0, SAMPLES / voxels)
    method.SetMetricSamplingPercentage(share, SEED)
    method.SetInterpolator(SimpleITK.sitkLinear)
    step = STEP_VOXELS * min(template.GetSpacing())
    method.SetOptimizerAsRegularStepGradientDescent(step, 1e-3 * step, 300, 0.7)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(levels)
    method.SetSmoothingSigmasPerLevel([LEVELS[factor] for factor in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(start, True)
    method.Execute(template, image)
    return start


def carry_affine(template: MetaTensor, image: MetaTensor, points_mm: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Carry points by an affine registration."""
    return _transformed(affine_registration(as_sitk(template), as_sitk(image)), points_mm)


def carry_convexadam(template: MetaTensor, image: MetaTensor, points_mm: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
    """Carry points by an affine registration and the deformation that ConvexAdam finds between MIND descriptors.

    Raises:
        ModuleNotFoundError: If the package convexadam is not installed.
    """
    from convexAdam.convex_adam_MIND import convex_adam_pt

    fixed, moving = as_sitk(template), as_sitk(image)
    affine = affine_registration(fixed, moving)
    lowest = float(image.min())
    moved = SimpleITK.GetArrayFromImage(SimpleITK.Resample(moving, fixed, affine, SimpleITK.sitkLinear, lowest))
    arrays = [template.as_tensor()[0].float().cpu(), torch.from_numpy(moved.transpose(2, 1, 0).copy())]
    steps = convex_adam_pt(*arrays, dtype=torch.float32, device=template.device)
    here = working_affine(template)
    voxels = mm_to_voxel(flip_ras_lps(points_mm), here)
    field = torch.from_numpy(steps).permute(3, 0, 1, 2)[None]
    size = torch.tensor(field.shape[2:]) - 1
    grid = (2 * voxels / size - 1).flip(-1)[None, :, None, None]
    step = torch.nn.functional.grid_sample(field, grid, padding_mode="border", align_corners=True)[0, :, :, 0, 0].T
    return _transformed(affine, flip_ras_lps(voxel_to_mm(voxels + step, here)))


def carry_elastix(template: MetaTensor, image: MetaTensor, points_mm: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Carry points by the rigid, affine and B-spline registration of elastix, with its default parameters.

    It computes in one thread, because more crash (https://github.com/InsightSoftwareConsortium/ITKElastix/issues/295).

    Raises:
        ModuleNotFoundError: If the package itk-elastix is not installed.
    """
    import itk

    fixed, moving = (_as_itk(as_sitk(one)) for one in (template, image))
    parameters = itk.ParameterObject.New()
    for step in ELASTIX_STEPS:
        parameters.AddParameterMap(itk.ParameterObject.GetDefaultParameterMap(step))
    _, found = itk.elastix_registration_method(
        fixed, moving, parameter_object=parameters, number_of_threads=1, log_to_console=False
    )
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            "point",
            str(len(points_mm)),
            *(" ".join(f"{value:.6f}" for value in row) for row in points_mm.tolist()),
        ]
        (Path(folder) / "points.txt").write_text("\n".join([*lines, ""]), encoding="ascii")
        itk.transformix_pointset(
            moving,
            found,
            fixed_point_set_file_name=str(Path(folder) / "points.txt"),
            output_directory=folder,
            log_to_console=False,
        )
        text = (Path(folder) / "outputpoints.txt").read_text(encoding="ascii")
    rows = [line.split("OutputPoint = [")[1].split("]")[0].split() for line in text.splitlines() if line.strip()]
    return torch.tensor([[float(value) for value in row] for row in rows], dtype=torch.float64)


def _as_itk(image: SimpleITK.Image) -> object:
    import itk

    converted = itk.image_from_array(SimpleITK.GetArrayFromImage(image))
    converted.SetOrigin(image.GetOrigin())
    converted.SetSpacing(image.GetSpacing())
    dims = image.GetDimension()
    converted.SetDirection(itk.matrix_from_array(np.array(image.GetDirection()).reshape(dims, dims)))
    return converted


def _transformed(transform: SimpleITK.Transform, points_mm: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    rows = [transform.TransformPoint(row) for row in points_mm.double().tolist()]
    return torch.tensor(rows, dtype=torch.float64)
