"""What a run writes: its manifest, metrics, resume state, checkpoints and its one event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from engine.checkpoints.files import save_checkpoint_file
from engine.config import Settings
from engine.store.clock import timestamp
from engine.store.events import append_event, read_events
from engine.store.files import write_json
from engine.store.workspace import Workspace
from engine.training import cycles
from engine.training.loop import Trainer
from engine.training.observers import Observers, observers
from engine.training.plan import kept_settings
from engine.training.progress import Metrics, ProcessMemory
from engine.training.runs import RunFolder
from engine.training.saving import light_checkpoint, save_interval
from engine.training.state import save_state, state_digest, weighed


class Record:
    """Keeps the files of one run true while it goes; `manifest` is rewritten at each change.

    Args:
        manifest: shared with the caller, who reads the result from it.
        overwrite: replace a better best of the same cycle.
        publish: save the best to the cycle folder; else into the run's own.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        folder: RunFolder,
        manifest: dict[str, Any],
        say: Callable[[str], None],
        memory: ProcessMemory,
        *,
        overwrite: bool,
        publish: bool,
    ) -> None:
        self.workspace, self.settings, self.folder, self.manifest = workspace, settings, folder, manifest
        self.say, self.memory, self.overwrite, self.publish = say, memory, overwrite, publish
        self.root = settings.checkpoints_root
        self.trainer: Trainer | None = None
        self.observers: Observers | None = None
        self._made_cycle = False
        self._told_stays = ""
        self._elapsed_before = 0.0

    def note(self, **facts: Any) -> None:
        """Put facts into the manifest."""
        self.manifest |= facts
        self.folder.write_manifest(self.manifest)

    def settle(self, settings: Settings) -> None:
        """The settings as they are now that nothing is left to be derived."""
        self.settings = settings
        self.manifest["settings"] = kept_settings(settings)

    def report(self, report: dict[str, Any]) -> None:
        write_json(self.folder.report, report)

    def claim_cycle(self) -> None:
        if not self.publish or self.manifest["cycle"] is not None:
            return
        number, self._made_cycle = cycles.claim_cycle(self.root, self.settings.training.cycle)
        self.manifest["cycle"] = number

    def give_back_cycle(self) -> None:
        if self._made_cycle and self.manifest["cycle"] is not None:
            cycles.give_back(self.root, self.manifest["cycle"])

    def follow(self, trainer: Trainer, elapsed_s: float) -> None:
        """From now on `trainer` is what is saved; the run has taken `elapsed_s` before."""
        self.trainer, self._elapsed_before = trainer, elapsed_s
        self._metrics = Metrics(self.folder, trainer.position.epoch)
        if not trainer.group.lead:
            return  # of several processes one tells
        self.observers = observers(self.workspace, self.settings, self.folder, self.say, alone=self.publish)
        trainer.progress.tell = self.observers.step
        self.observers.started(self.manifest)

    def epoch_done(self, row: dict[str, Any], better: bool) -> None:
        """An epoch is over: its metrics, its best, its state, in this order."""
        assert self.trainer
        rate = self.trainer.progress.samples_per_s
        row |= {"samples_per_s": rate, "seconds_s": round(self._seconds(), 3), "at": timestamp()}
        self._metrics.append(row)
        self.trainer.progress.epoch_line(row)
        if better:
            self._save_best(row)
        self.manifest |= {"epoch": row["epoch"], "best": self.trainer.best}
        self.save_state()
        self._figures()
        self.folder.write_manifest(self.manifest)
        if self.observers:
            self.observers.epoch(row)
        if self.settings.training.save_every_steps:
            self._save_interval()

    def save_within(self) -> None:
        """The save in the middle of an epoch."""
        self.save_state()
        self._save_interval()

    def save_state(self) -> None:
        assert self.trainer
        save_state(self.folder, self.trainer, self._seconds())

    def smaller(self, shortage: dict[str, Any]) -> None:
        """Memory ran out and fewer samples go at a time from here on; a resume keeps to that."""
        assert self.trainer
        train = shortage["limit"] == "micro_batch"
        kept = f", gradients added up to the batch of {self.trainer.whole}" if train else ""
        self.say(
            f"out of memory at epoch {shortage['epoch']}, step {shortage['step']} ({shortage['reason']}):"
            f" going on with {shortage['now']} samples at a time instead of {shortage['before']}{kept};"
            " the same samples are taken again"
        )
        self.manifest["shortages"] = [*self.manifest.get("shortages", []), shortage | {"at": timestamp()}]
        self.note(micro_batch=self.trainer.micro_batch)
        self.save_state()

    def complete(self, source: dict[str, Any]) -> None:
        """The end of the run.

        Args:
            source: the manifest of the run that this one repeats, or {}.
        """
        assert self.trainer
        assert self.trainer.best
        best, manifest = self.trainer.best, self.manifest
        self._figures()
        self.trainer.progress.write(self.trainer.epochs, self.trainer.steps, None, "done")
        manifest["state_sha256"] = state_digest(weighed(self.trainer))
        if before := source.get("state_sha256"):
            same = before == manifest["state_sha256"]
            word = "ends with the same weights and optimiser as" if same else "ends otherwise than"
            self.say(f"run {self.folder.run} {word} run {source['run']}{', bit for bit' if same else ''}")
        detail = {
            "cycle": manifest["cycle"],
            "model": self.settings.model.name,
            "epoch": best["epoch"],
            "accuracy": best["accuracy"],
            "checkpoint": manifest["checkpoint"],
            "device": manifest["device"],
        }
        subject = f"run {self.folder.run}"
        # killed between the event and the manifest, a run completes twice but is told of once
        if not any(e["kind"] == "trained" and e["subject"] == subject for e in read_events(self.workspace)):
            append_event(self.workspace, "trained", subject, detail)
        self.close("completed", None)

    def close(self, status: str, error: str | None, kind: str | None = None) -> None:
        """Write down how the run ended, and tell who looks on. `kind` is the error's word for programs."""
        self._figures()
        self.manifest |= {"status": status, "error": error, "error_kind": kind, "finished_at": timestamp()}
        if status == "failed":
            self.give_back_cycle()
        self.folder.write_manifest(self.manifest)
        if self.observers:
            self.observers.ended(self.manifest)

    def memory_bytes(self, device: str, *, peak: bool) -> int:
        """The run's memory in `peak_memory_bytes`' sense, now or at its highest."""
        if device == "cuda":
            return int(torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated())
        if device == "mps":
            return int(torch.mps.driver_allocated_memory())
        if device == "xpu":
            return int(torch.xpu.max_memory_allocated() if peak else torch.xpu.memory_allocated())
        return self.memory.peak() if peak else self.memory.now()

    def _save_interval(self) -> None:
        assert self.trainer
        save_interval(self.trainer, self.settings, self.folder, self.manifest["cycle"])

    def _save_best(self, row: dict[str, Any]) -> None:
        assert self.trainer
        cycle = self.manifest["cycle"]
        state = light_checkpoint(self.trainer, self.settings, row, run=self.folder.run, cycle=cycle)
        if cycle is None:
            save_checkpoint_file(self.folder.best, state)
            self.manifest["checkpoint"] = str(self.folder.best)
            return
        path = cycles.best_path(self.root, cycle)
        stays = cycles.save_best(self.root, cycle, state, overwrite=self.overwrite)
        if stays is None:
            self.manifest["checkpoint"] = str(path)
            self.say(
                f"best so far, Acc: {row['accuracy'] * 100:.2f}%: saved {path};"
                f" TO-BE gets it within {self.settings.source.poll_minutes:g} minutes at the most"
            )
            return
        save_checkpoint_file(self.folder.best, state)
        self.manifest["checkpoint"] = str(self.folder.best)
        if not self._told_stays:
            self.say(f"cycle {cycle} keeps its checkpoint: {stays}; --overwrite replaces it")
            self.say(f"this run's best goes to {self.folder.best}")
        self._told_stays = stays

    def _figures(self) -> None:
        if not self.trainer:
            return
        rate = self.trainer.progress.samples_per_s
        peak = self.memory_bytes(self.trainer.device, peak=True)
        self.manifest |= {
            "samples_per_s": round(rate, 2) if rate else self.manifest["samples_per_s"],
            "peak_memory_bytes": max(peak, self.manifest["peak_memory_bytes"] or 0),
            "seconds_s": round(self._seconds(), 3),
            "best": self.trainer.best,
            "compiled": self.trainer.compiled,
        }

    def _seconds(self) -> float:
        assert self.trainer
        return self._elapsed_before + self.trainer.progress.seconds


class Bystander(Record):
    """For every process of a run but the first: keeps the facts, and writes nothing."""

    def note(self, **facts: Any) -> None:
        self.manifest |= facts

    def report(self, report: dict[str, Any]) -> None:
        """The first process writes it."""

    def claim_cycle(self) -> None:
        """The first process does."""

    def follow(self, trainer: Trainer, elapsed_s: float) -> None:
        self.trainer = trainer

    def save_state(self) -> None:
        """The first process does."""

    def smaller(self, shortage: dict[str, Any]) -> None:
        """The first process says it."""

    def complete(self, source: dict[str, Any]) -> None:
        """The first process says it."""
