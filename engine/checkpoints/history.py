"""The history of checkpoints: what lies in the cycle folders and in the runs, and what may be removed of it.

Torch-free: a checkpoint is hashed, and peeked at, never unpickled. What it says of itself comes from the releases
made from it, from the JSON beside it, from the manifest of the run that saved it, and last from its own pickle's
plain values; what nobody knows is None. Hashes and facts are remembered in `state/checkpoints.json`, which can be
thrown away.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.checkpoints.manager import NAME, remove, scan
from engine.checkpoints.naming import Entry, choose, folder_cycle, is_checkpoint_folder
from engine.checkpoints.peek import peek
from engine.config import Settings
from engine.errors import Failed
from engine.store.clock import parse, timestamp
from engine.store.files import read_json, sha256_file
from engine.store.workspace import Workspace

PROTECTED = ("asis", "tobe", "both", "backup")
_SUFFIXES = (".pth", ".pt", ".ckpt")
_INTERMEDIATE = re.compile(r"(checkpoint_)?epoch_?\d+.*\.(pth|pt|ckpt)", re.IGNORECASE)
_BEST = re.compile(r"best_model(_cycle\d+)?\.pth|LiteCNNPro_best\.pth")
_FACTS = ("epoch", "step", "accuracy", "loss", "cycle")


class Told(Protocol):
    """Where a checkpoint stands, as `engine.release.standing.Standing` says it."""

    @property
    def state(self) -> str: ...
    @property
    def release(self) -> str | None: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def origin(self) -> Any: ...


@dataclass(frozen=True)
class Checkpoint:
    """One file. `accuracy` is a fraction; `kind` is `best`, `interval`, `resume` or `other`."""

    path: str
    kind: str
    cycle: int | None
    epoch: int | None
    step: int | None
    accuracy: float | None
    loss: float | None
    bytes: int
    sha256: str | None
    saved_at: str
    state: str
    reason: str | None
    release: str | None
    run: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def checkpoint_history(
    workspace: Workspace, settings: Settings, standings: Mapping[str, Told]
) -> list[Checkpoint]:
    """All checkpoints, newest first.

    Args:
        standings: by SHA-256, from `engine.release.standing.standings`.

    Their `state`: `asis`, `tobe`, `both`, `backup`, `released`, `rejected`, `refused` by their hash; else `new`
    (the next `sync` from this root takes it), `superseded` (a better one goes first), `interval`, `resume`, or
    `unused` (its name or place is not one that is looked for), with the reason.
    """
    memory = _Memory(workspace)
    runs = _Runs(workspace)
    places = _places(settings.checkpoints_root)
    found = [_describe(path, memory, runs, standings, places) for path in _files(workspace, settings)]
    memory.save()
    return sorted((one for one in found if one), key=lambda one: (parse(one.saved_at), one.path), reverse=True)


def removable(
    history: Iterable[Checkpoint], max_checkpoints: int, keep: int | None = None
) -> list[tuple[Checkpoint, str]]:
    """What `prune` removes, each with the reason.

    Of each folder's intermediate checkpoints the newest `max_checkpoints` stay. The best ones stay unless `keep` is
    given: then those of the newest `keep` cycles, the combined one and the one that sync would take. Whatever AS-IS,
    TO-BE or a backup holds stays always, as does what could not be hashed.
    """
    files = [one for one in history if one.state not in PROTECTED and one.sha256 is not None]
    chosen: list[tuple[Checkpoint, str]] = []
    folders: dict[str, list[Checkpoint]] = {}
    for one in files:
        if one.kind == "interval":
            folders.setdefault(os.path.dirname(one.path), []).append(one)  # noqa: PTH120 - a plain string
    for folder, members in folders.items():
        for one in members[max_checkpoints:]:
            chosen.append((one, f"more than {max_checkpoints} intermediate checkpoints in {Path(folder).name}/"))
    if keep is not None:
        cycles = sorted({one.cycle or 0 for one in files if _published(one)}, reverse=True)
        for one in files:
            if _published(one) and one.cycle in cycles[keep:] and one.state != "new":
                chosen.append((one, f"cycle {one.cycle} is older than the newest {keep}"))
    return chosen


def _published(one: Checkpoint) -> bool:
    """Whether it is a cycle's best in its cycle folder; a run's own `best.pth` is removed with the run."""
    return one.kind == "best" and one.cycle is not None and Path(one.path).name != "best.pth"


def resettable(history: Iterable[Checkpoint]) -> list[tuple[Checkpoint, str]]:
    """What `reset` removes: every intermediate checkpoint and resume state, so that training starts over."""
    return [
        (one, "an intermediate checkpoint" if one.kind == "interval" else "a run's resume state")
        for one in history
        if one.kind in ("interval", "resume") and one.state not in PROTECTED
    ]


def remove_checkpoints(chosen: Iterable[tuple[Checkpoint, str]], *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Remove files (an intermediate one with the JSON beside it); `{path, bytes, reason}` of each.

    Raises:
        Failed: one cannot be removed.
    """
    removed = []
    for one, reason in chosen:
        path = Path(one.path)
        try:
            if not dry_run:
                if NAME.fullmatch(path.name):
                    remove(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise Failed(f"cannot remove {path} ({error.strerror})", "check the folder's rights") from None
        removed.append({"path": one.path, "bytes": one.bytes, "reason": reason})
    return removed


def _files(workspace: Workspace, settings: Settings) -> list[Path]:
    root = settings.checkpoints_root
    found: list[Path] = []
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.is_dir() and is_checkpoint_folder(folder.name):
            found += [
                path for path in sorted(folder.iterdir()) if path.suffix in _SUFFIXES and path.name[0] != "."
            ]
    for run in sorted(workspace.runs.iterdir()) if workspace.runs.is_dir() else ():
        found += [path for path in (run / "best.pth", run / "last.pth") if path.is_file()]
        found += [saved.path for saved in scan(run / "checkpoints")]
    return found


def _describe(
    path: Path,
    memory: _Memory,
    runs: _Runs,
    standings: Mapping[str, Told],
    places: dict[str, tuple[str, str | None]],
) -> Checkpoint | None:
    try:
        stat = path.stat()
    except OSError:
        return None  # gone since it was listed
    sha256 = memory.sha256(path)
    run = runs.of(path)
    facts = _told(path, stat.st_mtime, run)
    told = standings.get(sha256) if sha256 else None
    if told is not None and told.origin is not None:
        facts |= {name: value for name in _FACTS if (value := getattr(told.origin, name, None)) is not None}
    facts = memory.facts(sha256, facts, path)
    kind = _kind(path)
    in_place = places.get(str(path))
    if told is not None:
        state, reason = told.state, told.reason
    elif in_place is not None:
        state, reason = in_place
    else:
        state, reason = kind if kind in ("interval", "resume") else "unused", None
    cycle = facts.get("cycle")
    return Checkpoint(
        path=str(path),
        kind=kind,
        cycle=cycle if cycle is not None else folder_cycle(path.parent.name),
        epoch=facts.get("epoch"),
        step=facts.get("step"),
        accuracy=facts.get("accuracy"),
        loss=facts.get("loss"),
        bytes=stat.st_size,
        sha256=sha256,
        saved_at=str(facts.get("saved_at") or timestamp(stat.st_mtime)),
        state=state,
        reason=reason,
        release=told.release if told else None,
        run=run["run"] if run else None,
    )


def _kind(path: Path) -> str:
    if path.name == "last.pth":
        return "resume"
    if NAME.fullmatch(path.name) or _INTERMEDIATE.fullmatch(path.name):
        return "interval"
    return "best" if _BEST.fullmatch(path.name) or path.name == "best.pth" else "other"


def _places(root: Path) -> dict[str, tuple[str, str | None]]:
    """State and reason of the files below the checkpoints' root, as a sync from there would see them."""
    entries = []
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.is_dir() and is_checkpoint_folder(folder.name):
            for path in folder.iterdir():
                with contextlib.suppress(OSError):
                    stat = path.stat()
                    entries.append(Entry(f"{folder.name}/{path.name}", stat.st_size, stat.st_mtime))
    choice = choose(entries, time.time())
    wanted = {candidate.path for candidate in choice.candidates}
    states: dict[str, tuple[str, str | None]] = {}
    for skip in choice.skipped:
        name = skip["path"]
        kind = _kind(root / name)
        state = "superseded" if name in wanted else kind if kind == "interval" else "unused"
        states[str(root / name)] = (state, skip["reason"])
    if choice.candidates:
        states[str(root / choice.candidates[0].path)] = ("new", None)
    return states


def _told(path: Path, modified: float, run: dict[str, Any] | None) -> dict[str, Any]:
    """What the JSON beside a checkpoint, or the manifest of the run that saved it, says of it."""
    if match := NAME.fullmatch(path.name):
        facts: dict[str, Any] = {"epoch": int(match[1]), "step": int(match[2])}
        try:
            beside = read_json(path.with_suffix(".json")) or {}
        except Failed:
            beside = {}
        facts |= {name: beside.get(name) for name in ("loss", "saved_at") if beside.get(name) is not None}
        extra = {**(beside.get("metrics") or {}), **(beside.get("metadata") or {})}
        return facts | {name: extra[name] for name in ("accuracy", "cycle") if extra.get(name) is not None}
    if run is None or not _saved_by(run, modified):
        return {}
    if path.name == "last.pth":
        return {"epoch": run.get("epoch"), "cycle": run.get("cycle")}
    best = run.get("best") or {}
    return {name: best.get(name) for name in ("epoch", "step", "accuracy", "loss")} | {"cycle": run.get("cycle")}


class _Runs:
    """The manifests of all runs, found by what they saved."""

    def __init__(self, workspace: Workspace) -> None:
        self._root = workspace.runs
        self._by_name: dict[str, dict[str, Any]] = {}
        self._by_checkpoint: dict[str, dict[str, Any]] = {}  # of several that saved one, the newest
        names = sorted(path.name for path in self._root.iterdir()) if self._root.is_dir() else []
        for name in names:
            with contextlib.suppress(Failed, OSError):
                manifest = read_json(self._root / name / "manifest.json")
                if isinstance(manifest, dict):
                    self._by_name[name] = run = {**manifest, "run": name}
                    self._by_checkpoint[str(manifest.get("checkpoint"))] = run

    def of(self, path: Path) -> dict[str, Any] | None:
        """The run in whose folder a checkpoint lies, or whose best it is."""
        if path.is_relative_to(self._root):
            return self._by_name.get(path.relative_to(self._root).parts[0])
        return self._by_checkpoint.get(str(path))


def _saved_by(run: dict[str, Any], modified: float) -> bool:
    """Whether a file of this modification time was written while the run ran, and not by somebody after it."""
    try:
        begun = parse(run["started_at"]).timestamp()
        ended = parse(run["finished_at"]).timestamp() if run.get("finished_at") else time.time()
    except (KeyError, TypeError, ValueError):
        return False
    return begun - 5 <= modified <= ended + 5


class _Memory:
    """Hashes by path and stamp, facts by hash; only what is still there is kept."""

    def __init__(self, workspace: Workspace) -> None:
        self._path = workspace.state / "checkpoints.json"
        try:
            value = read_json(self._path)
        except (Failed, OSError):
            value = None
        fine = (
            isinstance(value, dict)
            and isinstance(value.get("files"), dict)
            and isinstance(value.get("facts"), dict)
        )
        self._old: dict[str, Any] = value if fine else {"files": {}, "facts": {}}  # type: ignore[assignment]
        self._new: dict[str, Any] = {"files": {}, "facts": {}}

    def sha256(self, path: Path) -> str | None:
        """The file's SHA-256, or None where it cannot be read."""
        try:
            facts = path.stat()
            stamp = [facts.st_size, facts.st_mtime_ns, facts.st_ino]
            known = self._old["files"].get(str(path))
            entry = known if known and known["stamp"] == stamp else {"stamp": stamp, "sha256": sha256_file(path)}
        except OSError:
            return None
        self._new["files"][str(path)] = entry
        return str(entry["sha256"])

    def facts(self, sha256: str | None, told: dict[str, Any], path: Path) -> dict[str, Any]:
        """What is known of this content, now or from before; a new one is peeked at, once."""
        known = {name: value for name, value in told.items() if value is not None}
        if sha256 is None:
            return known
        before = self._old["facts"].get(sha256)
        merged: dict[str, Any] = {**(peek(path) if before is None else before), **known}
        self._new["facts"][sha256] = merged
        return merged

    def save(self) -> None:
        if self._new == self._old:
            return
        scratch = self._path.with_name(f".{self._path.name}.{os.getpid()}.part")
        with contextlib.suppress(OSError):  # a reader without the right to write only takes longer
            self._path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps(self._new), encoding="utf-8")
            scratch.replace(self._path)
