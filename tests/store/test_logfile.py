"""Logs: bounded, written by several at once, read from the end and followed over their turns."""

from __future__ import annotations

import io
import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from engine.store.logfile import LogFile, follow_lines, is_open_on, last_lines, log_path, plain, rotated
from engine.store.workspace import Workspace
from tests.conftest import until


def test_lines_carry_their_time_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "123456:very-secret-token")
    log = LogFile(tmp_path / "logs" / "sync.log")
    log.line("one\ntwo with 123456:very-secret-token")
    log.close()
    one, two = last_lines(log.path, 10)
    assert one[19:] == " one"
    assert time.strptime(one[:19], "%Y-%m-%d %H:%M:%S")
    assert "very-secret" not in two


def test_a_log_turns_over_and_is_read_across_its_turns(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "asis.log", max_bytes=1000)
    for number in range(400):
        log.write(f"line {number:04d}\n")
    log.close()
    assert not rotated(log.path, 3).exists()
    assert all(rotated(log.path, number).stat().st_size <= 1010 for number in range(3))
    assert last_lines(log.path, 150) == [f"line {number:04d}" for number in range(250, 400)]
    assert len(last_lines(log.path, 10_000)) <= 303


def _fill(path: Path, name: str) -> None:
    log = LogFile(path, max_bytes=4000)
    for number in range(200):
        log.write(f"{name} {number:04d} {'x' * 20}\n")


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "sync.log"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_fill, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    lines = last_lines(path, 10_000)
    assert {len(line) for line in lines} == {27}
    assert any(line.startswith("a 0199") for line in lines)
    assert any(line.startswith("b 0199") for line in lines)


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    log = LogFile(tmp_path / "logs" / "asis.log")
    assert log.write("lost\n") == 5


def test_following_goes_on_over_a_turn(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "asis.log", max_bytes=2000)
    log.write("old 1\nold 2\nold 3\n")
    seen: list[str] = []
    done = threading.Event()

    def follow() -> None:
        for line in follow_lines(log.path, 2, done.is_set, poll_s=0.01):
            seen.append(line)

    reader = threading.Thread(target=follow)
    reader.start()
    until(lambda: len(seen) == 2)
    for number in range(300):
        log.write(f"line {number:04d}\n")
        time.sleep(0.001)
    until(lambda: seen[-1] == "line 0299", "the last line")
    done.set()
    reader.join()
    assert seen == ["old 2", "old 3", *(f"line {number:04d}" for number in range(300))]


def test_following_waits_for_a_log_that_is_not_there_yet_and_for_the_rest_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "tobe.log"
    seen: list[str] = []
    done = threading.Event()

    def follow() -> None:
        for line in follow_lines(path, 5, done.is_set, poll_s=0.01):
            seen.append(line)

    reader = threading.Thread(target=follow)
    reader.start()
    log = LogFile(path)
    log.write("half")
    time.sleep(0.1)
    assert not seen
    log.write(" and whole\n")
    until(lambda: seen, "the line")
    done.set()
    reader.join()
    assert seen == ["half and whole"]


def test_what_a_terminal_would_obey_is_taken_out() -> None:
    assert plain(b"\x1b[31mred\x1b[0m \x1b]0;title\x07\x00tab\there\r \xff \x9b1m") == "red tab    here � �1m"
    assert len(plain(b"x" * 100_000)) == 4096


def test_where_logs_lie(workspace: Workspace) -> None:
    assert log_path(workspace, "sync") == workspace.logs / "sync.log"
    assert log_path(workspace, "0002") == workspace.runs / "0002" / "train.log"
    path = workspace.root / "here"
    path.parent.mkdir(parents=True)
    with path.open("w") as stream:
        assert is_open_on(path, stream)
    assert not is_open_on(path, io.StringIO())
