"""`events`: what people and programs read of the audit log."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable

from engine.store.events import append_event
from engine.store.workspace import Workspace
from tests.conftest import PROJECT, Result


def test_follow_prints_new_events_until_a_signal_ends_it(workspace: Workspace) -> None:
    append_event(workspace, "alert", "before")
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace.root), "events", "--follow", "--json"]
    child = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    seen: dict[str, object] = {}
    for number in range(100):  # the first ones may come before the child looks
        append_event(workspace, "alert", f"after {number}")
        if number == 20:
            seen = json.loads(child.stdout.readline())
            break
        try:
            child.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    assert str(seen["subject"]).startswith("after")
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 0
    assert errors == ""


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
