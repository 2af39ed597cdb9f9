"""Sweeps in the training pane: a line each below the runs, a table where there is nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from console import words
from console.panes import training
from engine.protocol import Runs, parse
from tests.console.test_panes import shown, view

GOLDEN = Path(__file__).parents[1] / "protocol" / "golden" / "sweeps.jsonl"


@pytest.mark.parametrize(("language", "word"), [("en", "◐ running"), ("ko", "◐ 실행 중")])
def test_the_newest_sweep_stands_below_the_runs(language: str, word: str) -> None:
    found = view("evening")
    message = parse(GOLDEN.read_text())
    assert isinstance(message.data, Runs)
    assert found.store.runs
    known = replace(found.store.runs, sweeps=message.data.sweeps)
    found.store.apply(replace(message, host=str(found.store.home), data=known), found.now)
    words.choose(language)
    try:
        for width in (24, 60, 110):
            rows = training.draw(found, width, 30)
            assert len(rows) == 30
            assert all(row.at <= width for row in rows)
            assert len(training.draw(found, width, 8)) <= 8
    finally:
        words.choose("en")
    live, dead = shown(rows).splitlines()[-2:]
    assert "2026-11-20/18-00-00" in live
    assert word in live
    assert "2/4" in live
    assert "F1 0.9770  model=resnet50 data=transformer_384" in live
    assert "0/2" in dead


def test_without_other_runs_the_sweeps_table_is_drawn() -> None:
    found = view("empty")
    message = parse(GOLDEN.read_text())
    assert isinstance(message.data, Runs)
    alone = replace(message.data, runs=[], total=0)
    found.store.apply(replace(message, host=str(found.store.home), data=alone), found.now)
    drawn = shown(training.draw(found, 100, 12)).splitlines()
    assert [line.split()[:2] for line in drawn[2:4]] == [["◆", "1"], ["2", "0"]]
    assert "data=transformer_384" in drawn[2]
