"""One comparison of the two slots on the same labelled images, from asking to the stored verdict."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.compare import records
from engine.compare.asking import Answers, Target, ask_both
from engine.compare.deciding import Rule
from engine.compare.gate import evidence_so_far, gate
from engine.compare.images import draw, known_to_both, take
from engine.compare.summary import paths_of_differing, sum_up
from engine.compare.until import Until
from engine.config import Settings
from engine.errors import Failed, Interrupted, UsageError
from engine.release.bundle import read_release, release_path
from engine.release.control import slot_stats
from engine.release.journal import taken_down
from engine.release.slots import Pointer, read_pointer
from engine.store.clock import parse, timestamp
from engine.store.events import append_event, search_events
from engine.store.locks import hold
from engine.store.workspace import SLOTS, TITLES, Workspace
from engine.tasks.labelled import Labelled, LabelledSet
from engine.tasks.medium import Medium
from engine.tasks.task import load_medium

_LOADING_S = 30.0


def run_ab(
    workspace: Workspace,
    settings: Settings,
    *,
    images: int | None = None,
    data: Path | None = None,
    seed: int | None = None,
    stratified: bool = False,
    until_decided: bool = False,
    wait: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Ask both slots the same labelled images, and store and return what came of it.

    Args:
        images: at most this many, else `ab.images`; with `until_decided`, else the whole set.
        data: the labelled set, else `ab.data`, else the embedded held-out digits.
        seed: of the order. None takes `ab.seed` and puts images first that these two releases were not
            compared on yet; a given seed is followed to the letter.
        stratified: draw each label in proportion to its share of the set.
        until_decided: ask images that these two releases were not compared on, until the gate's evidence (these
            and all before) decides for one of them. With none left it asks nothing, and the last comparison is
            returned with what all the evidence says; a rollback makes all images new again.
        wait: wait while another comparison runs, instead of Busy.
        on_progress: called with the images done and the images in all.

    Returns:
        The contract's object of `ab`, and more: `reason`, `exact_p`, `e_value`, `always_valid_p`, `status`
        (`completed`, `interrupted`, `stopped`), `images_missing`, `data`, `data_fingerprint`, `seed`,
        `uses` (comparisons on this set before), `per_class`, `excluded`, `unusable`, `until_decided`, `gate`;
        with `until_decided` also `pooled` and `used_up` (no image of the set is left).

    Raises:
        UsageError: no labelled images, or none with a label that both releases know.
        Busy: another comparison runs, or a promotion.
        Failed: a slot is empty, down, or changed meanwhile; what was answered is kept as a comparison that
            was stopped.
        Interrupted: Ctrl-C; what was answered is kept and counts as a look.
    """
    _look_at(data or settings.ab.data)
    with hold(workspace.lock("compare"), "ab", wait=wait):
        adopt_killed(workspace)
        pointers = _both(workspace)
        medium = _medium(workspace, settings, pointers)
        seed_used = settings.ab.seed if seed is None else seed
        labelled = medium.labelled(settings, data, seed_used)
        if pointers["asis"].release == pointers["tobe"].release:
            return _nothing(workspace, settings, pointers, labelled, seed_used)
        targets = {slot: _target(workspace, settings, slot, pointers[slot]) for slot in SLOTS}
        labelled = known_to_both(labelled, targets["asis"].classes, targets["tobe"].classes)
        earlier = records.summaries(workspace)
        same = _same(earlier, targets, labelled)
        seen = counted = records.seen_images(workspace, same)
        down_at = taken_down(workspace).get(pointers["tobe"].release)
        if until_decided and down_at is not None:  # what came before the rollback is evidence no more
            same = [summary for summary in same if parse(summary["at"]) > parse(down_at)]
            counted = records.seen_images(workspace, same)
        ordered = draw(labelled.images, seed_used, stratified=stratified)
        notes = labelled.notes
        if until_decided:
            taken = take(ordered, images or len(ordered), counted)
            chosen = [image for image in taken if image.sha256 not in counted]
        else:
            chosen = take(ordered, images or settings.ab.images, seen if seed is None else None)
            if images is not None and len(chosen) < images:
                notes = [*notes, f"{images:,} images were wanted, {len(chosen):,} are there: each is asked once"]
        if not chosen and not (until_decided and same):
            raise UsageError(
                f"no image of {labelled.shown} can be asked: its bytes stand there under two labels",
                "keep one of each",
                kind="no_data",
            )
        answers = Answers([None] * len(chosen))
        facts = {
            "started_at": timestamp(),
            "status": "completed",
            "data": labelled.shown,
            "data_key": labelled.key,
            "seed": seed_used,
            "stratified": stratified,
            "until_decided": until_decided,
            "available": len(labelled.images),
            "uses": _uses(earlier, labelled),
            "excluded": labelled.excluded,
            "notes": notes,
        }
        until = None
        if until_decided:
            before, live_labels, sets = evidence_so_far(
                workspace, pointers["asis"], pointers["tobe"], labelled.key
            )
            rule, last = Rule.of(settings.gate, sets, before.first), images is None or len(chosen) < images
            until = Until(rule, before, live_labels, chosen, answers, last=last)
            if not chosen and same:
                newest = same[-1] | until.nothing_left(same[-1]) | {"fresh": 0, "notes": notes}
                return newest | {"gate": _gate(workspace, settings)}
        live = _Live(workspace, settings, targets, chosen, answers, facts, seen)
        interrupted = False
        try:
            ask_both(
                targets,
                chosen,
                answers,
                medium=medium,
                concurrency=settings.ab.concurrency,
                timeout_s=settings.ab.timeout_s,
                on_progress=on_progress,
                on_look=live.look,
                decided_at=until,
            )
        except KeyboardInterrupt:
            interrupted = True
        finally:
            live.end()
        if answers.done == 0:
            raise answers.problem or Interrupted("interrupted before the first answer", "nothing was compared")
        if answers.decided is not None:
            del chosen[answers.decided :], answers.pairs[answers.decided :]
        status = "interrupted" if interrupted else "stopped" if answers.problem else "completed"
        summary, rows, paths = live.sum_up(answers, status)
        if until is not None:
            summary |= until.verdict(summary)
        summary = _keep(workspace, settings, summary, rows, paths)
    if interrupted:
        raise Interrupted(
            "interrupted", f"comparison {summary['id']} keeps {summary['n']} images", payload=summary
        )
    if answers.problem and answers.problem.kind != "slot_failing":
        raise answers.problem
    return summary


