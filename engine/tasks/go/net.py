"""Policy networks: planes of a position to a logit for each point of the board.

| name | what |
|---|---|
| `plain32x6` | six convolutions of 32 channels, the first 5×5, the others 3×3 (Clark & Storkey 2015, arXiv:1412.3409, smaller); the default |
| `residual64x6` | a 5×5 convolution, then six residual blocks of two 3×3 convolutions (Silver et al. 2017, Nature 550:354) |

`WIDTHxDEPTH` is free. Every second residual block gets a bias of the whole board's mean and greatest
activation (Wu 2019, arXiv:1902.10565, "global pooling"), so that a ko or a fight elsewhere is heard of.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import UsageError
from engine.tasks.go.planes import COUNT

_NAME = re.compile(r"(plain|residual)(\d{1,4})x(\d{1,3})")


class Convolution(nn.Module):
    """Convolution and batch norm, without a bias of its own."""

    def __init__(self, width_in: int, width_out: int, side: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, side, padding=side // 2, bias=False)
        self.norm = nn.BatchNorm2d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Block(nn.Module):
    """A residual block; with `pooled`, the board's mean and maximum come back as a bias."""

    def __init__(self, width: int, *, pooled: bool) -> None:
        super().__init__()
        self.first = Convolution(width, width, 3)
        self.second = Convolution(width, width, 3)
        self.whole = nn.Linear(2 * width, width) if pooled else None
        nn.init.zeros_(self.second.norm.weight)  # each block begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x))
        if self.whole is not None:
            whole = torch.cat([y.mean((2, 3)), y.amax((2, 3))], 1)
            y = F.relu(y + self.whole(whole)[:, :, None, None])
        return F.relu(x + self.second(y))


class PolicyNet(nn.Module):
    """Planes float [B, COUNT, S, S] to logits [B, S²]. The same weights serve any board size but for the bias."""

    def __init__(self, kind: str, width: int, depth: int, size: int) -> None:
        super().__init__()
        self.stem = Convolution(COUNT, width, 5)
        layers: list[nn.Module] = []
        if kind == "residual":
            layers = [Block(width, pooled=index % 2 == 1) for index in range(depth)]
        else:
            for _ in range(depth - 1):
                layers += [Convolution(width, width, 3), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(width, 1, 1)
        self.place = nn.Parameter(torch.zeros(size * size))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(F.relu(self.stem(x)))).flatten(1) + self.place


def build_net(name: str, size: int) -> PolicyNet:
    """The net called `name` for boards of `size`.

    Raises:
        UsageError: no such name.
    """
    found = _NAME.fullmatch(name)
    if not found or not 1 <= int(found[2]) <= 1024 or not 1 <= int(found[3]) <= 100:
        raise UsageError(
            f"unknown Go network '{name}'", "name one like plain64x5 or residual64x6: kind, width x depth"
        )
    return PolicyNet(found[1], int(found[2]), int(found[3]), size)
