"""Promotion behind the gate and back again, through the command line, on real files."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.compare import records
from engine.release.bundle import Release
from engine.release.journal import taken_down
from engine.release.slots import open_slot, pointer_path, read_pointer
from engine.store.clock import timestamp
from engine.store.events import read_events, verify_events
from engine.store.files import sha256_file
from engine.store.locks import hold
from engine.store.workspace import Workspace
from tests.conftest import PROJECT, Result
from tests.release.bundles import make_release, put, state

Engine = Callable[..., Result]


def compare(workspace: Workspace, pair: tuple[Release, Release], *, tobe_only: int, asis_only: int) -> int:
    """A comparison of the two releases on 400 images, written as `ab` writes it."""
    with hold(workspace.lock("compare"), "ab"):
        identity = records.next_id(workspace)
        cells = [("x", "cat")] * tobe_only + [("cat", "x")] * asis_only
        cells += [("cat", "cat")] * (400 - len(cells))
        rows: list[list[str | None]] = []
        for i, (asis, tobe) in enumerate(cells):
            fields = {"sha256": f"{i:064x}", "label": "cat", "asis": asis, "tobe": tobe}
            rows.append([fields.get(column, f"cat/{i}.png") for column in records.COLUMNS])
        both = 400 - tobe_only - asis_only
        sides = {
            slot: {"release": release.id, "errors": 0, "correct": both + own}
            for slot, release, own in (("asis", pair[0], asis_only), ("tobe", pair[1], tobe_only))
        }
        summary = {
            "id": identity,
            "at": timestamp(),
            "n": 400,
            "data_key": "test",
            "status": "completed",
            "available": 400,
            "reason": "",
            **sides,
        }
        records.store(workspace, summary, rows)
    return identity


def test_the_gate_opens_on_evidence_and_closes_after_a_rollback(
    engine: Engine, workspace: Workspace, pair: tuple[Release, Release], port: int
) -> None:
    old, new = pair
    closed = engine("promote", "--json")
    assert closed.code == 3
    assert closed.json["promoted"] is False
    assert "ab" in closed.json["reason"]
    identity = compare(workspace, pair, tobe_only=40, asis_only=5)

    before = state(workspace)
    dry = engine("promote", "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert (dry.json["promoted"], dry.json["dry_run"]) == (False, True)
    assert dry.json["backup"].startswith(f"model_{port}_backup_")
    assert state(workspace) == before

    done = engine("promote", "--json")
    assert done.code == 0, done.err
    result = done.json
    assert (result["promoted"], result["forced"], result["ab"]) == (True, False, identity)
    assert (result["from"], result["to"]) == (old.id, new.id)
    assert "TO-BE is better" in result["reason"]
    for slot in ("asis", "tobe"):
        held = open_slot(workspace, slot)
        assert held is not None
        assert held.id == new.id, "TO-BE keeps its release"
    assert sha256_file(workspace.backups / result["backup"]) == old.id
    assert engine("promote").code == 3, "both slots hold the same release"

    listed = engine("rollback", "--json").json["backups"]
    assert [(entry["name"], entry["release"], entry["verified"]) for entry in listed] == [
        (result["backup"], old.id, True)
    ]
    assert (listed[0]["cycle"], listed[0]["accuracy"]) == (1, 0.9)
    assert set(listed[0]) >= {"name", "release", "cycle", "accuracy", "at", "bytes", "verified"}

    dry = engine("rollback", result["backup"], "--dry-run", "--json").json
    assert (dry["restored"], dry["from"], dry["changed"], dry["dry_run"]) == (old.id, new.id, False, True)
    assert len(engine("rollback", "--json").json["backups"]) == 1, "nothing was made"
    back = engine("rollback", result["backup"], "--json")
    assert back.code == 0, back.err
    assert (back.json["restored"], back.json["from"], back.json["backup"]) == (old.id, new.id, result["backup"])
    assert sha256_file(workspace.backups / back.json["backup_made"]) == new.id
    again = engine("rollback", result["backup"], "--json")
    assert (again.code, again.json["changed"], again.json["backup_made"]) == (0, False, None)
    assert list(taken_down(workspace)) == [new.id]
    refused = engine("promote", "--json")
    assert refused.code == 3
    assert "rolled back" in refused.json["reason"]
    compare(workspace, pair, tobe_only=40, asis_only=5)
    assert engine("promote", "--json").json["promoted"] is True

    kinds = [event["kind"] for event in read_events(workspace)]
    assert kinds.count("promoted") == 3
    assert kinds.count("rolled_back") == 1
    promoted = [event["detail"] for event in read_events(workspace) if event["kind"] == "promoted"][1]
    assert (promoted["ab"], promoted["forced"], promoted["backup"]) == (identity, False, result["backup"])
    assert promoted["transaction"]
    assert verify_events(workspace) is None


def test_people_are_told_from_to_and_how_to_undo(
    engine: Engine, workspace: Workspace, pair: tuple[Release, Release]
) -> None:
    done = engine("promote", "--force", "--reason", "the old one is broken")
    name = next(workspace.backups.iterdir()).name
    assert done.out.splitlines()[-1] == f"undo:   python -m engine rollback {name}"
    assert f"from {pair[0].id[:8]} to {pair[1].id[:8]} (cycle 2, accuracy 98.00%)" in done.out
    assert "forced: the old one is broken" in done.out
    listed = engine("rollback").out
    assert name in listed
    assert listed.splitlines()[-1] == "put one back: python -m engine rollback BACKUP"
    assert engine("rollback", name.removesuffix(".bin")).code == 0


def test_force_needs_a_reason_and_skips_no_safety_check(
    engine: Engine, workspace: Workspace, pair: tuple[Release, Release]
) -> None:
    before = state(workspace)
    force = ("promote", "--force", "--reason", "now", "--json")
    assert engine("promote", "--force").code == 2
    assert engine("promote", "--force", "--reason", "  ").code == 2
    new = pair[1].path
    raw = new.read_bytes()
    new.write_bytes(raw[:-2] + b"xx")
    damaged = engine(*force)
    assert (damaged.code, damaged.json["error"]["kind"]) == (1, "damaged")
    new.unlink()
    assert engine(*force).code == 1
    new.write_bytes(raw)
    assert state(workspace) == before

    assert engine("reject", pair[1].id[:10], "--json").json["rejected"] == pair[1].id
    rejected = engine(*force)
    assert rejected.code == 3
    assert rejected.json["promoted"] is False
    assert "rejected" in rejected.json["reason"]
    assert engine("reject", "ffffffff").code == 2


@pytest.mark.fault(32)
def test_a_candidate_deployed_after_its_comparison_is_refused(
    engine: Engine, workspace: Workspace, pair: tuple[Release, Release]
) -> None:
    compare(workspace, pair, tobe_only=40, asis_only=5)
    assert engine("promote", "--dry-run", "--json").code == 0
    put(workspace, "tobe", make_release(workspace, "another", cycle=3))
    before = state(workspace)
    refused = engine("promote", "--json")
    assert (refused.code, refused.json["promoted"]) == (3, False)
    assert state(workspace) == before


def test_a_candidate_that_changed_since_it_was_looked_at_is_refused(
    engine: Engine, workspace: Workspace, pair: tuple[Release, Release]
) -> None:
    old, new = pair
    before = state(workspace)
    force = ("promote", "--force", "--reason", "now", "--json", "--expect")
    refused = engine(*force, old.id)
    assert (refused.code, refused.json["promoted"], refused.json["to"]) == (3, False, new.id)
    assert f"TO-BE holds {new.id[:8]}, not {old.id[:8]}" in refused.json["reason"]
    for wrong in ("", new.id[:7], new.id.upper(), f"{new.id}0"):
        assert engine(*force, wrong).code == 2, wrong
    assert state(workspace) == before
    assert engine(*force, new.id[:8], "--dry-run").code == 0
    assert engine(*force, new.id).json["promoted"] is True


def test_a_damaged_production_file_is_not_promoted_over_but_can_be_rolled_back(
    engine: Engine, workspace: Workspace, pair: tuple[Release, Release]
) -> None:
    good = engine("promote", "--force", "--reason", "x", "--json").json["backup"]
    put(workspace, "tobe", make_release(workspace, "third", cycle=3))
    pair[1].path.write_bytes(b"damaged")
    assert engine("promote", "--force", "--reason", "x").code == 1
    done = engine("rollback", good, "--json")
    assert done.code == 0, done.err
    assert done.json["backup_made"] is None
    assert "could not be backed up" in done.json["note"]
    pointer_path(workspace, "asis").write_text("{")
    assert engine("promote", "--force", "--reason", "x").code == 1
    assert engine("rollback", good, "--json").json["restored"] == pair[0].id
    assert read_pointer(workspace, "asis")


def test_an_empty_production_slot(engine: Engine, workspace: Workspace) -> None:
    put(workspace, "tobe", make_release(workspace, "first"))
    refused = engine("promote", "--json")
    assert (refused.code, refused.json["from"], refused.json["backup"]) == (3, None, None)
    done = engine("promote", "--force", "--reason", "nothing to compare with", "--json")
    assert (done.code, done.json["backup"], done.json["forced"]) == (0, None, True)
    assert not list(workspace.backups.glob("*"))


@pytest.mark.fault(37)
def test_two_promotions_at_once(workspace: Workspace, pair: tuple[Release, Release], config: Path) -> None:
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
    command += ["promote", "--force", "--reason", "x", "--json"]
    children = [
        subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [(child, *child.communicate(timeout=60)) for child in children]
    codes = sorted(child.returncode for child, *_ in answers)
    assert codes.count(0) == 1
    assert set(codes) <= {0, 3, 4}, "done, nothing left to promote, or busy"
    assert len(list(workspace.backups.iterdir())) == 1
    assert sum(event["kind"] == "promoted" for event in read_events(workspace)) == 2
    for child, out, _ in answers:
        assert child.returncode != 4 or json.loads(out)["error"]["kind"] in ("busy", "comparing")


def _small_disk(folder: Path) -> bool:
    """A file system of 20 MB on `folder`, where this account may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.fault(7)
