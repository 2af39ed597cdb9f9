"""The training loop. Everything random is a function of (seed, epoch, step), so it resumes bit for bit."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.config.schema import Training
from engine.errors import Failed
from engine.tasks.task import Task, steps_per_epoch
from engine.training.optim import build_optimizer, freeze
from engine.training.progress import Progress
from engine.training.schedule import learning_rate

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


class Stopped(Exception):
    """Somebody asked to stop; the state between two steps is whole."""


@dataclass
class Trainer:
    """A net, its optimiser and its place in the run.

    Args:
        precision: `fp32`, or `bf16` or `fp16` for the forward pass.
    """

    model: nn.Module
    task: Task
    settings: Training
    device: str
    precision: str
    progress: Progress
    position: Position = field(default_factory=Position)
    best: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.epochs = self.settings.epochs or 1
        self.steps = steps_per_epoch(self.task.train_samples, self.settings.batch_size)
        self.model.to(self.device, memory_format=torch.channels_last)
        self.frozen = freeze(self.model, self.settings.freeze)
        self.optimizer = build_optimizer(self.model, self.settings, self.device)
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")
        self.averaged = copy.deepcopy(self.model) if self.settings.ema_decay else None
        if self.averaged:
            self.averaged.requires_grad_(False)

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
            Failed: the loss is no number any more.
        """
        while self.position.epoch < self.epochs and not self.settled:
            self._train_epoch(hooks)
            began = time.monotonic()
            row = self._finish_epoch(hooks)
            better = self.best is None or _rank(row) > _rank(self.best)
            if better:
                self.best = {name: row[name] for name in BEST if name in row}
            self.progress.accuracy = row["accuracy"]
            self.position = Position(self.position.epoch + 1)
            hooks.epoch_done(row, better)
            self.progress.epoch_over(time.monotonic() - began)

    def _train_epoch(self, hooks: Hooks) -> None:
        self.model.train()
        for module in self.frozen:
            module.training = False
        place = self.position
        loss_sum = torch.tensor(place.loss_sum, dtype=torch.float64, device="cpu")
        if self.device != "mps":  # MPS has no float64; there the sum stays on the host
            loss_sum = loss_sum.to(self.device)
        batches = self.task.train_batches(
            place.epoch, self.settings.batch_size, start=place.step, workers=self.settings.num_workers
        )
        began = time.monotonic()
        with contextlib.closing(batches):  # type: ignore[type-var]
            for batch in batches:
                count = len(batch[0])
                loss = self._step(batch)
                loss_sum += loss.detach().to(loss_sum.device, torch.float64) * count
                place.step += 1
                place.samples += count
                now = time.monotonic()
                self.progress.step(count, now - began)
                began = now
                due, stop = self.progress.due(), hooks.stop()
                every = self.settings.save_every_steps
                save = bool(every) and self.global_step % every == 0 and place.step < self.steps
                if due or stop or save or self.device == "cpu" or place.step == self.steps:
                    place.loss_sum = self._finite(loss_sum)
                if due:
                    self.progress.write(place.epoch + 1, place.step, place.loss_sum / place.samples)
                if save:
                    hooks.save()
                if stop:
                    raise Stopped
                began = time.monotonic()

    def _step(self, batch: tuple[Tensor, ...]) -> Tensor:
        step = self.global_step
        torch.manual_seed((self.settings.seed * 1_000_003 + step) & _MASK)
        total = self.steps * self.epochs
        rate = learning_rate(step, total, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs, targets = self.task.prepare(self._placed(batch), training=True)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(inputs, targets)
        if self.settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._average(step)
        return loss

    def _backward(self, inputs: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        """Add up the gradients of the batch, a micro-batch at a time; the batch's mean loss."""
        count, size = len(inputs), self.settings.micro_batch or len(inputs)
        whole = torch.zeros((), device=inputs.device)
        for start in range(0, count, size):
            part = slice(start, start + size)
            with self._autocast():
                outputs = self.model(inputs[part])
            loss = self.task.loss(outputs.float(), tuple(target[part] for target in targets))
            if size < count:
                loss = loss * (len(outputs) / count)
            self.scaler.scale(loss).backward()
            whole += loss.detach()
        return whole

    def _placed(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
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

    def _finish_epoch(self, hooks: Hooks) -> dict[str, Any]:
        place = self.position
        self.progress.write(place.epoch + 1, place.step, place.loss_sum / max(place.samples, 1), "validate")
        result = self.validate(hooks)
        if not math.isfinite(result["loss"]):
            raise self._diverged("the validation loss")
        return {
            "epoch": place.epoch + 1,
            "step": self.global_step,
            "train_loss": place.loss_sum / max(place.samples, 1),
            **result,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }

    @torch.inference_mode()
    def validate(self, hooks: Hooks) -> dict[str, Any]:
        """The task's metrics on the validation part."""
        model = self.judged.eval()
        tally = self.task.tally()
        size = self.settings.batch_size * 2
        batches: Iterator[tuple[Tensor, ...]] = self.task.val_batches(size, workers=self.settings.num_workers)
        with contextlib.closing(batches):  # type: ignore[type-var]
            for batch in batches:
                if hooks.stop():
                    raise Stopped
                inputs, targets = self.task.prepare(self._placed(batch), training=False)
                with self._autocast():
                    outputs = model(inputs)
                tally.add(outputs, targets)
        return tally.result()

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
