"""The nets: two depthwise-separable ones of our own, timm's by name, and anybody's by `module:factory`.

Blocks are depthwise 3x3, batch norm, pointwise 1x1, batch norm, activation (MobileNet's separable
convolution, Howard et al. 2017, arXiv:1704.04861), with a residual where shapes allow. Batch norm folds into the
convolutions when exported, so ONNX Runtime sees plain convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import UsageError
from engine.tasks.images.names import OWN
from engine.tasks.pruned import KEY, shrink
from engine.tasks.task import import_named

SMALL_SIDE = 64  # below this side the stem keeps the full resolution


class Stem(nn.Module):
    """The first convolution. Its stride follows the input's side, so weights alone rebuild the same net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        small = min(int(x.shape[-2]), int(x.shape[-1])) < SMALL_SIDE
        y = F.conv2d(x, self.conv.weight, None, 1, 1) if small else self.conv(x)
        return F.relu(self.norm(y))


class Separable(nn.Module):
    """Depthwise then pointwise. No activation between them: measured a fifth faster and no less accurate."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width_in, width_in, 3, stride, 1, groups=width_in, bias=False)
        self.norm1 = nn.BatchNorm2d(width_in)
        self.pointwise = nn.Conv2d(width_in, width_out, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.residual = stride == 1 and width_in == width_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.pointwise(self.norm1(self.depthwise(x))))
        return F.relu(x + y if self.residual else y)


class LiteCNN(nn.Module):
    """Stem, stages of separable blocks that halve the side between them, global average pooling, a linear head.

    Args:
        num_classes: width of the output, logits.
        widths, depths: channels and blocks of each stage; the stem has the first width.
        dropout: before the head.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int], depths: Sequence[int], dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.stem = Stem(widths[0])
        blocks: list[nn.Module] = []
        width = widths[0]
        for stage, (wanted, depth) in enumerate(zip(widths, depths, strict=True)):
            for block in range(depth):
                blocks.append(Separable(width, wanted, 2 if block == 0 and stage else 1))
                width = wanted
        self.body = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # fan-in holds for depthwise kernels too, and gives the batch norms a variance near the 1 that
                # their running figures start from: they are right after a few dozen steps
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.body(self.stem(x)).mean((2, 3))))


def litecnn(
    num_classes: int,
    widths: Sequence[int] = (32, 64, 128, 256),
    depths: Sequence[int] = (0, 2, 4, 3),
    dropout: float = 0.1,
) -> LiteCNN:
    """About 0.25M parameters: quick to train on a CPU."""
    return LiteCNN(num_classes, widths, depths, dropout)


def litecnn_pro(
    num_classes: int,
    widths: Sequence[int] = (48, 96, 192, 384, 768),
    depths: Sequence[int] = (0, 3, 4, 6, 2),
    dropout: float = 0.2,
) -> LiteCNN:
    """About 1.9M parameters: its light checkpoint has the documents' usual 4 to 12 MB."""
    return LiteCNN(num_classes, widths, depths, dropout)


def build_model(
    name: str, num_classes: int, *, pretrained: bool = False, settings: dict[str, Any] | None = None
) -> nn.Module:
    """A net that maps float32 [N, 3, S, S] to logits [N, num_classes].

    Args:
        name: `litecnn`, `litecnn_pro`, `module:factory` or a name that timm knows.
        pretrained: start from published weights (timm's names only).
        settings: keyword arguments for the net's factory; `pruned`: the widths of `engine.tasks.pruned`.

    Raises:
        UsageError: unknown name, a factory that cannot be imported or gives no module, wrong settings,
            or published weights that cannot be had.
    """
    settings = dict(settings or {})
    if shapes := settings.pop(KEY, None):
        return shrink(build_model(name, num_classes, pretrained=pretrained, settings=settings), shapes)
    if name in OWN:
        if pretrained:
            raise UsageError(f"{name} has no published weights", "leave model.pretrained=false")
        return _call(name, litecnn if name == "litecnn" else litecnn_pro, num_classes, settings)
    if ":" in name:
        if pretrained:
            raise UsageError(
                "model.pretrained is for timm's names", f"let {name} load its weights itself, by model.settings"
            )
        return _call(name, import_named(name, "model"), num_classes, settings)
    from engine.tasks.images import zoo

    return zoo.build(name, num_classes, pretrained=pretrained, settings=settings)


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _call(name: str, factory: Any, num_classes: int, settings: dict[str, Any]) -> nn.Module:
    hint = "a factory is called as factory(num_classes, **model.settings) and returns a torch.nn.Module"
    try:
        model = factory(num_classes, **settings)
    except Exception as error:
        raise UsageError(
            f"model {name} cannot be built ({type(error).__name__}: {error})", hint, kind="bad_model"
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"model {name} gave a {type(model).__name__}, not a module", hint, kind="bad_model")
    return model
