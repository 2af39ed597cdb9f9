"""How well a net does on labelled data: the confusion matrix and what can be read from it. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.compare.statistics import wilson
from engine.tasks.labelled import Labelled

BINS = 15  # of the confidence, as in the source of the calibration error
_PAIRS, _NAMED = 20, 5


@dataclass
class Evaluation:
    """Answers with their truth.

    Attributes:
        classes: names, in the net's order.
        names: of the inputs.
        truth: int64 [N], the right classes.
        rows: float32 [N, classes], probabilities.
    """

    classes: list[str]
    names: list[str]
    truth: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(
        cls, classes: list[str], items: Sequence[Labelled], kept: Sequence[int], rows: np.ndarray
    ) -> Evaluation:
        """From items whose labels are all in `classes`, of which those numbered `kept` were answered by `rows`."""
        numbers = {name: number for number, name in enumerate(classes)}
        truth = np.array([numbers[items[i].label] for i in kept], np.int64)
        return cls(classes, [items[i].name for i in kept], truth, rows)

    @property
    def answers(self) -> np.ndarray:
        """int64 [N]: the likeliest class, of equally likely ones the first, as a server answers."""
        found: np.ndarray = self.rows.argmax(1)
        return found

    @property
    def matrix(self) -> np.ndarray:
        """int64 [classes, classes]: [i, j] is how many of class i were taken for j."""
        from sklearn.metrics import confusion_matrix

        found: np.ndarray = confusion_matrix(self.truth, self.answers, labels=np.arange(len(self.classes)))
        return found


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """`accuracy`, `f1_macro` (mean over the classes that occur, in truth or answers), their count `n`, `ci95`."""
    from sklearn.metrics import f1_score

    right, n = int((evaluation.truth == evaluation.answers).sum()), len(evaluation.truth)
    return {
        "n": n,
        "accuracy": right / n,
        "ci95": list(wilson(right, n)),
        "f1_macro": float(f1_score(evaluation.truth, evaluation.answers, average="macro")),
    }


def report(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """For each class `precision`, `recall`, `f1` (None where there is nothing to divide by) and `support`."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        evaluation.truth,
        evaluation.answers,
        labels=np.arange(len(evaluation.classes)),
        zero_division=np.nan,
    )
    return {
        name: {
            **{
                key: None if np.isnan(value) else float(value)
                for key, value in zip(("precision", "recall", "f1"), row, strict=True)
            },
            "support": int(support),
        }
        for name, *row, support in zip(evaluation.classes, *columns, strict=True)
    }


def confusions(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The pairs that are confused most, with the images the net was surest of: {label, taken_for, count, share, images}.

    `share` is of the class's images; `images` are {path, confidence}.
    """
    matrix, answers = evaluation.matrix, evaluation.answers
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    support = matrix.sum(1)
    order = sorted(np.argwhere(wrong), key=lambda p: (-wrong[p[0], p[1]], -wrong[p[0], p[1]] / support[p[0]], *p))
    found = []
    for truth, answer in order[:_PAIRS]:
        members = np.flatnonzero((evaluation.truth == truth) & (answers == answer))
        members = members[np.argsort(-evaluation.rows[members, answer], kind="stable")][:_NAMED]
        found.append(
            {
                "label": evaluation.classes[truth],
                "taken_for": evaluation.classes[answer],
                "count": int(wrong[truth, answer]),
                "share": float(wrong[truth, answer] / support[truth]),
                "images": [
                    {"path": evaluation.names[i], "confidence": float(evaluation.rows[i, answer])} for i in members
                ],
            }
        )
    return found


def calibration(evaluation: Evaluation, bins: int = BINS) -> dict[str, Any]:
    """Whether a confidence of 0.8 is right in 8 of 10: the expected calibration error and its bins.

    ECE = sum over the bins of n_bin / n * |accuracy - mean confidence|, with equal widths of the confidence of the
    answer (Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv:1706.04599, equation 3).

    Returns:
        `ece`, `bins` [{low, high, n, accuracy, confidence}] with the last two None in an empty bin, and
        `overconfidence`, the mean confidence less the accuracy.
    """
    confidence = evaluation.rows.max(1).astype(np.float64)
    right = evaluation.truth == evaluation.answers
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # (low, high], as in the source
    rows: list[dict[str, Any]] = []
    for number in range(bins):
        chosen = place == number
        count = int(chosen.sum())
        rows.append(
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "n": count,
                "accuracy": float(right[chosen].mean()) if count else None,
                "confidence": float(confidence[chosen].mean()) if count else None,
            }
        )
    gaps = (row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["n"])
    return {
        "ece": sum(gaps) / len(right),
        "overconfidence": float(confidence.mean() - right.mean()),
        "bins": rows,
    }
