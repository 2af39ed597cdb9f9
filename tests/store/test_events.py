"""The audit log: chained, append-only, whole after a crash, safe under many writers."""

from __future__ import annotations

import getpass
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.store.actor import actor
from engine.store.events import append_event, read_events, search_events, verify_events
from engine.store.heads import note_head
from engine.store.workspace import Workspace


def test_events_are_chained_in_order(workspace: Workspace) -> None:
    for number in range(5):
        append_event(workspace, "alert", f"subject {number}", {"n": number})
    events = read_events(workspace)
    assert [event["id"] for event in events] == [1, 2, 3, 4, 5]
    assert verify_events(workspace) is None
    assert [event["id"] for event in read_events(workspace, last=2)] == [4, 5]


def test_an_edit_and_a_removed_line_are_found(workspace: Workspace) -> None:
    for number in range(4):
        append_event(workspace, "alert", f"subject {number}")
    lines = workspace.events.read_bytes().splitlines(keepends=True)
    workspace.events.write_bytes(b"".join(lines).replace(b"subject 1", b"subject X"))
    assert "line 2" in (verify_events(workspace) or "")
    workspace.events.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert "line 2" in (verify_events(workspace) or "")


def test_a_torn_last_line_is_dropped_by_the_next_writer(workspace: Workspace) -> None:
    append_event(workspace, "alert", "whole")
    with workspace.events.open("ab") as stream:
        stream.write(b'{"id": 2, "half')
    assert [event["subject"] for event in read_events(workspace)] == ["whole"]
    append_event(workspace, "alert", "after")
    assert [event["id"] for event in read_events(workspace)] == [1, 2]
    assert verify_events(workspace) is None


@pytest.mark.fault(46)
@pytest.mark.parametrize(
    "damage", [b"not json\n", b"\0" * 700 + b"\n", b"\xff\xfe\n", b'{"id": 1}\n', b"[" * 99_999 + b"\n"]
)
def test_a_damaged_line_stops_nobody_and_is_said(workspace: Workspace, damage: bytes) -> None:
    append_event(workspace, "alert", "before")
    with workspace.events.open("ab") as stream:
        stream.write(damage)
    append_event(workspace, "alert", "after")
    assert [event["subject"] for event in read_events(workspace)] == ["before", "after"]
    assert [event["id"] for event in read_events(workspace)] == [1, 2]
    assert verify_events(workspace) == "line 2 of events.jsonl is damaged"


@pytest.mark.fault(46)
def test_a_deleted_log_begins_anew_and_the_sent_head_tells(workspace: Workspace) -> None:
    note_head(workspace, append_event(workspace, "promoted", "one"))
    workspace.events.unlink()
    append_event(workspace, "alert", "after")
    assert [event["id"] for event in read_events(workspace)] == [1]
    assert "event 1 of" in (verify_events(workspace) or "")


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (
            lambda lines: [*lines[:2], lines[2].replace(b"subject 2", b"subject X"), *lines[3:]],
            "line 3 .* changed after",
        ),
        (lambda lines: [*lines[:2], *lines[3:]], "line 3 .* 1 event is missing"),
        (lambda lines: [*lines[:1], *lines[4:]], "line 2 .* 3 events are missing"),
        (lambda lines: lines[1:], "line 1 .* does not follow the beginning: 1 event is missing"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "line 4 .* there twice"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2 .* missing"),
        (lambda lines: lines[:3], "cut off after line 3: event 4 of"),
        (lambda lines: [], "cut off after line 0"),
    ],
)
def test_the_chain_finds_what_was_done_to_it(
    workspace: Workspace, tamper: Callable[[list[bytes]], list[bytes]], said: str
) -> None:
    for number in range(6):
        event = append_event(workspace, "alert", f"subject {number}")
        if number == 3:
            note_head(workspace, event)
    assert verify_events(workspace) is None
    workspace.events.write_bytes(b"".join(tamper(workspace.events.read_bytes().splitlines(keepends=True))))
    assert re.search(said, verify_events(workspace) or ""), verify_events(workspace)


def test_a_made_up_log_lacks_the_head_of_a_message(workspace: Workspace) -> None:
    head = append_event(workspace, "promoted", "true")["hash"]
    assert verify_events(workspace, head[:12]) is None
    workspace.events.unlink()
    append_event(workspace, "promoted", "false")
    assert verify_events(workspace) is None, "a chain made anew is a chain"
    assert head[:8] in (verify_events(workspace, head[:12]) or "")


def test_a_large_log_is_searched_and_added_to_from_its_end(workspace: Workspace) -> None:
    """What is far from the end is not read: a line there that would raise is never met."""
    wanted = append_event(workspace, "alert", "wanted", {"sha256": "ab" * 32})
    line = workspace.events.read_bytes()
    with workspace.events.open("ab") as stream:
        for _ in range(20_000):
            stream.write(line.replace(b"abab", b"cdcd"))
    size = workspace.events.stat().st_size
    before = _read_bytes()
    event = append_event(workspace, "alert", "last")
    assert event["id"] == wanted["id"] + 1
    assert _read_bytes() - before < 1_000_000 < size
    assert [found["subject"] for found in search_events(workspace, "ab" * 32)] == ["wanted"]


def _read_bytes() -> int:
    """Bytes that this process has read so far."""
    return int(Path("/proc/self/io").read_text().splitlines()[0].split()[1])


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "^{account}$"),
        ({"SUDO_USER": "alice"}, "^alice as {account}$"),
        ({"SSH_CONNECTION": "10.0.0.7 5022 10.0.0.1 22"}, "^{account} via ssh 10.0.0.7$"),
        (
            {"SSH_CONNECTION": "10.0.0.7 5 10.0.0.1 22", "SSH_USER_AUTH": "auth"},
            "ssh 10.0.0.7, key SHA256:[+/A-Za-z0-9]{{43}}$",
        ),
        ({"SSH_CONNECTION": "10.0.0.7 5 10.0.0.1 22", "SSH_USER_AUTH": "gone"}, "ssh 10.0.0.7$"),
    ],
)
def test_the_person_is_named(
    environment: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = tmp_path / "auth"
    auth.write_text("password\npublickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH" + "A" * 42 + "\n")
    for name in ("SUDO_USER", "SSH_CONNECTION", "SSH_USER_AUTH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, str(tmp_path / value) if name == "SSH_USER_AUTH" else value)
    monkeypatch.setattr("engine.store.actor._login", lambda: None)
    assert re.search(said.format(account=getpass.getuser()), actor()), actor()
    monkeypatch.setattr("engine.store.actor._login", lambda: "bob")
    assert actor().startswith("bob as "), "what the kernel knows goes before what a variable says"


def _write_many(root: Path) -> None:
    for number in range(20):
        append_event(Workspace(root), "alert", f"{number}")


def test_many_writers_share_one_chain(workspace: Workspace) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(workspace.root,)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_events(workspace)) == 60
    assert verify_events(workspace) is None


def test_long_events_are_read_from_the_end(workspace: Workspace) -> None:
    for number in range(4):
        append_event(workspace, "alert", f"{number}", {"text": "x" * 100_000})
    assert [event["subject"] for event in read_events(workspace, last=3)] == ["1", "2", "3"]
