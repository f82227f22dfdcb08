"""Export a trained landmark network to a file, and check that the file finds the same landmarks."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from medpixcl._typing import AnyPath
from medpixcl.apps.detect import Detector
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.paths import checked_path
from medpixcl.networks import LandmarkInferer
from medpixcl.networks.landmark import LandmarkNet, decode_output

SUFFIXES = {".ts": "TorchScript", ".pt2": "torch.export", ".onnx": "ONNX"}
TOLERANCE_PX = 0.05
"""Largest distance in pixels at which landmarks of the exported network count as equal."""


def export_network(network: LandmarkNet, path: Path, shape: Sequence[int], *, activation: str = "softmax") -> float:
    """Write a network, read the file back and compare the landmarks that both find in an image of noise.

    The file holds the network alone: one image (1, C, *shape), float32, 0 to 1, to heatmaps and offsets, to be decoded
    as :func:`medpixcl.networks.landmark.decode_output` does. TorchScript takes any number of images of any size; the
    other two take one image of this shape.

    Args:
        network: Landmark network on the CPU.
        path: File to write; its suffix selects the format, see :data:`SUFFIXES`.
        shape: Spatial shape of the image, rounded up to a multiple of the coarsest stride.
        activation: ``activation`` of the loss that the network was trained with.

    Returns:
        Largest distance in pixels between the landmarks of the network and of the file.

    Raises:
        ValueError: If there is no such format, or the file finds other landmarks.
        ModuleNotFoundError: If ONNX is asked for and not installed.
    """
    if path.suffix not in SUFFIXES:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in SUFFIXES.items())
        raise ValueError(f"{path.name} has no suffix of an export; expected one of {known}")
    path.parent.mkdir(parents=True, exist_ok=True)
    image = example_image(network, shape)
    network.eval()
    with torch.no_grad():
        run = {".ts": _script, ".pt2": _export, ".onnx": _onnx}[path.suffix](network, path, image)
        outputs = [network(image), run(image)]
    found, again = (
        decode_output(output, network.landmarks, stride=network.stride, activation=activation)[0] for output in outputs
    )
    away = float(torch.linalg.vector_norm(found - again, dim=-1).max())
    if not away <= TOLERANCE_PX:
        raise ValueError(f"{path} finds landmarks {away:.2f} pixels from those of the network; do not use this file")
    return away


def export_detector(detector: Detector, path: AnyPath, shape: Sequence[int]) -> float:
    """Export the network of a detector, see :func:`export_network`, with a ``.json`` of its settings beside the file.

    The settings are those that a program needs to prepare images and to decode the output: ``landmark_names``,
    ``working_spacing_mm``, ``activation``, ``use_offsets``, ``stride`` and ``multiple_of``, to a multiple of which the
    sizes of an image are padded.

    Args:
        detector: Detector on the CPU.
        path: File to write; its suffix selects the format, see :data:`SUFFIXES`.
        shape: Spatial shape of the image at the working spacing, rounded up to a multiple of the coarsest stride.

    Returns:
        Largest distance in pixels between the landmarks of the network and of the file.

    Raises:
        ValueError: If there is no such format, the detector takes more than one network, or the file finds other
            landmarks.
    """
    network, inferer, file = detector.network, detector.inferer, checked_path(path, "the file to write")
    if not isinstance(network, LandmarkNet) or not isinstance(inferer, LandmarkInferer):
        raise ValueError(f"a detector with a {type(inferer).__name__} cannot be exported; give one of a single network")
    away = export_network(network, file, shape, activation=inferer.activation)
    facts = {
        "landmark_names": list(detector.names),
        "working_spacing_mm": inferer.spacing_mm,
        "activation": inferer.activation,
        "use_offsets": inferer.use_offsets,
        "stride": network.stride,
        "multiple_of": network.coarsest_stride,
    }
    write_text_atomically(file.with_suffix(".json"), json.dumps(facts, indent=4) + "\n")
    return away


def example_image(network: LandmarkNet, shape: Sequence[int]) -> Tensor:
    """Make an image of noise between 0 and 1, (1, C, *shape), with a shape that the network can process."""
    if len(shape) != network.spatial_dims:
        raise ValueError(f"shape is {list(shape)}; expected {network.spatial_dims} sizes, one for each axis")
    step = network.coarsest_stride
    channels = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)).in_channels
    size = [-(-length // step) * step for length in shape]
    return torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))


def _script(network: LandmarkNet, path: Path, image: Tensor) -> Callable[[Tensor], Tensor]:
    torch.jit.script(network).save(str(path))
    return torch.jit.load(str(path))


def _export(network: LandmarkNet, path: Path, image: Tensor) -> Callable[[Tensor], Tensor]:
    torch.export.save(torch.export.export(network, (image,)), path)
    return torch.export.load(path).module()


def _onnx(network: LandmarkNet, path: Path, image: Tensor) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  (torch needs it to export)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX needs the package {error.name}: pip install onnx onnxscript onnxruntime", name=error.name
        ) from None
    program = torch.onnx.export(
        network, (image,), input_names=["image"], output_names=["pred"], dynamo=True, verbose=False
    )
    program.save(str(path))  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda given: torch.from_numpy(session.run(["pred"], {"image": given.numpy()})[0])
