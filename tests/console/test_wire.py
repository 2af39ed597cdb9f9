"""A real pseudo-terminal: how many bytes the console writes while four curves move, and when nothing does."""

from __future__ import annotations

import pytest

pytest.importorskip("pty")
from benchmarks._terminal import Terminal
from benchmarks.console import EMPTY, EVENING
from tests.conftest import PATIENCE_S, until


@pytest.mark.parametrize(("size", "most"), [((120, 40), 5000), ((80, 24), 2500)])
def test_four_live_curves_stay_within_the_budget(size: tuple[int, int], most: int) -> None:
    with Terminal(["--replay", str(EVENING)], *size) as console:
        console.until(b"8891", PATIENCE_S)
        console.press(b"1")
        console.drain(1.5)
        # on a busy machine the first screens may still be drawn
        assert any(0 < console.drain(3.0) / 3.0 <= most for _ in range(10))


def test_nothing_is_written_when_nothing_changes() -> None:
    with Terminal(["--replay", str(EMPTY)], 120, 40) as console:
        console.until(b"8891", PATIENCE_S)
        until(lambda: not console.drain(1.5), "the first screen")
        assert console.drain(6.0) == 0
