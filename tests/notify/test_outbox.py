"""What could not be sent: kept, sent again and marked, no sooner than the service asks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.notify import notify, outbox
from engine.notify.flusher import keep_flushing
from engine.notify.send import flush
from engine.store.clock import now, parse
from engine.store.events import read_events
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace
from tests.conftest import PROJECT, Result, until
from tests.notify.conftest import Service, hurry, settings, texts


def test_retry_after_is_obeyed_once(workspace: Workspace, both: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELEGRAM_BOT_TOKEN")
    monkeypatch.delenv("TELEGRAM_CHAT_ID")
    both.answers = [(429, {"Retry-After": "1"}, {"retry_after": 0.01}), (204, {}, {})]
    assert notify(workspace, settings(both.port), "alert", "x")["sent"] == ["discord"]
    assert len(both.got) == 2


@pytest.mark.fault(40)
def test_a_longer_wait_than_the_time_out_is_obeyed_by_all_messages(workspace: Workspace, both: Service) -> None:
    both.answers = [(429, {}, {"parameters": {"retry_after": 60}})]
    result = notify(workspace, settings(both.port), "promoted", "Promoted")
    assert result["sent"] == []
    assert "asks to wait 60 s" in result["failed"][0]["reason"]
    assert len(both.got) == 2  # one a channel, no hammering

    both.answers, both.got = [(200, {}, {})], []
    assert "left alone until" in notify(workspace, settings(both.port), "alert", "Later")["failed"][0]["reason"]
    assert not outbox.due(workspace)
    assert flush(workspace, settings(both.port)) == {"sent": [], "waiting": 2}
    assert both.got == []

    hurry(workspace)
    assert outbox.due(workspace)
    assert flush(workspace, settings(both.port)) == {"sent": ["discord", "telegram"], "waiting": 0}
    first, second = texts(both)
    assert first.startswith("(sent again, from ")
    assert "Promoted" in first
    assert "Later" in second
    both.got = []
    notify(workspace, settings(both.port), "alert", "Last")
    assert [text.splitlines()[0] for text in texts(both)] == ["Last"]


@pytest.mark.fault(40)
@pytest.mark.parametrize("header", ["7", "Fri, 01 Jan 2100 00:00:00 GMT", "soon"])
def test_retry_after_is_seconds_or_a_date(workspace: Workspace, both: Service, header: str) -> None:
    both.answers = [(503, {"Retry-After": header}, {})]
    result = notify(workspace, settings(both.port), "alert", "x")
    assert result["sent"] == []
    assert bool(outbox.pauses(workspace)) is (header != "soon")


@pytest.mark.fault(40)
def test_what_could_not_be_sent_waits_longer_each_time(workspace: Workspace, both: Service) -> None:
    both.answers = [(500, {}, {})]
    notify(workspace, settings(both.port), "alert", "x")
    (path,) = outbox.folder(workspace).glob("[0-9]*.json")
    pauses = []
    for _ in range(8):
        entry = read_json(path) or {}
        pauses.append(round((parse(entry["next"]) - now()).total_seconds()))
        hurry(workspace)
        flush(workspace, settings(both.port))
    assert pauses == sorted(pauses)
    assert 20 < pauses[0] <= 30
    assert 1700 < pauses[-1] <= 1800


_KILLED = """
import os, signal, sys
from pathlib import Path
from engine.config import load_settings
from engine.notify import send
from engine.store.workspace import Workspace
root, port, when = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
real_post, real_settle = send.post, send.outbox.settle
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
def post_and_die(*arguments):
    real_post(*arguments)
    die()
if when == "before it is sent":
    send.post = die
elif when == "while it is sent":
    send.post = post_and_die
else:
    send.outbox.settle = die
send.notify(Workspace(root), load_settings(None, root, [f"notify.telegram_api=http://127.0.0.1:{port}"]).settings,
            "alert", "It matters")
"""


@pytest.mark.fault(6)
@pytest.mark.parametrize("when", ["before it is sent", "while it is sent", "before it is settled"])
def test_a_kill_while_notifying_sends_at_least_once_and_marks_the_repeat(
    when: str, workspace: Workspace, both: Service
) -> None:
    words = [sys.executable, "-c", _KILLED, str(workspace.root), str(both.port), when]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    until(lambda: not both.connections, "the end of what was on its way")
    first = texts(both)
    assert len(first) == {"before it is sent": 0, "before it is settled": 1}.get(when, len(first))
    both.got = []
    assert outbox.due(workspace)
    assert flush(workspace, settings(both.port))["sent"] == ["discord", "telegram"]
    (again,) = texts(both)
    assert again.startswith("(sent again, from ")
    assert not first or first[0].splitlines()[-1] == again.splitlines()[-1], "the same id"
    assert flush(workspace, settings(both.port)) == {"sent": [], "waiting": 0}
    assert len(texts(both)) == 1
    kinds = [(event["kind"], event["detail"].get("repeat")) for event in read_events(workspace)]
    assert kinds[-1] == ("notified", True)


@pytest.mark.fault(40)
def test_any_engine_command_sends_what_waits(
    engine: Callable[..., Result], workspace: Workspace, both: Service
) -> None:
    good = list(both.answers)
    both.answers = [(500, {}, {})]
    notify(workspace, settings(both.port), "alert", "It matters")
    hurry(workspace)
    both.answers, both.got = good, []
    override = f"notify.telegram_api=http://127.0.0.1:{both.port}"
    assert engine("status", override).code == 0
    until(lambda: len(both.got) > 1 and not outbox.waiting(workspace)[0], "all sent")
    assert "It matters" in texts(both)[0]


def test_a_server_looks_by_itself(workspace: Workspace, both: Service, tmp_path: Path) -> None:
    outbox.put(workspace, {**outbox.new_entry("alert", "x", ["discord"]), "tries": 1})
    mark = tmp_path / "mark"
    stop = keep_flushing(workspace, ["touch", str(mark)], every_s=0.02)
    until(mark.exists, "a look")
    stop.set()


def test_a_message_given_up_is_said(workspace: Workspace, both: Service) -> None:
    write_json(
        outbox.folder(workspace) / "1.0-1.json",
        {**outbox.new_entry("alert", "x", ["discord"]), "at": "2026-01-01T00:00:00+00:00"},
    )
    (outbox.folder(workspace) / "2.0-1.json").write_text("{")
    notify(workspace, settings(both.port), "alert", "new")
    assert len(texts(both)) == 1
    assert "2 messages could never be sent" in read_events(workspace)[0]["detail"]["reason"]
