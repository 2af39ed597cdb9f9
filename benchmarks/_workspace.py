"""A large workspace for measurements: checkpoints, runs and events as years of use leave them, made in seconds."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from engine.store.events import GENESIS, event_hash
from engine.store.workspace import Workspace

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def make_workspace(root: Path, *, checkpoints: int, runs: int, events: int) -> Workspace:
    """Fill `root`; the checkpoints are small files of distinct content in cycle folders of ten."""
    workspace = Workspace(root)
    _checkpoints(root / "checkpoints", checkpoints)
    _runs(workspace, runs)
    _events(workspace, events)
    return workspace


def _checkpoints(root: Path, count: int) -> None:
    for number in range(count):
        cycle, place = divmod(number, 10)
        folder = root / f"checkpoints_cycle{cycle + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        name = (
            f"best_model_cycle{cycle + 1}.pth" if place == 0 else f"checkpoint_epoch{place}_step{place * 100}.pt"
        )
        path = folder / name
        path.write_bytes(number.to_bytes(8, "big") * 64)
        at = (BEGIN + timedelta(minutes=30 * number)).timestamp()
        os.utime(path, (at, at))


def _runs(workspace: Workspace, count: int) -> None:
    for number in range(1, count + 1):
        folder = workspace.runs / f"{number:04d}"
        folder.mkdir(parents=True)
        begun = BEGIN + timedelta(hours=5 * number)
        manifest = {
            "run": folder.name,
            "status": "completed",
            "cycle": number,
            "model": "litecnn",
            "data": "digits",
            "device": "cpu",
            "precision": "fp32",
            "epochs": 12,
            "epoch": 12,
            "best": {"epoch": 11, "step": 374, "accuracy": 0.9, "f1_macro": 0.9, "loss": 0.3},
            "checkpoint": str(workspace.root / "checkpoints" / f"checkpoints_cycle{number}"),
            "started_at": begun.isoformat(),
            "finished_at": (begun + timedelta(hours=1)).isoformat(),
            "settings": {"training": {"epochs": 12, "batch_size": 32}},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
        rows = (
            {"epoch": epoch, "train_loss": 1 / epoch, "loss": 1 / epoch, "accuracy": 0.8} for epoch in range(1, 13)
        )
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _events(workspace: Workspace, count: int) -> None:
    previous = GENESIS
    with workspace.events.open("w") as file:
        for number in range(1, count + 1):
            event = {
                "id": number,
                "at": (BEGIN + timedelta(minutes=10 * number)).isoformat(timespec="milliseconds"),
                "actor": "cron",
                "host": "studio",
                "kind": "synced",
                "subject": f"checkpoints_cycle{number % 1000}/best_model.pth",
                "detail": {"changed": False, "seconds_s": 0.4},
                "prev": previous,
            }
            event["hash"] = previous = event_hash(event)
            file.write(json.dumps(event) + "\n")
