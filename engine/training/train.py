"""One training, from settings to a best checkpoint in its cycle folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.checkpoints.files import load_checkpoint_file, save_checkpoint_file
from engine.config import Settings
from engine.devices.detect import ChosenDevice, choose_device
from engine.errors import Failed, Interrupted, UnderstudyError, UsageError
from engine.store.clock import timestamp
from engine.store.events import append_event, read_events
from engine.store.files import write_json
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.tasks.task import Task, load_task, steps_per_epoch
from engine.training import cycles
from engine.training.loop import Hooks, Stopped, Trainer
from engine.training.plan import kept_settings
from engine.training.progress import Metrics, ProcessMemory, Progress
from engine.training.runs import FIELDS, RunFolder, process_identity
from engine.training.saving import light_checkpoint, save_interval
from engine.training.signals import StopRequest, stop_requests
from engine.training.state import load_state, restore, save_state


def train(
    workspace: Workspace,
    settings: Settings,
    folder: RunFolder,
    *,
    task: str = "images",
    start_from: str | None = None,
    say: Callable[[str], None] = lambda line: None,
    strict: bool = False,
    overwrite: bool = False,
    publish: bool = True,
    keep_folder: bool = False,
) -> dict[str, Any]:
    """Train in `folder`, from its `last.pth` where there is one.

    Args:
        folder: a claimed run; a resumed one brings its manifest.
        task: which kind of work, by its folder in `engine.tasks`.
        start_from: a checkpoint whose weights a new run begins with.
        say: takes lines for people.
        strict: stop at bad data instead of leaving it out.
        overwrite: replace a better best of the same cycle.
        publish: save the best to the cycle folder; else (a sweep's child) into the run's own.
        keep_folder: keep the folder of a run that could not begin (somebody was told its number).

    Returns:
        The contract's object of `train`, with `status` `completed`.

    Raises:
        UsageError: the data, model or settings cannot be used; a new run's folder is removed again.
        Interrupted: stopped by a signal; `payload` is the contract's object.
        Failed: diverged, or nothing could be saved.
        Busy: the run is going on in another process.
    """
    memory = ProcessMemory()
    with stop_requests() as stop, hold(folder.lock, f"train run {folder.run}"):
        manifest = folder.read_manifest()
        fresh = not manifest.get("settings")
        manifest = FIELDS | manifest | {"run": folder.run, "status": "running", "error": None, "finished_at": None}
        manifest |= {"task": task, "started_from": manifest.get("started_from") or start_from}
        manifest |= {"settings": kept_settings(settings), **process_identity()}
        manifest |= {"model": settings.model.name, "data": settings.defaults.data if fresh else manifest["data"]}
        manifest["started_at"] = manifest["started_at"] or timestamp()
        folder.write_manifest(manifest)
        session = _Session(workspace, settings, folder, manifest, say, stop, memory, overwrite, publish)
        try:
            session.go(strict)
        except (Stopped, KeyboardInterrupt) as error:
            session.close("interrupted", f"stopped by {stop.asked or 'Ctrl-C'}")
            raise Interrupted(
                f"run {folder.run} was interrupted",
                f"go on with: python -m engine train --resume {folder.run}",
                payload=result_of(manifest),
            ) from error
        except UsageError as error:
            began = folder.last.exists() or not fresh
            if began or keep_folder or error.kind == "bad_data":
                session.close("failed", str(error))
            else:
                session.give_back_cycle()
                shutil.rmtree(folder.root, ignore_errors=True)
            raise
        except Exception as error:
            session.close("failed", str(error) or type(error).__name__)
            if isinstance(error, UnderstudyError | AssertionError) or not _out_of_memory(error):
                raise
            raise Failed(
                f"out of memory on {manifest['device']} with batches of {settings.training.batch_size}",
                "try a smaller training.batch_size, then a smaller data.img_size, then a smaller model",
                kind="out_of_memory",
            ) from error
    return result_of(manifest)


def result_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """The contract's object of `train` from a run's manifest."""
    names = ("run", "status", "cycle", "device", "precision", "epochs", "best", "checkpoint")
    figures = ("samples_per_s", "unit", "peak_memory_bytes", "seconds_s", "error")
    return {name: manifest.get(name) for name in names + figures}


class _Session:
    """The steps of one call of `train`; `manifest` is rewritten as they are done."""

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        folder: RunFolder,
        manifest: dict[str, Any],
        say: Callable[[str], None],
        stop: StopRequest,
        memory: ProcessMemory,
        overwrite: bool,
        publish: bool,
    ) -> None:
        self.workspace, self.settings, self.folder, self.manifest = workspace, settings, folder, manifest
        self.say, self.stop, self.memory = say, stop, memory
        self.overwrite, self.publish = overwrite, publish
        self.root = settings.checkpoints_root
        self.made_cycle = False
        self.elapsed_before = 0.0
        self.told_stays = ""
        self.trainer: Trainer | None = None
        self.task: Task | None = None

    def go(self, strict: bool) -> None:
        state = load_state(self.folder)
        chosen = choose_device(self.settings.device.prefer)
        precision = _precision(self.settings.training.precision, chosen)
        if chosen.note:
            self.say(f"note: {chosen.note}")
        self.task = task = self._load_task(strict, state)
        self._fix_epochs(task)
        _make_repeatable(self.settings.training.seed)
        if state:
            self._same_threads(state)
        model = task.build_model(pretrained=self.settings.model.pretrained and not state)
        if not state:
            self._start_from(model)
        self._claim_cycle()
        self.manifest |= {"device": chosen.kind, "device_name": chosen.name, "device_note": chosen.note}
        self.manifest |= {"precision": precision, "epochs": self.settings.training.epochs}
        self.manifest |= {
            "parameters": sum(p.numel() for p in model.parameters()),
            "classes": len(task.classes),
            "unit": task.unit,
        }
        self.folder.write_manifest(self.manifest)
        trainer = self.trainer = self._trainer(model, task, chosen, precision)
        if state:
            restore(trainer, state)
            self.elapsed_before = float(state["elapsed_s"])
        self._introduce(trainer, chosen, precision, resumed=state is not None)
        self.metrics = Metrics(self.folder, trainer.position.epoch)
        hooks = Hooks(lambda: bool(self.stop), self._save_within, self._epoch_done)
        try:
            trainer.run(hooks)
        except (Stopped, KeyboardInterrupt) as error:
            if isinstance(error, Stopped):  # a second Ctrl-C may have cut a step in two: nothing to save
                self._save_state()
            raise
        self._complete()

    def close(self, status: str, error: str | None) -> None:
        """Write down how the run ended."""
        self._figures()
        self.manifest |= {"status": status, "error": error, "finished_at": timestamp()}
        if status == "failed":
            self.give_back_cycle()
        self.folder.write_manifest(self.manifest)

    def give_back_cycle(self) -> None:
        if self.made_cycle and self.manifest["cycle"] is not None:
            cycles.give_back(self.root, self.manifest["cycle"])

    def _load_task(self, strict: bool, state: dict[str, Any] | None) -> Task:
        def looked(done: int, count: int) -> None:
            if self.stop:
                raise Stopped
            if count > 2000 and (done % 2048 == 0 or done == count):
                self.say(f"  checked {done:,} of {count:,} files")

        task = load_task(self.manifest["task"], self.settings, looked)
        report = task.report
        write_json(self.folder.report, report)
        bad = report["checked"] - report["ok"]
        if bad:
            kinds = ("corrupt", "empty", "mislabelled", "duplicates")
            counts = ", ".join(f"{report[kind]} {kind}" for kind in kinds if report[kind])
            first = report["left_out"][0]
            if strict:
                raise UsageError(
                    f"{bad} of {report['checked']} files cannot be trained on ({counts})",
                    f"see {self.folder.report}; the first is {first['path']}: {first['reason']}",
                    kind="bad_data",
                )
            self.say(f"left out {bad} of {report['checked']} files ({counts}), each named in {self.folder.report}")
        for warning in report["warnings"]:
            self.say(f"note: {warning}")
        if state and state["fingerprint"] != task.fingerprint:
            raise UsageError(
                "the data has changed since this run began",
                "put it back as it was, or start a new run",
                kind="data_changed",
            )
        return task

    def _fix_epochs(self, task: Task) -> None:
        """Settle the number of epochs where nobody has."""
        if self.settings.training.epochs is None:
            self.settings = self.settings.model_copy(deep=True)
            self.settings.training.epochs = task.default_epochs()
            self.manifest["settings"] = kept_settings(self.settings)

    def _start_from(self, model: torch.nn.Module) -> None:
        """Give a new run's net the weights that it is to go on from."""
        path = self.manifest["started_from"]
        if not path:
            return
        try:
            model.load_state_dict(load_checkpoint_file(Path(path))["model_state_dict"])
        except (FileNotFoundError, KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()[:160]
            raise UsageError(
                f"this run cannot begin with the weights of {path} ({reason})", "start from new weights: --fresh"
            ) from None
        self.say(f"begins with the weights of {path}")

    def _same_threads(self, state: dict[str, Any]) -> None:
        if state["threads"] != torch.get_num_threads():
            self.say(
                f"note: this run began with {state['threads']} threads, not {torch.get_num_threads()};"
                f" going on with {state['threads']}, for the same result bit for bit"
            )
            torch.set_num_threads(state["threads"])
        if state["torch"] != str(torch.__version__):
            self.say(f"warning: begun with torch {state['torch']}; the result may differ in the last bits")

    def _claim_cycle(self) -> None:
        if not self.publish or self.manifest["cycle"] is not None:
            return
        number, self.made_cycle = cycles.claim_cycle(self.root, self.settings.training.cycle)
        self.manifest["cycle"] = number

    def _trainer(self, model: torch.nn.Module, task: Task, chosen: ChosenDevice, precision: str) -> Trainer:
        training = self.settings.training
        progress = Progress(
            self.folder,
            self.say,
            lambda: self._memory_bytes(chosen.kind, peak=False),
            epochs=training.epochs or 1,
            steps=steps_per_epoch(task.train_samples, training.batch_size),
            batch_size=min(training.batch_size, task.train_samples),
            unit=task.unit,
        )
        return Trainer(model, task, training, chosen.kind, precision, progress)

    def _introduce(self, trainer: Trainer, chosen: ChosenDevice, precision: str, *, resumed: bool) -> None:
        task, training = trainer.task, self.settings.training
        where = f"cycle {self.manifest['cycle']}" if self.manifest["cycle"] is not None else "no cycle"
        self.say(
            f"run {self.folder.run}, {where}: {self.settings.model.name} ({self.manifest['parameters']:,} parameters)"
            f" on {chosen.kind} ({chosen.name}), {precision}"
        )
        self.say(
            f"data: {task.train_samples:,} train and {task.val_samples:,} validation {task.unit}, {task.describe()};"
            f" {training.epochs} epochs of {trainer.steps} steps of {min(training.batch_size, task.train_samples)}"
        )
        if resumed:
            self.say(f"resumed at epoch {trainer.position.epoch + 1}, step {trainer.position.step}")

    def _epoch_done(self, row: dict[str, Any], better: bool) -> None:
        assert self.trainer
        rate = self.trainer.progress.samples_per_s
        row |= {"samples_per_s": rate, "seconds_s": round(self._seconds(), 3), "at": timestamp()}
        self.metrics.append(row)
        self.trainer.progress.epoch_line(row)
        if better:
            self._save_best(row)
        self.manifest |= {"epoch": row["epoch"], "best": self.trainer.best}
        self._save_state()
        self._figures()
        self.folder.write_manifest(self.manifest)
        if self.settings.training.save_every_steps:
            self._save_interval()
        if self.stop and row["epoch"] < self.trainer.epochs:
            raise Stopped

    def _save_within(self) -> None:
        self._save_state()
        self._save_interval()

    def _save_state(self) -> None:
        assert self.trainer
        save_state(self.folder, self.trainer, self._seconds())

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
        if not self.told_stays:
            self.say(f"cycle {cycle} keeps its checkpoint: {stays}; --overwrite replaces it")
            self.say(f"this run's best goes to {self.folder.best}")
        self.told_stays = stays

    def _complete(self) -> None:
        assert self.trainer
        assert self.trainer.best
        best, manifest = self.trainer.best, self.manifest
        self._figures()
        self.trainer.progress.write(self.trainer.epochs, self.trainer.steps, None, "done")
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

    def _figures(self) -> None:
        if not self.trainer:
            return
        rate = self.trainer.progress.samples_per_s
        peak = self._memory_bytes(self.trainer.device, peak=True)
        self.manifest |= {
            "samples_per_s": round(rate, 2) if rate else self.manifest["samples_per_s"],
            "peak_memory_bytes": max(peak, self.manifest["peak_memory_bytes"] or 0),
            "seconds_s": round(self._seconds(), 3),
            "best": self.trainer.best,
        }

    def _seconds(self) -> float:
        assert self.trainer
        return self.elapsed_before + self.trainer.progress.seconds

    def _memory_bytes(self, device: str, *, peak: bool) -> int:
        if device == "cuda":
            return int(torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated())
        if device == "mps":
            return int(torch.mps.driver_allocated_memory())
        if device == "xpu":
            return int(torch.xpu.max_memory_allocated() if peak else torch.xpu.memory_allocated())
        return self.memory.peak() if peak else self.memory.now()


def _precision(wanted: str, device: ChosenDevice) -> str:
    if wanted == "auto":
        return "bf16" if device.kind == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if wanted == "fp16" and device.kind == "cpu":
        raise UsageError("training.precision=fp16 needs a GPU", "take fp32 or bf16 on a CPU")
    return wanted


def _make_repeatable(seed: int) -> None:
    torch.manual_seed(seed & ((1 << 63) - 1))
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "out of memory" in str(error)
