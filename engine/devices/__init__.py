"""Devices: which to work on (`best_device`), and what they are doing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def best_device(prefer: str = "auto") -> torch.device:
    """The device that Understudy would train on, for a pipeline of one's own.

    Args:
        prefer: `auto`, `cuda`, `mps`, `cpu` or `xpu`; one that is not there falls back down CUDA → MPS → CPU, and the
            log says so.
    """
    import torch

    from engine.devices.detect import choose_device

    chosen = choose_device(prefer)
    if chosen.note:
        logging.getLogger("understudy.devices").warning(chosen.note)
    return torch.device(chosen.kind)
