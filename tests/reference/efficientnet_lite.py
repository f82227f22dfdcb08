"""EfficientNet-Lite0 straight from the tensors of the packaged checkpoint, with torch.nn.functional alone.

Written from the architecture table (Tan and Le, 2019, without squeeze-and-excitation, ReLU6) and the padding of
TensorFlow's "same".
"""

import math

from torch.nn import functional as F

# (blocks, stride of the first one) of each stage; a stage's map is kept where the next one halves the resolution.
STAGES = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]
KEPT = [0, 1, 2, 4, 6]


def same_convolution(x, weight, *, stride=1, groups=1):
    """Output of ceil(size / stride); of an odd number of padded pixels the last side gets one more."""
    pads = []
    for size, kernel in zip(reversed(x.shape[2:]), reversed(weight.shape[2:]), strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def normalised(x, tensors, name):
    mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
    scale = tensors[f"{name}.weight"] / (variance + 1e-3).sqrt()
    shift = tensors[f"{name}.bias"] - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def block(x, tensors, name, stride):
    y = x
    if f"{name}._expand_conv.weight" in tensors:
        y = same_convolution(y, tensors[f"{name}._expand_conv.weight"])
        y = normalised(y, tensors, f"{name}._bn0").clamp(0, 6)
    depthwise = tensors[f"{name}._depthwise_conv.weight"]
    y = same_convolution(y, depthwise, stride=stride, groups=len(depthwise))
    y = normalised(y, tensors, f"{name}._bn1").clamp(0, 6)
    y = normalised(same_convolution(y, tensors[f"{name}._project_conv.weight"]), tensors, f"{name}._bn2")
    return x + y if y.shape == x.shape else y


def feature_maps(colour, tensors):
    """Maps at strides 2, 4, 8, 16 and 32 of images (B, 3, H, W)."""
    x = same_convolution(colour, tensors["_conv_stem.weight"], stride=2)
    x = normalised(x, tensors, "_bn0").clamp(0, 6)
    maps, number = [], 0
    for stage, (blocks, first_stride) in enumerate(STAGES):
        for place in range(blocks):
            x = block(x, tensors, f"_blocks.{number}", first_stride if place == 0 else 1)
            number += 1
        if stage in KEPT:
            maps.append(x)
    return maps
