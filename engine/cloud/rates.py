"""How fast this host trains: by its own runs, else by what `bench devices` has kept here.

`WORKSPACE/state/device_rates.json` holds the newest measurement of each net and image size on each device.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.errors import Failed
from engine.store.clock import timestamp
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace
from engine.training.runs import RunFolder, list_runs

_LOOKED_AT = 50  # a rate is sought in so many of the newest runs
_KEPT = 100
_KEYS = ("device", "name", "model", "img_size", "batch_size", "precision", "samples_per_s")
_SAME = ("host", "device", "name", "model", "img_size")  # of two such the newer counts


@dataclass(frozen=True)
class Rate:
    """Training samples a second, and where the figure is from.

    Args:
        device: `cpu`, `cuda`, `mps` or `xpu`.
        source: `run 0001`, `bench devices`, or whoever said it.
        at: when it was measured, ISO 8601; None: nobody knows.
        gpu: the accelerator's name, `NVIDIA A100-SXM4-80GB:2` for two of one machine; None on a CPU.
    """

    per_s: float
    device: str
    source: str
    at: str | None = None
    gpu: str | None = None
    batch_size: int | None = None
    precision: str | None = None

    @property
    def origin(self) -> str:
        """`run 0001, 2026-11-21`."""
        return f"{self.source}, {self.at[:10]}" if self.at else self.source


def measured_rates(settings: Settings, workspace: Workspace) -> tuple[Rate, ...]:
    """The rates of this task's net and image size on this host, one a device: of its newest run, else of
    `bench devices`.

    Raises:
        Failed: what `bench devices` has kept is damaged.
    """
    found: dict[tuple[str, str | None], Rate] = {}
    for rate in (*_of_runs(settings, workspace), *_of_bench(settings, workspace)):
        found.setdefault((rate.device, rate.gpu), rate)
    return tuple(found.values())


def keep_rates(workspace: Workspace, results: Sequence[Mapping[str, Any]]) -> Path:
    """Keep what `bench devices` has measured, for `cloud plan`; returns the file.

    Args:
        results: each with `device`, `name`, `model`, `img_size`, `batch_size`, `precision` and `samples_per_s`.
    """
    path = _file(workspace)
    try:
        before = _read(path)
    except Failed:
        before = []  # measured anew
    fresh = [{"at": timestamp(), "host": socket.gethostname()} | {key: result[key] for key in _KEYS} for result in results]  # fmt: skip
    newest = {tuple(item.get(key) for key in _SAME): item for item in (*before, *fresh)}
    write_json(path, sorted(newest.values(), key=lambda item: str(item.get("at")))[-_KEPT:])
    return path


def _of_runs(settings: Settings, workspace: Workspace) -> Iterator[Rate]:
    """Of the newest runs, the newest first."""
    for entry in list_runs(workspace)[:_LOOKED_AT]:
        if not entry["samples_per_s"] or entry["task"] != settings.task:
            continue
        manifest = RunFolder(workspace.runs / str(entry["run"])).read_manifest()
        kept = manifest.get("settings") or {}
        training = kept.get("training") or {}
        if _of_same_net(kept, settings):
            yield Rate(
                float(entry["samples_per_s"]),
                str(entry["device"]),
                f"run {entry['run']}",
                entry["finished_at"] or entry["started_at"],
                _gpu(entry["device"], manifest.get("device_name"), int(manifest.get("processes") or 1)),
                training.get("batch_size"),
                entry["precision"],
            )


def _of_same_net(kept: Mapping[str, Any], settings: Settings) -> bool:
    """Whether a run's settings are of this net and this size of image or board."""
    if settings.task == "go":
        go = kept.get("go") or {}
        return (go.get("net"), go.get("board_size")) == (settings.go.net, settings.go.board_size)
    found = (kept.get("model") or {}).get("name"), (kept.get("data") or {}).get("img_size")
    return found == (settings.model.name, settings.data.img_size)


def _of_bench(settings: Settings, workspace: Workspace) -> Iterator[Rate]:
    if settings.task != "images":
        return
    path, wanted = _file(workspace), (socket.gethostname(), settings.model.name, settings.data.img_size)
    try:
        for item in reversed(_read(path)):
            if (item["host"], item["model"], item["img_size"]) == wanted:
                yield Rate(
                    float(item["samples_per_s"]),
                    str(item["device"]),
                    "bench devices",
                    str(item["at"]),
                    _gpu(item["device"], item["name"]),
                    item["batch_size"],
                    item["precision"],
                )
    except (KeyError, TypeError, ValueError):
        raise Failed(f"{path} is damaged", "remove it, or: python -m engine bench devices") from None


def _gpu(device: Any, name: Any, count: int = 1) -> str | None:
    if device == "cpu" or not name:
        return None
    return f"{name}:{count}" if count > 1 else str(name)


def _file(workspace: Workspace) -> Path:
    return workspace.state / "device_rates.json"


def _read(path: Path) -> list[dict[str, Any]]:
    value = read_json(path) or []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Failed(f"{path} is damaged", "remove it, or: python -m engine bench devices")
    return value
