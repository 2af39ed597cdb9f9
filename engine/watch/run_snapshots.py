"""The workspace's runs and sweeps as the protocol's snapshots. Reads what is there now, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable

from engine.errors import Failed, UnderstudyError
from engine.protocol import NEWEST, SWEEP_ROWS, SWEEPS, Point, Progress, Run, RunProgress, Runs, Sweep
from engine.store.files import read_json
from engine.store.workspace import Workspace
from engine.training import sweeps
from engine.training.runs import RunFolder, describe_run, read_metrics
from engine.watch.lenient import lenient


def run_names(workspace: Workspace) -> list[str]:
    """The names of all runs, newest first."""
    try:
        names = [entry.name for entry in os.scandir(workspace.runs) if entry.name.isdigit()]
    except FileNotFoundError:
        return []
    return sorted(names, key=int, reverse=True)


def read_run(workspace: Workspace, name: str) -> Run:
    """One run, from its manifest; a sweep's by `DATE/TIME/N`."""
    entry = describe_run(run_folder(workspace, name))
    forecast = entry.get("fit") or {}
    figures = {key: forecast.get(key) for key in ("predicted_bytes", "available_bytes")}
    known = {**entry, **figures, "fit_verdict": forecast.get("verdict"), "problem": entry.get("error")}
    return lenient(Run, known, {"run": name, "status": str(entry["status"])})


def read_runs(workspace: Workspace, newest: int = NEWEST) -> Runs:
    """The newest runs, and how many there are."""
    names = run_names(workspace)
    swept = sweeps.sweep_names(workspace)
    return Runs(
        runs=[read_run(workspace, name) for name in names[:newest]],
        total=len(names),
        sweeps=[read_sweep(workspace, name) for name in swept[: min(newest, SWEEPS)]],
        sweeps_total=len(swept),
    )


def read_sweep(workspace: Workspace, name: str) -> Sweep:
    """One sweep with its first rows; one that cannot be read says so as its state."""
    try:
        found = sweeps.read_sweep(sweeps.find_sweep(workspace, name))
    except (UnderstudyError, OSError, LookupError, TypeError):
        return Sweep(sweep=name, state="damaged")
    known = {**found, "runs": found["runs"][:SWEEP_ROWS]}
    return lenient(Sweep, known, {"sweep": name, "state": found["state"]})


def running_children(workspace: Workspace, found: Iterable[Sweep]) -> list[Run]:
    """The runs of sweeps that are under way."""
    live = [sweep for sweep in found if sweep.state == "running"]
    names = [f"{sweep.sweep}/{row.n}" for sweep in live for row in sweep.runs if row.status == "running"]
    return [read_run(workspace, name) for name in names]


def read_progress(workspace: Workspace, runs: list[Run]) -> Progress:
    """Where the running ones among `runs` (newest first) are; when none runs, where the newest ended."""
    chosen = [run for run in runs if run.status == "running"] or runs[:1]
    return Progress(runs=[_run_progress(workspace, run) for run in chosen[:NEWEST]], total=len(chosen))


def run_folder(workspace: Workspace, name: str) -> RunFolder:
    """Where the run `name` lies; a sweep's has its sweep's name before its number."""
    return RunFolder((workspace.multirun if "/" in name else workspace.runs) / name)


def _run_progress(workspace: Workspace, run: Run) -> RunProgress:
    folder = run_folder(workspace, run.run)
    try:
        live = read_json(folder.progress) or {}
        rows = read_metrics(folder)
    except (Failed, OSError, ValueError):
        live, rows = {}, []
    points = [lenient(Point, row, {"epoch": 0}) for row in rows[-NEWEST:]]
    known = {
        **live,
        "run": run.run,
        "status": run.status,
        "task": run.task,
        "device": run.device,
        "precision": run.precision,
        "predicted_bytes": run.predicted_bytes,
        "available_bytes": run.available_bytes,
        "fit_verdict": run.fit_verdict,
        "epochs": run.epochs or live.get("epochs"),
        "points": [],
    }
    base = lenient(RunProgress, known, {"run": run.run, "status": run.status})
    shown = {name: getattr(base, name) for name in base.__slots__}
    return RunProgress(**{**shown, "best": run.best, "points": points, "points_total": len(rows)})
