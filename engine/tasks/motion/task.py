"""Motion diffusion as something to train; see `engine.tasks.task.Task`. Imports torch.

A sample is a window of a clip, noised at a time of its own; the loss is the squared error of the x0 that the net sees
in it, over real frames alone. Window, time, noise and whether the condition is shown are functions of
(seed, epoch, index). Validation asks at three fixed times with fixed noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from engine.config import Settings
from engine.errors import UsageError
from engine.tasks.motion.clips import Clip, Clips, as_report, read_clips, windows
from engine.tasks.motion.diffusion import kept_signal
from engine.tasks.motion.net import Mdm
from engine.tasks.motion.shape import NAME, TEXT_WIDTH, Shape, published_shape, read_args, shape_of_settings
from engine.tasks.task import steps_per_epoch

if TYPE_CHECKING:
    from torch import nn

    Batch = tuple[Tensor, ...]

_FRAMES = {"HumanML3D": 196, "DeepMimic": 64}
_AT = (0.1, 0.5, 0.9)  # of the diffusion, where validation asks; the middle one is the accuracy's
_TRAIN, _VAL = 1, 2  # streams of chance


class MotionTask:
    """Clips, read and checked."""

    name = "motion"
    unit = "motions"

    def __init__(self, settings: Settings, on_progress: Callable[[int, int], None] | None = None) -> None:
        if settings.model.name != NAME:
            raise UsageError(f"the task motion has no net '{settings.model.name}'", f"say model={NAME}")
        self._clips = clips = read_clips(settings.data.root, settings.data.val_fraction, on_progress)
        self._seed = settings.training.seed & ((1 << 64) - 1)
        self.report = as_report(clips)
        self.shape = self._shape(settings, clips)
        self.classes: Sequence[str] = clips.actions if self.shape.condition == "action" else []
        self._kept = kept_signal(self.shape.diffusion_steps, self.shape.noise_schedule)
        length = self.shape.frames
        self._train = [clip for clip in clips.train for _ in windows(clip, length)]
        self._val = [(clip, start) for clip in clips.val for start in windows(clip, length)]
        self.train_samples, self.val_samples = len(self._train), len(self._val)
        self.times = [round(at * (self.shape.diffusion_steps - 1)) for at in _AT]
        self.fingerprint = clips.fingerprint

    def _shape(self, settings: Settings, clips: Clips) -> Shape:
        """By `model.settings`, else by the `args.json` beside the weights that are begun with, else as published."""
        weights, base, usual = settings.model.pretrained, Shape(), "none"
        if isinstance(weights, Path) and (args := read_args(weights)):
            base, notes = published_shape(args)
            usual = "text" if base.condition == "text" else usual  # its weights are kept, for the texts to come
            self.report["warnings"] += notes
        given = dict(settings.model.settings)
        if "condition" in given:
            given["condition"] = given["condition"] or "none"  # a command line's `none` means null
        by_data = "action" if clips.actions else "text" if clips.text_width else usual
        condition = given.setdefault("condition", by_data)
        if condition == "action" and not clips.actions:
            raise UsageError(
                "the data name no actions", "write actions.txt (NAME action), or condition another way"
            )
        width = {"action": len(clips.actions), "text": clips.text_width or TEXT_WIDTH}.get(condition, 0)
        if condition == "text" and not clips.text_width:
            self.report["warnings"].append(
                "no text_embeddings/NAME.npy: every motion is trained on without its text"
            )
        frames = given.setdefault("frames", _FRAMES[clips.form])
        steps = given.get("diffusion_steps", base.diffusion_steps)
        if isinstance(frames, int) and isinstance(steps, int):
            base = replace(base, pos_embed_max_len=max(base.pos_embed_max_len, frames + 1, steps))
        base = replace(base, condition="none", condition_width=0)
        return shape_of_settings(given, base, features=clips.features, condition_width=width)

    def default_epochs(self) -> int:
        """The documents' 100 passes, more where those are fewer than 2,000 steps."""
        return max(100, 2000 // steps_per_epoch(self.train_samples, 64))

    def describe(self) -> str:
        shape, clips = self.shape, self._clips
        shown = {
            "action": f"{len(clips.actions)} actions",
            "text": f"texts of {shape.condition_width} values",
        }.get(shape.condition, "no condition")
        return f"{clips.form}, {shape.features} values a frame, windows of {shape.frames} frames, {shown}"

    def build_model(self, *, pretrained: bool) -> nn.Module:
        if pretrained:
            raise UsageError(
                "the published weights of mdm are not fetched",
                "download them, and name the file: model.pretrained=.../model000475000.pt",
            )
        return Mdm(self.shape)

    def train_batches(self, epoch: int, batch_size: int, *, start: int, workers: int) -> Iterator[Batch]:
        """x0 float32 [B, T, F], mask [B, T], condition [B, C], time int64 [B], noise float32 [B, T, F]."""
        order = self._random(_TRAIN, epoch, (1 << 32) - 1).permutation(self.train_samples)
        size = min(batch_size, self.train_samples)
        for step in range(start, steps_per_epoch(self.train_samples, batch_size)):
            yield _stack([self._drawn(epoch, int(index)) for index in order[step * size : (step + 1) * size]])

    def val_batches(self, batch_size: int, *, workers: int) -> Iterator[Batch]:
        """Each window at each of the fixed times."""
        rows = [(number, time) for number in range(self.val_samples) for time in self.times]
        for first in range(0, len(rows), batch_size):
            yield _stack([self._fixed(*row) for row in rows[first : first + batch_size]])

    def prepare(self, batch: Batch, *, training: bool) -> tuple[Tensor, Batch]:
        x0, mask, condition, times, noise = batch
        kept = torch.from_numpy(self._kept).float().to(x0.device)[times][:, None, None]
        x = kept.sqrt() * x0 + (1 - kept).sqrt() * noise
        share = times.float() / self.shape.diffusion_steps
        return torch.cat([x.flatten(1), share[:, None], condition], 1), (x0, mask, times)

    def loss(self, outputs: Tensor, targets: Batch) -> Tensor:
        """Mean squared error over the real frames of each row, then over the rows (MDM's `masked_l2`)."""
        return _row_losses(outputs, targets).mean()

    def tally(self) -> MotionTally:
        return MotionTally(self.times[1])

    def card(self) -> dict[str, Any]:
        clips = self._clips
        return {
            "architecture": {"name": NAME, "settings": self.shape.as_dict()},
            "classes": list(self.classes),
            "preprocess": {"form": clips.form, "mean": clips.mean.tolist(), "std": clips.std.tolist()},
        }

    def _random(self, stream: int, epoch: int, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self._seed, (stream << 60) | (epoch << 32) | index]))

    def _drawn(self, epoch: int, index: int) -> tuple[np.ndarray, ...]:
        rng, clip, shape = self._random(_TRAIN, epoch, index), self._train[index], self.shape
        start = int(rng.integers(max(clip.frames - shape.frames, 0) + 1))
        time, draw = int(rng.integers(shape.diffusion_steps)), int(rng.integers(1 << 16))
        shown = rng.random() >= shape.cond_mask_prob
        return self._sample(clip, start, time, rng, self._condition(clip, draw) if shown else None)

    def _fixed(self, number: int, time: int) -> tuple[np.ndarray, ...]:
        clip, start = self._val[number]
        rng = np.random.Generator(np.random.Philox(key=[_VAL, (number << 16) | time]))
        return self._sample(clip, start, time, rng, self._condition(clip, 0))

    def _sample(
        self, clip: Clip, start: int, time: int, rng: np.random.Generator, condition: np.ndarray | None
    ) -> tuple[np.ndarray, ...]:
        shape = self.shape
        part = clip.read()[start : start + shape.frames]
        x0 = np.zeros((shape.frames, shape.features), np.float32)
        x0[: len(part)] = (part - self._clips.mean) / self._clips.std
        mask = (np.arange(shape.frames) < len(part)).astype(np.float32)
        noise = rng.standard_normal(x0.shape, np.float32)
        condition = np.zeros(shape.condition_width, np.float32) if condition is None else condition
        return x0, mask, condition, np.array(time, np.int64), noise

    def _condition(self, clip: Clip, draw: int) -> np.ndarray | None:
        if self.shape.condition == "action" and clip.action >= 0:
            return np.eye(1, self.shape.condition_width, clip.action, dtype=np.float32)[0]
        return clip.embedding(draw) if self.shape.condition == "text" else None


