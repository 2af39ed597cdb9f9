"""Comparisons on disk: `comparisons/ID.json`, one file a comparison, with a row for each image.

A row is `[sha256 of the image, label, AS-IS's answer, TO-BE's answer, name in the set]` in the order drawn; an
answer is null where the slot gave an error. `paths` says where the images lie on which the answers differ.
While a comparison runs, `state/ab_progress.json` holds its figures so far. What `gate` and `status` want
quickly is remembered in `state/comparisons.json`, which can be thrown away: it holds nothing that the files
do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.compare.statistics import EProcess
from engine.errors import Failed
from engine.store.files import atomic_write, read_json, write_json
from engine.store.workspace import Workspace

COLUMNS = ("sha256", "label", "asis", "tobe", "name")
ERROR_SHARE = 0.01  # more errors of a slot than this, and a comparison decides nothing
_FORMAT = 1
_BULK = ("format", "rows", "columns", "paths")  # what a summary leaves out of its record


@dataclass(frozen=True)
class Pool:
    """All usable comparisons of two releases on one labelled set, each image once.

    `b`: images that only TO-BE got right, `c`: only AS-IS. A look is a comparison that added images or
    changed an outcome; `sequential`: one of them ended at an image that its counts may have chosen, because a
    person stopped it or because it ran until it was decided. `first`: the images right for exactly one release
    in the first of them, where that one ended at a number fixed beforehand; None otherwise.
    """

    n: int = 0
    b: int = 0
    c: int = 0
    asis_correct: int = 0
    tobe_correct: int = 0
    looks: int = 0
    sequential: bool = False
    log_e: float = 0.0
    log_max: float = 0.0
    first: int | None = None


def comparison_path(workspace: Workspace, identity: int) -> Path:
    return workspace.comparisons / f"{identity}.json"


def next_id(workspace: Workspace) -> int:
    """The number after the highest that was given; call it with the lock `compare` held."""
    return (newest_id(workspace) or 0) + 1


def store(
    workspace: Workspace,
    summary: dict[str, Any],
    rows: list[list[str | None]],
    paths: dict[str, str] | None = None,
) -> None:
    """Keep a comparison: its file with the rows, and the summary as `state/last_ab.json`.

    Args:
        paths: where the images lie on which the slots differ, by their SHA-256.
    """
    write_record(workspace, summary, rows, paths or {})
    _show_last(workspace, summary)


def write_record(
    workspace: Workspace, summary: dict[str, Any], rows: list[list[str | None]], paths: dict[str, str]
) -> None:
    """A comparison's file alone; `unlogged` in the summary says that its event is not written yet."""
    _write(workspace, {"format": _FORMAT, **summary, "columns": list(COLUMNS), "rows": rows, "paths": paths})


def settle(workspace: Workspace, identity: int) -> None:
    """The event of this comparison is in the log: it is kept like any other from now on."""
    record = _record(workspace, identity)
    record.pop("unlogged", None)
    _write(workspace, record)
    if identity == newest_id(workspace):
        _show_last(workspace, {key: value for key, value in record.items() if key not in _BULK})


def _write(workspace: Workspace, record: dict[str, Any]) -> None:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    atomic_write(comparison_path(workspace, int(record["id"])), text + "\n")


def _show_last(workspace: Workspace, summary: dict[str, Any]) -> None:
    shown = {key: value for key, value in summary.items() if key != "unlogged"}
    write_json(workspace.state / "last_ab.json", shown)


def last_comparison(workspace: Workspace) -> dict[str, Any] | None:
    """The newest comparison without its rows, or None."""
    return read_json(workspace.state / "last_ab.json")


def running_comparison(workspace: Workspace) -> dict[str, Any] | None:
    """The figures so far of the comparison that runs now, or None: `id`, `n`, `planned`, cells and more."""
    try:
        value: dict[str, Any] = read_json(running_path(workspace)) or {}
        os.kill(int(value["pid"]), 0)  # one that was killed leaves its figures behind
    except (Failed, OSError, KeyError, TypeError, ValueError):
        return None
    return value


def running_path(workspace: Workspace) -> Path:
    return workspace.state / "ab_progress.json"


