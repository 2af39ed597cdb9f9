"""`workspace`: a host's state to a file and back, its version, and facts made again after damage."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import load_settings
from engine.notify import outbox
from engine.release.backups import remember
from engine.release.hold import held, hold, reject, rejected
from engine.release.journal import taken_down
from engine.release.slots import open_slot, read_pointer
from engine.store import archive, schema
from engine.store.events import append_event, read_events, verify_events
from engine.store.files import read_json, write_json
from engine.store.locks import hold as lock
from engine.store.workspace import Workspace
from tests.conftest import PROJECT, Result, free_port
from tests.serving.releases import make_release, point


@pytest.fixture
def full(workspace: Workspace) -> Workspace:
    """A workspace with a release on TO-BE, a comparison, a run and remembered facts."""
    point(workspace, "tobe", make_release(workspace))
    append_event(workspace, "deployed", "x")
    write_json(workspace.comparisons / "1.json", {"id": 1})
    write_json(workspace.runs / "r1" / "manifest.json", {"run": "r1"})
    write_json(workspace.state / "last_sync.json", {"at": "2026-02-06T09:25:00+00:00"})
    outbox.put(workspace, outbox.new_entry("alert", "waits", ["discord"]))
    schema.migrate(workspace)
    return workspace


def test_there_and_back(engine: Callable[..., Result], full: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "state.backup"
    (full.root / ".env").write_text("WEBHOOK_SECRET=x")
    done = engine("workspace", "backup", str(file), "--json")
    assert done.code == 0, done.err
    assert file.stat().st_mode & 0o077 == 0
    names = archive.read_manifest(file)["files"]
    assert ".env" not in names, "secrets do not travel"
    assert not any("outbox" in name or name.startswith("runs/") for name in names)
    assert engine("workspace", "backup", str(file)).code == 2, "nothing is overwritten"
    other = Workspace(tmp_path / "other" / "place")
    done = engine("workspace", "restore", str(file), "--json", "--workspace", str(other.root))
    assert done.code == 0, done.err
    one, two = (open_slot(room, "tobe") for room in (full, other))
    assert one is not None
    assert two is not None
    assert one.id == two.id
    assert verify_events(other) is None
    assert [event["kind"] for event in read_events(other)] == ["deployed", "restored"]
    assert read_json(other.comparisons / "1.json") == {"id": 1}
    assert [path.name for path in other.root.parent.iterdir()] == ["place"], "no scratch is left"


def test_over_one_in_use_only_with_a_reason_and_nothing_is_lost(
    engine: Callable[..., Result], full: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "state.backup"
    assert engine("workspace", "backup", str(file)).code == 0
    append_event(full, "alert", "after")
    before = full.events.read_bytes()
    refused = engine("workspace", "restore", str(file))
    assert refused.code == 3
    assert full.events.read_bytes() == before
    assert engine("workspace", "restore", str(file), "--force").code == 2
    with lock(full.lock("serve-tobe"), "serve"):
        assert engine("workspace", "restore", str(file), "--force", "--reason", "why").code == 4
    with lock(full.lock("sync"), "sync"):
        assert engine("workspace", "restore", str(file), "--force", "--reason", "why").code == 4
    done = engine("workspace", "restore", str(file), "--force", "--reason", "the disk was mended", "--json")
    assert done.code == 0, done.err
    events = read_events(full)
    assert [event["kind"] for event in events] == ["deployed", "restored"]
    assert events[-1]["detail"]["reason"] == "the disk was mended"
    former = Workspace(Path(done.json["replaced"]))
    assert [event["subject"] for event in read_events(former)] == ["x", "after"]
    assert read_json(full.runs / "r1" / "manifest.json") == {"run": "r1"}, "runs move on"


def _without(name: str) -> Callable[[list[tarfile.TarInfo], dict[str, bytes]], None]:
    return lambda members, data: members.remove(next(m for m in members if m.name.startswith(name)))


def _renamed(name: str) -> Callable[[list[tarfile.TarInfo], dict[str, bytes]], None]:
    def change(members: list[tarfile.TarInfo], data: dict[str, bytes]) -> None:
        data[name] = data[members[-1].name]
        members[-1].name = name

    return change


def _flipped(members: list[tarfile.TarInfo], data: dict[str, bytes]) -> None:
    name = next(m.name for m in members if m.name.startswith("releases/"))
    data[name] = bytes([data[name][0] ^ 1]) + data[name][1:]


def _a_link(members: list[tarfile.TarInfo], data: dict[str, bytes]) -> None:
    members[-1].type, members[-1].linkname, members[-1].size = tarfile.SYMTYPE, "/etc/passwd", 0


def _log_edited(members: list[tarfile.TarInfo], data: dict[str, bytes]) -> None:
    """Cut short with a manifest that fits: the chain must tell."""
    manifest = json.loads(data[archive.MANIFEST])
    import hashlib

    log = data["events.jsonl"].replace(b'"deployed"', b'"promoted"')
    data["events.jsonl"] = log
    manifest["files"]["events.jsonl"] = {"sha256": hashlib.sha256(log).hexdigest(), "bytes": len(log)}
    data[archive.MANIFEST] = json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_without("releases/"), 1),
        (_without("events.jsonl"), 1),
        (_without(archive.MANIFEST), 2),
        (_renamed("../escaped"), 1),
        (_renamed("/tmp/escaped"), 1),
        (_flipped, 1),
        (_a_link, 1),
        (_log_edited, 1),
    ],
)
def test_a_backup_that_is_not_whole_restores_nothing(
    change: Callable[[list[tarfile.TarInfo], dict[str, bytes]], None],
    code: int,
    engine: Callable[..., Result],
    full: Workspace,
    tmp_path: Path,
) -> None:
    file, bad = tmp_path / "state.backup", tmp_path / "bad.backup"
    archive.write_archive(full, file)
    with tarfile.open(file) as reading:
        members = reading.getmembers()
        data = {m.name: (reading.extractfile(m) or io.BytesIO()).read() for m in members}
    change(members, data)
    with tarfile.open(bad, "w") as writing:
        for member in members:
            content = b"" if member.issym() else data[member.name]
            member.size = len(content)
            writing.addfile(member, io.BytesIO(content))
    place = tmp_path / "new" / "place"
    assert engine("workspace", "restore", str(bad), "--workspace", str(place)).code == code
    assert not place.parent.exists() or not list(place.parent.iterdir())


def test_a_truncated_backup_and_a_file_of_another_kind(
    engine: Callable[..., Result], full: Workspace, tmp_path: Path
) -> None:
    file = tmp_path / "state.backup"
    archive.write_archive(full, file)
    half = tmp_path / "half"
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    place = str(tmp_path / "place")
    assert engine("workspace", "restore", str(half), "--workspace", place).code == 1
    half.write_text("hello")
    assert engine("workspace", "restore", str(half), "--workspace", place).code == 2
    assert engine("workspace", "restore", str(tmp_path / "gone"), "--workspace", place).code == 2
    assert engine("workspace", "mend").code == 2
    assert engine("workspace", "backup").code == 2


def test_an_old_layout_is_brought_up_by_the_first_command(
    engine: Callable[..., Result], workspace: Workspace
) -> None:
    """Version 1, as it was before there was a schema.json: a waiting message without an id."""
    append_event(workspace, "alert", "old")
    old = {"kind": "alert", "text": "from version 1", "at": "2100-01-01T00:00:00+00:00", "channels": ["discord"]}
    write_json(workspace.state / "outbox" / "1770340000.000000-1.json", old)
    assert schema.version(workspace) == 1
    assert engine("status").code == 0
    assert schema.version(workspace) == schema.VERSION == 2
    ((_, entry),) = outbox.waiting(workspace)[0]
    assert len(entry["id"]) == 8
    assert [event["kind"] for event in read_events(workspace)] == ["alert", "migrated"]
    assert engine("workspace", "migrate", "--json").json == {"version": 2, "changes": []}


def test_a_step_that_was_cut_short_is_done_again(workspace: Workspace) -> None:
    for number in range(3):
        entry = {"kind": "alert", "text": f"{number}", "at": "2100-01-01T00:00:00+00:00", "channels": ["discord"]}
        write_json(
            workspace.state / "outbox" / f"177034000{number}.0-1.json", entry | ({"id": "x"} if number else {})
        )
    assert schema.migrate(workspace) == ["1 waiting message has an id now"]
    assert schema.migrate(workspace) == []


def test_a_newer_layout_is_left_alone(engine: Callable[..., Result], workspace: Workspace) -> None:
    write_json(workspace.root / "schema.json", {"version": 99})
    done = engine("status", "--json")
    assert (done.code, done.json["error"]["kind"]) == (2, "newer_workspace")
    assert read_json(workspace.root / "schema.json") == {"version": 99}


@pytest.mark.fault(46)
@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_orders_of_a_person_are_made_again_from_the_log(
    engine: Callable[..., Result], full: Workspace, how: str
) -> None:
    release = open_slot(full, "tobe")
    assert release is not None
    hold(full, "exams")
    reject(full, release.id, "wrong data")
    remember(full, "model_8891_backup_20260206_092530.bin", release.id)
    detail = {"from": release.id, "to": "b" * 64, "backup_made": "model_8891_backup_20260206_092530.bin"}
    append_event(full, "rolled_back", "AS-IS", detail)
    names = ("hold.json", "rejected.json", "taken_down.json", "backups.json")
    for name in names:
        path = full.state / name
        path.unlink(missing_ok=True)
        if how == "damaged":
            path.write_bytes(b"\0" * 40)
    found = engine("workspace", "check", "--json")
    assert found.code == 1
    assert {check["name"] for check in found.json["checks"] if not check["ok"]} >= set(names)
    mended = engine("workspace", "check", "--repair", "--json")
    assert mended.code == 0, mended.out
    assert (held(full) or {})["reason"] == "exams"
    assert rejected(full)[release.id]["reason"] == "wrong data"
    assert list(taken_down(full)) == [release.id]
    assert (how == "damaged") is (full.root / "damaged").exists()


@pytest.mark.fault(46)
def test_serving_goes_on_whatever_becomes_of_the_files(
    engine: Callable[..., Result], workspace: Workspace, config: Path
) -> None:
    """A real server; then every remembered fact is damaged, and then deleted, the log too."""
    point(workspace, "asis", make_release(workspace))
    append_event(workspace, "promoted", "x")
    for name in (
        "last_sync",
        "refused",
        "releases",
        "backups",
        "taken_down",
        "hold",
        "rejected",
        "heads",
        "alerts",
    ):
        write_json(workspace.state / f"{name}.json", {})
    port = free_port()
    words = [
        "--config",
        str(config),
        "--workspace",
        str(workspace.root),
        "serve",
        "asis",
        f"servers.asis.port={port}",
    ]
    server = subprocess.Popen(
        [sys.executable, "-m", "engine", *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert "serving" in server.stdout.readline()

        def answers() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/model", timeout=30) as reply:
                return str(json.load(reply)["release"])

        release = answers()
        for path in workspace.state.glob("*.json"):
            path.write_bytes(b"\0 not json")
        workspace.events.write_bytes(b"\0" * 4096)
        assert answers() == release
        status = engine("status", "--json")
        assert status.code == 0, status.err
        assert engine("events", "--verify", "--json").code in (0, 1)
        shutil.rmtree(workspace.state)
        workspace.events.unlink(missing_ok=True)
        shutil.rmtree(workspace.comparisons, ignore_errors=True)
        assert answers() == release
        status = engine("status", "--json")
        assert status.code == 0, status.err
        assert status.json["slots"]["asis"]["release"] == release
    finally:
        server.terminate()
        assert server.wait(60) == 0
    pointer = read_pointer(workspace, "asis")
    assert pointer is not None
    assert pointer.release == release
    assert load_settings(config, workspace.root).settings
