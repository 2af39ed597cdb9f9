"""`status`: everything at a glance, from files and the slots' own words, and what to do next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import Any

import click

from engine.cli.verb import Session, Verb, table
from engine.protocol import Bake, Run, Slot, Sweep, to_json
from engine.release.control import slot_stats
from engine.store.clock import now, parse
from engine.store.workspace import SLOTS, TITLES
from engine.training.alerts import check_runs
from engine.watch import run_snapshots, snapshots
from engine.watch.advice import MISSED, advise
from engine.watch.candidates import source_has_candidates

RUNS = 5
_STATS_S = 0.5
_PUT = "python -m engine deploy"


@click.command(cls=Verb)
def status(session: Session) -> None:
    """Show everything at a glance: slots, last look, comparison, gate, runs, backups, and what to do next."""
    workspace, settings = session.workspace, session.settings
    stats = {slot: slot_stats(workspace, slot, timeout_s=_STATS_S) for slot in SLOTS}
    slots = snapshots.read_slots(workspace, settings, stats)
    gate = snapshots.read_gate(workspace, settings)
    health = snapshots.read_health(workspace, settings, gate)
    runs = run_snapshots.read_runs(workspace, RUNS)
    health = replace(health, alerts=check_runs(workspace, settings))
    fresh = slots.asis.release is None and slots.tobe.release is None
    has_candidates = fresh and source_has_candidates(settings)
    advice = advise(slots, health, runs.runs, checkpoints=has_candidates)
    result: dict[str, Any] = {
        "slots": {"asis": to_json(slots.asis), "tobe": to_json(slots.tobe)},
        "last_sync": to_json(health.last_sync),
        "last_ab": snapshots.last_comparison(workspace),
        "gate": to_json(gate),
        "runs": to_json(runs.runs),
        "runs_total": runs.total,
        "sweeps": to_json(runs.sweeps),
        "backups": to_json(slots.backups),
        "bake": to_json(slots.bake),
        "held": to_json(health.held),
        "missed_looks": health.missed_looks,
        "locks": to_json(health.locks),
        "unfinished": health.unfinished,
        "alerts": health.alerts,
        "next": to_json(advice),
        "workspace": str(workspace.root),
    }

    def text(_: dict[str, Any]) -> str:
        rows = [_slot_row(TITLES[slot], getattr(slots, slot)) for slot in SLOTS]
        head = ("", "state", "release", "cycle", "epoch", "accuracy", "since", "requests", "p50", "p99")
        parts = [table(rows, head)]
        parts += [
            f"{TITLES[slot]}: {getattr(slots, slot).problem}" for slot in SLOTS if getattr(slots, slot).problem
        ]
        facts = [
            ("look", _look(health.last_sync, health.missed_looks)),
            ("compare", _compared(result["last_ab"])),
            ("gate", f"{'open' if gate.open else 'closed'}: {gate.reason}"),
            *([("bake", _bake(slots.bake))] if slots.bake and slots.bake.release == slots.asis.release else []),
            ("training", _runs(runs.runs, runs.total)),
            *([("sweep", _sweep(runs.sweeps[0]))] if runs.sweeps else []),
            ("backups", _backups(result["backups"])),
        ]
        if health.held:
            held = health.held
            facts.append(("held", f"since {age(held.since)} by {held.by}{_because(held.reason)}"))
        facts += [("alert", text) for text in health.alerts]
        facts += [("busy", f"{lock.purpose} (pid {lock.pid}) since {age(lock.since)}") for lock in health.locks]
        facts.append(("next", advice.text))
        return "\n".join([*parts, "", table(facts)])

    session.emit(result, text)


def age(at: str | None) -> str:
    """A time as a person says it: "12 min ago"."""
    if not at:
        return "–"
    seconds = (now() - parse(at)).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return "just now"


def _slot_row(title: str, slot: Slot) -> list[str]:
    def shown(value: object) -> str:
        return "–" if value is None else str(value)

    return [
        f"{title} :{slot.port}",
        slot.state,
        (slot.release or "–")[:8],
        shown(slot.cycle),
        shown(slot.epoch),
        "–" if slot.accuracy is None else f"{slot.accuracy:.2%}",
        age(slot.since),
        "–" if slot.requests is None else f"{slot.requests:,}",
        _ms(slot.p50_ms),
        _ms(slot.p99_ms),
    ]


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def _look(last: Any, missed: int) -> str:
    if last is None:
        return "none yet"
    words, name = [age(last.at)], PurePath(last.candidate or "").name
    if last.error:
        words.append(f"failing since {age(last.failing_since)}: {last.error}")
    elif last.deployed:
        words.append(f"deployed {name}")
    elif last.changed:
        words.append(f"{name} waits")
    else:
        words.append("nothing new")
    return ", ".join([*words, *([f"{missed} looks missed"] if missed >= MISSED else [])])


def _compared(last: dict[str, Any] | None) -> str:
    if not last:
        return "none yet"
    sides = []
    for slot in SLOTS:
        accuracy = (last.get(slot) or {}).get("accuracy")
        sides.append(f"{TITLES[slot]} {'–' if accuracy is None else format(accuracy, '.2%')}")
    verdict = {"tobe": "TO-BE is better", "asis": "AS-IS is better"}.get(str(last.get("verdict")), "undecided")
    return f"{age(last.get('at'))}, {last.get('n') or 0:,} images: {', '.join(sides)}, {verdict}"


def _bake(bake: Bake) -> str:
    if bake.state == "watching":
        return f"AS-IS is watched: {bake.requests} answers, {bake.errors} errors"
    state = {"rolled_back": "rolled back", "unjudged": "not judged"}.get(bake.state, bake.state)
    return f"{state}{_because(bake.reason)}"


def _runs(runs: list[Run], total: int) -> str:
    if not runs:
        return "none yet"
    newest = runs[0]
    best = newest.best.accuracy if newest.best else None
    words = f"run {newest.run} {newest.status}"
    words += f", best {best:.2%}" if best is not None else ""
    return words + (f" ({total} runs)" if total > 1 else "")


def _sweep(newest: Sweep) -> str:
    words = f"{newest.sweep} {newest.state}, {newest.done} of {newest.total} runs done"
    if newest.best and newest.best.checkpoint:
        words += f", best {newest.best.accuracy or 0:.2%}: {_PUT} {newest.best.checkpoint}"
    return words


def _backups(backups: list[dict[str, Any]]) -> str:
    return f"{len(backups)}, newest {backups[0]['name']}" if backups else "none yet"


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""
