"""The learning rate as a pure function of the step, so that a resumed run needs no state of it."""

from __future__ import annotations

import math

from engine.config.schema import Training

START = 25.0  # one-cycle begins at peak/25
END = 1e4  # and ends at a ten-thousandth of that, both as in fastai and torch


def learning_rate(step: int, total: int, settings: Training) -> float:
    """The rate of one optimiser step.

    `cosine`: linear warm-up to the peak, then a half cosine down to nothing (Loshchilov & Hutter 2016,
    arXiv:1608.03983). `onecycle`: a half cosine up from peak/25, another down to nearly nothing (Smith & Topin
    2017, arXiv:1708.07120). `constant`: the peak once warm (Goyal et al. 2017, arXiv:1706.02677).

    Args:
        step: 0-based, of `total` in the whole run.
        settings: `learning_rate` is the peak, `warmup_fraction` the share of all steps that leads up to it.
    """
    peak, share = settings.learning_rate, settings.warmup_fraction
    warmup = max(1, round(total * share)) if share else 0
    if step < warmup:
        if settings.schedule == "onecycle":
            return _half_cosine(peak / START, peak, step / warmup)
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if settings.schedule == "constant":
        return peak
    return _half_cosine(peak, peak / START / END if settings.schedule == "onecycle" else 0.0, done)


def _half_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * done))
