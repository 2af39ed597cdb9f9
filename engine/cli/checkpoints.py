"""`checkpoints`: the history, pruning it, and starting over."""

from __future__ import annotations

import sys
from typing import Any

import click

from engine.checkpoints.history import (
    checkpoint_history,
    removable,
    remove_checkpoints,
    resettable,
)
from engine.cli.verb import Session, Verb, table
from engine.errors import Busy, UsageError, nearest
from engine.release.standing import standings
from engine.store.locks import hold
from engine.store.workspace import TITLES

ACTIONS = ("list", "prune", "reset")


@click.command(cls=Verb, words=("list|prune|reset", 0, 1))
@click.option(
    "--keep", metavar="N", type=click.IntRange(min=1), help="prune: keep the bests of the newest N cycles only."
)
@click.option("--dry-run", is_flag=True, help="prune, reset: say what would be removed, remove nothing.")
@click.option("--yes", is_flag=True, help="reset: do not ask.")
def checkpoints(session: Session, words: list[str], keep: int | None, dry_run: bool, yes: bool) -> None:
    """Show the history of checkpoints, prune it, or remove everything that a training resumes from."""
    action = words[0] if words else "list"
    if action not in ACTIONS:
        raise UsageError(f"unknown action '{action}'", nearest(action, ACTIONS))
    for name, given, of in (("--keep", keep, "prune"), ("--yes", yes, "reset")):
        if given and action != of:
            raise UsageError(f"'{name}' belongs to checkpoints {of}", "see: checkpoints --help")
    if dry_run and action == "list":
        raise UsageError("'--dry-run' belongs to checkpoints prune and reset", "see: checkpoints --help")
    workspace, settings = session.workspace, session.settings
    history = checkpoint_history(workspace, settings, standings(workspace, settings))
    if action == "list":
        session.emit({"checkpoints": [one.as_json() for one in history]}, _history)
        return
    with hold(workspace.lock("checkpoints"), f"checkpoints {action}"):
        if action == "prune":
            chosen = removable(history, settings.training.max_checkpoints, keep)
        else:
            _none_running(session)
            chosen = resettable(history)
            if chosen and not dry_run and not yes:
                _confirm(len(chosen))
        removed = remove_checkpoints(chosen, dry_run=dry_run)
    gone = set() if dry_run else {entry["path"] for entry in removed}
    result = {
        "checkpoints": [one.as_json() for one in history if one.path not in gone],
        "removed": removed,
        "removed_bytes": sum(entry["bytes"] for entry in removed),
        "dry_run": dry_run,
    }
    session.emit(result, _removed)


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise UsageError(
            f"reset removes {count} checkpoints and cannot ask here",
            "add --yes, or look with --dry-run",
            kind="unconfirmed",
        )
    if not click.confirm(f"Remove {count} intermediate checkpoints and resume states?", err=True):
        raise UsageError("not confirmed", "nothing was removed", kind="unconfirmed")


def _none_running(session: Session) -> None:
    from engine.training.runs import list_runs

    if running := [run["run"] for run in list_runs(session.workspace) if run["status"] == "running"]:
        raise Busy(f"busy: run {running[0]} is training", "wait for it, or stop it")


_STANDS = {**TITLES, "both": "both slots"}


def _history(result: dict[str, Any]) -> str:
    rows = [
        (
            one["saved_at"][:16].replace("T", " "),
            "" if one["cycle"] is None else one["cycle"],
            "" if one["epoch"] is None else one["epoch"],
            "" if one["accuracy"] is None else f"{one['accuracy'] * 100:.2f}%",
            f"{one['bytes'] / 1e6:.1f} MB",
            _STANDS.get(one["state"], one["state"])
            + (f" ({one['reason']})" if one["reason"] and one["state"] in ("refused", "rejected") else ""),
            one["path"],
        )
        for one in result["checkpoints"]
    ]
    header = ("saved", "cycle", "epoch", "accuracy", "size", "stands", "file")
    return table(rows, header) if rows else "no checkpoint yet: a training saves one"


def _removed(result: dict[str, Any]) -> str:
    done = "would remove" if result["dry_run"] else "removed"
    lines = [f"{done} {entry['path']}: {entry['reason']}" for entry in result["removed"]]
    total = f"{len(lines)} files, {result['removed_bytes'] / 1e6:.1f} MB" if lines else "nothing"
    return "\n".join([*lines, f"{done} {total}; {len(result['checkpoints'])} checkpoints are there"])
