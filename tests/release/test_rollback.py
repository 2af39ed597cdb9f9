"""Back to a backup: which files are one, which are refused, and who waits for whom."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.release.bundle import Release, read_release
from engine.release.journal import slots_lock
from engine.store.locks import hold
from engine.store.workspace import Workspace
from tests.conftest import PROJECT, Result, free_port
from tests.release.bundles import make_release, put, state

Engine = Callable[..., Result]


@pytest.mark.fault(35)
@pytest.mark.parametrize("how", ["altered", "truncated", "emptied", "swapped"])
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_damaged_backup_is_refused_and_the_good_ones_are_listed(
    how: str, forgotten: bool, engine: Engine, workspace: Workspace, backup: Path, pair: tuple[Release, Release]
) -> None:
    put(workspace, "tobe", make_release(workspace, "third", cycle=3))
    good = engine("promote", "--force", "--reason", "x", "--json").json["backup"]
    raw = backup.read_bytes()
    if how == "altered":
        backup.write_bytes(raw.replace(b"old", b"odd", 1))
    elif how == "truncated":
        backup.write_bytes(raw[:-10])
    elif how == "emptied":
        backup.write_bytes(b"")
    else:
        backup.write_bytes(pair[1].path.read_bytes())  # a whole release, but another one
    if forgotten:  # the index and the release itself are gone: the log still knows
        (workspace.state / "backups.json").unlink()
        pair[0].path.unlink()
    before = state(workspace)
    result = engine("rollback", backup.name, "--json")
    assert (result.code, result.json["error"]["kind"]) == (1, "damaged")
    assert good in result.err
    assert backup.name not in result.json["error"]["hint"]
    assert state(workspace) == before
    verified = {entry["name"]: entry["verified"] for entry in engine("rollback", "--json").json["backups"]}
    assert verified == {good: True, backup.name: False}


def test_a_backup_brings_its_release_back(
    engine: Engine, workspace: Workspace, backup: Path, pair: tuple[Release, Release]
) -> None:
    pair[0].path.unlink()
    assert engine("rollback", backup.name, "--json").json["restored"] == pair[0].id
    assert read_release(pair[0].path, expect=pair[0].id)
    assert backup.is_file()


@pytest.mark.parametrize("forgotten", [False, True])
def test_another_port_of_as_is_loses_no_backup(
    forgotten: bool,
    engine: Engine,
    workspace: Workspace,
    backup: Path,
    pair: tuple[Release, Release],
    port: int,
    config: Path,
) -> None:
    now = free_port()
    config.write_text(config.read_text().replace(f"port = {port}\n", f"port = {now}\n", 1))
    if forgotten:  # the log knows as well whose it is
        (workspace.state / "backups.json").unlink()
    listed = engine("rollback", "--json").json["backups"]
    assert [(one["name"], one["port"], one["verified"]) for one in listed] == [(backup.name, port, True)]
    assert f"1 made when AS-IS was at port {port}; now it is at {now}" in engine("rollback").out
    done = engine("rollback", backup.name, "--json").json
    assert (done["restored"], done["note"]) == (pair[0].id, f"made when AS-IS was at port {port}, not {now}")
    assert done["backup_made"].startswith(f"model_{now}_backup_")
    assert {one["port"] for one in engine("rollback", "--json").json["backups"]} == {port, now}


@pytest.mark.fault(36)
def test_names_that_are_no_backups(engine: Engine, workspace: Workspace, backup: Path, port: int) -> None:
    outside = workspace.root / f"model_{port}_backup_20260101_000000.bin"
    outside.write_bytes(backup.read_bytes())
    link = workspace.backups / f"model_{port}_backup_20260101_000001.bin"
    link.symlink_to(backup)
    other = workspace.backups / "model_1_backup_20260101_000002.bin"
    other.write_bytes(backup.read_bytes())
    before = state(workspace)
    for name in (
        f"../{outside.name}",
        str(backup),
        f"../backups/{backup.name}",
        link.name,
        other.name,
        f"model_{port}_backup_20260101_000003.bin",
        "..",
        "",
        f"{backup.name}\n",
    ):
        result = engine("rollback", name, "--json")
        assert (result.code, result.json["error"]["kind"]) == (2, "unknown_backup"), name
        assert backup.name in result.json["error"]["hint"]
    assert state(workspace) == before
    assert [entry["name"] for entry in engine("rollback", "--json").json["backups"]] == [backup.name]


@pytest.mark.fault(39)
def test_who_holds_the_slots_is_named_and_wait_waits(
    engine: Engine, workspace: Workspace, backup: Path, config: Path
) -> None:
    with slots_lock(workspace, "promote"):
        busy = engine("rollback", backup.name)
        assert busy.code == 4
        assert f"promote (pid {os.getpid()})" in busy.err
        command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
        waiting = subprocess.Popen([*command, "rollback", backup.name, "--wait"], cwd=PROJECT)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
    assert waiting.wait(60) == 0


def test_a_comparison_holds_up_a_promotion_but_never_a_rollback(
    engine: Engine, workspace: Workspace, backup: Path
) -> None:
    put(workspace, "tobe", make_release(workspace, "third", cycle=3))
    with hold(workspace.lock("compare"), "ab"):
        busy = engine("promote", "--force", "--reason", "x", "--json")
        assert (busy.code, busy.json["error"]["kind"]) == (4, "comparing")
        assert engine("rollback", backup.name).code == 0


def test_reading_verbs_leave_an_unfinished_change_to_the_next_one(
    engine: Engine, workspace: Workspace, pair: tuple[Release, Release]
) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.release.crash_child",
        str(workspace.root),
        "promote",
        "before",
        "prepare",
    ]
    subprocess.run(command, cwd=PROJECT, check=False)
    assert workspace.journal.exists()
    assert engine("rollback", "--json").json["backups"] == []
    done = engine("promote", "--force", "--reason", "again", "--json")
    assert done.code == 0
    assert [path.name for path in workspace.backups.iterdir()] == [done.json["backup"]]
