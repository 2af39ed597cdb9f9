"""Training runs on disk: their numbers, manifests and state. Torch-free, for `runs`, `status` and `watch`.

`runs/RUN/` holds `manifest.json` (rewritten at each change of state), `metrics.jsonl` (one object an
epoch), `progress.json` (live, about once a second), `data_report.json`, `train.log` (what it says to people),
`last.pth` and `previous.pth` (to resume) with their hashes in `last.json`, and, for a run whose best was not to go
into a cycle folder, `best.pth`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import Failed, UsageError
from engine.store.clock import timestamp
from engine.store.files import read_json, write_json
from engine.store.locks import holder
from engine.store.workspace import Workspace

MULTIRUN = "multirun"
_MAY_RUN = 100  # a run older than these is not looked at for one that is under way
FIELDS: dict[str, Any] = {
    "run": None,
    "status": "running",
    "cycle": None,
    "model": None,
    "data": None,
    "device": None,
    "precision": None,
    "epochs": None,
    "epoch": 0,
    "best": None,
    "checkpoint": None,
    "samples_per_s": None,
    "peak_memory_bytes": None,
    "fit": None,  # the forecast: predicted_bytes, available_bytes, verdict
    "seconds_s": None,
    "started_at": None,
    "finished_at": None,
    "error": None,
    "task": "images",
    "unit": "images",
}


@dataclass(frozen=True)
class RunFolder:
    """Where the files of one run lie."""

    root: Path

    @property
    def run(self) -> str:
        """`0007`; of a sweep's child `2026-11-21/16-30-00/0`."""
        return "/".join(self.root.parts[-3:]) if self.swept else self.root.name

    @property
    def swept(self) -> bool:
        """Whether it is a sweep's child."""
        return self.root.parts[-4:-3] == (MULTIRUN,)

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def progress(self) -> Path:
        return self.root / "progress.json"

    @property
    def report(self) -> Path:
        return self.root / "data_report.json"

    @property
    def last(self) -> Path:
        return self.root / "last.pth"

    @property
    def previous(self) -> Path:
        """The resume state before the last."""
        return self.root / "previous.pth"

    @property
    def sidecar(self) -> Path:
        """The hashes that the two resume states must have."""
        return self.root / "last.json"

    @property
    def smaller(self) -> Path:
        """What one of several processes leaves when memory ran out for it: they begin anew with less."""
        return self.root / "smaller.json"

    @property
    def best(self) -> Path:
        return self.root / "best.pth"

    @property
    def log(self) -> Path:
        return self.root / "train.log"

    @property
    def intervals(self) -> Path:
        return self.root / "checkpoints"

    @property
    def lock(self) -> Path:
        return self.root / "run.lock"

    def sweep(self) -> None:
        """Remove what a killed process has left half written; for the holder of the lock alone."""
        for path in self.root.glob(".*"):
            if path.is_file():
                path.unlink(missing_ok=True)

    def read_manifest(self) -> dict[str, Any]:
        return read_json(self.manifest) or {}

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        write_json(self.manifest, manifest)


def second_metric(row: dict[str, Any]) -> str:
    """The metric beside accuracy, in words: macro-F1, or top-5 where there are too many classes for that."""
    if row.get("f1_macro") is not None:
        return f"  F1-macro {row['f1_macro']:.4f}"
    return f"  top-5 {row['top5']:.2%}" if row.get("top5") is not None else ""


def claim_run(workspace: Workspace) -> RunFolder:
    """Make the folder of a new run, `0001` and upwards; `mkdir` decides between two that start at once."""
    workspace.runs.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in workspace.runs.iterdir() if path.name.isdigit()), default=0) + 1
    while True:
        folder = workspace.runs / f"{number:04d}"
        try:
            folder.mkdir()
            return RunFolder(folder)
        except FileExistsError:
            number += 1


def find_run(workspace: Workspace, name: str) -> RunFolder:
    """The run called `name` (`latest`, `0002` or `2`; a sweep's child by its sweep, `2026-11-21/16-30-00/0`).

    Raises:
        UsageError: there is no such run.
    """
    if (child := workspace.multirun / name).is_dir() and name.count("/") == 2 and ".." not in name:
        return RunFolder(child)
    known = _names(workspace)
    if name == "latest" and known:
        return RunFolder(workspace.runs / known[0])
    for candidate in (name, name.zfill(4) if name.isdigit() else name):
        if candidate in known:
            return RunFolder(workspace.runs / candidate)
    shown = ", ".join(known[:8]) or "none yet"
    raise UsageError(f"no run '{name}'", f"known, newest first: {shown}", kind="unknown_run")


def list_runs(workspace: Workspace) -> list[dict[str, Any]]:
    """All runs, newest first, each with the contract's fields; a `running` one whose process is gone is `lost`."""
    return [describe_run(RunFolder(workspace.runs / name)) for name in _names(workspace)]


