"""Faults of the way from the source, from outside: engine processes, a real sshd, a proxy that holds the line."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import load_settings
from engine.notify.looks import check_looks
from engine.store.events import read_events
from engine.store.files import write_json
from engine.store.workspace import Workspace
from engine.sync.part import WINDOW
from tests.conftest import PATIENCE_S, PROJECT, Result, until
from tests.sync.conftest import Proxy, Sshd
from tests.sync.road import MODEL


def put(root: Path, size: int) -> Path:
    """Bytes that no admission takes: what arrives is looked at, and refused."""
    path = root / "checkpoints_cycle1" / "best_model.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(secrets.token_bytes(size))
    os.utime(path, (time.time() - 100,) * 2)
    return path


@pytest.mark.fault(1)
def test_a_killed_download_has_no_final_name_and_the_next_one_goes_on(
    make_sshd: Callable[..., Sshd],
    make_proxy: Callable[..., Proxy],
    source_root: Path,
    workspace: Workspace,
    engine: Callable[..., Result],
) -> None:
    size = 3 * WINDOW
    put(source_root, size)
    server = make_sshd()
    proxy = make_proxy(server.port, [2 * WINDOW + 1_000_000, None], stall=True)
    server.trust(proxy.port)
    words = [*MODEL, *server.words(), f"source.port={proxy.port}", f"source.timeout_s={PATIENCE_S}"]
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace.root), "sync", *words]
    child = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kept() -> int:
        return sum(len(log.read_bytes().splitlines()) for log in workspace.incoming.glob("*.windows"))

    until(lambda: kept() == 2, "two windows")
    child.send_signal(signal.SIGKILL)
    child.wait(PATIENCE_S)
    assert not list(workspace.incoming.glob("*.pth"))
    done = engine("sync", "--json", *words)
    assert (done.code, done.json["error"]["kind"]) == (1, "nothing_admissible"), done.err
    assert proxy.passed[1] < size - 2 * WINDOW + 300_000
    assert [event["kind"] for event in read_events(workspace)].count("refused") == 1
    assert not list(workspace.incoming.glob("*"))


@pytest.mark.fault(19)
def test_an_unknown_host_is_pinned_by_its_fingerprint_and_by_no_other(
    make_sshd: Callable[..., Sshd], engine: Callable[..., Result], source_root: Path
) -> None:
    server = make_sshd()
    server.known_hosts.unlink()
    stopped = engine("sync", "--json", *server.words())
    error = stopped.json["error"]
    assert (stopped.code, error["kind"]) == (1, "host_key_unknown")
    fingerprint = error["hint"].rpartition("--pin ")[2]
    assert fingerprint in error["message"]
    wrong = engine("sync", "--json", "--pin", "SHA256:other", *server.words())
    assert (wrong.code, server.known_hosts.exists()) == (1, False)
    assert wrong.json["error"]["kind"] == "host_key_other"
    assert "--pin" not in wrong.err, "nobody is told to pin what a stranger shows"
    assert engine("sync", "--json", "--pin", fingerprint, *server.words()).code == 0
    pinned = engine("events", "--json", "--kind", "pinned").json["events"]
    assert [event["detail"]["fingerprint"] for event in pinned] == [fingerprint]
    assert engine("sync", "--json", *server.words()).code == 0


def test_the_way_leads_over_the_jump_hosts_of_the_persons_own_config(
    make_sshd: Callable[..., Sshd], engine: Callable[..., Result], source_root: Path, tmp_path: Path
) -> None:
    far, jump = make_sshd(), make_sshd()
    (tmp_path / ".ssh").mkdir()
    lines = []
    for name, server in (("far", far), ("jump", jump)):
        lines += [f"Host {name}", "  HostName 127.0.0.1", f"  Port {server.port}", f"  IdentityFile {server.key}"]
        lines += [f"  UserKnownHostsFile {server.known_hosts}", *(["  ProxyJump jump"] if name == "far" else [])]
    (tmp_path / ".ssh" / "config").write_text("\n".join(lines) + "\n")
    words = ["source.kind=ssh", "source.host=far", f"source.root={source_root}"]
    done = engine("sync", "--json", *words, env={"HOME": str(tmp_path)})
    assert (done.code, done.json["candidate"]) == (0, None), done.err
    jump.stop()
    lost = engine("sync", "--json", *words, env={"HOME": str(tmp_path)})
    assert (lost.code, "jump" in lost.json["error"]["message"]) == (1, True)


@pytest.mark.fault(51)
def test_looks_that_stop_coming_are_told_once_and_so_is_their_return(workspace: Workspace) -> None:
    settings = load_settings(None, workspace.root, ["source.poll_minutes=0.01"]).settings
    write_json(workspace.state / "last_sync.json", {"at": "2026-01-01T00:00:00+00:00"})
    assert check_looks(workspace, settings) == "2026-01-01T00:00:00+00:00"
    check_looks(workspace, settings)
    assert [event["subject"] for event in read_events(workspace)] == ["looks"]
    write_json(workspace.state / "last_sync.json", {"at": "2126-01-01T00:00:00+00:00"})
    assert check_looks(workspace, settings) is None
    check_looks(workspace, settings)
    assert [event["subject"] for event in read_events(workspace)] == ["looks", "looks"]
