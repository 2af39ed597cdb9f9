"""What `bench training` times: our trainer, a plain loop, the loader and decoding, each a few steps at a time.

All of one measurement take turns in one process, so that they see the same minutes of the machine.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from engine.config import Settings, load_settings
from engine.tasks.images.task import ImageTask, load_task
from engine.tasks.task import Task
from engine.training.loop import Hooks, Position, Stopped, Trainer
from engine.training.optim import build_optimizer
from engine.training.progress import Progress
from engine.training.runs import RunFolder

Batch = tuple[torch.Tensor, ...]


class Racer(Protocol):
    def advance(self, steps: int) -> list[float]:
        """Seconds of each of the next steps."""
        ...


def take_turns(racers: dict[str, Racer], *, rounds: int, steps: int) -> dict[str, float]:
    """The median seconds of a step of each; the first steps of every turn do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in racers}
    for racer in racers.values():
        racer.advance(2)
    for turn in range(rounds):
        for name in list(racers) if turn % 2 else reversed(list(racers)):
            seconds[name] += racers[name].advance(steps + 2)[2:]
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def photographs(folder: Path, count: int = 1000, side: tuple[int, int] = (400, 533), classes: int = 10) -> Path:
    """JPEGs of about 30 kB in train/ and val/ of class folders: smooth colours under fine grain, by seed."""
    for number in range(count):
        stream = np.random.default_rng(number)
        coarse = Image.fromarray(stream.integers(0, 255, (9, 7, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(side, Image.Resampling.BICUBIC), np.int16)
        grained = smooth + stream.integers(-9, 10, (side[1], side[0], 1), dtype=np.int16)
        path = folder / ("val" if number % 4 == 0 else "train") / f"class{number % classes}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(grained, 0, 255).astype(np.uint8)).save(path, quality=75)
    return folder


def settings_for(root: Path, workspace: Path, *more: str) -> Settings:
    words = [
        "data=folder",
        f"data.root={root}",
        "data.img_size=128",
        "model.name=resnet18",
        "training.epochs=1000",
    ]
    return load_settings(None, workspace, [*words, *more]).settings


class Ours:
    """Our trainer as `train` drives it, stopped after so many steps and going on from there."""

    def __init__(
        self, settings: Settings, folder: Path, task: Task | None = None, precision: str = "fp32"
    ) -> None:
        self.task: Any = task or load_task(settings)
        self.settings = settings
        torch.manual_seed(0)
        training = settings.training
        steps = max(self.task.train_samples // training.batch_size, 1)
        run = RunFolder(folder)
        run.root.mkdir(parents=True, exist_ok=True)
        progress = Progress(
            run, lambda _: None, lambda: 0, epochs=1000, steps=steps, batch_size=training.batch_size
        )
        net = self.task.build_model(pretrained=False)
        self.trainer = Trainer(net, self.task, training, "cpu", precision, progress)

    def advance(self, steps: int) -> list[float]:
        if self.trainer.position.step + steps > self.trainer.steps:
            self.trainer.position = Position(self.trainer.position.epoch + 1)  # never as far as the validation
        at: list[float] = []

        def stop() -> bool:
            at.append(time.perf_counter())
            return len(at) == steps

        began = time.perf_counter()
        with contextlib.suppress(Stopped):
            self.trainer.run(Hooks(stop, *[_never] * 3))
        return [later - earlier for earlier, later in zip([began, *at], at, strict=False)]


class PlainLoop:
    """A loop as one writes it by hand, over batches in memory: `raw` on ready inputs, else with our augmentation."""

    def __init__(self, task: ImageTask, settings: Settings, *, raw: bool) -> None:
        torch.manual_seed(0)
        self.task, self.raw = task, raw
        self.smoothing = settings.training.label_smoothing
        self.model = task.build_model(pretrained=False).to(memory_format=torch.channels_last).train()
        self.optimizer = build_optimizer(self.model, settings.training, "cpu")
        batches = list(some(task.train_batches(0, settings.training.batch_size, start=0, workers=0), 6))
        ready = [self._ready(batch) for batch in batches] if raw else batches
        self.batches: Iterator[Batch] = cycle(ready)

    def _ready(self, batch: Batch) -> Batch:
        inputs, (labels, *_) = self.task.prepare(batch, training=True)
        return inputs, labels

    def advance(self, steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            batch = next(self.batches)
            self.optimizer.zero_grad(set_to_none=True)
            if self.raw:
                loss = F.cross_entropy(self.model(batch[0]), batch[1], label_smoothing=self.smoothing)
            else:
                inputs, targets = self.task.prepare(batch, training=True)
                loss = self.task.loss(self.model(inputs), targets)
            loss.backward()
            self.optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - began)
        return seconds


def some(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    for _, batch in zip(range(count), batches, strict=False):
        yield batch
    batches.close()  # type: ignore[attr-defined]


def loader_rates(task: ImageTask, *, batch_size: int, workers: int, rounds: int, peer: Any) -> dict[str, float]:
    """Images a second: our batches, plain decoding by a pool of as many threads, timm's loader (None: left out)."""
    part = task.data.train
    contents = [(part.base / name).read_bytes() for name in part.names]

    def ours(turn: int) -> int:
        return sum(len(b[0]) for b in task.train_batches(turn, batch_size, start=0, workers=workers))

    def plain(_: int) -> int:
        with ThreadPoolExecutor(workers) as pool:
            return sum(1 for _ in pool.map(part.preprocess.pixels, contents))

    pieces: dict[str, Callable[[int], int]] = {"ours": ours, "plain": plain}
    if peer is not None:
        pieces["timm"] = lambda _: sum(len(images) for images, _ in peer.loader)
    rates: dict[str, list[float]] = {name: [] for name in pieces}
    for turn in range(rounds + 1):
        for name, piece in pieces.items():
            began = time.perf_counter()
            count = piece(turn)
            if turn:  # the first warms
                rates[name].append(count / (time.perf_counter() - began))
    return {name: statistics.median(found) for name, found in rates.items()}


def _never(*_: Sequence[Any]) -> None:
    raise AssertionError("a measurement stops before this")
