"""The training loop. Everything random is a function of (seed, epoch, step), so it resumes bit for bit."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.config.schema import Training
from engine.errors import Failed
from engine.tasks.task import Task, share, steps_per_epoch
from engine.training.distributed import ALONE, Group
from engine.training.optim import build_optimizer, freeze
from engine.training.progress import Progress
from engine.training.quantization import make_quantization_aware
from engine.training.schedule import learning_rate
from engine.training.shortage import (
    Buffers,
    Shortage,
    Torn,
    is_shortage,
    out_of_memory,
    reason_of,
    release,
    spoils_norms,
    too_few,
)

_MASK = (1 << 63) - 1
BEST = ("epoch", "step", "accuracy", "top5", "f1_macro", "loss")


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    """Which epoch is the better one: by validation accuracy, of equal ones by the lower loss."""
    return row["accuracy"], -row["loss"]


@dataclass
class Position:
    """Where a run stands: `epoch` 0-based, `step` steps done in it, and the sums of the epoch so far."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    samples: int = 0


@dataclass
class Hooks:
    """What the loop calls; each may raise to end the run."""

    stop: Callable[[], bool]
    save: Callable[[], None]  # the resume state, in the middle of an epoch
    epoch_done: Callable[[dict[str, Any], bool], None]  # metrics of the epoch, whether it is the best so far
    smaller: Callable[[dict[str, Any]], None]  # memory ran out: where, why, and how many samples go at a time now


class Stopped(Exception):
    """Somebody asked to stop; the state between two steps is whole."""


