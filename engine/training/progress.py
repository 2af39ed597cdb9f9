"""What a run says of itself while it goes: lines for people, `progress.json` for screens, `metrics.jsonl`."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.store.clock import timestamp
from engine.training.runs import RunFolder, read_metrics, second_metric, write_quickly

FILE_EVERY_S = 1.0
LINE_EVERY_S = 10.0


class Progress:
    """Counts steps and time, and writes at a bounded rate.

    Args:
        folder: None where another process of the run writes.
        say: takes one line for people.
        memory_bytes: gives the run's memory at the moment, in `peak_memory_bytes`' sense.
        unit: what a batch is made of, in the plural.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        say: Callable[[str], None],
        memory_bytes: Callable[[], int],
        *,
        epochs: int,
        steps: int,
        batch_size: int,
        unit: str = "images",
    ) -> None:
        self.folder, self.say, self.memory_bytes = folder, say, memory_bytes
        self.epochs, self.steps, self.batch_size, self.unit = epochs, steps, batch_size, unit
        self.accuracy: float | None = None
        self.micro_batch: int | None = None
        self.tell: Callable[[dict[str, Any]], None] = lambda row: None  # who looks on
        self.samples = 0
        self.train_s = 0.0
        self._idle_s = 0.0  # validation and saving, for the time left
        self._epochs_seen = 0
        self._started = self._last_file = self._last_line = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since this process began to train."""
        return time.monotonic() - self._started

    @property
    def samples_per_s(self) -> float | None:
        return self.samples / self.train_s if self.train_s > 0 else None

    def due(self) -> bool:
        return time.monotonic() - self._last_file >= FILE_EVERY_S

    def eta_s(self, done_steps: int) -> float | None:
        """Seconds left for the whole run, at the pace so far."""
        if not self.samples_per_s:
            return None
        left = self.epochs * self.steps - done_steps
        pause = self._idle_s / max(self._epochs_seen, 1)
        return left * self.batch_size / self.samples_per_s + pause * left / self.steps

    def step(self, count: int, seconds: float) -> None:
        self.samples += count
        self.train_s += seconds

    def epoch_over(self, idle_s: float) -> None:
        self._idle_s += idle_s
        self._epochs_seen += 1

    def write(self, epoch: int, step: int, loss: float | None, phase: str = "train") -> None:
        """Refresh `progress.json`; `epoch` 1-based, `step` done in it."""
        if self.folder is None:
            return
        done = (epoch - 1) * self.steps + step
        rate, left = self.samples_per_s, self.eta_s(done)
        self._last_file = time.monotonic()
        row = {
            "run": self.folder.run,
            "phase": phase,
            "epoch": epoch,
            "epochs": self.epochs,
            "step": step,
            "steps": self.steps,
            "loss": loss,
            "accuracy": self.accuracy,
            "samples_per_s": round(rate, 2) if rate else None,
            "eta_s": round(left, 1) if left is not None else None,
            "memory_bytes": self.memory_bytes(),
            "batch_size": self.batch_size,
            "micro_batch": self.micro_batch,
            "updated_at": timestamp(),
        }
        write_quickly(self.folder.progress, row)
        if phase == "train":
            self.tell(row)
        if phase == "train" and self._last_file - self._last_line >= LINE_EVERY_S:
            self.say(
                f"  epoch {epoch}/{self.epochs}  step {step}/{self.steps}  loss {loss or 0:.4f}{self._pace(done)}"
            )
            self._last_line = time.monotonic()

    def epoch_line(self, row: dict[str, Any]) -> None:
        self._last_line = time.monotonic()
        self.say(
            f"epoch {row['epoch']}/{self.epochs}  loss {row['train_loss']:.4f}  val loss {row['loss']:.4f}"
            f"  accuracy {row['accuracy']:.2%}{second_metric(row)}{self._pace(row['epoch'] * self.steps)}"
        )

    def _pace(self, done: int) -> str:
        rate, left = self.samples_per_s, self.eta_s(done)
        return f"  {rate:,.0f} {self.unit}/s  {clock(left)} left" if rate and left is not None else ""


class Metrics:
    """`metrics.jsonl`, one object an epoch; a resume cuts what its state does not know."""

    def __init__(self, folder: RunFolder, known_epochs: int) -> None:
        self.path = folder.metrics
        rows = [row for row in read_metrics(folder) if row["epoch"] <= known_epochs]
        scratch = self.path.with_name(f".{self.path.name}.part")
        scratch.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        scratch.replace(self.path)

    def append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def clock(seconds: float) -> str:
    """75 → "1:15", 3700 → "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ProcessMemory:
    """The growth of this process over its size when this was made (with torch imported)."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self._base = self._process.memory_info().rss

    def now(self) -> int:
        return max(0, self._process.memory_info().rss - self._base)

    def peak(self) -> int:
        return max(0, _high_water() - self._base)


def _high_water() -> int:
    """The greatest resident size of this program, bytes.

    `ru_maxrss` would, on Linux, also count what the process was before its `exec`.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
