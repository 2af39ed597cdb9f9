"""How often the net's first move, or one of its first five, is the one that was played."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F


class MoveTally:
    """Counts answers to held-out positions."""

    def __init__(self) -> None:
        self.count = self.first = self.five = 0
        self.loss_sum = 0.0

    def add(self, outputs: Tensor, targets: tuple[Tensor, ...]) -> None:
        logits, moves = outputs.float().cpu(), targets[0].cpu()
        best = logits.topk(min(5, logits.shape[1]), 1).indices
        hits = best == moves[:, None]
        self.count += len(moves)
        self.first += int(hits[:, 0].sum())
        self.five += int(hits.any(1).sum())
        self.loss_sum += float(F.cross_entropy(logits, moves, reduction="sum"))

    def result(self) -> dict[str, Any]:
        """`accuracy` is top-1, `top5` top-5; macro-F1 says nothing of 361 moves."""
        count = max(self.count, 1)
        return {
            "accuracy": self.first / count,
            "top5": self.five / count,
            "f1_macro": None,
            "loss": self.loss_sum / count,
        }
