"""RandAugment on whole batches (Cubuk et al. 2019, arXiv:1909.13719), its geometry as matrices for the one warp.

Each operation's strength is drawn evenly between nothing and the magnitude, so one operation at magnitude 10 is
TrivialAugment (Müller & Hutter 2021, arXiv:2103.10158). Ranges at magnitude 10 are timm's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
COLOUR = (
    "identity",
    "brightness",
    "contrast",
    "saturation",
    "sharpness",
    "autocontrast",
    "equalize",
    "posterize",
    "solarize",
)
OPERATIONS = GEOMETRY + COLOUR
DRAWS_EACH = 2  # uniform numbers an operation: which, and how strongly


def _chosen(draws: Tensor, place: int, magnitude: float) -> tuple[Tensor, Tensor]:
    """Number of the operation, int64 [B], and its strength with a sign, -1..1, of the `place`-th one."""
    which = (draws[:, DRAWS_EACH * place] * len(OPERATIONS)).long().clamp_max(len(OPERATIONS) - 1)
    return which, (draws[:, DRAWS_EACH * place + 1] * 2 - 1) * (magnitude / 10)


def geometry(draws: Tensor, count: int, magnitude: float) -> Tensor:
    """The geometric operations as maps from the output's coordinates (-1..1) to the input's, [B, 3, 3].

    Args:
        draws: uniform numbers, float32 [B, at least count * DRAWS_EACH].
    """
    whole = torch.eye(3, device=draws.device).repeat(len(draws), 1, 1)
    for place in range(count):
        which, strength = _chosen(draws, place, magnitude)

        def amount(name: str, most: float, which: Tensor = which, strength: Tensor = strength) -> Tensor:
            return torch.where(which == OPERATIONS.index(name), strength * most, torch.zeros_like(strength))

        angle = amount("rotate", math.radians(30))
        cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
        rows = [
            [cos, amount("shear_x", 0.3) - sin, amount("translate_x", 0.9)],
            [amount("shear_y", 0.3) + sin, cos, amount("translate_y", 0.9)],
            [zero, zero, one],
        ]
        whole = whole @ torch.stack([torch.stack(row, 1) for row in rows], 1)
    return whole


def colour(images: Tensor, draws: Tensor, count: int, magnitude: float) -> Tensor:
    """The other operations, in the order drawn, on float32 [B, 3, H, W] of 0..1."""
    for place in range(count):
        which, strength = _chosen(draws, place, magnitude)
        parts = images.clone()
        for name in COLOUR[1:]:
            rows = _where(which == OPERATIONS.index(name))
            if len(rows):
                parts[rows] = _apply(name, images[rows], strength[rows].view(-1, 1, 1, 1))
        images = parts
    return images


def _where(chosen: Tensor) -> Tensor:
    """Numbers of the true rows; of a tensor without values (the memory forecast) of all, the most there can be."""
    if chosen.is_meta:
        return torch.arange(len(chosen), device=chosen.device)
    return chosen.nonzero()[:, 0]


def _apply(name: str, images: Tensor, strength: Tensor) -> Tensor:
    factor = 1 + 0.9 * strength
    if name == "brightness":
        return (images * factor).clamp(0, 1)
    if name == "contrast":
        return torch.lerp(_grey(images).mean((2, 3), keepdim=True), images, factor).clamp(0, 1)
    if name == "saturation":
        return torch.lerp(_grey(images), images, factor).clamp(0, 1)
    if name == "sharpness":
        return torch.lerp(_smooth(images), images, factor).clamp(0, 1)
    if name == "autocontrast":
        low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
        return torch.where(high > low, (images - low) / (high - low).clamp_min(1 / 255), images).clamp(0, 1)
    if name == "equalize":
        return _equalize(images)
    if name == "posterize":
        levels = 2.0 ** (8 - (4 * strength.abs()).round())
        return ((images * 255 / 256 * levels).floor() / levels * 256 / 255).clamp(0, 1)
    threshold = 1 - strength.abs()
    return torch.where(images >= threshold, 1 - images, images)


def _grey(images: Tensor) -> Tensor:
    """Luma as Pillow has it (ITU-R BT.601), [B, 1, H, W]."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _smooth(images: Tensor) -> Tensor:
    """Pillow's SMOOTH filter: a 3x3 mean that counts the middle five times."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel / 13, groups=3)


def _equalize(images: Tensor) -> Tensor:
    """Histogram equalisation of each channel, by its cumulative distribution over 256 levels."""
    levels = (images * 255).round().long().flatten(2).flatten(0, 1)
    histogram = torch.zeros(len(levels), 256, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones_like(levels, dtype=torch.float32))
    share = histogram.cumsum(1)
    first = share.gather(1, levels.amin(1, keepdim=True))
    table = (share - first) / (share[:, -1:] - first).clamp_min(1)
    return table.clamp(0, 1).gather(1, levels).view_as(images)
