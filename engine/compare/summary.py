"""From two slots' answers to the summary of a comparison: cells, figures, and the verdict of this one look."""

from __future__ import annotations

import math
from typing import Any

from engine.compare import records
from engine.compare import statistics as st
from engine.compare.asking import Answer, Answers, Target
from engine.compare.images import fingerprint
from engine.config import Settings
from engine.errors import Failed
from engine.store.workspace import SLOTS, TITLES
from engine.tasks.labelled import Labelled


def sum_up(
    settings: Settings, targets: dict[str, Target], chosen: list[Labelled], answers: Answers, facts: dict[str, Any]
) -> tuple[dict[str, Any], list[list[str | None]]]:
    """What the answers say: the contract's object of `ab`, without its number and time, and the rows to store.

    Images that both slots refuse as no image are no evidence about either: they are listed as `unusable`.

    Args:
        chosen: the images in the order drawn; `answers.pairs` stands at the same places.
        facts: `status` and whatever else belongs into the summary.
    """
    asked = [(image, pair) for image, pair in zip(chosen, answers.pairs, strict=True) if pair is not None]
    unusable = [
        {"path": image.name, "reason": f"both slots refuse it: {pair['asis'].error}"}
        for image, pair in asked
        if all(answer.bad_image for answer in pair.values())
    ]
    pairs = [(image, pair) for image, pair in asked if not all(answer.bad_image for answer in pair.values())]
    n = len(pairs)
    right = {slot: [pair[slot].label == image.label for image, pair in pairs] for slot in SLOTS}
    process = st.EProcess()
    for asis_right, tobe_right in zip(right["asis"], right["tobe"], strict=True):
        process.see(tobe_right, asis_right)
    b, c = process.b, process.c
    both_right = sum(right["asis"]) - c
    exact_p, mid_p = st.mcnemar(b, c)
    difference = (b - c) / n if n else None
    needed = st.images_needed((b + c) / n, difference) if difference else None
    summary: dict[str, Any] = {
        "id": 0,
        "at": "",
        "n": n,
        **{slot: _side(targets[slot], [pair[slot] for _, pair in pairs], sum(right[slot])) for slot in SLOTS},
        "both_right": both_right,
        "asis_only": c,
        "tobe_only": b,
        "both_wrong": n - both_right - b - c,
        "difference": difference,
        "difference_ci95": list(st.difference_interval(b, c, n)) if n else None,
        "p_value": mid_p,
        "exact_p": exact_p,
        "e_value": st.exponential(process.log_e),
        "e_needed": 1 / settings.gate.alpha,
        "always_valid_p": process.p_value,
        "verdict": "undecided",
        "reason": "",
        "images_needed": needed,
        "images_missing": max(0, needed - n) if needed else None,
        **facts,
        "data_fingerprint": fingerprint(image for image, _ in pairs),
        "per_class": _per_class(pairs),
        "error_reasons": _error_words(pairs),
        "unusable": unusable,
    }
    summary["verdict"], summary["reason"] = _verdict(summary, answers.problem, settings.gate.alpha, process.log_e)
    rows: list[list[str | None]] = [
        [image.sha256, image.label, pair["asis"].label, pair["tobe"].label, image.name] for image, pair in pairs
    ]
    return summary, rows


def paths_of_differing(chosen: list[Labelled], answers: Answers) -> dict[str, str]:
    """Where the images lie on which the slots' answers differ, by their SHA-256."""
    return {
        image.sha256: str(image.path.absolute())
        for image, pair in zip(chosen, answers.pairs, strict=True)
        if image.path is not None and pair is not None and pair["asis"].label != pair["tobe"].label
    }


def _verdict(summary: dict[str, Any], problem: Failed | None, alpha: float, log_e: float) -> tuple[str, str]:
    """The verdict of this one look: `tobe`, `asis` or `undecided`, and why."""
    if summary["n"] == 0:
        return "undecided", "no image was usable"
    for slot in SLOTS:
        if (share := records.error_share(summary, slot)) > records.ERROR_SHARE:
            errors = summary[slot]["errors"]
            return "undecided", (
                f"{TITLES[slot]} gave no answer to {errors:,} of {summary['n']:,} images ({share:.2%}): "
                + next(iter(summary["error_reasons"][slot]))
            )
    if problem is not None and problem.kind == "slot_failing":
        return "undecided", problem.message
    b, c = summary["tobe_only"], summary["asis_only"]
    ahead, leader = ("tobe", TITLES["tobe"]) if b > c else ("asis", TITLES["asis"])
    # Whoever stopped a comparison may have watched it: only the e-value holds at a moment of one's own choice.
    if summary["status"] == "completed":
        level = st.FIRST_SHARE * alpha
        decided, figure = summary["p_value"] < level, f"mid-p {summary['p_value']:.3g}"
    else:
        decided, figure = log_e >= -math.log(alpha), f"e-value {summary['e_value']:.3g} of {1 / alpha:.3g}"
    if decided and b != c:
        return ahead, f"{leader} alone is right {max(b, c):,} times, the other alone {min(b, c):,} ({figure})"
    if b == c:
        return "undecided", f"each alone is right {b:,} times: no difference was seen"
    if summary["status"] == "completed":
        figure += f", below {level:.3g} decides"
    return "undecided", f"{leader} is ahead by {abs(b - c):,} of {summary['n']:,}, which may be chance ({figure})"


def _side(target: Target, answers: list[Answer], correct: int) -> dict[str, Any]:
    times = sorted(answer.latency_ms for answer in answers if answer.error is None)
    n = len(answers)
    return {
        "port": target.port,
        "release": target.release,
        "correct": correct,
        "accuracy": correct / n if n else None,
        "ci95": list(st.wilson(correct, n)) if n else None,
        "errors": sum(answer.error is not None for answer in answers),
        "p50_ms": _percentile(times, 0.5),
        "p99_ms": _percentile(times, 0.99),
    }


def _percentile(ordered: list[float], share: float) -> float | None:
    """The nearest-rank percentile of sorted values, or None of none."""
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3) if ordered else None


def _per_class(pairs: list[tuple[Labelled, dict[str, Answer]]]) -> list[dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    for image, pair in pairs:
        row = table.setdefault(image.label, {"label": image.label, "n": 0, "asis_correct": 0, "tobe_correct": 0})
        row["n"] += 1
        for slot in SLOTS:
            row[f"{slot}_correct"] += pair[slot].label == image.label
    return [table[label] for label in sorted(table)]


def _error_words(pairs: list[tuple[Labelled, dict[str, Answer]]]) -> dict[str, dict[str, int]]:
    """For each slot its errors in words, the commonest first, with how often."""
    words: dict[str, dict[str, int]] = {slot: {} for slot in SLOTS}
    for _, pair in pairs:
        for slot in SLOTS:
            if (error := pair[slot].error) is not None:
                words[slot][error] = words[slot].get(error, 0) + 1
    return {slot: dict(sorted(found.items(), key=lambda item: -item[1])) for slot, found in words.items()}