def test_a_full_disk_ends_a_promotion_before_or_cleanly(tmp_path: Path, config: Path) -> None:
    """A real full file system: no room for the backup is said up front, none at all leaves all as it was."""
    disk = tmp_path / "disk"
    if os.geteuid() != 0 or not _small_disk(disk):
        pytest.skip("mounting a file system needs root")
    try:
        workspace = Workspace(disk / "workspace")
        old, new = make_release(workspace, "old"), make_release(workspace, "new", cycle=2)
        put(workspace, "asis", old)
        put(workspace, "tobe", new)
        command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
        for room, kinds in ((8_000_000, {"disk_full"}), (0, {"disk", "disk_full", "os"})):
            filler = disk / "filler"
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            with contextlib.suppress(OSError), filler.open("ab") as stream:
                stream.write(bytes(free - room))
            before = state(workspace)
            done = subprocess.run(
                [*command, "promote", "--force", "--reason", "x", "--json"],
                cwd=PROJECT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 1, done.stdout
            assert json.loads(done.stdout)["error"]["kind"] in kinds, done.stdout
            after = state(workspace)
            assert {**after, str(workspace.events): b""} == {**before, str(workspace.events): b""}
        filler.unlink()
        done = subprocess.run([*command, "promote", "--force", "--reason", "x"], cwd=PROJECT, check=False)
        assert done.returncode == 0 if shutil.disk_usage(disk).free > 17_000_000 else done.returncode == 1
        assert verify_events(workspace) is None
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.fault(7)
def test_a_disk_that_fills_up_in_the_backup_leaves_everything_as_it_was(
    workspace: Workspace, config: Path
) -> None:
    """A limit on file size stands in for the full disk: the copy of the 150 kB release fails half way."""
    old, new = make_release(workspace, "old" * 500), make_release(workspace, "new", cycle=2)
    put(workspace, "asis", old)
    put(workspace, "tobe", new)
    before = state(workspace)
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
    done = subprocess.run(
        [*command, "promote", "--force", "--reason", "x", "--json"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "disk"
    assert "AS-IS holds what it held" in error["message"]
    after = state(workspace)
    log = str(workspace.events)
    assert after.pop(log).startswith(before.pop(log))
    assert after == before
    assert not workspace.journal.exists()
