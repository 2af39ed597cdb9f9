"""Training with INT8 in mind: convolutions and linear layers that compute as the quantised file will. Imports torch.

Weights (per output channel, symmetric) and inputs (per tensor, 256 steps over a running range) are rounded in the
forward pass, and gradients pass as if they were not (Jacob et al. 2018, arXiv:1712.05877). The state dict stays
that of the plain net, so what comes out is exported like any other. A batch norm behind a convolution is folded into
it only in the file: it scales whole channels, and so does the step of their weights, so the rounding is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_MEMORY = 0.99  # of the running range of inputs


class _Rounded:
    """What both kinds of layers share; mixed in by changing a layer's class, which its state dict does not notice."""

    weight: Tensor
    training: bool
    low: Tensor
    high: Tensor

    def rounded_weight(self) -> Tensor:
        channels = self.weight.shape[0]
        scale = self.weight.detach().abs().amax(tuple(range(1, self.weight.ndim))).clamp_min(1e-8) / 127
        zero = torch.zeros(channels, dtype=torch.int32, device=self.weight.device)
        return torch.fake_quantize_per_channel_affine(self.weight, scale.float(), zero, 0, -127, 127)

    def rounded_input(self, x: Tensor) -> Tensor:
        low, high = self.low, self.high
        measured = bool(high > low)
        if self.training or not measured:
            share = _MEMORY if measured else 0.0
            low = x.detach().amin().float().clamp_max(0).lerp(low, share)
            high = x.detach().amax().float().clamp_min(0).lerp(high, share)
        if self.training:
            self.low.copy_(low)
            self.high.copy_(high)
        scale = ((high - low) / 255).clamp_min(1e-8)
        zero = (-low / scale).round().clamp(0, 255).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 255)


class _Conv2d(_Rounded, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(self.rounded_input(x), self.rounded_weight(), self.bias)


class _Linear(_Rounded, nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.rounded_input(x), self.rounded_weight(), self.bias)


def make_quantization_aware(net: nn.Module) -> None:
    """Have the convolutions and linear layers of `net` compute with rounded weights and inputs from now on.

    The running ranges are buffers that are not saved: a resumed run measures them anew in its first steps, and a net
    that never trained (an average of weights) takes those of each batch.
    """
    for module in net.modules():
        kind = {nn.Conv2d: _Conv2d, nn.Linear: _Linear}.get(type(module))
        if kind is None:
            continue
        module.__class__ = kind
        place = module.weight.device
        module.register_buffer("low", torch.zeros((), device=place), persistent=False)
        module.register_buffer("high", torch.zeros((), device=place), persistent=False)
