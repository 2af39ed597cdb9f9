"""The release transaction: whatever dies, a slot holds the old release or the new, with one event."""

from __future__ import annotations

import contextlib
import errno
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Busy, Failed
from engine.release.journal import recover, slots_lock, switch
from engine.release.slots import open_slot, pointer_path, read_pointer
from engine.store.events import read_events, verify_events
from engine.store.files import sha256_file
from engine.store.workspace import Workspace
from tests.conftest import PROJECT
from tests.release.bundles import PORT, make_release, put

BEFORE_POINTER = ("intent", "copy", "backup", "prepare")
AFTER_POINTER = ("follow", "remember", "event", "drop")


@pytest.fixture
def pair(workspace: Workspace) -> tuple[str, str]:
    """AS-IS holds the first release, TO-BE the second; their ids."""
    old, new = make_release(workspace, "old"), make_release(workspace, "new", cycle=2)
    put(workspace, "asis", old)
    put(workspace, "tobe", new)
    return old.id, new.id


def crash(workspace: Workspace, action: str, when: str, step: str) -> None:
    command = [sys.executable, "-m", "tests.release.crash_child", str(workspace.root), action, when, step]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


def promotions(workspace: Workspace) -> list[dict[str, Any]]:
    return [event for event in read_events(workspace) if event["kind"] == "promoted"]


def check(workspace: Workspace, pair: tuple[str, str], *, promoted: bool) -> None:
    """Nothing half done is left, and the log, the pointer and the backups agree."""
    asis = open_slot(workspace, "asis")
    assert asis is not None
    assert asis.id == pair[promoted]
    assert not workspace.journal.exists()
    assert [event["detail"]["to"] for event in promotions(workspace)] == list(pair[: 1 + promoted])
    backups = [path for path in workspace.backups.glob("*") if workspace.backups.is_dir()]
    assert len(backups) == promoted
    for path in backups:
        assert sha256_file(path) == pair[0]
        assert path.stat().st_ino != (workspace.releases / f"{pair[0]}.release").stat().st_ino
    assert not list(workspace.root.glob("*/.*.part"))
    assert verify_events(workspace) is None


@pytest.mark.fault(4, 5)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [*BEFORE_POINTER, "pointer", *AFTER_POINTER])
def test_a_kill_at_any_step_is_finished_or_undone(
    step: str, when: str, workspace: Workspace, pair: tuple[str, str]
) -> None:
    crash(workspace, "promote", when, step)
    promoted = step in AFTER_POINTER or (step, when) == ("pointer", "after")
    asis = read_pointer(workspace, "asis")
    assert asis is not None
    assert asis.release == pair[promoted], "never neither"
    with slots_lock(workspace, "test"):
        check(workspace, pair, promoted=promoted)
        assert recover(workspace) is None
    if promoted:
        detail = promotions(workspace)[-1]["detail"]
        assert (detail["from"], detail["transaction"]) == (pair[0], asis.transaction)
    begun = promoted or (step, when) != ("intent", "before")
    alerts = [event for event in read_events(workspace) if event["kind"] == "alert"]
    assert len(alerts) == (begun and not promoted), "an outcome is recorded once"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("prepare", ("before", "undo")),
        ("prepare", ("before", "drop")),
        ("prepare", ("before", "sweep")),
        ("follow", ("before", "follow")),
        ("follow", ("after", "remember")),
        ("follow", ("before", "event")),
        ("follow", ("after", "event")),
        ("event", ("before", "drop")),
    ],
)
def test_a_kill_in_the_recovery_is_recovered_too(
    first: str, second: tuple[str, str], workspace: Workspace, pair: tuple[str, str]
) -> None:
    crash(workspace, "promote", "before", first)
    crash(workspace, "recover", *second)
    with slots_lock(workspace, "test"):
        check(workspace, pair, promoted=first in AFTER_POINTER)


