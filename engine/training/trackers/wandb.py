"""Weights & Biases, online or offline; without a key it writes offline, for `wandb sync` later."""

from __future__ import annotations

import hashlib
import os
import socket
from typing import Any

import wandb

from engine.training.trackers.child import numbers, step_of


class WandB:
    """One W&B run a run; a resumed run goes on with the same one. Its files lie in `RUN/wandb/`."""

    def __init__(self, what: dict[str, Any]) -> None:
        self._what = what
        self._mode = os.environ.get("WANDB_MODE")
        if not self._mode and not os.environ.get("WANDB_API_KEY"):
            print("no WANDB_API_KEY: written offline, for wandb sync", flush=True)
            self._mode = "offline"

    def started(self, manifest: dict[str, Any]) -> None:
        what = self._what
        place = f"{socket.gethostname()}:{what['folder']}"
        self._run = wandb.init(
            project=what["project"],
            entity=what["wandb_entity"],
            name=f"{what['run']} {manifest.get('model')}",
            id=hashlib.sha256(place.encode()).hexdigest()[:16],
            resume="allow",
            dir=what["folder"],
            config=manifest.get("settings") or {},
            mode=self._mode,  # type: ignore[arg-type]  # an unknown word is W&B's to refuse
            settings=wandb.Settings(console="off", silent=True, disable_git=True, x_disable_stats=True),
        )
        self._run.define_metric("epoch/*", step_metric="epoch")
        self._run.define_metric("train/*", step_metric="step")

    def epoch(self, row: dict[str, Any]) -> None:
        self._run.log({f"epoch/{name}": value for name, value in numbers(row).items()} | {"epoch": row["epoch"]})

    def step(self, progress: dict[str, Any]) -> None:
        figures = {f"train/{name}": progress.get(name) for name in ("loss", "samples_per_s", "memory_bytes")}
        shown = {name: value for name, value in figures.items() if value is not None}
        self._run.log({**shown, "step": step_of(progress)})

    def ended(self, manifest: dict[str, Any]) -> None:
        self._run.summary.update({f"best/{name}": value for name, value in (manifest.get("best") or {}).items()})
        self._run.finish(exit_code=0 if manifest.get("status") in ("completed", "interrupted") else 1)
