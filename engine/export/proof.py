"""What is measured of an exported file: how quick, how like the original, how right."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.compare.statistics import difference_interval, wilson
from engine.tasks.labelled import Labelled
from engine.tasks.medium import InputError, Limits, Medium, whole

Answers = Callable[[np.ndarray], np.ndarray]
BATCHES = (1, 8)
_TURN = 4


def latencies(runners: Mapping[str, Answers], sample: np.ndarray, budget_s: float) -> dict[str, dict[str, Any]]:
    """How long one call takes, in milliseconds, at batches of 1 and 8.

    The runners take turns of a few calls, so that whatever else the machine does hits all alike; the first call of a
    turn is not counted, for it finds the caches full of another model.

    Args:
        sample: one input, float32 [*shape]; a batch repeats it.
        budget_s: of all measuring together; each runner is timed at least twice `_TURN` times a batch size.

    Returns:
        for each runner {"1": {p10, p50, p99, calls}, "8": ...}.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in runners}
    for size in BATCHES:
        batch = np.repeat(sample[None], size, 0)
        for answer in runners.values():
            answer(batch)  # the first call allocates and picks kernels
        times: dict[str, list[float]] = {name: [] for name in runners}
        end = time.monotonic() + budget_s / len(BATCHES)
        while len(next(iter(times.values()))) < 2 * _TURN or time.monotonic() < end:
            for name, answer in runners.items():
                answer(batch)
                for _ in range(_TURN):
                    began = time.perf_counter()
                    answer(batch)
                    times[name].append((time.perf_counter() - began) * 1e3)
        for name, taken in times.items():
            p10, p50, p99 = np.percentile(taken, [10, 50, 99]).tolist()
            found[name][str(size)] = {
                "p10": round(p10, 3),
                "p50": round(p50, 3),
                "p99": round(p99, 3),
                "calls": len(taken),
            }
    return found


@dataclass(frozen=True)
class Judged:
    """Which of the labelled requests a model answers rightly, in their order; bool [n]."""

    right: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    def row(self, reference: Judged | None) -> dict[str, Any]:
        """Accuracy with its interval (Wilson), and the difference from the reference with its own (paired,
        Bonett and Price)."""
        count, correct = len(self.right), int(self.right.sum())
        fields: dict[str, Any] = {"n": count, "correct": correct, "accuracy": self.accuracy,
                                  "ci95": list(wilson(correct, count))}  # fmt: skip
        if reference is not None:
            lost = int((reference.right & ~self.right).sum())
            gained = int((~reference.right & self.right).sum())
            fields |= {
                "difference": self.accuracy - reference.accuracy,
                "difference_ci95": list(difference_interval(gained, lost, count)),
                "lost": lost,
                "gained": gained,
            }
        return fields


def judge(
    runners: Mapping[str, Answers], medium: Medium, items: Sequence[Labelled], limits: Limits, size: int = 8
) -> tuple[dict[str, Judged], int]:
    """Ask every model for every labelled request, as a slot would be asked; a few are in memory at a time.

    Returns:
        what each got right, of the requests that can be read, and how many cannot.
    """
    right: dict[str, list[bool]] = {name: [] for name in runners}
    unreadable = 0
    for start in range(0, len(items), size):
        kept, inputs = decoded(medium, items[start : start + size], limits)
        unreadable += len(items[start : start + size]) - len(kept)
        if not kept:
            continue
        for name, answer in runners.items():
            for item, given, row in zip(kept, inputs, answer(inputs), strict=True):
                right[name].append(medium.is_right(whole(medium.answer(row, given, 5)), item))
    return {name: Judged(np.array(found, dtype=bool)) for name, found in right.items()}, unreadable


def decoded(medium: Medium, items: Iterable[Labelled], limits: Limits) -> tuple[list[Labelled], np.ndarray]:
    """The labelled requests that can be read, with their inputs, float32 [n, *shape]."""
    kept, inputs = [], []
    for item in items:
        try:
            inputs.append(medium.decode(item.read(), limits))
        except (InputError, OSError):
            continue  # counted by the caller, who knows how many there were
        kept.append(item)
    return kept, np.stack(inputs) if inputs else np.empty((0, *medium.shape), np.float32)


def largest_difference(answer: Answers, inputs: np.ndarray, wanted: np.ndarray) -> float:
    """The greatest |answer - wanted| over inputs [n, ...], asked one by one and all together."""
    together = float(np.abs(answer(inputs) - wanted).max())
    alone = [np.abs(answer(inputs[i : i + 1])[0] - wanted[i]).max() for i in range(len(inputs))]
    return max(together, float(max(alone)))