def test_a_killed_copy_leaves_no_part(workspace: Workspace, pair: tuple[str, str]) -> None:
    crash(workspace, "promote", "before", "prepare")
    (workspace.backups / ".model_8891_backup_20260206_092530.bin.1.part").write_bytes(b"half")
    with slots_lock(workspace, "test"):
        check(workspace, pair, promoted=False)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("control.prepare", Failed("does not load")),
        ("control.follow", Failed("does not load")),
        ("write_pointer", OSError(errno.ENOSPC, "No space left on device")),
        ("append_event", OSError(errno.ENOSPC, "No space left on device")),
        ("write_backup", OSError(errno.ENOSPC, "No space left on device")),
        ("control.follow", KeyboardInterrupt()),
    ],
)
def test_a_failing_step_is_undone_on_the_spot(
    name: str, error: BaseException, workspace: Workspace, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [error]

    def fail(*_: object, **__: object) -> None:
        if errors:
            raise errors.pop()

    before = pointer_path(workspace, "asis").read_bytes()
    monkeypatch.setattr(f"engine.release.journal.{name}", fail)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else Failed
    with pytest.raises(expected):
        put(workspace, "asis", make_release(workspace, "new", cycle=2))
    monkeypatch.undo()
    assert pointer_path(workspace, "asis").read_bytes() == before
    check(workspace, pair, promoted=False)


def test_a_first_deploy_that_fails_leaves_the_slot_empty(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Failed("does not load")

    monkeypatch.setattr("engine.release.journal.control.follow", fail)
    with pytest.raises(Failed):
        put(workspace, "tobe", make_release(workspace, "new"))
    assert open_slot(workspace, "tobe") is None
    assert not workspace.journal.exists()


def test_a_damaged_release_is_not_backed_up_nor_promoted_over(workspace: Workspace, pair: tuple[str, str]) -> None:
    old = open_slot(workspace, "asis")
    new = open_slot(workspace, "tobe")
    assert old is not None
    assert new is not None
    damaged = bytearray(old.path.read_bytes())
    damaged[-30] ^= 1
    old.path.write_bytes(damaged)
    with slots_lock(workspace, "test"), pytest.raises(Failed, match="content"):
        switch(
            workspace,
            "asis",
            new,
            verb="promote",
            backup_of=old,
            detail={},
            event_kind="promoted",
            subject=new.id,
            port=PORT,
        )
    pointer = read_pointer(workspace, "asis")
    assert pointer is not None
    assert pointer.release == pair[0]
    assert list(workspace.backups.iterdir()) == []


def test_a_recovery_never_finishes_with_a_damaged_release(workspace: Workspace, pair: tuple[str, str]) -> None:
    crash(workspace, "promote", "before", "event")
    (workspace.releases / f"{pair[1]}.release").write_bytes(b"damaged")
    with slots_lock(workspace, "test"):
        check(workspace, pair, promoted=False)


@pytest.mark.fault(37)
def test_two_backups_within_a_second_take_two_names(workspace: Workspace) -> None:
    releases = [make_release(workspace, name) for name in ("one", "two", "three", "four")]
    names = [put(workspace, "asis", release) for release in releases]
    assert names[0] is None
    assert len({*names[1:]}) == 3
    for release, name in zip(releases, names[1:], strict=False):
        assert name is not None
        assert sha256_file(workspace.backups / name) == release.id


@pytest.mark.fault(39)
def test_one_proceeds_the_other_is_busy_and_named(workspace: Workspace, pair: tuple[str, str]) -> None:
    entered, leave = threading.Event(), threading.Event()

    def holder() -> None:
        with slots_lock(workspace, "promote"):
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=holder)
    thread.start()
    assert entered.wait(30)
    try:
        with pytest.raises(Busy, match="promote"), slots_lock(workspace, "rollback"):
            pass
    finally:
        leave.set()
        thread.join()
    with slots_lock(workspace, "rollback"):
        pass


@pytest.mark.fault(7)
def test_a_full_disk_is_refused_before_anything_changes(
    workspace: Workspace, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 1000

    monkeypatch.setattr("engine.release.backups.shutil.disk_usage", lambda _: Full)
    with pytest.raises(Failed, match="no room"):
        put(workspace, "asis", make_release(workspace, "new", cycle=2))
    check(workspace, pair, promoted=False)


def test_the_journal_of_another_version_is_left_alone(workspace: Workspace, pair: tuple[str, str]) -> None:
    workspace.journal.write_text('{"format": 99}')
    with pytest.raises(Failed, match="journal"), slots_lock(workspace, "test"):
        pass
    assert workspace.journal.exists()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what this process reads by /proc")
@pytest.mark.parametrize("verb", ["finished", "undone"])
def test_a_change_reads_no_more_of_a_long_log_than_of_a_short_one(workspace: Workspace, verb: str) -> None:
    """100,000 events lie before it; a change that succeeds, one that fails, and one taken up after a crash."""

    def read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    releases = [make_release(workspace, name) for name in ("one", "two", "three")]
    put(workspace, "tobe", releases[0])
    line = workspace.events.read_bytes().replace(b"tobe", b"else")
    with workspace.events.open("ab") as stream:
        stream.write(line * 100_000)
    assert workspace.events.stat().st_size > 40_000_000
    begun = read()
    put(workspace, "tobe", releases[1])
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(RuntimeError):
        patch.setattr(
            "engine.release.journal." + ("_drop_journal" if verb == "finished" else "write_pointer"), fails
        )
        if verb == "undone":
            patch.setattr("engine.release.journal._undo", fails)
        put(workspace, "tobe", releases[2])
    assert workspace.journal.exists()
    with slots_lock(workspace, "test"):
        assert not workspace.journal.exists()
    assert read() - begun < 2_000_000


def fails(*_: object, **__: object) -> None:
    raise RuntimeError("stops here")