def adopt_killed(workspace: Workspace) -> list[int]:
    """Finish the record of comparisons whose process was killed, with the lock `compare` held; their numbers.

    Such a comparison counts from its first look on, as one that was interrupted; here it gets its event.
    """
    adopted = []
    for summary in records.summaries(workspace):
        if summary.get("unlogged"):
            number = int(summary["id"])
            done = any(
                event["kind"] == "compared" and event["detail"].get("id") == number
                for event in search_events(workspace, f"comparison {number}")
            )
            if not done:
                _log(workspace, summary)
            records.settle(workspace, number)
            adopted.append(number)
    return adopted


class _Live:
    """The comparison while it runs: what has been answered is on the disk before anybody can see its counts.

    Each look writes `comparisons/N.json` as the interrupted comparison it would be if this process died now, and
    then `state/ab_progress.json` for whoever watches. So nobody can look, dislike what they see, and kill it.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        targets: dict[str, Target],
        chosen: list[Labelled],
        answers: Answers,
        facts: dict[str, Any],
        seen: set[str],
    ) -> None:
        self._workspace, self._settings, self._targets = workspace, settings, targets
        self._chosen, self._answers, self._facts, self._seen = chosen, answers, facts, seen
        self._progress = records.running_path(workspace)
        self._id = records.next_id(workspace)
        self._planned = len(chosen)
        self._show(self.sum_up(answers, "running")[0])

    def sum_up(
        self, answers: Answers, status: str
    ) -> tuple[dict[str, Any], list[list[str | None]], dict[str, str]]:
        """What the answers say: the summary, its rows, and where the differing images lie."""
        fresh = sum(
            pair is not None and image.sha256 not in self._seen
            for image, pair in zip(self._chosen, answers.pairs, strict=True)
        )
        facts = {**self._facts, "status": status, "fresh": fresh}
        summary, rows = sum_up(self._settings, self._targets, self._chosen, answers, facts)
        return summary | {"id": self._id}, rows, paths_of_differing(self._chosen, answers)

    def look(self) -> None:
        answers = Answers(list(self._answers.pairs), self._answers.problem)
        summary, rows, paths = self.sum_up(answers, "interrupted")
        if summary["n"]:
            summary |= {"at": timestamp(), "reason": "its process ended before the comparison did"}
            records.write_record(self._workspace, summary | {"unlogged": True}, rows, paths)
        self._show(summary)

    def end(self) -> None:
        self._progress.unlink(missing_ok=True)

    def _show(self, summary: dict[str, Any]) -> None:
        running = {"status": "running", "running": True, "pid": os.getpid(), "planned": self._planned}
        records.write_quickly(self._progress, summary | running)


def _look_at(data: Path | None) -> None:
    """Say what is plainly wrong with an argument before what is wrong with a slot."""
    root = data.expanduser() if data is not None else None
    if root is not None and not root.exists():
        raise UsageError(f"no labelled images at {root}", "check --data or ab.data", kind="no_data")
    if root is not None and root.is_dir() and not any(root.iterdir()):
        raise UsageError(f"no labelled images in {root}: it is empty", "check --data or ab.data", kind="no_data")


def _both(workspace: Workspace) -> dict[str, Pointer]:
    pointers = {slot: read_pointer(workspace, slot) for slot in SLOTS}
    found = {slot: pointer for slot, pointer in pointers.items() if pointer is not None}
    for slot in SLOTS:
        if slot not in found:
            promotable = slot == "asis" and "tobe" in found
            fill = "promote --force --reason TEXT fills it" if promotable else "first run: sync, or deploy PATH"
            raise Failed(f"{TITLES[slot]} is empty, so there is nothing to compare", fill, kind="empty")
    return found


def _medium(workspace: Workspace, settings: Settings, pointers: dict[str, Pointer]) -> Medium:
    """What both releases' task is asked with, and by what it is right.

    Raises:
        Failed: a release's file is missing, or the two are of different tasks.
        UsageError: code of one's own that this host does not trust.
    """
    found = {slot: read_release(release_path(workspace, one.release)).manifest for slot, one in pointers.items()}
    tasks = {slot: manifest.task for slot, manifest in found.items()}
    if tasks["asis"] != tasks["tobe"]:
        raise Failed(
            f"AS-IS serves the task '{tasks['asis']}', TO-BE '{tasks['tobe']}'", "deploy one of the same task"
        )
    return load_medium(
        found["asis"].model_dump(include={"task", "architecture", "classes", "preprocess"}), settings.task
    )


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


def _same(
    earlier: list[dict[str, Any]], targets: dict[str, Target], labelled: LabelledSet
) -> list[dict[str, Any]]:
    """The comparisons of these two releases on this set that are usable as evidence."""
    return [
        summary
        for summary in earlier
        if not summary.get("damaged")
        and records.usable(summary)
        and summary["data_key"] == labelled.key
        and all(summary[slot]["release"] == targets[slot].release for slot in SLOTS)
    ]


def _uses(earlier: list[dict[str, Any]], labelled: LabelledSet) -> int:
    return sum(bool(summary.get("n")) and summary.get("data_key") == labelled.key for summary in earlier)


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
        "until_decided": False,
        "available": len(labelled.images),
        "uses": _uses(records.summaries(workspace), labelled),
        "fresh": 0,
        "excluded": {},
        "notes": labelled.notes,
    }
    summary, rows = sum_up(settings, targets, [], Answers([]), facts)
    summary["reason"] = f"both slots hold the same release {pointers['asis'].release[:8]}: nothing to compare"
    return _keep(workspace, settings, summary, rows, {})


def _keep(
    workspace: Workspace,
    settings: Settings,
    summary: dict[str, Any],
    rows: list[list[str | None]],
    paths: dict[str, str],
) -> dict[str, Any]:
    """Store and log a comparison, in that order; adds what the gate says of it and all before."""
    summary |= {"id": summary["id"] or records.next_id(workspace), "at": timestamp()}
    records.store(workspace, summary | {"unlogged": True}, rows, paths)
    _log(workspace, summary)
    records.settle(workspace, summary["id"])
    return {**summary, "gate": _gate(workspace, settings)}


def _gate(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    opened = gate(workspace, settings)
    return {"open": opened["open"], "reason": opened["reason"]}


def _log(workspace: Workspace, summary: dict[str, Any]) -> None:
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