def describe_run(folder: RunFolder) -> dict[str, Any]:
    """One run as `runs` shows it; while it runs, with its live `progress`."""
    try:
        manifest = folder.read_manifest()
    except Failed as error:
        return FIELDS | {"run": folder.run, "status": "lost", "error": str(error)}
    entry = {name: manifest.get(name, default) for name, default in FIELDS.items()} | {"run": folder.run}
    if entry["status"] == "running":
        progress = _read_progress(folder)
        entry["progress"] = progress
        if progress:
            entry["epoch"] = progress.get("epoch")
            entry["samples_per_s"] = progress.get("samples_per_s")
        if not is_alive(manifest) and holder(folder.lock) is None:  # a clock that was set moves when it began
            entry["status"] = "lost"
            entry["error"] = f"its process (pid {manifest.get('pid')}) ended without a word"
    return entry


def newest_running(workspace: Workspace) -> RunFolder | None:
    """The newest run that is under way, or None."""
    for name in _names(workspace)[:_MAY_RUN]:
        folder = RunFolder(workspace.runs / name)
        if describe_run(folder)["status"] == "running":
            return folder
    return None


def list_running_folders(workspace: Workspace) -> list[RunFolder]:
    """The newest runs, and children of sweeps, whose manifests say that they run; their processes may be gone."""
    children = sorted((workspace.multirun).glob("*/*/*/manifest.json"), reverse=True)
    folders = [RunFolder(workspace.runs / name) for name in _names(workspace)[:_MAY_RUN]]
    folders += [RunFolder(path.parent) for path in children[:_MAY_RUN]]
    return [folder for folder in folders if _says_running(folder)]


def stop_run(folder: RunFolder, limit_s: float = 120.0) -> str:
    """Ask a run's process to stop and wait for its end; the run's status then (`interrupted`, as a rule).

    A run that does not go on keeps its status.

    Raises:
        UsageError: it runs on another host.
        Failed: the process may not be signalled, or has not ended within `limit_s`.
    """
    entry, manifest = describe_run(folder), folder.read_manifest()
    if entry["status"] != "running":
        return str(entry["status"])
    if (host := manifest.get("host")) not in (None, socket.gethostname()):
        raise UsageError(f"run {folder.run} goes on on {host}", f"stop it there: train --stop {folder.run}")
    pid = int(manifest["pid"])
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has just ended by itself
    except PermissionError:
        raise Failed(f"run {folder.run} belongs to another account (pid {pid})", "let its owner stop it") from None
    deadline = time.monotonic() + limit_s
    while (status := str(describe_run(folder)["status"])) == "running":
        if time.monotonic() > deadline:
            raise Failed(
                f"run {folder.run} (pid {pid}) was asked to stop {limit_s:.0f} s ago and still goes on",
                "it stops between two steps; see: python -m engine logs",
                kind="still_running",
            )
        time.sleep(0.1)
    return status


def note_interrupted(folder: RunFolder) -> None:
    """Write down that a run was stopped before its training began; one that nobody was told of goes away."""
    manifest = folder.read_manifest()
    if not manifest:
        shutil.rmtree(folder.root, ignore_errors=True)
    elif manifest.get("status") == "running":
        folder.write_manifest(manifest | {"status": "interrupted", "finished_at": timestamp()})


def read_metrics(folder: RunFolder) -> list[dict[str, Any]]:
    """The finished epochs of a run, oldest first; a torn last line is left out."""
    try:
        lines = folder.metrics.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line]


def write_quickly(path: Path, value: Any) -> None:
    """Atomic for readers but not fsynced: for figures that are worth nothing after a crash."""
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as stream:
        json.dump(value, stream)
    Path(scratch).chmod(0o644)
    Path(scratch).replace(path)


def process_identity(pid: int | None = None) -> dict[str, Any]:
    """`pid`, when it started and on which host: a number used again is not taken for the run's process."""
    pid = pid or os.getpid()
    return {"pid": pid, "pid_started": _started(pid), "host": socket.gethostname()}


def is_alive(manifest: dict[str, Any]) -> bool:
    """Whether the manifest's process still runs; on another host that cannot be seen, so it is believed."""
    if manifest.get("host") not in (None, socket.gethostname()):
        return True
    pid = manifest.get("pid")
    if not pid:
        return False
    started = _started(int(pid))
    wanted = manifest.get("pid_started")
    return started is not None and (wanted is None or abs(started - wanted) < 1.0)


def _started(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _names(workspace: Workspace) -> list[str]:
    try:
        found = [path.name for path in workspace.runs.iterdir() if path.name.isdigit() and path.is_dir()]
    except FileNotFoundError:
        return []
    return sorted(found, key=int, reverse=True)


def _says_running(folder: RunFolder) -> bool:
    try:
        return folder.read_manifest().get("status") == "running"
    except (Failed, OSError):
        return False  # damaged: `runs` shows it


def _read_progress(folder: RunFolder) -> dict[str, Any] | None:
    try:
        return read_json(folder.progress)
    except Failed:
        return None
