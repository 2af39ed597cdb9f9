"""Sweeps on disk: `multirun/YYYY-MM-DD/HH-MM-SS/` with `sweep.json` and a run folder `N/` for each run. Torch-free.

`sweep.json` is rewritten by the sweep's own process whenever a run begins or ends; what a run has reached stands in
that run's manifest, which is asked wherever `sweep.json` may be behind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from engine.errors import Failed, UsageError
from engine.store.clock import now, timestamp
from engine.store.files import read_json, write_json
from engine.store.locks import holder
from engine.store.workspace import Workspace
from engine.training.runs import FIELDS, RunFolder, describe_run, is_alive

WAITING = "waiting"
_NAME = re.compile(r"^\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d$")
_DONE = ("completed", "failed")


@dataclass(frozen=True)
class SweepFolder:
    """Where the files of one sweep lie."""

    root: Path

    @property
    def sweep(self) -> str:
        """Its name, `2026-11-21/16-30-00`."""
        return "/".join(self.root.parts[-2:])

    @property
    def record(self) -> Path:
        return self.root / "sweep.json"

    @property
    def lock(self) -> Path:
        return self.root / "sweep.lock"

    @property
    def log(self) -> Path:
        return self.root / "sweep.log"

    def child(self, number: int) -> RunFolder:
        return RunFolder(self.root / str(number))


def make_sweep(
    workspace: Workspace, runs: Sequence[tuple[Sequence[str], dict[str, Any]]], arguments: Sequence[str]
) -> SweepFolder:
    """Claim a folder named by the present time, with a run folder for each run and then `sweep.json`.

    Args:
        runs: the swept overrides of each run, and what its manifest begins with (its settings among it).
        arguments: the overrides that are not of the runs; a resumed sweep goes on with them.
    """
    moment = now()
    while True:
        root = workspace.multirun / moment.strftime("%Y-%m-%d") / moment.strftime("%H-%M-%S")
        root.parent.mkdir(parents=True, exist_ok=True)
        try:
            root.mkdir()
            break
        except FileExistsError:
            moment += timedelta(seconds=1)
    folder = SweepFolder(root)
    rows = []
    for number, (overrides, manifest) in enumerate(runs):
        child = folder.child(number)
        child.root.mkdir()
        child.write_manifest({**FIELDS, "run": child.run, "status": WAITING, **manifest})
        rows.append(row(number, overrides, {"status": WAITING}))
    write_json(
        folder.record,
        {
            "sweep": folder.sweep,
            "state": WAITING,
            "metric": "f1_macro",
            "arguments": list(arguments),
            "started_at": timestamp(),
            "finished_at": None,
            "runs": rows,
        },
    )
    return folder


def row(number: int, overrides: Sequence[str], entry: dict[str, Any]) -> dict[str, Any]:
    """A run's line in its sweep, from `describe_run`."""
    best = entry.get("best") or {}
    return {
        "n": number,
        "run": entry.get("run"),
        "overrides": list(overrides),
        "status": entry["status"],
        **{name: best.get(name) for name in ("accuracy", "f1_macro", "loss")},
        **{name: entry.get(name) for name in ("epoch", "epochs", "device", "seconds_s", "checkpoint", "error")},
    }


def find_sweep(workspace: Workspace, name: str) -> SweepFolder:
    """The sweep called `name` (`latest`, or `2026-11-21/16-30-00`, also as a path or with a space).

    Raises:
        UsageError: there is none.
    """
    known = sweep_names(workspace)
    if name == "latest" and known:
        return _folder(workspace, known[0])
    wanted = "/".join(name.replace(" ", "/").rstrip("/").split("/")[-2:])
    if wanted in known:
        return _folder(workspace, wanted)
    raise UsageError(
        f"no sweep '{name}'", f"known, newest first: {', '.join(known[:5]) or 'none yet'}", kind="unknown_run"
    )


def sweep_names(workspace: Workspace) -> list[str]:
    """All sweeps, newest first."""
    paths = (workspace.multirun).glob("*/*/sweep.json")
    found = ("/".join(path.parts[-3:-1]) for path in paths)
    return sorted((name for name in found if _NAME.match(name)), reverse=True)


def read_sweep(folder: SweepFolder) -> dict[str, Any]:
    """A sweep as it is now: `{sweep, state, metric, done, failed, total, best, started_at, finished_at, runs}`.

    `runs` are ranked; `state` is `waiting`, `running`, `completed`, `failed`, `interrupted`, or `lost` where its process is gone.

    Raises:
        Failed: `sweep.json` is missing or damaged.
    """
    record = read_json(folder.record)
    if not isinstance(record, dict):
        raise Failed(f"there is no {folder.record}", "start the sweep again")
    rows = []
    for entry in record["runs"]:
        if entry["status"] not in _DONE:
            entry = row(entry["n"], entry["overrides"], describe_run(folder.child(entry["n"])))
        rows.append(entry)
    state = record["state"]
    if state == "running" and record.get("pid") and not is_alive(record) and holder(folder.lock) is None:
        state = "lost"
    ranked = rank(rows)
    best = next((entry for entry in ranked if entry["rank"] is not None), None)
    return {
        "sweep": folder.sweep,
        "state": state,
        "metric": metric(rows),
        "done": sum(entry["status"] == "completed" for entry in rows),
        "failed": sum(entry["status"] in ("failed", "lost") for entry in rows),
        "total": len(rows),
        "best": best,
        **{name: record.get(name) for name in ("started_at", "finished_at", "pid")},
        "runs": ranked,
    }


def list_sweeps(workspace: Workspace, newest: int | None = None) -> list[dict[str, Any]]:
    """The newest sweeps; one that cannot be read is left out."""
    found = []
    for name in sweep_names(workspace)[:newest]:
        try:
            found.append(read_sweep(_folder(workspace, name)))
        except (Failed, OSError, KeyError, TypeError):
            continue
    return found


def sweep_entries(workspace: Workspace, sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of a sweep as `runs` shows them, ranked, each with its `sweep` and `overrides`."""
    folder = _folder(workspace, sweep["sweep"])
    return [
        describe_run(folder.child(entry["n"])) | {"sweep": sweep["sweep"], "overrides": entry["overrides"]}
        for entry in sweep["runs"]
    ]


def metric(rows: Sequence[dict[str, Any]]) -> str:
    """What runs are ranked by: macro-F1, or accuracy where the task has no macro-F1."""
    known = [entry for entry in rows if entry["accuracy"] is not None]
    return "f1_macro" if not known or any(entry["f1_macro"] is not None for entry in known) else "accuracy"


def rank(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with `rank` (1 is best; None without a result), best first: completed ones by the metric, of equal
    ones the lower loss; then those that have come part of the way; then the rest in their order."""
    name = metric(rows)

    def key(entry: dict[str, Any]) -> tuple[Any, ...]:
        if entry[name] is None:
            return (2, 0.0, 0.0, entry["n"])
        loss = entry["loss"] if entry["loss"] is not None else float("inf")
        return (entry["status"] != "completed", -entry[name], loss, entry["n"])

    ranked = sorted(rows, key=key)
    return [
        {**entry, "rank": place if entry["status"] == "completed" and entry[name] is not None else None}
        for place, entry in enumerate(ranked, 1)
    ]


def _folder(workspace: Workspace, name: str) -> SweepFolder:
    return SweepFolder(workspace.multirun / name)
