"""The audit log: chained, append-only, whole after a crash, safe under many writers."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from engine.errors import Failed
from engine.store.events import append_event, read_events, verify_events
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


def test_a_damaged_line_is_said(workspace: Workspace) -> None:
    append_event(workspace, "alert", "whole")
    workspace.events.write_bytes(b"not json\n")
    with pytest.raises(Failed, match="damaged"):
        read_events(workspace)


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
