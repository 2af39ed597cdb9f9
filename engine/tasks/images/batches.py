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

Made = TypeVar("Made", bound=tuple[Tensor, ...])
Begun = tuple[Made, Callable[[slice], None]]  # a batch, and what fills some of its samples in

_PIECE = 8  # samples


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
    degrades = bool(RECIPES[level].noise or RECIPES[level].jpeg)

    def begin(number: int) -> Begun[tuple[Tensor, Tensor, Tensor]]:
        tickets = order[number * batch_size : (number + 1) * batch_size]
        tickets = tickets[share(len(tickets), *process)]
        chosen = tickets % len(part)
        pixels = np.empty((len(tickets), *part.shape), np.uint8)

        def fill(rows: slice) -> None:
            part.fill(chosen[rows], pixels[rows])
            if degrades:
                for place in range(len(tickets))[rows]:
                    pixels[place] = degrade(level, pixels[place], seed, epoch, int(tickets[place]))

        labels, draws = part.labels[chosen], draw(seed, epoch, tickets)
        return (torch.from_numpy(pixels), torch.from_numpy(labels), torch.from_numpy(draws)), fill

    yield from _ahead(begin, range(start, steps_per_epoch(len(part), batch_size)), workers)


def val_batches(part: Part, batch_size: int, *, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A part in its own order, as the server would feed it: float32 [B, 3, S, S], labels int64 [B]."""

    def begin(number: int) -> Begun[tuple[Tensor, Tensor]]:
        chosen = np.arange(number * batch_size, min((number + 1) * batch_size, len(part)))
        side = part.preprocess.img_size
        planes = np.empty((len(chosen), 3, side, side), np.float32)

        def fill(rows: slice) -> None:
            planes[rows] = part.preprocess.normalize(part.pixels(chosen[rows]))

        return (torch.from_numpy(planes), torch.from_numpy(part.labels[chosen])), fill

    yield from _ahead(begin, range(-(-len(part) // batch_size)), workers)


def _ahead(begin: Callable[[int], Begun[Made]], numbers: range, workers: int) -> Iterator[Made]:
    """The batch of each number, in order, made in threads that are a batch each ahead of who takes them.

    The threads share each batch, a few samples at a time: none waits for another at the end of an epoch.
    """
    threads = max(workers, 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
    made: deque[Future[tuple[Made, list[Future[None]]]]] = deque()

    def make(number: int) -> tuple[Made, list[Future[None]]]:
        batch, fill = begin(number)
        return batch, [pool.submit(fill, slice(at, at + _PIECE)) for at in range(0, len(batch[0]), _PIECE)]

    try:
        for number in numbers:
            made.append(pool.submit(make, number))
            if len(made) > threads:
                yield _whole(made.popleft())
        while made:
            yield _whole(made.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _whole(begun: Future[tuple[Made, list[Future[None]]]]) -> Made:
    batch, pieces = begun.result()
    for piece in pieces:
        piece.result()
    return batch
