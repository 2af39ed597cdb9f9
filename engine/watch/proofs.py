"""What `analyze` and `export` found out, read from the workspace: bounded in size, and only when it has changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import Failed, UnderstudyError
from engine.protocol import Analysis, Export, ProtocolError, from_json
from engine.protocol.proof import ANALYSED, EXPORTS
from engine.store.files import read_json
from engine.store.workspace import Workspace
from engine.watch.snapshots import signature

T = TypeVar("T")
_LONGEST = 160  # characters of a name or a reason


class Proofs:
    """The newest analysis and exports; a file is read again only when it was written."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._analysis: tuple[object, Analysis | None] = (None, None)
        self._exports: dict[Path, tuple[object, Export]] = {}

    def analysis(self) -> Analysis | None:
        """The last one, or None before the first.

        Raises:
            Failed: its file is damaged.
        """
        path = analysis_path(self._workspace)
        mark = signature([path])
        if mark != self._analysis[0]:
            self._analysis = (mark, read_analysis(path))
        return self._analysis[1]

    def exports(self) -> list[Export]:
        """Those below `exports/`, newest first; a damaged one says so as its problem."""
        found = {}
        for folder in _newest(self._workspace.root / "exports"):
            mark = signature(
                [folder / "export.json", folder]
            )  # a file that is taken away again changes the folder
            kept = self._exports.get(folder)
            found[folder] = kept if kept and kept[0] == mark else (mark, read_export(folder))
        self._exports = found
        return [export for _, export in found.values()]


def analysis_path(workspace: Workspace) -> Path:
    return workspace.root / "analysis" / "latest.json"


def read_analysis(path: Path) -> Analysis | None:
    """What `analyze` wrote, with at most `ANALYSED` classes and pairs; None where there is no such file.

    Raises:
        Failed: it is damaged.
    """
    value = read_json(path)
    return (
        None
        if value is None
        else _sound(path, "analyze", lambda: from_json(Analysis, _analysis(value), "analysis"))
    )


def read_export(folder: Path) -> Export:
    """One folder's `export.json`."""
    path = folder / "export.json"
    try:
        value = read_json(path) or {}
        return _sound(path, "export", lambda: from_json(Export, _export(folder, value), "export"))
    except UnderstudyError as error:
        return Export(path=str(folder), problem=error.message)


def _sound(path: Path, verb: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except (ProtocolError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise Failed(f"{path} is damaged ({error})", f"make it anew: {verb}") from None


def _analysis(value: dict[str, Any]) -> dict[str, Any]:
    classes, matrix = value["classes"], value["matrix"]
    if len(matrix) != len(classes) or any(len(row) != len(classes) for row in matrix):
        raise ValueError(f"{len(classes)} classes, another number of rows or columns")
    shown = _most_confused(matrix) if len(classes) > ANALYSED else range(len(classes))
    confused = value.get("confusions") or []
    return {
        **{key: value.get(key) for key in ("checkpoint", "n", "accuracy", "f1_macro", "ci95", "data", "at")},
        "ece": (value.get("calibration") or {}).get("ece"),
        "classes": [_brief(classes[i]) for i in shown],
        "classes_total": len(classes),
        "matrix": [[matrix[i][j] for j in shown] for i in shown],
        "support": [sum(matrix[i]) for i in shown],
        "confusions": [
            {**pair, "label": _brief(pair["label"]), "taken_for": _brief(pair["taken_for"])}
            for pair in confused[:ANALYSED]
        ],
    }


def _most_confused(matrix: list[list[int]]) -> list[int]:
    """The classes with the most wrong answers, of theirs or for them, in their own order."""
    columns = [sum(column) for column in zip(*matrix, strict=True)]
    wrong = [sum(row) + columns[i] - 2 * row[i] for i, row in enumerate(matrix)]
    return sorted(sorted(range(len(matrix)), key=lambda i: (-wrong[i], i))[:ANALYSED])


def _export(folder: Path, value: dict[str, Any]) -> dict[str, Any]:
    checkpoint, original, smaller = value["checkpoint"], value["original"], value.get("made_smaller") or {}
    return {
        "path": str(folder),
        "at": value.get("at"),
        "release": value.get("release"),
        "original": original.get("release"),
        "checkpoint": checkpoint.get("name"),
        "sha256": checkpoint.get("sha256"),
        "cpu": value["host"].get("cpu"),
        "threads": value["host"].get("threads"),
        "data": value["data"].get("shown") or None,
        "bytes": original.get("bytes"),
        "accuracy": (original.get("judged") or {}).get("accuracy"),
        "sparsity": smaller.get("sparsity"),
        "files": [_file(row) for row in value["artifacts"]],
        "skipped": [{"format": one["format"], "reason": _brief(one["reason"])} for one in value["skipped"]],
    }


def _file(row: dict[str, Any]) -> dict[str, Any]:
    judged = row.get("judged") or {}
    note = row.get("note")
    return {
        **row,
        **{key: judged.get(key) for key in ("n", "difference", "difference_ci95")},
        "note": _brief(note) if note else None,
        "present": Path(row["path"]).is_file(),
    }


def _brief(said: object) -> str:
    words = str(said)
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


def _newest(root: Path) -> list[Path]:
    """The folders with a report, the last one written first."""
    found = []
    try:
        for entry in os.scandir(root):
            try:
                found.append(((Path(entry.path) / "export.json").stat().st_mtime_ns, Path(entry.path)))
            except (FileNotFoundError, NotADirectoryError):
                continue  # an export that is still under way, or no export at all
    except FileNotFoundError:
        return []
    return [path for _, path in sorted(found, reverse=True)[:EXPORTS]]
