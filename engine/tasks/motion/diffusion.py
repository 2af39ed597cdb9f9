"""Noise and its removal: schedules, noised motions, DDPM and DDIM steps for a net that predicts x0. Torch-free.

Sources: Ho et al. 2020, arXiv:2006.11239 (posterior, equations 6 and 7); Nichol & Dhariwal 2021, arXiv:2102.09672
(cosine schedule, respaced steps); Song et al. 2021, arXiv:2010.02502 (DDIM, equation 12 with sigma 0); Ho & Salimans
2022, arXiv:2207.12598 (guidance).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Denoise = Callable[[np.ndarray, int], np.ndarray]


def kept_signal(steps: int, schedule: str) -> np.ndarray:
    """The cumulative product of 1 - beta after each of `steps` times, float64 [steps], falling from 1 to 0."""
    if schedule == "linear":
        scale = 1000 / steps
        return np.cumprod(1 - np.linspace(scale * 1e-4, scale * 0.02, steps))

    def level(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - level((t + 1) / steps) / level(t / steps), 0.999) for t in range(steps)]
    return np.cumprod(1 - np.array(betas))


def noised(x0: np.ndarray, noise: np.ndarray, kept: float) -> np.ndarray:
    """q(x_t | x_0) for this noise; `kept` as `kept_signal` gives it."""
    return (math.sqrt(kept) * x0 + math.sqrt(1 - kept) * noise).astype(np.float32)


def spaced(steps: int, count: int) -> list[int]:
    """`count` of the times 0..steps-1, the first and the last among them, as evenly as can be."""
    stride = (steps - 1) / max(count - 1, 1)
    return [steps - 1] if count == 1 else [round(number * stride) for number in range(count)]


def sample(
    denoise: Denoise,
    start: np.ndarray,
    kept: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    ddim: bool,
    on_step: Callable[[int, int], None] = lambda done, all_: None,
) -> np.ndarray:
    """From noise to motions.

    Args:
        denoise: (x_t, t) to the x0 that the net sees in it, both float32 [N, frames, features].
        start: standard normal noise of that shape.
        kept: `kept_signal` of the net's training.
        count: steps that are taken, at most len(kept); fewer than all is DDPM on the times that are left, or DDIM.
        rng: what DDPM adds after each step.

    Returns:
        float32 [N, frames, features].
    """
    x = start.astype(np.float32)
    times = spaced(len(kept), count)
    for place in range(count - 1, -1, -1):
        time = times[place]
        now, before = kept[time], kept[times[place - 1]] if place else 1.0
        x0 = denoise(x, time)
        if not place:
            x = x0
        elif ddim:
            noise = (x - math.sqrt(now) * x0) / math.sqrt(1 - now)
            x = (math.sqrt(before) * x0 + math.sqrt(1 - before) * noise).astype(np.float32)
        else:
            alpha = now / before
            of_x0 = math.sqrt(before) * (1 - alpha) / (1 - now)
            of_x = math.sqrt(alpha) * (1 - before) / (1 - now)
            spread = math.sqrt((1 - alpha) * (1 - before) / (1 - now))  # FIXED_SMALL, as MDM has it
            x = (of_x0 * x0 + of_x * x + spread * rng.standard_normal(x.shape)).astype(np.float32)
        on_step(count - place, count)
    return x


def guided(with_condition: np.ndarray, without: np.ndarray, scale: float) -> np.ndarray:
    """What the net sees with its condition, pushed away from what it sees without (`scale` 1: as it is)."""
    return without + np.float32(scale) * (with_condition - without)
