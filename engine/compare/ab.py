"""One comparison of the two slots on the same labelled images, from asking to the stored verdict."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.compare import records
from engine.compare import statistics as st
from engine.compare.asking import Answer, Answers, Target, ask_both
from engine.compare.gate import gate
from engine.compare.images import Labelled, LabelledSet, draw, fingerprint, known_to_both, labelled_set, take
from engine.config import Settings
from engine.errors import Failed, Interrupted
from engine.release.control import slot_stats
from engine.release.slots import Pointer, read_pointer
from engine.store.clock import timestamp
from engine.store.events import append_event
from engine.store.locks import hold
from engine.store.workspace import SLOTS, TITLES, Workspace

_LOADING_S = 30.0


def run_ab(
    workspace: Workspace,
    settings: Settings,
    *,
    images: int | None = None,
    data: Path | None = None,
    seed: int | None = None,
    stratified: bool = False,
    wait: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Ask both slots the same labelled images, and store and return what came of it.

    Args:
        images: at most this many, else `ab.images`.
        data: the labelled set, else `ab.data`, else the embedded held-out digits.
        seed: of the order. None takes `ab.seed` and puts images first that these two releases were not
            compared on yet; a given seed is followed to the letter.
        stratified: draw each label in proportion to its share of the set.
        wait: wait while another comparison runs, instead of Busy.
        on_progress: called with the images done and the images in all.

    Returns:
        The contract's object of `ab`, and more: `reason`, `exact_p`, `e_value`, `always_valid_p`, `status`
        (`completed`, `interrupted`, `stopped`), `images_missing`, `data`, `data_fingerprint`, `seed`,
        `uses` (comparisons on this set before), `per_class`, `excluded`, `unusable`, `gate`.

    Raises:
        UsageError: no labelled images, or none with a label that both releases know.
        Busy: another comparison runs, or a promotion.
        Failed: a slot is empty, down, or changed meanwhile; what was answered is kept as a comparison that
            was stopped.
        Interrupted: Ctrl-C; what was answered is kept and counts as a look.
    """
    with hold(workspace.lock("compare"), "ab", wait=wait):
        labelled = labelled_set(workspace, settings, data)
        seed_used = settings.ab.seed if seed is None else seed
        pointers = _both(workspace)
        if pointers["asis"].release == pointers["tobe"].release:
            return _nothing(workspace, settings, pointers, labelled, seed_used)
        targets = {slot: _target(workspace, settings, slot, pointers[slot]) for slot in SLOTS}
        labelled = known_to_both(labelled, targets["asis"].classes, targets["tobe"].classes)
        earlier = records.summaries(workspace)
        seen = _seen(workspace, earlier, targets, labelled)
        chosen = take(
            draw(labelled.images, seed_used, stratified=stratified),
            images or settings.ab.images,
            seen if seed is None else None,
        )
        answers = Answers([None] * len(chosen))
        live = _Live(workspace, settings, targets, chosen, answers, labelled, seed_used, on_progress)
        interrupted = False
        try:
            ask_both(
                targets,
                chosen,
                answers,
                concurrency=settings.ab.concurrency,
                timeout_s=settings.ab.timeout_s,
                on_progress=live,
            )
        except KeyboardInterrupt:
            interrupted = True
        finally:
            live.end()
        if answers.done == 0:
            raise answers.problem or Interrupted("interrupted before the first answer", "nothing was compared")
        facts = {
            "started_at": live.started_at,
            "status": "interrupted" if interrupted else "stopped" if answers.problem else "completed",
            "data": labelled.shown,
            "data_key": labelled.key,
            "seed": seed_used,
            "stratified": stratified,
            "available": len(labelled.images),
            "uses": _uses(earlier, labelled),
            "fresh": sum(
                pair is not None and image.sha256 not in seen
                for image, pair in zip(chosen, answers.pairs, strict=True)
            ),
            "excluded": labelled.excluded,
            "notes": labelled.notes,
        }
        summary, rows = _sum_up(settings, targets, chosen, answers, facts)
        summary = _keep(workspace, settings, summary, rows)
    if interrupted:
        raise Interrupted(
            "interrupted", f"comparison {summary['id']} keeps {summary['n']} images", payload=summary
        )
    if answers.problem and answers.problem.kind != "slot_failing":
        raise answers.problem
    return summary


class _Live:
    """Keeps `state/ab_running.json` about a second behind, for whoever watches."""

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        targets: dict[str, Target],
        chosen: list[Labelled],
        answers: Answers,
        labelled: LabelledSet,
        seed: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self._path = records.running_path(workspace)
        self._settings, self._targets, self._chosen, self._answers = settings, targets, chosen, answers
        self._on_progress = on_progress
        self._facts = {
            "status": "running",
            "running": True,
            "pid": os.getpid(),
            "planned": len(chosen),
            "started_at": timestamp(),
            "data": labelled.shown,
            "seed": seed,
        }
        self._id = records.next_id(workspace)
        self.started_at = self._facts["started_at"]
        self._written = 0.0
        self._write()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._written > 1.0:
            self._write()
        if self._on_progress:
            self._on_progress(done, total)

    def end(self) -> None:
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        summary, _ = _sum_up(self._settings, self._targets, self._chosen, self._answers, self._facts)
        records.write_quickly(self._path, summary | {"id": self._id})
        self._written = time.monotonic()


