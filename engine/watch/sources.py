"""What `watch` looks at on this host: each source a thread of its own, so that one that hangs stops no other."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.cloud.view import snapshot as cloud_snapshot
from engine.config import Settings
from engine.devices.nvml import Nvml
from engine.devices.sample import Sampler
from engine.errors import Failed, UnderstudyError
from engine.protocol import (
    NEWEST,
    SWEEPS,
    Backup,
    Device,
    Devices,
    Gate,
    Progress,
    Run,
    Runs,
    Slots,
    Sweep,
)
from engine.release.control import slot_stats
from engine.release.slots import pointer_path
from engine.store.workspace import SLOTS, Workspace
from engine.training.sweeps import sweep_names
from engine.watch import run_snapshots, snapshots
from engine.watch.checkpoints import CheckpointLister
from engine.watch.eventtail import EventTail
from engine.watch.proofs import Proofs
from engine.watch.snapshots import signature

_STATS_S = 2.0


@dataclass(frozen=True)
class Found:
    """What one look of a source brought: data of some kinds, and why others are missing.

    `problem` is the whole source's, `problems` those of single kinds.
    """

    source: str
    data: dict[str, Any]
    problem: str | None = None
    problems: dict[str, str] = field(default_factory=dict)


class Partly(Exception):
    """A look of which some kinds failed: `problems` says why, `data` is what the others brought."""

    def __init__(self, problems: dict[str, str], data: dict[str, Any]) -> None:
        super().__init__("; ".join(problems.values()))
        self.problems, self.data = problems, data


class Worker(threading.Thread):
    """Looks every `interval_s` and puts what it found into `found`; a look that hangs hangs this thread alone.

    Args:
        first_s: how long it waits with its first look.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], dict[str, Any]],
        interval_s: float,
        found: queue.SimpleQueue[Found],
        first_s: float = 0.0,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._look, self._interval_s, self._found, self._first_s = look, interval_s, found, first_s

    def run(self) -> None:
        time.sleep(self._first_s)
        while True:
            began = time.monotonic()
            try:
                self._found.put(Found(self.name, self._look()))
            except Partly as partly:
                self._found.put(Found(self.name, partly.data, problems=partly.problems))
            except Exception as error:  # noqa: BLE001 - a file nobody foresaw must not end the looks for good
                self._found.put(Found(self.name, {}, in_words(error)))
            time.sleep(max(0.05, self._interval_s - (time.monotonic() - began)))


def in_words(error: Exception) -> str:
    """What went wrong in a look, in one sentence."""
    if isinstance(error, UnderstudyError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:200]}"


class HostSource:
    """CPU, memory, disk and Apple's GPU, with what `GpuSource` found last."""

    def __init__(self, workspace: Workspace, gpus: GpuSource) -> None:
        self._sampler, self._gpus = Sampler(workspace.root), gpus

    def look(self) -> dict[str, Any]:
        host: Devices = replace(self._sampler.sample(self._gpus.latest), problem=self._gpus.problem)
        return {"devices": host}


class GpuSource:
    """NVIDIA's GPUs through a child with a deadline."""

    def __init__(self) -> None:
        self._nvml = Nvml()
        self.latest: list[Device] = []

    @property
    def problem(self) -> str | None:
        return self._nvml.problem

    def look(self) -> dict[str, Any]:
        self.latest = self._nvml.sample()
        return {}

    def close(self) -> None:
        self._nvml.close()


class SlotSource:
    """Both slots: their pointers, and their servers' figures over the private channel."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self._workspace, self._settings = workspace, settings
        self._pool = ThreadPoolExecutor(len(SLOTS), thread_name_prefix="stats")
        self._counts: dict[str, tuple[int, int, float]] = {}
        self._backups: tuple[Any, list[Backup]] = (None, [])

    def look(self) -> dict[str, Any]:
        answers = self._pool.map(lambda slot: slot_stats(self._workspace, slot, _STATS_S), SLOTS)
        stats = dict(zip(SLOTS, answers, strict=True))
        slots = snapshots.read_slots(self._workspace, self._settings, stats, backups=False)
        backups = self._list_backups()
        rates = {slot: self._rate(slot, stats[slot]) for slot in SLOTS}
        return {
            "slots": Slots(
                asis=replace(slots.asis, requests_per_s=rates["asis"]),
                tobe=replace(slots.tobe, requests_per_s=rates["tobe"]),
                backups=backups[:NEWEST],
                total=len(backups),
            )
        }

    def _rate(self, slot: str, stats: dict[str, Any] | None) -> float | None:
        """Requests a second since the last look at the same server."""
        if stats is None or not isinstance(stats.get("requests"), int):
            self._counts.pop(slot, None)
            return None
        before, moment = self._counts.get(slot), time.monotonic()
        self._counts[slot] = (int(stats.get("pid") or 0), stats["requests"], moment)
        if before is None or before[0] != stats.get("pid") or moment <= before[2]:
            return None
        return round(max(0, stats["requests"] - before[1]) / (moment - before[2]), 1)

    def _list_backups(self) -> list[Backup]:
        mark = signature([self._workspace.backups, self._workspace.state / "backups.json"])
        if mark != self._backups[0]:
            self._backups = (mark, snapshots.list_backups(self._workspace, self._settings))
        return self._backups[1]


class CheckpointSource:
    """The history of checkpoints, the analysis and the exports; listing may hash what is new, which takes its time."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self._lister = CheckpointLister(workspace, settings)
        self._proofs = Proofs(workspace)

    def look(self) -> dict[str, Any]:
        known = replace(self._lister.look(), exports=self._proofs.exports())
        try:
            return {"checkpoints": replace(known, analysis=self._proofs.analysis())}
        except Failed as error:
            raise Partly({"analysis": in_words(error)}, {"checkpoints": known}) from None


