"""The steps of one call of `train`: device, data, net, its place in the run, the loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from engine.checkpoints.files import load_checkpoint_file
from engine.checkpoints.foreign import adopt
from engine.config import Settings
from engine.devices.detect import ChosenDevice, choose_device
from engine.devices.limits import memory_limit
from engine.errors import Failed, UsageError
from engine.store.files import read_json, sha256_file, write_json
from engine.tasks.report import refuse, sentences
from engine.tasks.task import Task, load_task, steps_per_epoch
from engine.training.distributed import ALONE, Group
from engine.training.fit_run import ask
from engine.training.loop import Hooks, Stopped, Trainer
from engine.training.plan import memory_limit_bytes, on_device
from engine.training.progress import Progress
from engine.training.provenance import differences, made_with
from engine.training.record import Record
from engine.training.runs import RunFolder, find_run
from engine.training.shortage import Torn
from engine.training.signals import StopRequest
from engine.training.state import load_state, restore


class Session:
    """One call of `train`; what it finds out goes to `record`."""

    def __init__(
        self,
        settings: Settings,
        folder: RunFolder,
        record: Record,
        say: Callable[[str], None],
        stop: StopRequest,
        group: Group = ALONE,
    ) -> None:
        self.settings, self.folder, self.record, self.group = settings, folder, record, group
        self.manifest, self.say, self.stop = record.manifest, say, stop

    def go(self, strict: bool) -> None:
        """Train to the end of the run; the process's number of threads is then as before.

        Raises:
            Stopped, KeyboardInterrupt: asked to stop; the state is saved where it is whole.
            UsageError, Failed: as `train`.
        """
        threads = torch.get_num_threads()
        try:
            self._go(strict)
        finally:
            torch.set_num_threads(threads)

    def _go(self, strict: bool) -> None:
        state, source, smaller = self._before()
        chosen = choose_device(self.settings.device.prefer)
        self._fit_to(chosen.kind)
        if chosen.note:
            self.say(f"note: {chosen.note}")
        task = self._load_task(strict, state)
        precision = _precision(self.settings.training.precision, chosen, dense=getattr(task, "dense", False))
        self._fix_epochs(task)
        self._ask_fit(task, chosen, precision)
        _make_repeatable(self.settings.training.seed)
        if state:
            self._same_threads(state)
        elif source.get("threads"):
            torch.set_num_threads(source["threads"])
        model = task.build_model(pretrained=self.settings.model.pretrained is True and not state)
        if not state:
            self._start_from(model)
        self.record.claim_cycle()
        self.record.note(
            device=chosen.kind,
            device_name=chosen.name,
            device_note=chosen.note,
            precision=precision,
            epochs=self.settings.training.epochs,
            parameters=sum(p.numel() for p in model.parameters()),
            classes=len(task.classes),
            unit=task.unit,
            **made_with(task.fingerprint, self.settings.training.seed, self.group.size),
        )
        for difference in differences(source, self.manifest) if source else ():
            self.say(f"note: not as in run {source['run']}: {difference}")
        trainer = self._trainer(model, task, chosen, precision)
        if state:
            restore(trainer, state)
        self._introduce(trainer, chosen, precision, resumed=state is not None)
        self.record.follow(trainer, float(state["elapsed_s"]) if state else 0.0)
        if not state:
            self.record.save_state()  # from here on there is a whole state to go back to
        if smaller:
            trainer.micro_batch = trainer.progress.micro_batch = smaller["now"]
            self.record.smaller(smaller)
            self.folder.smaller.unlink(missing_ok=True)
        limit = memory_limit_bytes(self.settings, chosen.kind)
        try:
            with memory_limit(chosen.kind, limit, self.say):
                self._run(trainer)
        except (Stopped, KeyboardInterrupt) as error:
            if isinstance(error, Stopped):  # a second Ctrl-C may have cut a step in two: nothing to save
                self.record.save_state()
            raise
        self.record.complete(source)

    def _run(self, trainer: Trainer) -> None:
        hooks = Hooks(lambda: bool(self.stop), self.record.save_within, self._epoch_done, self.record.smaller)
        while True:
            try:
                trainer.run(hooks)
                return
            except Torn as torn:
                shortage = trainer.halve(str(torn))
            if self.group.size > 1:
                raise self._begin_anew(shortage)
            state = load_state(self.folder)
            assert state
            restore(trainer, state | {"micro_batch": trainer.micro_batch})
            self.record.smaller(shortage)

    def _before(self) -> tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any] | None]:
        """What the first process finds and tells the others: the run's state, the manifest of the run that it
        repeats or {}, and the shortage of memory after which it begins anew."""
        found: tuple[Any, dict[str, Any], Any] = (None, {}, None)
        if self.group.lead:
            repeats = self.manifest["repeats"]
            source = find_run(self.record.workspace, repeats).read_manifest() if repeats else {}
            found = load_state(self.folder, self.say), source, read_json(self.folder.smaller)
        told: tuple[Any, dict[str, Any], Any] = self.group.told(found)
        return told

    def _begin_anew(self, shortage: dict[str, Any]) -> Failed:
        """Leave word for the next start: the other processes wait in the middle of a step and can only be ended."""
        if self.folder.root.is_dir():
            write_json(self.folder.smaller, shortage)
        return Failed(
            f"out of memory in process {self.group.rank} of {self.group.size} ({shortage['reason']})",
            f"go on from the last save with smaller parts: python -m engine train --resume {self.folder.run}",
            kind="out_of_memory",
        )

    def _epoch_done(self, row: dict[str, Any], better: bool) -> None:
        self.record.epoch_done(row, better)
        if self.stop and row["epoch"] < (self.settings.training.epochs or 1):
            raise Stopped

    def _fit_to(self, kind: str) -> None:
        """Take what the settings say of this kind of device."""
        settings = on_device(self.settings, kind)
        if settings is not self.settings:
            self.settings = settings
            self.record.settle(settings)

    def _load_task(self, strict: bool, state: dict[str, Any] | None) -> Task:
        def looked(done: int, count: int) -> None:
            if self.stop:
                raise Stopped
            if count > 2000 and (done % 2048 == 0 or done == count):
                self.say(f"  checked {done:,} of {count:,} files")

        task = load_task(self.manifest["task"], self.settings, looked)
        report = task.report
        self.record.report(report)
        if strict:
            refuse(report)
        for line in sentences(report, self.folder.report):
            self.say(line)
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
            self.record.settle(self.settings)

    def _ask_fit(self, task: Task, chosen: ChosenDevice, precision: str) -> None:
        """Refuse what cannot fit; settle a batch size that was left to the machine."""
        if not self.group.lead:
            self.settings = self.group.told(None)
            return
        found = ask(self.record.workspace, self.settings, task, chosen, precision, self.say)
        batch = self.settings.training.batch_size or (found.batch_size if found else 32)
        if batch != self.settings.training.batch_size:
            self.settings = self.settings.model_copy(deep=True)
            self.settings.training.batch_size = batch
            self.record.settle(self.settings)
            self.say(f"training.batch_size=auto: {batch}")
        if found:
            self.record.note(fit=found.brief())
        self.group.told(self.settings)
        if self.settings.training.batch_size < self.group.size:
            raise UsageError(
                f"a batch of {self.settings.training.batch_size} cannot be shared by {self.group.size} processes",
                "raise training.batch_size, or lower training.processes",
            )

    def _start_from(self, model: torch.nn.Module) -> None:
        """Give a new run's net the weights that it is to go on from."""
        path = self.manifest["started_from"]
        if not path:
            self._begin_with_pretrained(model)
            return
        try:
            model.load_state_dict(load_checkpoint_file(Path(path))["model_state_dict"])
        except (FileNotFoundError, KeyError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()[:160]
            raise UsageError(
                f"this run cannot begin with the weights of {path} ({reason})", "start from new weights: --fresh"
            ) from None
        self.record.note(started_from_sha256=sha256_file(Path(path)))
        self.say(f"begins with the weights of {path}")

    def _begin_with_pretrained(self, model: torch.nn.Module) -> None:
        """Say what published weights cannot fill, or take those of a file, as far as they fit."""
        pretrained = self.settings.model.pretrained
        if isinstance(pretrained, Path):
            facts, lines = adopt(model, pretrained)
            self.record.note(pretrained=facts)
            for line in lines:
                self.say(line)
        elif pretrained:
            self.say(f"begins with the published weights of {self.settings.model.name}; its last layer is new")

    def _same_threads(self, state: dict[str, Any]) -> None:
        if state["threads"] != torch.get_num_threads():
            self.say(
                f"note: this run began with {state['threads']} threads, not {torch.get_num_threads()};"
                f" going on with {state['threads']}, for the same result bit for bit"
            )
            torch.set_num_threads(state["threads"])
        if (before := state.get("processes", 1)) != self.group.size:
            self.say(
                f"warning: this run began with {before} processes, not {self.group.size}: the same samples in the same"
                " order, but sums in another one, so that the result may differ in the last bits"
            )
        if state["torch"] != str(torch.__version__):
            self.say(f"warning: begun with torch {state['torch']}; the result may differ in the last bits")

    def _trainer(self, model: torch.nn.Module, task: Task, chosen: ChosenDevice, precision: str) -> Trainer:
        training = self.settings.training
        progress = Progress(
            self.folder if self.group.lead else None,
            self.say,
            lambda: self.record.memory_bytes(chosen.kind, peak=False),
            epochs=training.epochs or 1,
            steps=steps_per_epoch(task.train_samples, training.batch_size),
            batch_size=min(training.batch_size, task.train_samples),
            unit=task.unit,
        )
        return Trainer(model, task, training, chosen.kind, precision, progress, self.group)

    def _introduce(self, trainer: Trainer, chosen: ChosenDevice, precision: str, *, resumed: bool) -> None:
        task, training = trainer.task, self.settings.training
        if ":" in self.manifest["task"]:  # its net is not one of the settings' groups
            self.manifest["model"] = task.card()["architecture"]["name"]
            self.manifest["data"] = str(self.settings.data.root or task.name)
        where = f"cycle {self.manifest['cycle']}" if self.manifest["cycle"] is not None else "no cycle"
        self.say(
            f"run {self.folder.run}, {where}: {self.manifest['model']} ({self.manifest['parameters']:,} parameters)"
            f" on {chosen.kind} ({chosen.name}), {precision}"
            + (f", {self.group.size} processes" if self.group.size > 1 else "")
        )
        self.say(
            f"data: {task.train_samples:,} train and {task.val_samples:,} validation {task.unit}, {task.describe()};"
            f" {training.epochs} epochs of {trainer.steps} steps of {min(training.batch_size, task.train_samples)}"
        )
        if resumed:
            self.say(f"resumed at epoch {trainer.position.epoch + 1}, step {trainer.position.step}")


def _precision(wanted: str, device: ChosenDevice, *, dense: bool) -> str:
    """Args: dense: the task's nets are dense convolutions: the one kind that bf16 makes faster on a CPU that has it."""
    if wanted == "auto":
        cuda = device.kind == "cuda" and torch.cuda.is_bf16_supported()
        cpu = device.kind == "cpu" and dense and torch.cpu.get_capabilities().get("avx512_bf16", False)
        return "bf16" if cuda or cpu else "fp32"
    if wanted == "fp16" and device.kind == "cpu":
        raise UsageError("training.precision=fp16 needs a GPU", "take fp32 or bf16 on a CPU")
    return wanted


def _make_repeatable(seed: int) -> None:
    torch.manual_seed(seed & ((1 << 63) - 1))
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
