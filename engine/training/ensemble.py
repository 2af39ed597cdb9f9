"""Soft voting: the weighted mean of several nets' probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from engine.errors import UsageError
from engine.training.inference import Loaded


def common_classes(members: Sequence[Loaded]) -> tuple[list[str], list[list[int]]]:
    """The first member's classes, and for each member where in its own order they stand.

    Raises:
        UsageError: a member does not answer with classes, or with others; the first difference is named.
    """
    first = members[0].classes
    places = []
    for member in members:
        if member.medium.output != "probabilities":
            raise UsageError(f"{member.shown} answers with values, not classes", "leave it out", kind="classes")
        lacking = [name for name in first if name not in member.classes]
        surplus = [name for name in member.classes if name not in first]
        if lacking or surplus:
            what = f"has no class '{lacking[0]}'" if lacking else f"has a class '{surplus[0]}' more"
            raise UsageError(
                f"{member.shown} {what} ({len(member.classes)} classes, not the {len(first)} of {members[0].shown})",
                "vote with nets of the same classes",
                kind="classes",
            )
        places.append([member.classes.index(name) for name in first])
    return first, places


def vote_weights(wanted: str, members: Sequence[Loaded]) -> list[float]:
    """The members' weights, which add up to 1.

    Args:
        wanted: `equal`; `validation`: in proportion to the validation accuracy that each checkpoint carries, so
            that the data that is voted on decides nothing; or one number a member, `0.5,0.3,0.2`.

    Raises:
        UsageError: another number of weights, none above 0, or a checkpoint that does not say its accuracy.
    """
    if wanted == "equal":
        weights = [1.0] * len(members)
    elif wanted == "validation":
        weights = []
        for member in members:
            if not member.origin.get("accuracy"):
                raise UsageError(
                    f"{member.shown} does not say its validation accuracy", "give numbers: --weights 0.6,0.4"
                )
            weights.append(float(member.origin["accuracy"]))
    else:
        try:
            weights = [float(word) for word in wanted.split(",")]
        except ValueError:
            raise UsageError(
                f"--weights {wanted} is not equal, validation or numbers", "for example --weights 0.5,0.3,0.2"
            ) from None
        if len(weights) != len(members):
            raise UsageError(f"{len(weights)} weights for {len(members)} checkpoints", "give one a checkpoint")
        if not all(math.isfinite(one) and one >= 0 for one in weights) or not sum(weights):
            raise UsageError(f"--weights {wanted} must be 0 or more, and not all 0", "for example 0.5,0.3,0.2")
    total = sum(weights)
    return [one / total for one in weights]


def soft_vote(rows: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """float32 [N, classes] of each member, in one order of classes, to their weighted mean."""
    mean = sum(weight * one.astype(np.float64) for one, weight in zip(rows, weights, strict=True))
    return np.asarray(mean, np.float32)
