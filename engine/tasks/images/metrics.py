"""Accuracy, macro-F1 and loss from a confusion matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Tally:
    """Counts predictions; `matrix[i, j]` is how many of class i were taken for j."""

    def __init__(self, classes: int) -> None:
        self.matrix = torch.zeros(classes, classes, dtype=torch.int64)
        self.loss_sum = 0.0

    def add(self, logits: Tensor, targets: tuple[Tensor, ...]) -> None:
        logits, labels = logits.float().cpu(), targets[0].cpu()
        count = len(self.matrix)
        cells = labels * count + logits.argmax(1)
        self.matrix += torch.bincount(cells, minlength=count * count).view(count, count)
        self.loss_sum += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))

    def result(self) -> dict[str, Any]:
        """`accuracy` and `f1_macro` as fractions, `loss` as mean cross-entropy.

        Macro-F1 is the mean over the classes that occur of 2TP / (2TP + FP + FN), as scikit-learn defines it.
        """
        right = self.matrix.diag().double()
        rows, columns = self.matrix.sum(1).double(), self.matrix.sum(0).double()
        occurs = (rows + columns) > 0
        f1 = (2 * right / (rows + columns).clamp_min(1))[occurs]
        total = max(int(self.matrix.sum()), 1)
        return {
            "accuracy": float(right.sum()) / total,
            "f1_macro": float(f1.mean()) if len(f1) else 0.0,
            "loss": self.loss_sum / total,
        }
