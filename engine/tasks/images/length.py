"""How long a run is where nobody has said; torch-free, so that a quick verb may ask."""

from __future__ import annotations

import math

DIGITS_EPOCHS = 12  # measured: validation accuracy is flat from the eighth on


def default_epochs(images: int) -> int:
    """Passes over a training part of this size where the settings name none: 120 for few, 20 for many."""
    return min(120, max(20, round(3000 / math.sqrt(images))))
