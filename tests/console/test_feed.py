"""Faults of the stream: a child that dies, lines that are damaged, another version, a recording that is moved."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from console import feed as feeds
from console.feed import LiveFeed
from console.recording import Recording
from console.replay import Replay, read_all
from console.store import STALE_AFTER_S, Store
from engine.errors import UsageError
from engine.protocol import Health, Message, Progress, Slot, Slots, Source, encode
from tests.conftest import PATIENCE_S
from tests.console.conftest import RECORDINGS, MakeApp, filled, screen_text

EVENING = RECORDINGS / "evening.jsonl"


def soon(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return False


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
        assert soon(lambda: bool(feed.pending._newest) and not feed.problem)
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


@pytest.mark.fault(49)
@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(600)",
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "while True: print('garbage', flush=True), time.sleep(.01)",
    ],
)
def test_a_feed_that_hangs_is_stale_at_once_and_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hang: str
) -> None:
    monkeypatch.setattr(feeds, "BACK_OFF_S", (0.5,))
    monkeypatch.setattr(feeds, "MIN_SILENCE_S", 0.3)
    mark = tmp_path / "mark"
    promise = '"beat_s":0.1,"sources":[]'
    body = (
        f"import os, pathlib, signal\nmark = pathlib.Path({str(mark)!r})\n"
        'health = next(line for line in lines if \'"kind":"health"\' in line)\n'
        f"health = health[:health.index('\"data\":')] + '\"data\":{{' + {promise!r} + '}}}}'\n"
        f"if not mark.exists():\n    mark.touch()\n    print(health, flush=True)\n    {hang}\n"
        "while True: print(health, flush=True), time.sleep(.05)"
    )
    told: list[tuple[str, str]] = []
    feed = LiveFeed(child(tmp_path, body))
    first = feed._child
    feed.start(lambda: told.append((feed.state, feed.problem)))
    try:
        assert soon(lambda: any(state == "stale" for state, _ in told))
        assert soon(lambda: ("offline", "the engine hung, and is started again") in told)
        monkeypatch.setattr(feeds, "MIN_SILENCE_S", PATIENCE_S)  # the next one is not hung where it is only slow
        assert soon(lambda: feed.state == "live" and not feed.problem)
        assert feed.started == 2
        assert first is not None
        assert first.poll() is not None
    finally:
        feed.stop()


def test_what_is_said_again_wakes_nobody(tmp_path: Path) -> None:
    body = "while True: print(lines[0], flush=True), time.sleep(.01)"
    woken: list[int] = []
    feed = LiveFeed(child(tmp_path, body))
    feed.start(lambda: woken.append(len(feed.drain())))
    try:
        assert soon(lambda: bool(woken))
        for _ in range(3):
            assert soon(lambda: len(feed.drain()) == 1)  # it keeps its snapshot young
        assert len(woken) == 1
    finally:
        feed.stop()


@pytest.mark.fault(55)
def test_another_version_is_said_in_words(tmp_path: Path) -> None:
    body = "print(lines[0].replace('\"v\":1', '\"v\":99'), flush=True)\ntime.sleep(60)"
    feed = LiveFeed(child(tmp_path, body))
    feed.start(lambda: None)
    try:
        assert soon(lambda: "version 99" in feed.problem)
    finally:
        feed.stop()


@pytest.mark.parametrize("state", ["stale", "offline"])
async def test_the_app_says_so_keeps_the_last_figures_and_revives(make_app: MakeApp, state: str) -> None:
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
        given.state, given.problem = state, "ssh: connection lost"
        given.wake()
        await pilot.pause()
        shown = screen_text(app)
        assert state in shown
        assert "connection lost" in shown
        assert "a3f9c1e2" in shown
        await pilot.press("p")
        assert "not live" in app.notice[0]
        given.state, given.problem = "live", ""
        given.wake()
        await pilot.pause()
        assert state not in screen_text(app)


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

        def played() -> bool:
            for message in replay.drain():
                store.apply(message, replay.now)
            return replay.now >= replay.end and store.home == "studio"

        assert soon(played)
        replay.pause()
        replay.seek(-60)
        assert replay.now == pytest.approx(replay.end - 60)
        assert replay.jumped()
        replay.faster(-1)
        assert replay.speed < 1000.0
    finally:
        replay.stop()


def spread(path: Path, count: int, *, every: float = 1.0) -> float:
    """A long recording of health alone; its beginning in seconds since the epoch."""
    begin = datetime(2026, 11, 20, 12, tzinfo=UTC)
    with path.open("w") as file:
        for number in range(count):
            at = (begin + timedelta(seconds=number * every)).isoformat(timespec="milliseconds")
            health = Health(missed_looks=number, beat_s=2.0)
            file.write(encode(Message(v=1, seq=number, at=at, host="h", kind="health", data=health)) + "\n")
            if number % 7 == 0:
                file.write("damaged\n")
    return begin.timestamp()


def test_any_moment_of_a_long_recording_is_found_by_halving(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    begin = spread(path, 2000)
    recording = Recording(path)
    assert (recording.begin, recording.end) == (begin, begin + 1999)
    for second in (-5, 0, 0.5, 1, 6, 7, 8, 999.5, 1000, 1998, 1999):
        found = recording.line(recording.find(begin + second))
        assert found is not None
        assert found.at == begin + max(0, math.ceil(second))
    assert recording.find(begin + 5000) == recording.size
    recording.close()


def test_a_replay_jumps_and_counts_damaged_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    spread(path, 2000)
    replay = Replay(path, speed=1.0)
    replay.pause()
    woken: list[int] = []
    replay.start(lambda: woken.append(1))
    try:
        assert soon(lambda: bool(replay.drain()))
        replay.seek(1500)
        assert soon(lambda: any(m.data.missed_looks == 1500 for m in replay.drain()))  # type: ignore[union-attr]
        assert not replay.jumped()
        damaged = replay.damaged
        assert 0 < damaged < 30  # of 215: what was jumped over was not read
        replay.seek(-10)
        assert replay.jumped()
        assert soon(lambda: any(m.data.missed_looks == 1490 for m in replay.drain()))  # type: ignore[union-attr]
        assert replay.damaged == damaged
    finally:
        replay.stop()


@pytest.mark.fault(49)
def test_a_recorded_stream_that_fell_silent_is_shown_as_stale(tmp_path: Path) -> None:
    path = tmp_path / "gap.jsonl"
    spread(path, 3, every=30.0)
    replay = Replay(path, speed=25.0)
    states: list[str] = []
    replay.start(lambda: states.append(replay.state))
    try:
        assert soon(lambda: replay.now >= replay.end)
        assert soon(lambda: states[-1:] == ["live"])
        assert states.count("stale") == 2
    finally:
        replay.stop()


def test_a_remote_hosts_figures_are_judged_by_the_way_to_it() -> None:
    store = Store()

    def say(host: str, kind: str, data: object) -> None:
        store.apply(Message(v=1, seq=1, at="", host=host, kind=kind, data=data), 1000.0)  # type: ignore[arg-type]

    def judge(state: str, name: str) -> Health:
        return Health(sources=[Source(name=name, state=state, since="", detail="ssh")])  # type: ignore[arg-type]

    slots = Slots(asis=Slot(port=1, state="empty"), tobe=Slot(port=2, state="empty"))
    say("here", "slots", slots)
    say("box", "progress", Progress())
    say("here", "health", judge("stale", "files"))
    assert store.freshness("progress", 1001.0, "box").state == "live"
    say("here", "health", judge("offline", "host box"))
    assert store.freshness("progress", 1001.0, "box").state == "offline"
    say("here", "health", judge("stale", "events"))
    say("box", "health", judge("stale", "progress"))
    assert store.freshness("progress", 1001.0, "box").why == "ssh"
    assert store.freshness("slots", 1001.0).state == "live"


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
