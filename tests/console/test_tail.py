"""The log tail: lines as they come, a child that ends or cannot start, garbage."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from console import tail as tails
from console.tail import LINES, Tail
from tests.console.test_feed import soon


def child(tmp_path: Path, body: str) -> list[str]:
    script = tmp_path / "logs.py"
    script.write_text(
        "import json, sys, time\n"
        "def say(line): print(json.dumps({'name': 'asis', 'line': line}), flush=True)\n" + body
    )
    return [sys.executable, str(script)]


def test_lines_come_in_order_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    woken: list[int] = []
    tail = Tail(child(tmp_path, "for n in range(5000): say(f'line {n}')\ntime.sleep(60)"), lambda: woken.append(1))
    tail.start()
    try:
        assert soon(lambda: bool(tail.lines) and tail.lines[-1] == "line 4999")
        assert tail.name == "asis"
        assert list(tail.lines) == [f"line {n}" for n in range(5000 - LINES, 5000)]
        assert 0 < len(woken) <= 5000  # once a block, and never for half a line
    finally:
        tail.stop()
    assert tail._child is not None
    assert tail._child.poll() is not None


def test_a_tail_whose_child_ends_says_why_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "BACK_OFF_S", (0.05,))
    mark = tmp_path / "mark"
    body = (
        f"import pathlib\nmark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n    mark.touch()\n    say('before')\n    sys.exit('error: the disk is gone')\n"
        "say('before')\nsay('after')\ntime.sleep(60)"
    )
    problems: list[str] = []
    tail = Tail(child(tmp_path, body), lambda: problems.append(tail.problem))
    tail.start()
    try:
        assert soon(lambda: list(tail.lines) == ["before", "after"])
        assert "the disk is gone" in problems
        assert tail.problem == ""
    finally:
        tail.stop()


def test_garbage_is_said_and_passed_over(tmp_path: Path) -> None:
    tail = Tail(child(tmp_path, "print('nonsense')\nprint('[1]', flush=True)\ntime.sleep(60)"), lambda: None)
    tail.start()
    try:
        assert soon(lambda: "could not be read" in tail.problem)
        assert not tail.lines
    finally:
        tail.stop()


def test_a_tail_that_cannot_start_says_so(tmp_path: Path) -> None:
    tail = Tail([str(tmp_path / "nothing")], lambda: None)
    tail.start()
    try:
        assert soon(lambda: "cannot be followed" in tail.problem)
    finally:
        tail.stop()
