"""Batches whose content depends on (seed, epoch, number) alone, however many threads make them.

Threads, not processes: decoding leaves Python's lock, so they scale as processes do on the cores of a workstation,
start in no time, share the decoded images, and cannot outlive the training. They work one batch ahead or more,
while torch computes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from engine.tasks.images.augment import RECIPES, degrade, draw
from engine.tasks.images.data import Part
from engine.tasks.images.order import epoch_order
from engine.tasks.task import share, steps_per_epoch

Made = TypeVar("Made")


def train_batches(
    part: Part,
    level: str,
    seed: int,
    epoch: int,
    batch_size: int,
    *,
    sampling: str,
    start: int,
    workers: int,
    process: tuple[int, int] = (0, 1),
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The epoch's batches from number `start` on: pixels uint8 [B, S, S, 3], labels int64 [B], draws float32 [B, DRAWS].

    Args:
        workers: threads; 0: one.
        process: number and count of the processes that share each batch; this one's rows alone are made.
    """
    order = epoch_order(seed, epoch, part.labels, sampling)

    def make(number: int) -> tuple[Tensor, Tensor, Tensor]:
        tickets = order[number * batch_size : (number + 1) * batch_size]
        tickets = tickets[share(len(tickets), *process)]
        chosen = tickets % len(part)
        pixels = part.pixels(chosen)
        if RECIPES[level].noise or RECIPES[level].jpeg:
            for place, ticket in enumerate(tickets):
                pixels[place] = degrade(level, pixels[place], seed, epoch, int(ticket))
        draws = draw(seed, epoch, tickets)
        return torch.from_numpy(pixels), torch.from_numpy(part.labels[chosen]), torch.from_numpy(draws)

    yield from _ahead(make, range(start, steps_per_epoch(len(part), batch_size)), workers)


def val_batches(part: Part, batch_size: int, *, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A part in its own order, as the server would feed it: float32 [B, 3, S, S], labels int64 [B]."""

    def make(number: int) -> tuple[Tensor, Tensor]:
        chosen = np.arange(number * batch_size, min((number + 1) * batch_size, len(part)))
        planes = part.preprocess.normalize(part.pixels(chosen))
        return torch.from_numpy(planes), torch.from_numpy(part.labels[chosen])

    yield from _ahead(make, range(-(-len(part) // batch_size)), workers)


def _ahead(make: Callable[[int], Made], numbers: range, workers: int) -> Iterator[Made]:
    """`make` of each number, in order, made in threads that are a batch each ahead of who takes them."""
    threads = max(workers, 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        made: deque[Future[Made]] = deque()
        try:
            for number in numbers:
                made.append(pool.submit(make, number))
                if len(made) > threads:
                    yield made.popleft().result()
            while made:
                yield made.popleft().result()
        finally:
            for future in made:
                future.cancel()
