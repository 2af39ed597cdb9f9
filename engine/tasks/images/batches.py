"""Batches whose content depends on (seed, epoch, number) alone, however many processes make them."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from engine.tasks.images.augment import RECIPES, degrade, draw, epoch_order
from engine.tasks.images.data import Part
from engine.tasks.task import steps_per_epoch


class TrainBatches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Batch k of one epoch: pixels uint8 [B, S, S, 3], labels int64 [B], draws float32 [B, DRAWS]."""

    def __init__(self, part: Part, level: str, seed: int, epoch: int, batch_size: int) -> None:
        self.part, self.level, self.seed, self.epoch, self.batch_size = part, level, seed, epoch, batch_size
        self.order = epoch_order(seed, epoch, len(part))

    def __len__(self) -> int:
        return steps_per_epoch(len(self.part), self.batch_size)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        chosen = self.order[number * self.batch_size : (number + 1) * self.batch_size]
        images = [degrade(self.level, self.part.pixels(i), self.seed, self.epoch, int(i)) for i in chosen]
        draws = draw(self.seed, self.epoch, chosen)
        return (
            torch.from_numpy(np.stack(images)),
            torch.from_numpy(self.part.labels[chosen]),
            torch.from_numpy(draws),
        )


class ValBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batch k of a part in its own order, as the server would feed it: float32 [B, 3, S, S], labels."""

    def __init__(self, part: Part, batch_size: int) -> None:
        self.part, self.batch_size = part, batch_size

    def __len__(self) -> int:
        return -(-len(self.part) // self.batch_size)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        chosen = range(number * self.batch_size, min((number + 1) * self.batch_size, len(self.part)))
        pixels = np.stack([self.part.pixels(i) for i in chosen])
        return torch.from_numpy(self.part.preprocess.normalize(pixels)), torch.from_numpy(self.part.labels[chosen])


def train_batches(
    part: Part, level: str, seed: int, epoch: int, batch_size: int, *, start: int, workers: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The epoch's batches from number `start` on."""
    batches = TrainBatches(part, level, seed, epoch, batch_size)
    recipe = RECIPES[level]
    costly = not part.in_memory or recipe.noise or recipe.jpeg
    yield from _serve(batches, start, workers if costly else 0)


def val_batches(part: Part, batch_size: int, *, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from _serve(ValBatches(part, batch_size), 0, 0 if part.in_memory else workers)


def _serve(batches: Dataset, start: int, workers: int) -> Iterator:
    numbers = range(start, len(batches))
    if not workers:
        yield from (batches[number] for number in numbers)
        return
    # a generator of its own: the loader would otherwise draw from the global one, which a resume must not
    yield from DataLoader(
        batches,
        sampler=numbers,
        batch_size=None,
        num_workers=workers,
        worker_init_fn=_quiet_worker,
        generator=torch.Generator(),
        prefetch_factor=4,
    )


def _quiet_worker(_number: int) -> None:
    """Ctrl-C reaches the whole process group; only the training itself answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
