"""`events`: what people and programs read of the audit log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

from engine.store.events import append_event
from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S, PROJECT, Result, until


def test_follow_prints_new_events_until_a_signal_ends_it(workspace: Workspace) -> None:
    append_event(workspace, "alert", "before")
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace.root), "events", "--follow", "--json"]
    child = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    listener = threading.Thread(target=lambda: lines.append(child.stdout.readline() if child.stdout else ""))
    listener.start()

    def heard() -> bool:
        append_event(workspace, "alert", "after")  # what comes before the child follows is not its to say
        listener.join(0.1)
        return not listener.is_alive()

    try:
        until(heard, "an event")
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=PATIENCE_S)
    finally:
        child.kill()
        listener.join()
    assert json.loads(lines[0])["subject"] == "after"
    assert (child.returncode, errors) == (0, "")


def test_people_read_short_hashes_and_programs_whole_ones(
    engine: Callable[..., Result], workspace: Workspace
) -> None:
    release = "ab12cd34" * 8
    append_event(workspace, "promoted", release, {"to": release, "from": "0" * 64})
    assert release not in engine("events").out
    assert "ab12cd34" in engine("events").out
    assert engine("events", "--json").json["events"][0]["subject"] == release


def test_filters(engine: Callable[..., Result], workspace: Workspace) -> None:
    for kind, subject in (("alert", "one"), ("held", "TO-BE"), ("alert", "two"), ("unheld", "TO-BE")):
        append_event(workspace, kind, subject)

    def subjects(*words: str) -> list[str]:
        return [event["subject"] for event in engine("events", "--json", *words).json["events"]]

    assert subjects("--kind", "alert") == ["one", "two"]
    assert subjects("--kind", "alert", "--kind", "held", "--last", "2") == ["TO-BE", "two"]
    assert subjects("--subject", "TO", "--since", "1h") == ["TO-BE", "TO-BE"]
    assert subjects("--since", "2100-01-01") == []
    for words in (
        ("--since", "yesterday"),
        ("--kind", "alerts"),
        ("--head", "12345678"),
        ("--verify", "--head", "x"),
    ):
        assert engine("events", *words).code == 2
    head = engine("events", "--verify", "--json").json["head"]
    assert engine("events", "--verify", "--head", head[:10]).code == 0
    assert engine("events", "--verify", "--head", "0" * 10).code == 1


def test_verifying_is_one_line(engine: Callable[..., Result], workspace: Workspace) -> None:
    assert engine("events", "--verify").out == "verified: there are no events yet\n"
    for number in range(3):
        append_event(workspace, "alert", f"number {number}")
    head = engine("events", "--verify", "--json").json["head"]
    assert engine("events", "--verify").out == f"verified: the chain of 3 events holds; its head is {head}\n"
    assert len(engine("events", "--verify", "--last", "2").out.splitlines()) == 3, "the log where it is asked for"
    assert len(engine("events", "--verify", "--json").json["events"]) == 3, "programs get what they always got"
    lines = workspace.events.read_text().splitlines(keepends=True)
    workspace.events.write_text("".join([lines[0], *lines[2:]]))
    broken = engine("events", "--verify")
    assert (broken.code, broken.out) == (1, "")
    assert "line 2 of events.jsonl does not follow line 1" in broken.err