@dataclass
class Trainer:
    """A net, its optimiser and its place in the run.

    Args:
        precision: `fp32`, or `bf16` or `fp16` for the forward pass.
        group: the processes that share each batch.

    `micro_batch` and `val_batch` are how many samples go through the net at a time, None for all that there are;
    they halve when memory runs out. A step that did not fit is undone and taken again with the same samples.
    """

    model: nn.Module
    task: Task
    settings: Training
    device: str
    precision: str
    progress: Progress
    group: Group = ALONE
    position: Position = field(default_factory=Position)
    best: dict[str, Any] | None = None
    val_batch: int | None = None

    def __post_init__(self) -> None:
        self.epochs = self.settings.epochs or 1
        self.steps = steps_per_epoch(self.task.train_samples, self.settings.batch_size)
        self.model = self.group.prepared(self.model, self.device)
        self.model.to(self.device, memory_format=torch.channels_last)
        if self.settings.quantization_aware:
            make_quantization_aware(self.model)
        self.frozen = freeze(self.model, self.settings.freeze)
        self.optimizer = build_optimizer(self.model, self.settings, self.device)
        self.scaler = self._new_scaler()
        self.averaged = copy.deepcopy(self.model) if self.settings.ema_decay else None
        if self.averaged:
            self.averaged.requires_grad_(False)
        self.whole = min(self.settings.batch_size, self.task.train_samples)
        self.rows = -(-self.whole // self.group.size)
        self.micro_batch = self.settings.micro_batch
        self.buffers = Buffers(self.model)
        self.compiled = self.settings.compile
        self.net = self.group.wrap(torch.compile(self.model) if self.compiled else self.model, self.device)

    @property
    def global_step(self) -> int:
        return self.position.epoch * self.steps + self.position.step

    @property
    def settled(self) -> bool:
        """Whether the last `early_stop` epochs brought nothing better (a function of the state, so resumable)."""
        if not self.settings.early_stop or self.best is None:
            return False
        return bool(self.position.epoch - self.best["epoch"] >= self.settings.early_stop)

    @property
    def judged(self) -> nn.Module:
        """The weights that are validated and saved: the average where one is kept."""
        return self.averaged or self.model

    def run(self, hooks: Hooks) -> None:
        """Train from the present position to the last epoch.

        Raises:
            Stopped: asked to; `position` says where.
            Torn: memory ran out in the middle of a change of the weights.
            Failed: the loss is no number any more, or a single sample does not fit.
        """
        while self.position.epoch < self.epochs and not self.settled:
            self._train_epoch(hooks)
            began = time.monotonic()
            over = False
            try:
                if self.group.lead:
                    self._finish_epoch(hooks)
                over = True
            finally:
                over, self.best = self.group.told((over, self.best))
            if not over:
                raise Stopped
            if not self.group.lead:
                self.position = Position(self.position.epoch + 1)
            self.progress.epoch_over(time.monotonic() - began)

    def _train_epoch(self, hooks: Hooks) -> None:
        self.net.train()
        for module in self.frozen:
            module.training = False
        place, alone = self.position, self.group.size == 1
        before, loss_sum = place.loss_sum, torch.tensor(0.0, dtype=torch.float64)
        if self.device != "mps":  # MPS has no float64; there the sum stays on the host
            loss_sum = loss_sum.to(self.device)
        if alone:
            before, loss_sum = 0.0, loss_sum + before
        batches = self._batches()
        began = time.monotonic()
        with contextlib.closing(batches):  # type: ignore[type-var]
            for batch in batches:
                count = len(batch[0]) if alone else self.whole
                while isinstance(loss := self._attempt(batch), Shortage):
                    place.loss_sum = self._finite(loss_sum)
                    self._take_less(loss, hooks)
                loss_sum += loss.to(loss_sum.device, torch.float64) * count
                place.step += 1
                place.samples += count
                now = time.monotonic()
                self.progress.step(count, now - began)
                began = now
                due, stop = self.progress.due(), self.group.any(hooks.stop())
                every = self.settings.save_every_steps
                save = bool(every) and self.global_step % every == 0 and place.step < self.steps
                if stop or save or place.step == self.steps:
                    place.loss_sum = before + self.group.total(self._finite(loss_sum))
                elif due or self.device == "cpu":
                    # the other processes' share is taken to be like this one's until the next save
                    place.loss_sum = before + self._finite(loss_sum) * self.group.size
                if due:
                    self.progress.write(place.epoch + 1, place.step, place.loss_sum / place.samples)
                if save and self.group.lead:
                    hooks.save()
                if stop:
                    raise Stopped
                began = time.monotonic()

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        """The rest of the epoch's batches, this process's rows of each."""
        place, group, batch_size = self.position, self.group, self.settings.batch_size
        options = {"start": place.step, "workers": self.settings.num_workers}
        if group.size == 1:
            return self.task.train_batches(place.epoch, batch_size, **options)
        if "process" in inspect.signature(self.task.train_batches).parameters:  # makes its own rows alone
            return self.task.train_batches(place.epoch, batch_size, process=(group.rank, group.size), **options)  # type: ignore[call-arg]
        whole = self.task.train_batches(place.epoch, batch_size, **options)
        return (tuple(part[share(len(part), group.rank, group.size)] for part in batch) for batch in whole)

    def _attempt(self, batch: tuple[Tensor, ...]) -> Tensor | Shortage:
        """One optimiser step; the loss, or why nothing has happened."""
        self.buffers.keep()
        try:
            loss = self._gradients(batch)
        except Exception as error:
            if spoils_norms(error):
                if self.micro_batch == self.settings.micro_batch:
                    raise too_few(self.settings, self.rows, self.group.size) from None
                few = f"{self.micro_batch} of {self.rows} samples at a time, fewer than its batch norms can learn from"
                raise out_of_memory(self.device, few, reason_of(error)) from None
            if not (is_shortage(error) or self.compiled):
                raise
            short, reason = is_shortage(error), reason_of(error)
        else:
            try:
                self._apply()
            except Exception as error:
                if not is_shortage(error):
                    raise
                self.scaler = self._new_scaler()  # the old one is in the middle of a step for good
                raise Torn(reason_of(error)) from None
            return loss
        self.optimizer.zero_grad(set_to_none=True)
        self.buffers.put_back()
        if short:
            return Shortage(reason)
        self.progress.say(f"note: training.compile fails here ({reason}): going on without it")
        self.net, self.compiled = self.group.wrap(self.model, self.device), False
        return self._attempt(batch)

    def _gradients(self, batch: tuple[Tensor, ...]) -> Tensor:
        step = self.global_step
        torch.manual_seed((self.settings.seed * 1_000_003 + step) & _MASK)
        rate = learning_rate(step, self.steps * self.epochs, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = self.task.prepare(self._placed(batch), training=True)
        self.optimizer.zero_grad(set_to_none=True)
        return self._backward(inputs, targets)

    def _backward(self, inputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Add up the gradients of the batch, a micro-batch at a time; this process's share of the batch's mean loss."""
        count = len(inputs)
        parts = -(-count // (self.micro_batch or count))
        whole = torch.zeros((), device=inputs.device)
        for number in range(parts):
            part = share(count, number, parts)  # equal ones: a last one of a single row would spoil batch norms
            with self.group.apart(self.net, last=number == parts - 1):
                with self._autocast():
                    outputs = self.net(inputs[part])
                loss = self.task.loss(outputs.float(), tuple(target[part] for target in targets))
                if parts > 1 or self.group.size > 1:
                    loss = loss * (len(outputs) / (self.whole if self.group.size > 1 else count))
                # the group takes the mean of its processes' gradients, where the sum of these shares is wanted
                self.scaler.scale(loss * self.group.size if self.group.size > 1 else loss).backward()
            whole += loss.detach()
        return whole

    def _apply(self) -> None:
        """Move the weights, and their average after them."""
        if self.settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average(self.global_step)

    def _take_less(self, shortage: Shortage, hooks: Hooks) -> None:
        if self.group.size > 1:  # the others wait in the middle of the step
            raise Torn(shortage.reason)
        hooks.smaller(self.halve(shortage.reason))

    def halve(self, reason: str, rows: int | None = None) -> dict[str, Any]:
        """Send half as many samples through the net at a time.

        Args:
            rows: of the validation batch that did not fit; None in training.

        Returns:
            What is worth noting: where, from how many to how many, why.

        Raises:
            Failed: a single sample did not fit.
        """
        name = "val_batch" if rows else "micro_batch"
        rows = rows or self.rows
        now = min(getattr(self, name) or rows, rows)
        if now == 1:
            raise out_of_memory(self.device, "one sample at a time", reason)
        setattr(self, name, now // 2)
        release(self.device)
        self.progress.micro_batch = self.micro_batch
        place = {"epoch": self.position.epoch + 1, "step": self.global_step}
        return place | {"limit": name, "before": now, "now": now // 2, "reason": reason}

    def _placed(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.device == "cuda":  # only from pinned memory does the copy go on beside the work
            batch = tuple(part.pin_memory() for part in batch)
        return tuple(part.to(self.device, non_blocking=True) for part in batch)

    def _average(self, step: int) -> None:
        if not self.averaged:
            return
        # a young average must forget its random start
        weight = 1 - min(self.settings.ema_decay, (1 + step) / (10 + step))
        with torch.no_grad():
            pairs = zip(self.averaged.state_dict().values(), self.model.state_dict().values(), strict=True)
            for mean, value in pairs:
                if mean.is_floating_point():
                    mean.lerp_(value, weight)
                else:
                    mean.copy_(value)

    def _finish_epoch(self, hooks: Hooks) -> None:
        """Validate, and hand the epoch's metrics out; the position is then the next epoch's start."""
        place = self.position
        self.progress.write(place.epoch + 1, place.step, place.loss_sum / max(place.samples, 1), "validate")
        result = self.validate(hooks)
        if not math.isfinite(result["loss"]):
            raise self._diverged("the validation loss")
        row = {
            "epoch": place.epoch + 1,
            "step": self.global_step,
            "train_loss": place.loss_sum / max(place.samples, 1),
            **result,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "micro_batch": self.micro_batch,
        }
        better = self.best is None or _rank(row) > _rank(self.best)
        if better:
            self.best = {name: row[name] for name in BEST if name in row}
        self.progress.accuracy = row["accuracy"]
        self.position = Position(self.position.epoch + 1)
        hooks.epoch_done(row, better)

    @torch.inference_mode()
    def validate(self, hooks: Hooks) -> dict[str, Any]:
        """The task's metrics on the validation part."""
        model = self.judged.eval()
        tally = self.task.tally()
        # a batch of the training's size, part for part: its pieces find the room that the training's have left
        size = self.micro_batch or self.settings.batch_size
        batches: Iterator[tuple[Tensor, ...]] = self.task.val_batches(size, workers=self.settings.num_workers)
        with contextlib.closing(batches):  # type: ignore[type-var]
            for batch in batches:
                if hooks.stop():
                    raise Stopped
                while isinstance(answers := self._answers(model, batch), Shortage):
                    hooks.smaller(self.halve(answers.reason, len(batch[0])))
                for outputs, targets in answers:
                    tally.add(outputs, targets)
        return tally.result()

    def _answers(
        self, model: nn.Module, batch: tuple[Tensor, ...]
    ) -> list[tuple[Tensor, tuple[Tensor, ...]]] | Shortage:
        """The net's outputs on a batch and their targets, in as many parts as memory asks for."""
        count, answers = len(batch[0]), []
        parts = -(-count // (self.val_batch or count))
        try:
            for number in range(parts):
                rows = share(count, number, parts)
                inputs, targets = self.task.prepare(self._placed(tuple(t[rows] for t in batch)), training=False)
                with self._autocast():
                    answers.append((model(inputs), targets))
        except Exception as error:
            if not is_shortage(error):
                raise
            return Shortage(reason_of(error))
        return answers

    def _new_scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision == "fp32":
            return contextlib.nullcontext()
        kind = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device, dtype=kind)

    def _finite(self, loss_sum: Tensor) -> float:
        value = float(loss_sum)
        if not math.isfinite(value):
            raise self._diverged("the loss")
        return value

    def _diverged(self, what: str) -> Failed:
        return Failed(
            f"{what} is no number any more, at epoch {self.position.epoch + 1}, step {self.global_step}",
            f"train again with a lower training.learning_rate than {self.settings.learning_rate:g}"
            + (", or training.precision=fp32" if self.precision == "fp16" else ""),
            kind="diverged",
        )
