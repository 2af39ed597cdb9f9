"""Faults of the stream: a child that dies, lines that are damaged, another version, a recording that is moved."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from console import feed as feeds
from console.feed import LiveFeed
from console.replay import Replay, read_all
from console.store import STALE_AFTER_S, Store
from engine.errors import UsageError
from tests.console.conftest import RECORDINGS, MakeApp, filled, screen_text

EVENING = RECORDINGS / "evening.jsonl"


def soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


def child(tmp_path: Path, body: str) -> list[str]:
    script = tmp_path / "feed.py"
    script.write_text(f"import sys, time\nlines = open({str(EVENING)!r}).read().splitlines()\n{body}\n")
    return [sys.executable, str(script)]


def test_a_feed_that_dies_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "BACK_OFF_S", (0.05,))
    mark = tmp_path / "mark"
    body = (
        f"import pathlib\nmark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n    mark.touch()\n    sys.exit('error: the database is damaged')\n"
        "print(lines[0], flush=True)\ntime.sleep(60)"
    )
    problems: list[str] = []
    feed = LiveFeed(child(tmp_path, body))
    feed.start(lambda: problems.append(feed.problem))
    try:
        assert soon(lambda: "the database is damaged" in problems)
        assert soon(lambda: bool(feed.pending._newest))
        assert feed.problem == ""
    finally:
        feed.stop()
    assert feed._child is not None
    assert feed._child.poll() is not None


def test_damaged_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    body = "print('{\"v\":1,', flush=True)\nprint('nonsense')\nprint(lines[0], flush=True)\ntime.sleep(60)"
    feed = LiveFeed(child(tmp_path, body))
    feed.start(lambda: None)
    try:
        assert soon(lambda: bool(feed.pending._newest))
        assert feed.damaged == 2
    finally:
        feed.stop()


def test_another_version_is_said_in_words(tmp_path: Path) -> None:
    body = "print(lines[0].replace('\"v\":1', '\"v\":99'), flush=True)\ntime.sleep(60)"
    feed = LiveFeed(child(tmp_path, body))
    feed.start(lambda: None)
    try:
        assert soon(lambda: "version 99" in feed.problem)
    finally:
        feed.stop()


async def test_the_app_says_offline_keeps_the_last_figures_and_revives(make_app: MakeApp) -> None:
    class Given:
        state = "live"
        problem = ""
        damaged = 0

        def start(self, wake: Callable[[], None]) -> None:
            self.wake = wake

        def drain(self) -> list[object]:
            return []

        def stop(self) -> None: ...

    app = make_app()
    given = Given()
    app.feed = given  # type: ignore[assignment]
    async with app.run_test(size=(120, 40)) as pilot:
        given.state, given.problem = "offline", "ssh: connection lost"
        given.wake()
        await pilot.pause()
        shown = screen_text(app)
        assert "offline" in shown
        assert "connection lost" in shown
        assert "a3f9c1e2" in shown
        await pilot.press("p")
        assert "not live" in app.notice[0]
        given.state, given.problem = "live", ""
        given.wake()
        await pilot.pause()
        assert "offline" not in screen_text(app)


def test_each_kind_grows_stale_by_itself() -> None:
    store, last = filled("evening")
    assert store.freshness("slots", last).state == "live"
    assert store.freshness("slots", last + STALE_AFTER_S + 30).state == "stale"
    assert store.freshness("nothing", last).state == "offline"
    store, last = filled("trouble")
    found = store.freshness("devices", last, "gpu-box")
    assert (found.state, found.why) == ("offline", "ssh: connection timed out")


def test_a_recording_is_played_paused_and_moved() -> None:
    replay = Replay(EVENING, speed=1000.0)
    store = Store()
    replay.start(lambda: None)
    try:
        assert soon(lambda: replay.now >= replay.end)
        time.sleep(0.05)
        for message in replay.drain():
            store.apply(message, replay.now)
        assert store.home == "studio"
        replay.pause()
        replay.seek(-60)
        assert replay.now == pytest.approx(replay.end - 60)
        assert replay.jumped()
        replay.faster(-1)
        assert replay.speed < 1000.0
    finally:
        replay.stop()


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("hello\n")
    with pytest.raises(UsageError):
        Replay(path)


def test_the_recordings_are_what_their_script_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.console import record

    monkeypatch.setattr(record, "FOLDER", tmp_path)
    record.trouble().write("trouble.jsonl")
    assert read_all(tmp_path / "trouble.jsonl") == read_all(RECORDINGS / "trouble.jsonl")
    assert len(read_all(EVENING)) == len(EVENING.read_text().splitlines())
    assert json.loads(EVENING.read_text().splitlines()[0])["v"] == 1