def write_quickly(path: Path, value: Any) -> None:
    """Whole for readers but not fsynced, and no error when it cannot be written: for what is worth little."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
        scratch.replace(path)


def differing_rows(workspace: Workspace, identity: int) -> list[dict[str, str | None]]:
    """The images of a comparison on which the slots' answers differ, in the order drawn, with their `path`.

    Raises:
        Failed: its file is missing or damaged.
    """
    record = _record(workspace, identity)
    paths = record.get("paths", {})
    return [
        {**dict(zip(COLUMNS, row, strict=True)), "path": paths.get(row[0])}
        for row in record["rows"]
        if row[2] != row[3]
    ]


def newest_id(workspace: Workspace) -> int | None:
    """The number of the newest comparison, or None before the first."""
    return max((int(path.stem) for path in _files(workspace)), default=None)


def summaries(workspace: Workspace) -> list[dict[str, Any]]:
    """Every comparison without its rows, oldest first; a damaged one is `{"id", "damaged": True}`."""
    return [entry["summary"] for entry in _entries(workspace)]


def usable(summary: dict[str, Any]) -> bool:
    """Whether a comparison is evidence: it has answers, and no slot failed on more than 1% of its images."""
    n = summary.get("n") or 0
    return n > 0 and not any(error_share(summary, slot) > ERROR_SHARE for slot in ("asis", "tobe"))


def error_share(summary: dict[str, Any], slot: str) -> float:
    """The share of images on which the slot gave an error or no answer in time."""
    return summary[slot]["errors"] / summary["n"] if summary["n"] else 0.0


def pool(workspace: Workspace, chosen: list[dict[str, Any]]) -> Pool:
    """Take the rows of the chosen comparisons (summaries, oldest first) together.

    An image counts once, at the place where it first came, with its newest answers that are no errors.

    Raises:
        Failed: a comparison's file is damaged.
    """
    remembered = _remembered(workspace)
    files = {path.name: _stamp(path) for path in _files(workspace)}
    key = hashlib.sha256(
        json.dumps(
            [sorted(Pool.__annotations__), *([s["id"], files.get(f"{s['id']}.json")] for s in chosen)]
        ).encode()
    ).hexdigest()
    if remembered["pool"].get("key") == key:
        return Pool(**remembered["pool"]["value"])
    value = _pool(workspace, chosen)
    remembered["pool"] = {"key": key, "value": asdict(value)}
    _remember(workspace, remembered)
    return value


def seen_images(workspace: Workspace, chosen: list[dict[str, Any]]) -> set[str]:
    """SHA-256 of every image that one of these comparisons has answers of."""
    return {str(row[0]) for summary in chosen for row in _rows(workspace, summary)}


def _pool(workspace: Workspace, chosen: list[dict[str, Any]]) -> Pool:
    outcomes: dict[str, tuple[bool, bool]] = {}
    failed: set[str] = set()
    looks = 0
    first: int | None = None
    for summary in chosen:
        added = False
        for sha256, label, asis, tobe, _ in _rows(workspace, summary):
            error = asis is None or tobe is None
            outcome = (asis == label, tobe == label)
            if sha256 in outcomes and (error or outcomes[sha256] == outcome):
                continue
            added = True
            outcomes[sha256] = outcome
            (failed.add if error else failed.discard)(sha256)
        looks += added
        if summary is chosen[0] and not _sequential(summary):
            first = sum(asis_right != tobe_right for asis_right, tobe_right in outcomes.values())
    process = EProcess()
    for asis_right, tobe_right in outcomes.values():
        process.see(tobe_right, asis_right)
    return Pool(
        n=len(outcomes),
        b=process.b,
        c=process.c,
        asis_correct=sum(asis for asis, _ in outcomes.values()),
        tobe_correct=sum(tobe for _, tobe in outcomes.values()),
        looks=looks,
        sequential=any(map(_sequential, chosen)),
        log_e=process.log_e,
        log_max=process.log_max,
        first=first,
    )


def _sequential(summary: dict[str, Any]) -> bool:
    return summary.get("status") != "completed" or bool(summary.get("until_decided", False))


def _rows(workspace: Workspace, summary: dict[str, Any]) -> list[list[str]]:
    rows: list[list[str]] = _record(workspace, summary["id"])["rows"]
    return rows


def _record(workspace: Workspace, identity: int) -> dict[str, Any]:
    record = read_json(comparison_path(workspace, identity))
    if not isinstance(record, dict) or record.get("columns") != list(COLUMNS):
        raise Failed(f"comparison {identity} is damaged", "move its file away, then compare again", kind="damaged")
    return record


def _entries(workspace: Workspace) -> list[dict[str, Any]]:
    remembered = _remembered(workspace)
    known: dict[str, Any] = remembered["files"]
    paths = sorted(_files(workspace), key=lambda path: int(path.stem))
    found = {}
    for path in paths:
        stamp = _stamp(path)
        entry = known.get(path.name)
        found[path.name] = (
            entry if entry and entry["stamp"] == stamp else {"stamp": stamp, "summary": _summary(path)}
        )
    if found != known:
        remembered["files"] = found
        _remember(workspace, remembered)
    return list(found.values())


def _summary(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
        if isinstance(record, dict) and record.get("format") == _FORMAT and record.get("id") == int(path.stem):
            return {
                key: value for key, value in record.items() if key not in ("format", "rows", "columns", "paths")
            }
    except (Failed, OSError):
        pass  # said below: a summary that calls itself damaged closes the gate
    return {"id": int(path.stem), "damaged": True}


def _files(workspace: Workspace) -> list[Path]:
    if not workspace.comparisons.is_dir():
        return []
    return [path for path in workspace.comparisons.iterdir() if path.suffix == ".json" and path.stem.isdigit()]


def _stamp(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def _remembered(workspace: Workspace) -> dict[str, Any]:
    empty = {"format": _FORMAT, "files": {}, "pool": {}}
    try:
        value = read_json(workspace.state / "comparisons.json")
    except (Failed, OSError):
        return empty
    return (
        value if isinstance(value, dict) and value.keys() == empty.keys() and value["format"] == _FORMAT else empty
    )


def _remember(workspace: Workspace, value: dict[str, Any]) -> None:
    # What is lost here is read again from the comparisons, and `status` must not wait for a disk.
    write_quickly(workspace.state / "comparisons.json", value)