class FileSource:
    """Everything else that stands in the workspace; a file is read again only when its size or time changed."""

    def __init__(self, workspace: Workspace, settings: Settings) -> None:
        self._workspace, self._settings = workspace, settings
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._events = EventTail(workspace.events)
        self._runs: dict[str, tuple[Any, Run]] = {}
        self._sweeps: dict[str, tuple[Any, Sweep]] = {}

    def look(self) -> dict[str, Any]:
        workspace, settings = self._workspace, self._settings
        found: dict[str, Any] = {}
        problems: dict[str, str] = {}

        def read(kind: str, how: Callable[[], Any]) -> None:
            try:
                found[kind] = how()
            except Exception as error:  # noqa: BLE001 - one damaged file must not hide what the others say
                problems[kind] = in_words(error)

        read(
            "gate",
            lambda: self._unless_same(
                "gate", self._gate_files(), lambda: snapshots.read_gate(workspace, settings)
            ),
        )
        gate: Gate = found.pop("gate", None) or Gate(open=False, reason=problems.pop("gate", ""))
        read("health", lambda: snapshots.read_health(workspace, settings, gate))
        read("events", self._events.look)
        read(
            "ab",
            lambda: self._unless_same(
                "ab",
                [*self._gate_files(), workspace.state / "ab_progress.json"],
                lambda: snapshots.read_ab(workspace, settings, gate),
            ),
        )
        read("runs", self._read_runs)
        read("progress", self._read_progress)
        if (workspace.root / "cloud").is_dir():
            read("cloud", lambda: cloud_snapshot(workspace))
        if self._events.problem:
            problems.setdefault("events", self._events.problem)
        if problems:
            raise Partly(problems, found)
        return found

    def _unless_same(self, name: str, files: list[Path], read: Callable[[], Any], *, extra: object = None) -> Any:
        mark = (extra, signature(files))
        kept = self._kept.get(name)
        if kept is None or kept[0] != mark:
            self._kept[name] = kept = (mark, read())
        return kept[1]

    def _gate_files(self) -> list[Path]:
        state = [self._workspace.state / f"{name}.json" for name in ("last_ab", "taken_down", "rejected")]
        pointers = [pointer_path(self._workspace, slot) for slot in SLOTS]
        live = sorted((self._workspace.root / "shadow").glob("*/*.json*"))  # counts and labels of live requests
        return [*pointers, self._workspace.comparisons, *state, *live]

    def _read_progress(self) -> Progress:
        runs = [run for _, run in self._runs.values()]
        swept = run_snapshots.running_children(self._workspace, (sweep for _, sweep in self._sweeps.values()))
        runs = [*swept, *runs]
        live = [run for run in runs if run.status == "running"] or runs[:1]
        folders = [run_snapshots.run_folder(self._workspace, run.run).root for run in live]
        files = [folder / name for folder in folders for name in ("progress.json", "metrics.jsonl")]
        progress: Progress = self._unless_same(
            "progress", files, lambda: run_snapshots.read_progress(self._workspace, runs), extra=live
        )
        return progress

    def _read_runs(self) -> Runs:
        names = self._unless_same(
            "names", [self._workspace.runs], lambda: run_snapshots.run_names(self._workspace)
        )
        found: dict[str, tuple[Any, Run]] = {}
        for name in names[:NEWEST]:
            mark = signature([self._workspace.runs / name / "manifest.json"])
            kept = self._runs.get(name)
            # A running one is looked at each time: its process may have died without a word.
            if kept is None or kept[0] != mark or kept[1].status == "running":
                kept = (mark, run_snapshots.read_run(self._workspace, name))
            found[name] = kept
        self._runs = found
        swept = sweep_names(self._workspace)
        return Runs(
            runs=[run for _, run in found.values()],
            total=len(names),
            sweeps=[self._read_sweep(name) for name in swept[:SWEEPS]],
            sweeps_total=len(swept),
        )

    def _read_sweep(self, name: str) -> Sweep:
        kept = self._sweeps.get(name)
        mark = signature([self._workspace.multirun / name / "sweep.json"])
        if kept is None or kept[0] != mark or kept[1].state in ("waiting", "running"):
            self._sweeps[name] = kept = (mark, run_snapshots.read_sweep(self._workspace, name))
        return kept[1]
