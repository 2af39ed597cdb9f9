"""A few points of the chaos benchmark: commands killed at random moments under client load."""

from __future__ import annotations

import pytest

from benchmarks.chaos import run


@pytest.mark.fault(4, 5, 30)
def test_a_promotion_or_rollback_killed_at_a_random_moment_leaves_old_or_new() -> None:
    found = run(5, 7, ["promote", "rollback"])
    assert found["ok"], found
    assert found["answers"] > 50
    assert any(result["killed"] for result in found["results"])  # how many depends on how busy the machine is
