"""The image encoder: a ResNet (He et al. 2015, arXiv:1512.03385) up to its third stage, with stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

CHANNELS = 1024
"""Channels of the feature map."""

STRIDE = 16
"""Pixels a side of one position of the feature map."""

# OFA's 18 and 34 are of bottlenecks as well, and there is no fourth stage.
_BLOCKS = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions around a shortcut; the output has four times `width` channels."""

    def __init__(self, inputs: int, width: int, stride: int, drop_path: float) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1 = _convolution(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        x = self.bn3(self.conv3(x))
        return (shortcut + self.drop_path(x)).relu()


class ResNet(nn.Module):
    """`name` is resnet18, 34, 50, 101 or 152; `drop_path` is the rate of each stage's last block, the first has none."""

    def __init__(self, name: str, drop_path: float = 0.0) -> None:
        super().__init__()
        self.frozen = False
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = 64
        for stage, (width, blocks) in enumerate(zip((64, 128, 256), _BLOCKS[name], strict=True), start=1):
            rates = [drop_path * block / (blocks - 1) for block in range(blocks)]
            layers = []
            for block, rate in enumerate(rates):
                stride = 2 if stage > 1 and block == 0 else 1
                layers.append(Bottleneck(inputs, width, stride, rate))
                inputs = 4 * width
            self.add_module(f"layer{stage}", nn.Sequential(*layers))

    def forward(self, images: Tensor) -> Tensor:
        """float [B, 3, H, W] -> float [B, 1024, ceil(H / 16), ceil(W / 16)]."""
        x = self.maxpool(self.bn1(self.conv1(images)).relu())
        return self.layer3(self.layer2(self.layer1(x)))

    def freeze(self) -> None:
        """Stop training for good: no gradients, and BatchNorm keeps its statistics whatever mode the network is in."""
        self.requires_grad_(False)
        self.frozen = True
        self.eval()

    def train(self, mode: bool = True) -> ResNet:
        return super().train(mode and not self.frozen)


def feature_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the feature map of an image of so many pixels."""
    rows, columns = (-(-side // STRIDE) for side in (height, width))
    return rows, columns


__all__ = ["CHANNELS", "STRIDE", "Bottleneck", "ResNet", "feature_size"]
