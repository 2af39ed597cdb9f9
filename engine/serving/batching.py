"""Dynamic batching: requests that wait for the same accelerator go through the net together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np


class _Waiting:
    """One caller's rows, and later their part of the answer or what went wrong."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.answer: np.ndarray | None = None
        self.error: Exception | None = None
        self.done = threading.Event()


class Batcher:
    """Runs a net on the rows of several callers at once; each gets exactly the rows it gave, in their order.

    Args:
        run: float32 [N, ...] to float32 [N, classes]; called from one thread.
        most: rows in one run at most; a caller with more has them run in several.
        window_s: how long the first of a batch waits for others to come. While a run is under way the next
            batch gathers anyway, so 0 still batches under load and adds no latency without.
    """

    def __init__(self, run: Callable[[np.ndarray], np.ndarray], most: int, window_s: float) -> None:
        self._run, self._most, self._window_s = run, most, window_s
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Rows [N, ...] to answers [N, classes]; blocks.

        Raises:
            Exception: what `run` raised for the batch that these rows were in.
        """
        parts = [_Waiting(rows[start : start + self._most]) for start in range(0, len(rows), self._most)]
        with self._changed:
            self._queue.extend(parts)
            self._changed.notify()
        for part in parts:
            part.done.wait()
        for part in parts:
            if part.error is not None:
                raise part.error
        answers = [part.answer for part in parts if part.answer is not None]
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    def close(self) -> None:
        """End the thread; who still waits is answered first."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._gather():
            try:
                found = self._run(
                    batch[0].rows if len(batch) == 1 else np.concatenate([one.rows for one in batch])
                )
                start = 0
                for one in batch:
                    one.answer = found[start : start + len(one.rows)]
                    start += len(one.rows)
            except Exception as error:  # noqa: BLE001 - it belongs to those who asked, not to this thread
                for one in batch:
                    one.error = error
            for one in batch:
                one.done.set()

    def _gather(self) -> list[_Waiting]:
        """The next batch, in the order of arrival; [] when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if not self._queue:
                return []
            until = time.monotonic() + self._window_s
            while self._rows() < self._most and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch, rows = [self._queue.popleft()], 0
            rows = len(batch[0].rows)
            while self._queue and rows + len(self._queue[0].rows) <= self._most:
                batch.append(self._queue.popleft())
                rows += len(batch[-1].rows)
            return batch

    def _rows(self) -> int:
        return sum(len(one.rows) for one in self._queue)
