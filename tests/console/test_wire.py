"""A real pseudo-terminal: how many bytes the console writes while four curves move, and when nothing does."""

from __future__ import annotations

import pytest

pytest.importorskip("pty")
from benchmarks.console import IDLE, RECORDING, run


@pytest.mark.parametrize(("size", "most"), [((120, 40), 5000), ((80, 24), 2500)])
def test_four_live_curves_stay_within_the_budget(size: tuple[int, int], most: int) -> None:
    found = run(RECORDING, *size, seconds=3.0, still=False, warm=1.5, keys=False)
    assert found["first_paint_s"] is not None
    assert 0 < found["bytes_per_s"] <= most


def test_nothing_is_written_when_nothing_changes() -> None:
    assert run(IDLE, 120, 40, seconds=6.0, still=True, warm=1.5, keys=False)["bytes_per_s"] == 0
