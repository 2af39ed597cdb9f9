"""glibc's heap, replayed: how large it gets when a training's tensors come and go.

The heap never gives back (`engine.training.allocator`), so its greatest size is what a process holds, and that
depends on the order in which pieces come and go. `malloc` takes the smallest free piece that is large enough and
joins neighbours that are free (Lea's allocator; glibc 2.36's malloc.c). Torch asks for addresses that are multiples
of 64, for which glibc looks for 96 bytes more than it then takes: a hole of just the right size is not used again.
Only what finds no hole and reaches the threshold is mapped by itself, and given back when freed. Small pieces find
cells that `engine.training.allocator` leaves free for them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

from engine.training.allocator import CELL, CELLS

Piece = tuple[int, int]  # its start and end
STEPS = 3  # after which the heap hardly grows
ALIGNED = 64
SLACK = ALIGNED + 32  # what memalign asks for besides
PAGE = 4096
CELLS_AT = 1 << 48  # where the cells begin: beyond any heap


class Heap:
    """A heap of aligned pieces.

    Args:
        threshold: what finds no hole is mapped by itself from so many bytes on.
        cells: how many free cells there are for small pieces.

    `most` is the most bytes that the heap, what is used of the cells and what is mapped have had together.
    """

    def __init__(self, threshold: int, cells: int = 0) -> None:
        self._threshold = threshold
        self._top = self._mapped = self._in_cells = self.most = 0
        self._free: list[tuple[int, int]] = []  # (size, start), ascending
        self._starts: dict[int, int] = {}  # start to end of each free piece
        self._ends: dict[int, int] = {}  # and back
        for number in range(cells):
            start = CELLS_AT + 2 * number * CELL
            self._add(start, start + CELL)

    def take(self, size: int) -> Piece:
        """A piece as (start, end); one that is mapped by itself has a negative start."""
        whole = (size + 23) & ~15  # with its header
        place = bisect_left(self._free, (whole + SLACK, 0))
        if place < len(self._free):
            found, start = self._free[place]
            self._drop(start, start + found)
            piece = self._cut(start, start + found, whole)
            if start >= CELLS_AT:
                self._in_cells += whole
        elif whole + SLACK >= self._threshold:
            pages = -(-(whole + SLACK) // PAGE) * PAGE
            self._mapped += pages
            piece = (-pages, 0)
        else:
            last = self._ends.get(self._top, self._top)
            if last != self._top:
                self._drop(last, self._top)
            self._top = max(self._top, last + whole + SLACK)
            piece = self._cut(last, self._top, whole)
        self.most = max(self.most, self._top + self._mapped + self._in_cells)
        return piece

    def give(self, piece: Piece) -> None:
        """Take a piece back, and join it with what is free beside it."""
        start, end = piece
        if start < 0:
            self._mapped += start
            return
        if start >= CELLS_AT:
            self._in_cells -= end - start
        if (before := self._ends.get(start)) is not None:
            self._drop(before, start)
            start = before
        if (after := self._starts.get(end)) is not None:
            self._drop(end, after)
            end = after
        self._add(start, end)

    def _cut(self, start: int, end: int, whole: int) -> Piece:
        """An aligned piece out of what was free; the rest stays free."""
        begin = start
        if (start + 16) % ALIGNED:
            begin = -(-(start + 32 + 16) // ALIGNED) * ALIGNED - 16  # before it a piece of 32 bytes at least
        if begin > start:
            self._add(start, begin)
        if begin + whole < end:
            self._add(begin + whole, end)
        return begin, begin + whole

    def _add(self, start: int, end: int) -> None:
        insort(self._free, (end - start, start))
        self._starts[start], self._ends[end] = end, start

    def _drop(self, start: int, end: int) -> None:
        del self._free[bisect_left(self._free, (end - start, start))]
        del self._starts[start], self._ends[end]


@dataclass(frozen=True)
class Step:
    """One optimiser step as events, in two parts: the batch prepared; then the net forward and backward, `parts` times.

    A positive event takes so many bytes, a negative one gives back what the taking of that number took (-1: the
    first). `gradients` are the numbers of those pieces that live to the next step.
    """

    prepared: list[int]
    passed: list[int]
    gradients: frozenset[int]
    parts: int


def heap_bytes(
    kept: list[tuple[int, bool]],
    buffers: list[int],
    states: list[int],
    step: Step,
    judged: list[int],
    threshold: int,
    *,
    averaged: bool,
) -> int:
    """The most bytes that a training's tensors make of the heap: three steps, a validation, a checkpoint.

    Args:
        kept: bytes of each weight and buffer, and whether it is laid out anew (four axes: channels last).
        buffers: bytes of each buffer, which is kept for a step that is taken again.
        states: bytes of the optimiser's states, made in its first step.
        judged: events of a validation batch.
        averaged: whether an average of the weights is kept.
    """
    heap = Heap(threshold, CELLS)
    weights = [heap.take(size) for size, _ in kept]
    for place, (size, anew) in enumerate(kept):
        if anew:
            before, weights[place] = weights[place], heap.take(size)
            heap.give(before)
    for size in [size for size, _ in kept] * averaged + buffers:
        heap.take(size)
    gradients: dict[int, Piece] = {}
    for number in range(STEPS):
        batch: dict[int, Piece] = {}
        taken = _play(heap, step.prepared, batch, 0)
        for piece in gradients.values():
            heap.give(piece)
        for part in range(step.parts):
            passing: dict[int, Piece] = {}
            _play(heap, step.passed, passing, taken, step.gradients if part else frozenset())
            if not part:
                gradients = {key: passing.pop(key) for key in step.gradients if key in passing}
            for piece in passing.values():
                heap.give(piece)
        for piece in batch.values():
            heap.give(piece)
        if not number:
            for size in states:
                heap.take(size)
    left: dict[int, Piece] = {}
    _play(heap, judged, left, 0)
    for piece in left.values():
        heap.give(piece)
    for size in [size for size, anew in kept if anew]:  # the checkpoint's copies
        heap.take(size)
    return heap.most


def _play(
    heap: Heap, events: list[int], held: dict[int, Piece], taken: int, added: frozenset[int] = frozenset()
) -> int:
    """Play events on; how many pieces are taken by then.

    Args:
        held: pieces by their number, changed to those that are left.
        added: numbers of pieces that are added to others as soon as they are there.
    """
    for event in events:
        if event < 0:
            if (piece := held.pop(-event, None)) is not None:
                heap.give(piece)
            continue
        taken += 1
        held[taken] = heap.take(event)
        if taken in added:
            heap.give(held.pop(taken))
    return taken