class MotionTally:
    """The x0 loss at the fixed times; `accuracy` is the share of the motions' variance that is explained.

    Args:
        middle: the time at which the variance is compared: half of it is noise there.
    """

    def __init__(self, middle: int) -> None:
        self._middle, self._rows, self._loss = middle, 0, 0.0
        self._missed = self._whole = 0.0

    def add(self, outputs: Tensor, targets: Batch) -> None:
        x0, mask, times = targets
        self._loss += float(_row_losses(outputs.float(), targets).sum())
        self._rows += len(outputs)
        there = mask[..., None] * (times == self._middle)[:, None, None]
        self._missed += float((torch.square(outputs.float() - x0) * there).sum())
        self._whole += float((torch.square(x0) * there).sum())

    def result(self) -> dict[str, Any]:
        """`accuracy` is 1 - squared error / squared distance from the mean motion, never below 0."""
        explained = 1 - self._missed / self._whole if self._whole else 0.0
        return {"accuracy": max(0.0, explained), "f1_macro": None, "loss": self._loss / max(self._rows, 1)}


def _row_losses(outputs: Tensor, targets: Batch) -> Tensor:
    x0, mask = targets[:2]
    missed = (torch.square(outputs - x0).mean(2) * mask).sum(1)
    return missed / mask.sum(1).clamp_min(1)


def _stack(rows: list[tuple[np.ndarray, ...]]) -> Batch:
    return tuple(torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
