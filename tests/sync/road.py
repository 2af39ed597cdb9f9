"""A source and a workspace to look from, with real checkpoints small enough for many looks."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.release.slots import read_pointer
from engine.store.events import read_events
from engine.store.files import digest_file
from engine.store.workspace import Workspace
from engine.sync.sync import sync

MODEL = [
    "source.model=litecnn",
    "source.classes=cat,dog,owl",
    "source.img_size=32",
    "source.mean=0.5,0.5,0.5",
    "source.std=0.5,0.5,0.5",
    "source.settle_s=0.02",
]


@dataclass(frozen=True)
class Stock:
    """Two real checkpoints of equal size, and a workspace that knows their releases already."""

    files: dict[str, Path]
    workspace: Workspace


@dataclass
class Road:
    """A source, a workspace, and what the looks said."""

    stock: Stock
    root: Path
    workspace: Workspace
    settings: Settings
    words: list[str]
    said: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)

    def put(self, content: str, path: str, age_s: float) -> Path:
        """Save checkpoint a or b, or "bad" bytes, at a path of the source, so many seconds old."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content == "bad":
            target.write_bytes(self.stock.files["a"].read_bytes()[:100_000])
        else:
            shutil.copyfile(self.stock.files[content], target)
        os.utime(target, (time.time() - age_s,) * 2)
        return target

    def look(self, when: dict[str, Callable[[], object]] | None = None, **options: bool) -> dict[str, Any]:
        """One sync; `when` names what happens at the moment a progress line with that beginning is said."""

        def say(line: str) -> None:
            self.said.append(line)
            for beginning, happen in (when or {}).items():
                if line.startswith(beginning):
                    happen()

        return sync(
            self.workspace,
            self.settings,
            say=say,
            alert=lambda subject, text, fix: self.alerts.append(f"{subject}: {text}"),
            **options,
        )

    def holds(self) -> str | None:
        """Which stock checkpoint TO-BE holds."""
        pointer = read_pointer(self.workspace, "tobe")
        names = {digest_file(path).sha256: name for name, path in self.stock.files.items()}
        return names[pointer.checkpoint.sha256] if pointer else None

    def kinds(self) -> list[str]:
        return [event["kind"] for event in read_events(self.workspace)]

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.workspace.state / "last_sync.json").read_text()))

    def command(self) -> list[str]:
        return [sys.executable, "-m", "engine", "--workspace", str(self.workspace.root), "sync", *self.words]
