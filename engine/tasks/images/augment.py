"""Augmentation as a pure function of (seed, epoch, index of the sample).

Each sample draws its numbers from a counter-based generator (Philox, Salmon et al. 2011) keyed by
(seed, epoch) with the sample's index as the counter, so neither the number of workers nor where a run
was interrupted can change them. The warp, colours and mixing are applied to whole batches; noise and
JPEG artefacts, which have no batched form, to single images.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

DRAWS = 32  # uniform numbers a sample
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Recipe:
    """How strongly a level changes images; angles in degrees, the rest fractions of the side or of 1."""

    rotate: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    zoom_in: float = 1.0  # smallest side of the crop, as a fraction of the image's
    zoom_out: float = 1.0  # largest
    aspect: float = 0.0
    flip: float = 0.0
    perspective: float = 0.0
    colour: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0
    mix: float = 0.0  # share of samples mixed with their neighbour in the batch
    blur: float = 0.0
    shadow: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    padding: str = "border"


RECIPES = {
    "none": Recipe(),
    "light": Recipe(rotate=10, shear=8, translate=0.08, zoom_in=0.85, zoom_out=1.15, aspect=0.1, colour=0.15),
    "standard": Recipe(
        rotate=5,
        translate=0.05,
        zoom_in=0.65,
        zoom_out=1.1,
        aspect=0.1,
        flip=0.5,
        colour=0.2,
        saturation=0.2,
        erase=0.1,
        mix=0.15,
        padding="reflection",
    ),
    "document": Recipe(
        rotate=8,
        shear=3,
        translate=0.05,
        zoom_in=0.85,
        zoom_out=1.1,
        aspect=0.05,
        perspective=0.12,
        colour=0.25,
        saturation=0.3,
        erase=0.1,
        blur=0.3,
        shadow=0.3,
        noise=0.3,
        jpeg=0.3,
    ),
}


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The sample's own stream. `index` -1 is the stream of the epoch's order."""
    counter = [0, 0, 1, 0] if index < 0 else [0, 0, 0, index]
    return np.random.Generator(np.random.Philox(key=[seed & _MASK, epoch], counter=counter))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch visits its samples, int64 [count]."""
    return generator(seed, epoch, -1).permutation(count)


def draw(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) for each sample, float32 [len(indices), DRAWS]."""
    rows = [generator(seed, epoch, int(index)).random(DRAWS, dtype=np.float32) for index in indices]
    return np.stack(rows)


def degrade(level: str, pixels: np.ndarray, seed: int, epoch: int, index: int) -> np.ndarray:
    """Sensor noise and JPEG artefacts on one uint8 image [S, S, 3]; the levels without them change nothing."""
    recipe = RECIPES[level]
    if not recipe.noise and not recipe.jpeg:
        return pixels
    stream = generator(seed, epoch, index)
    u = stream.random(DRAWS, dtype=np.float32)
    if u[24] < recipe.noise:
        grain = stream.standard_normal(pixels.shape[:2], dtype=np.float32)[..., None]
        pixels = np.clip(pixels + grain * (2 + 10 * u[25]), 0, 255).astype(np.uint8)
    if u[26] < recipe.jpeg:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=int(25 + 60 * u[27]))
        pixels = np.asarray(Image.open(buffer).convert("RGB"))
    return pixels


def augment(level: str, images: Tensor, draws: Tensor) -> Tensor:
    """Warp, colour and erase a batch.

    Args:
        images: float32 [B, 3, S, S], values 0..1.
        draws: `draw()`'s numbers on the same device.
    """
    recipe = RECIPES[level]
    if recipe == RECIPES["none"]:
        return images
    images = _warp(recipe, images, draws)
    if recipe.blur:
        images = _blur(recipe, images, draws)
    if recipe.shadow:
        images = _shadow(recipe, images, draws)
    images = _colour(recipe, images, draws)
    return _erase(recipe, images, draws) if recipe.erase else images


