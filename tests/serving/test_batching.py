"""Dynamic batching: each caller gets the answers to its own rows, whatever they travelled with."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from engine.serving.batching import Batcher
from tests.conftest import PATIENCE_S, until

MOST = 8


class Net:
    """A stand-in for an accelerator: exact arithmetic, and it notes the sizes of its runs. A row that
    begins with -1 makes its run fail."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun = 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.begun += len(batch)
        self.free.wait(PATIENCE_S)
        self.sizes.append(len(batch))
        if (batch[:, 0] == -1).any():
            raise RuntimeError("out of memory")
        return np.stack([batch[:, 0] * 2, batch.sum(1)], 1)


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def batcher(net: Net) -> Iterator[Batcher]:
    made = Batcher(net, MOST, window_s=0.05)
    yield made
    net.free.set()
    made.close()


def ask_together(batcher: Batcher, rows: list[np.ndarray]) -> list[np.ndarray | Exception]:
    found: list[np.ndarray | Exception] = [RuntimeError("not asked")] * len(rows)

    def ask(index: int) -> None:
        try:
            found[index] = batcher(rows[index])
        except RuntimeError as error:
            found[index] = error

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(rows))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_everyone_gets_exactly_the_answers_to_ones_own_rows(batcher: Batcher, net: Net) -> None:
    random = np.random.default_rng(0)
    rows = [random.integers(0, 1000, (int(random.integers(1, 2 * MOST)), 3)).astype(np.float32) for _ in range(60)]
    for given, found in zip(rows, ask_together(batcher, rows), strict=True):
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, np.stack([given[:, 0] * 2, given.sum(1)], 1))
    assert max(net.sizes) <= MOST
    pieces = sum(-(-len(one) // MOST) for one in rows)
    assert len(net.sizes) < pieces, "some travelled together"


def test_a_batch_gathers_while_another_runs(net: Net) -> None:
    batcher = Batcher(net, MOST, window_s=0.0)
    net.free.clear()
    threads = [threading.Thread(target=batcher, args=(np.full((1, 2), n, np.float32),)) for n in range(MOST + 1)]
    for thread in threads:
        thread.start()
    until(lambda: net.begun + len(batcher._queue) == MOST + 1, "all of them there")
    net.free.set()
    for thread in threads:
        thread.join()
    batcher.close()
    assert sum(net.sizes) == MOST + 1
    assert len(net.sizes) == 2


def test_a_run_that_fails_fails_its_own_callers_alone(batcher: Batcher) -> None:
    with pytest.raises(RuntimeError, match="memory"):
        batcher(np.full((1, 2), -1, np.float32))
    np.testing.assert_array_equal(batcher(np.ones((1, 2), np.float32)), [[2, 2]])
