"""The tail of the log: another file under the same inode is another file."""

from __future__ import annotations

from pathlib import Path

from engine.store.events import append_event
from engine.store.workspace import Workspace
from engine.watch.eventtail import EventTail


def test_a_new_log_with_the_old_ones_inode_is_read_from_its_start(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    for subject in ("one", "two"):
        append_event(workspace, "started", subject)
    fresh = workspace.events.read_bytes()
    workspace.events.write_bytes(b"not json\n")  # in place: the inode stays
    tail = EventTail(workspace.events)
    assert tail.look().total == 1
    assert tail.problem
    workspace.events.write_bytes(fresh)
    assert [event.subject for event in tail.look().events] == ["one", "two"]
    assert tail.problem is None
    append_event(workspace, "started", "three")
    assert tail.look().total == 3