def mix(level: str, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mix some samples with their neighbour in the batch (`roll` by one): half by CutMix, half by mixup.

    CutMix: Yun et al. 2019, arXiv:1905.04899; mixup: Zhang et al. 2018, arXiv:1710.09412.

    Returns:
        The images, and for each the weight of its own label (its neighbour has the rest), float32 [B].
    """
    recipe = RECIPES[level]
    count, _, height, width = images.shape
    if not recipe.mix or count < 2:
        return images, torch.ones(count, device=images.device)
    chosen, cut = draws[:, 28] < recipe.mix, draws[:, 29] < 0.5
    share = draws[:, 30]
    other = images.roll(1, 0)
    side = (1 - share).sqrt() / 2
    inside = _box(draws[:, 19], draws[:, 31], side, side, height, width)
    inside &= (chosen & cut).view(-1, 1, 1, 1)
    weight = torch.where(chosen & ~cut, share, torch.ones_like(share))
    mixed = torch.lerp(other, images, weight.view(-1, 1, 1, 1))
    mixed = torch.where(inside, other, mixed)
    return mixed, torch.where(chosen & cut, 1 - inside.float().mean((1, 2, 3)), weight)


def _signed(u: Tensor) -> Tensor:
    return u * 2 - 1


def _warp(recipe: Recipe, images: Tensor, u: Tensor) -> Tensor:
    """One homography a sample, from the output's coordinates (-1..1) to the input's."""
    height, width = images.shape[2:]
    angle = _signed(u[:, 0]) * np.deg2rad(recipe.rotate)
    shear = torch.tan(_signed(u[:, 1]) * np.deg2rad(recipe.shear))
    scale = recipe.zoom_in + (recipe.zoom_out - recipe.zoom_in) * u[:, 2]
    aspect = torch.exp(_signed(u[:, 3]) * recipe.aspect / 2)
    mirror = torch.where(u[:, 4] < recipe.flip, -1.0, 1.0)
    # a crop may lie anywhere in the image that it does not leave, plus the recipe's translation
    slack = (1 - scale).clamp_min(0)
    shift_x = _signed(u[:, 5]) * (slack + 2 * recipe.translate)
    shift_y = _signed(u[:, 6]) * (slack + 2 * recipe.translate)
    cos, sin = torch.cos(angle), torch.sin(angle)
    tilt_x, tilt_y = (_signed(u[:, k]) * recipe.perspective for k in (7, 8))
    rows = [
        torch.stack([scale * aspect * mirror * cos, scale / aspect * (shear * cos - sin), shift_x], 1),
        torch.stack([scale * aspect * mirror * sin, scale / aspect * (shear * sin + cos), shift_y], 1),
        torch.stack([tilt_x, tilt_y, torch.ones_like(cos)], 1),
    ]
    ys = (torch.arange(height, device=images.device) * 2 + 1) / height - 1
    xs = (torch.arange(width, device=images.device) * 2 + 1) / width - 1
    y, x = ys.view(1, -1, 1), xs.view(1, 1, -1)
    a, b, c = (
        row[:, 0].view(-1, 1, 1) * x + row[:, 1].view(-1, 1, 1) * y + row[:, 2].view(-1, 1, 1) for row in rows
    )
    grid = torch.stack([a / c, b / c], -1) if recipe.perspective else torch.stack([a, b], -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=recipe.padding, align_corners=False)


def _colour(recipe: Recipe, images: Tensor, u: Tensor) -> Tensor:
    if not recipe.colour:
        return images

    def spread(k: int, strength: float) -> Tensor:
        return (1 + _signed(u[:, k]) * strength).view(-1, 1, 1, 1)

    if recipe.saturation:
        grey = images.mean(1, keepdim=True)
        images = torch.lerp(grey, images, spread(9, recipe.saturation))
    level = images.mean((1, 2, 3), keepdim=True)
    # contrast about the mean and brightness are one affine map
    contrast, brightness = spread(10, recipe.colour), spread(11, recipe.colour)
    return (images * (contrast * brightness) + level * brightness * (1 - contrast)).clamp_(0, 1)


def _box(cx: Tensor, cy: Tensor, half_w: Tensor, half_h: Tensor, height: int, width: int) -> Tensor:
    """True inside each sample's box, [B, 1, H, W]; all arguments are fractions of the side."""
    ys = ((torch.arange(height, device=cx.device) + 0.5) / height).view(1, -1, 1)
    xs = ((torch.arange(width, device=cx.device) + 0.5) / width).view(1, 1, -1)
    inside_x = (xs - cx.view(-1, 1, 1)).abs() <= half_w.view(-1, 1, 1)
    inside_y = (ys - cy.view(-1, 1, 1)).abs() <= half_h.view(-1, 1, 1)
    return (inside_x & inside_y).unsqueeze(1)


def _erase(recipe: Recipe, images: Tensor, u: Tensor) -> Tensor:
    """Random erasing (Zhong et al. 2017, arXiv:1708.04896), filled with one grey a sample."""
    inside = _box(u[:, 12], u[:, 13], 0.08 + 0.17 * u[:, 14], 0.08 + 0.17 * u[:, 15], *images.shape[2:])
    inside &= (u[:, 16] < recipe.erase).view(-1, 1, 1, 1)
    return torch.where(inside, u[:, 17].view(-1, 1, 1, 1), images)


def _blur(recipe: Recipe, images: Tensor, u: Tensor) -> Tensor:
    """A 5x5 binomial-like blur, its width growing with the draw."""
    count = images.shape[0]
    sigma = torch.where(u[:, 18] < recipe.blur, 0.4 + 1.2 * u[:, 20], torch.full_like(u[:, 18], 1e-3))
    taps = torch.arange(-2, 3, device=images.device).view(1, -1)
    kernel = torch.exp(-0.5 * (taps / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = F.pad(images, (2, 2, 2, 2), mode="replicate").reshape(1, count * 3, *[s + 4 for s in images.shape[2:]])
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, 5), groups=count * 3)
    flat = F.conv2d(flat, kernel.view(-1, 1, 5, 1), groups=count * 3)
    return flat.view_as(images)


def _shadow(recipe: Recipe, images: Tensor, u: Tensor) -> Tensor:
    """A soft edge across the page: one side up to a half darker."""
    height, width = images.shape[2:]
    ys = torch.linspace(-1, 1, height, device=images.device).view(1, -1, 1)
    xs = torch.linspace(-1, 1, width, device=images.device).view(1, 1, -1)
    angle = (u[:, 21] * 2 * np.pi).view(-1, 1, 1)
    edge = torch.sigmoid(6 * (torch.cos(angle) * xs + torch.sin(angle) * ys + _signed(u[:, 22]).view(-1, 1, 1)))
    depth = torch.where(
        u[:, 23] < recipe.shadow, 0.5 * u[:, 23] / max(recipe.shadow, 1e-6), torch.zeros_like(u[:, 23])
    )
    return images * (1 - depth.view(-1, 1, 1, 1) * edge.unsqueeze(1))
