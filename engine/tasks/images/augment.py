"""Augmentation as a pure function of (seed, epoch, index of the sample).

Each sample draws its numbers from a counter-based generator (Philox, Salmon et al. 2011) keyed by
(seed, epoch) with the sample's index as the counter, so neither the number of workers nor where a run
was interrupted can change them. The warp, colours and mixing are applied to whole batches; noise and
JPEG artefacts, which have no batched form, to single images.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from engine.config.schema import Training
from engine.tasks.images import randaugment

DRAWS = 64  # uniform numbers a sample
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_OPERATIONS_AT = 40  # where RandAugment's begin
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Recipe:
    """How strongly a level changes images; angles in degrees, the rest fractions of the side or of 1."""

    rotate: float = 0.0
    turn: float = 0.0  # share of samples that lie on a side or upside down
    shear: float = 0.0
    translate: float = 0.0
    zoom_in: float = 1.0  # smallest side of the crop, as a fraction of the image's
    zoom_out: float = 1.0  # largest
    aspect: float = 0.0
    flip: float = 0.0
    perspective: float = 0.0
    colour: float = 0.0
    saturation: float = 0.0
    tint: float = 0.0
    erase: float = 0.0
    mix: float = 0.0  # share of samples mixed with their neighbour in the batch
    mixup: float = 1.0  # alpha of the Beta distribution of the shares; 0: never
    cutmix: float = 1.0
    operations: int = 0  # of RandAugment, and
    magnitude: float = 9.0  # their greatest strength, 0..10
    blur: float = 0.0
    shadow: float = 0.0
    noise: float = 0.0
    jpeg: float = 0.0
    padding: str = "border"

    @property
    def moves(self) -> bool:
        """Whether any pixel may leave its place."""
        plain = self.rotate or self.turn or self.shear or self.translate or self.aspect or self.flip
        return bool(plain or self.perspective or self.operations or self.zoom_in != 1 or self.zoom_out != 1)


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
        rotate=10,
        turn=0.1,
        shear=3,
        translate=0.05,
        zoom_in=0.85,
        zoom_out=1.1,
        aspect=0.05,
        perspective=0.12,
        colour=0.25,
        saturation=0.3,
        tint=0.08,
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


def draw(seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) for each sample, float32 [len(indices), DRAWS], all samples at once.

    Number j of sample i is SplitMix64's output at place i * DRAWS + j of the stream that starts at (seed, epoch)
    (Steele, Lea and Flood 2014, OOPSLA, doi:10.1145/2660193.2660195).
    """
    start = _mixed(np.array([seed & _MASK], np.uint64)) + np.uint64(epoch)
    places = np.asarray(indices, np.uint64)[:, None] * np.uint64(DRAWS) + np.arange(1, DRAWS + 1, dtype=np.uint64)
    mixed = _mixed(_mixed(start) + places * _GOLDEN)
    return (mixed >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _mixed(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, which lets every bit of a uint64 change every other."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


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


def recipe_of(level: str, training: Training) -> Recipe:
    """The level's recipe with what the training's settings change of it."""
    recipe = RECIPES[level]
    if training.mixup is not None or training.cutmix is not None:
        recipe = replace(recipe, mix=1.0, mixup=training.mixup or 0.0, cutmix=training.cutmix or 0.0)
    if training.mix_share is not None:
        recipe = replace(recipe, mix=training.mix_share)
    if not recipe.mixup and not recipe.cutmix:
        recipe = replace(recipe, mix=0.0)
    if training.erasing is not None:
        recipe = replace(recipe, erase=training.erasing)
    return replace(recipe, operations=training.randaugment, magnitude=training.randaugment_magnitude)


def augment(recipe: Recipe, images: Tensor, draws: Tensor, side: int | None = None) -> Tensor:
    """Warp, colour and erase a batch.

    Args:
        images: float32 [B, 3, S, S], values 0..1.
        draws: `draw()`'s numbers on the same device.
        side: of the images that come out; None: S.
    """
    side = side or images.shape[-1]
    operations = draws[:, _OPERATIONS_AT:]
    matrix = _homography(recipe, draws)
    if recipe.operations:
        matrix = matrix @ randaugment.geometry(operations, recipe.operations, recipe.magnitude)
    if recipe.moves:
        images = _warp(recipe, images, matrix, side)
    elif side != images.shape[-1]:
        images = F.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
    if recipe.operations:
        images = randaugment.colour(images, operations, recipe.operations, recipe.magnitude)
    if recipe.blur:
        images = _blur(recipe, images, draws)
    if recipe.shadow:
        images = _shadow(recipe, images, draws)
    if recipe.colour:
        images = _colour(recipe, images, draws)
    return _erase(recipe, images, draws) if recipe.erase else images


def mix(recipe: Recipe, images: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Mix some samples with their neighbour in the batch (`roll` by one): by CutMix, by mixup, or half and half.

    CutMix: Yun et al. 2019, arXiv:1905.04899; mixup: Zhang et al. 2018, arXiv:1710.09412.

    Returns:
        The images, and for each the weight of its own label (its neighbour has the rest), float32 [B].
    """
    count, _, height, width = images.shape
    if not recipe.mix or count < 2:
        return images, torch.ones(count, device=images.device)
    both = bool(recipe.mixup and recipe.cutmix)
    chosen, cut = draws[:, 28] < recipe.mix, draws[:, 29] < (0.5 if both else float(bool(recipe.cutmix)))
    other = images.roll(1, 0)
    side = (1 - _beta(recipe.cutmix or 1.0, draws[:, 30])).sqrt() / 2
    inside = _box(draws[:, 19], draws[:, 31], side, side, height, width)
    inside &= (chosen & cut).view(-1, 1, 1, 1)
    share = _beta(recipe.mixup or 1.0, draws[:, 30])
    weight = torch.where(chosen & ~cut, share, torch.ones_like(share))
    mixed = torch.lerp(other, images, weight.view(-1, 1, 1, 1).masked_fill(inside, 0.0))
    return mixed, torch.where(chosen & cut, 1 - inside.float().mean((1, 2, 3)), weight)


def _beta(alpha: float, u: Tensor) -> Tensor:
    """Uniform numbers to those of Beta(alpha, alpha), by its inverse distribution function."""
    if alpha == 1:
        return u
    table = torch.from_numpy(_quantiles(alpha)).to(u.device)
    place = u * (len(table) - 1)
    below = place.long().clamp_max(len(table) - 2)
    return torch.lerp(table[below], table[below + 1], place - below)


@cache
def _quantiles(alpha: float) -> np.ndarray:
    """Quantiles of Beta(alpha, alpha) at 0/1024 .. 1024/1024, float32 [1025].

    With x = sin(t)**2 the density is (sin t cos t)**(2 alpha - 1) dt; midpoints miss its poles at the ends.
    """
    edges = np.linspace(0, np.pi / 2, 200_001)
    middle = (edges[1:] + edges[:-1]) / 2
    mass = np.concatenate([[0.0], np.cumsum((np.sin(middle) * np.cos(middle)) ** (2 * alpha - 1))])
    angles = np.interp(np.linspace(0, 1, 1025), mass / mass[-1], edges)
    return (np.sin(angles) ** 2).astype(np.float32)


def _signed(u: Tensor) -> Tensor:
    return u * 2 - 1


def _homography(recipe: Recipe, u: Tensor) -> Tensor:
    """One map a sample from the output's coordinates (-1..1) to the input's, [B, 3, 3]."""
    quarter = torch.where(u[:, 32] < recipe.turn, 1 + (u[:, 33] * 3).floor(), torch.zeros_like(u[:, 33]))
    angle = _signed(u[:, 0]) * np.deg2rad(recipe.rotate) + quarter * (np.pi / 2)
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
    return torch.stack(rows, 1)


def _warp(recipe: Recipe, images: Tensor, matrix: Tensor, side: int) -> Tensor:
    places = (torch.arange(side, device=images.device) * 2 + 1) / side - 1
    y, x = places.view(1, -1, 1), places.view(1, 1, -1)
    a, b, c = (
        row[:, 0].view(-1, 1, 1) * x + row[:, 1].view(-1, 1, 1) * y + row[:, 2].view(-1, 1, 1)
        for row in matrix.unbind(1)
    )
    grid = torch.stack([a / c, b / c], -1) if recipe.perspective else torch.stack([a, b], -1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=recipe.padding, align_corners=False)


def _colour(recipe: Recipe, images: Tensor, u: Tensor) -> Tensor:
    """Saturation, the light's tint, contrast about the mean and brightness: one affine map of each pixel's RGB."""

    def spread(k: int, strength: float) -> Tensor:
        return (1 + _signed(u[:, k]) * strength).view(-1, 1, 1)

    keep = spread(9, recipe.saturation)
    one = torch.eye(3, device=images.device)
    matrix = keep * one + (1 - keep) / 3  # towards the grey of the same mean
    if recipe.tint:
        matrix = matrix * (1 + _signed(u[:, 34:37]) * recipe.tint).unsqueeze(2)
    contrast, brightness = spread(10, recipe.colour), spread(11, recipe.colour)
    flat = images.flatten(2)
    level = (matrix @ flat.mean(2, keepdim=True)).mean(1, keepdim=True)
    shift = (level * brightness * (1 - contrast)).expand(-1, 3, 1)
    return torch.baddbmm(shift, matrix * (contrast * brightness), flat).clamp_(0, 1).view_as(images)


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
    """A Gaussian of its own width along each axis, so that it also stands for a hand that moved."""
    count, _, height, width = images.shape
    most = 0.8 + 0.8 * max(1.0, min(height, width) / 384)  # pixels: a phone's blur grows with the resolution
    chosen = u[:, 18] < recipe.blur
    radius = round(2 * most)
    taps = torch.arange(-radius, radius + 1, device=images.device).view(1, -1)
    flat = F.pad(images, (radius,) * 4, mode="replicate")
    flat = flat.reshape(1, count * 3, height + 2 * radius, width + 2 * radius)
    for draws, shape in ((u[:, 20], (1, 1, -1)), (u[:, 37], (1, -1, 1))):
        sigma = torch.where(chosen, 0.3 + (most - 0.3) * draws, torch.full_like(draws, 1e-3))
        kernel = torch.exp(-0.5 * (taps / sigma.view(-1, 1)) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
        flat = F.conv2d(flat, kernel.view(count * 3, *shape), groups=count * 3)
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