def _both(workspace: Workspace) -> dict[str, Pointer]:
    pointers = {slot: read_pointer(workspace, slot) for slot in SLOTS}
    found = {slot: pointer for slot, pointer in pointers.items() if pointer is not None}
    for slot in SLOTS:
        if slot not in found:
            fill = "run: sync, or deploy PATH" if slot == "tobe" else "promote --force --reason TEXT fills it"
            raise Failed(f"{TITLES[slot]} is empty, so there is nothing to compare", fill, kind="empty")
    return found


def _target(workspace: Workspace, settings: Settings, slot: str, pointer: Pointer) -> Target:
    """The slot's server, checked over its private channel and its port to be ours and to serve the pointer."""
    import httpx

    stats = slot_stats(workspace, slot)
    deadline = time.monotonic() + _LOADING_S
    while stats is not None and stats["state"] == "loading" and time.monotonic() < deadline:
        time.sleep(0.2)
        stats = slot_stats(workspace, slot)
    port = int((stats or {}).get("port") or settings.port(slot))
    name = f"{TITLES[slot]} ({port})"
    if stats is None:
        raise Failed(f"{name} is down", "start it with: python -m engine serve", kind="slot_down")
    if stats["state"] != "live":
        raise Failed(f"{name} is {stats['state']}: {stats.get('problem') or 'it serves nothing'}",
                     "see: python -m engine status", kind="slot_down")  # fmt: skip
    if stats["release"] != pointer.release:
        served = str(stats["release"])[:8]
        raise Failed(
            f"{name} serves {served}, not {pointer.release[:8]} that the slot holds: {stats.get('problem') or 'not yet'}",
            "see: python -m engine status",
            kind="slot_down",
        )
    host = settings.servers.host
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '', '::') else f'[{host}]' if ':' in host else host}:{port}"
    try:
        response = httpx.get(f"{url}/model", trust_env=False, timeout=settings.ab.timeout_s)
        model = response.raise_for_status().json()
        answered, classes = str(model["release"]), [str(name) for name in model["classes"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise Failed(
            f"{name} does not answer GET /model ({error})", "see the slot's log", kind="slot_down"
        ) from None
    if answered != pointer.release:
        raise Failed(
            f"port {port} is answered by another server: it serves {answered[:8]}, not {pointer.release[:8]}",
            "stop that server, or change the slot's port",
            kind="wrong_server",
        )
    return Target(slot, port, url, answered, classes)


def _seen(
    workspace: Workspace, earlier: list[dict[str, Any]], targets: dict[str, Target], labelled: LabelledSet
) -> set[str]:
    """Images that these two releases were compared on before, in comparisons that count as evidence."""
    same = [
        summary
        for summary in earlier
        if not summary.get("damaged")
        and records.usable(summary)
        and summary["data_key"] == labelled.key
        and all(summary[slot]["release"] == targets[slot].release for slot in SLOTS)
    ]
    return records.seen_images(workspace, same)


def _uses(earlier: list[dict[str, Any]], labelled: LabelledSet) -> int:
    return sum(bool(summary.get("n")) and summary.get("data_key") == labelled.key for summary in earlier)


def _sum_up(
    settings: Settings, targets: dict[str, Target], chosen: list[Labelled], answers: Answers, facts: dict[str, Any]
) -> tuple[dict[str, Any], list[list[str | None]]]:
    """The summary and the rows; images that both slots refuse as no image are no evidence about either."""
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
        decided, figure = summary["p_value"] < alpha, f"mid-p {summary['p_value']:.3g}"
    else:
        decided, figure = log_e >= -math.log(alpha), f"e-value {summary['e_value']:.3g} of {1 / alpha:.3g}"
    if decided and b != c:
        return ahead, f"{leader} alone is right {max(b, c):,} times, the other alone {min(b, c):,} ({figure})"
    if b == c:
        return "undecided", f"each alone is right {b:,} times: no difference was seen"
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


def _nothing(
    workspace: Workspace, settings: Settings, pointers: dict[str, Pointer], labelled: LabelledSet, seed: int
) -> dict[str, Any]:
    """Equal releases in both slots: an undecided comparison of no images, recorded like any other."""
    targets = {slot: Target(slot, settings.port(slot), "", pointers[slot].release, []) for slot in SLOTS}
    facts = {
        "started_at": timestamp(),
        "status": "completed",
        "data": labelled.shown,
        "data_key": labelled.key,
        "seed": seed,
        "stratified": False,
        "available": len(labelled.images),
        "uses": _uses(records.summaries(workspace), labelled),
        "fresh": 0,
        "excluded": {},
        "notes": labelled.notes,
    }
    summary, rows = _sum_up(settings, targets, [], Answers([]), facts)
    summary["reason"] = f"both slots hold the same release {pointers['asis'].release[:8]}: nothing to compare"
    return _keep(workspace, settings, summary, rows)


def _keep(
    workspace: Workspace, settings: Settings, summary: dict[str, Any], rows: list[list[str | None]]
) -> dict[str, Any]:
    """Number, store and log a comparison; adds what the gate says of it and all before."""
    summary |= {"id": records.next_id(workspace), "at": timestamp()}
    records.store(workspace, summary, rows)
    append_event(
        workspace,
        "compared",
        f"comparison {summary['id']}",
        {
            "id": summary["id"],
            "status": summary["status"],
            "n": summary["n"],
            **{slot: summary[slot]["release"] for slot in SLOTS},
            **{key: summary[key] for key in ("tobe_only", "asis_only", "p_value", "verdict", "reason", "data")},
            "data_fingerprint": summary["data_fingerprint"],
        },
    )
    opened = gate(workspace, settings)
    return {**summary, "gate": {"open": opened["open"], "reason": opened["reason"]}}
