"""What happens to a source, a line and a disk while `python -m engine sync` is at work, all of them real."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.store.events import read_events
from engine.store.files import sha256_file
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.sync.state import arrival
from tests.conftest import PATIENCE_S, PROJECT, Result, until
from tests.sync.conftest import Inbox, Proxy, Sshd
from tests.sync.road import MODEL, Road

SIZE = 3_000_000
MIDDLE = 1_000_000  # bytes of answer after which the line is held: the handshake is far behind, the end far off


def junk(root: Path, name: str = "best_model.pth", age_s: float = 100) -> Path:
    """Bytes that no admission takes: which of them arrived is told by the refusal's hash."""
    path = root / "checkpoints_cycle1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(secrets.token_bytes(SIZE))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def begin(workspace: Workspace, words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace.root), "sync", "--json", *words]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def brought(child: subprocess.Popen[str], there: Callable[[], object]) -> None:
    """Wait for a state that the child brings about."""
    until(lambda: there() or child.poll() is not None, "what the child is to bring about")
    assert child.poll() is None, child.communicate()


def ended(child: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = child.communicate(timeout=PATIENCE_S)
    assert out, err
    return dict(json.loads(out))


def refused(workspace: Workspace) -> list[str]:
    return [event["detail"]["sha256"] for event in read_events(workspace) if event["kind"] == "refused"]


def kinds(workspace: Workspace) -> list[str]:
    return [event["kind"] for event in read_events(workspace)]


@pytest.fixture
def held(
    make_sshd: Callable[..., Sshd], make_proxy: Callable[..., Proxy], workspace: Workspace
) -> Iterator[Callable[[], tuple[subprocess.Popen[str], Proxy, list[str]]]]:
    """Starts a sync whose line falls silent in the middle of the copy, until its proxy is told to resume."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], Proxy, list[str]]:
        server = make_sshd()
        proxy = make_proxy(server.port, [MIDDLE, None], stall=True)
        server.trust(proxy.port)
        words = [*MODEL, *server.words(), f"source.port={proxy.port}", f"source.timeout_s={PATIENCE_S}"]
        started.append(begin(workspace, words))
        brought(started[-1], proxy.stalled.is_set)
        return started[-1], proxy, words

    yield start
    for child in started:
        child.kill()
        child.communicate()


@pytest.mark.fault(2)
def test_what_a_killed_sync_had_fetched_is_not_trusted_by_existing(
    make_sshd: Callable[..., Sshd], source_root: Path, workspace: Workspace, engine: Callable[..., Result]
) -> None:
    digest = sha256_file(junk(source_root))
    words = [*MODEL, *make_sshd().words()]
    with hold(workspace.lock("admit"), "test"):  # what arrived waits for its admission
        child = begin(workspace, words)
        brought(child, arrival(workspace, digest).exists)
        child.kill()
        child.communicate()
    assert kinds(workspace) == []
    left = arrival(workspace, digest)
    assert left.exists()
    left.write_bytes(b"what somebody else left under this name")
    assert engine("sync", "--json", *words).json["error"]["kind"] == "nothing_admissible"
    assert refused(workspace) == [digest]
    assert not list(workspace.incoming.iterdir())


@pytest.mark.fault(3)
def test_a_kill_in_the_conversion_leaves_scratch_that_the_next_sync_drops(
    source_root: Path, workspace: Workspace, engine: Callable[..., Result], road: Road
) -> None:
    shutil.rmtree(workspace.root)  # one that has never seen this checkpoint
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    child = begin(workspace, road.words)
    brought(child, lambda: list(workspace.incoming.glob("admission-*/job.json")))
    child.kill()
    child.communicate()
    assert road.holds() is None
    assert list(workspace.incoming.glob("admission-*"))
    done = engine("sync", "--json", *road.words)
    assert (done.code, done.json["deployed"]) == (0, True), done.err
    assert not list(workspace.incoming.iterdir())
    assert road.kinds() == ["deployed", "synced"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for one small release and the reserve."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip() if done else 'not root'})")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(folder: Path) -> Path:
    path = folder / "filler"
    with path.open("wb", buffering=0) as stream:
        for block in (1 << 20, 1 << 12):
            try:
                while stream.write(b"x" * block) == block:
                    pass
            except OSError:
                continue
    return path


@pytest.mark.fault(7)
def test_a_disk_that_is_full_before_or_in_the_conversion_is_a_clean_end(
    source_root: Path, small_disk: Path, engine: Callable[..., Result], road: Road
) -> None:
    workspace = Workspace(small_disk / "workspace")
    workspace.root.mkdir()
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    filler = fill(small_disk)
    os.truncate(filler, filler.stat().st_size - 5_000_000)
    stopped = ended(begin(workspace, road.words))
    assert stopped["error"]["kind"] == "disk_full"
    filler.unlink()
    child = begin(workspace, road.words)
    brought(child, lambda: list(workspace.incoming.glob("admission-*/job.json")))
    filler = fill(small_disk)
    stopped = ended(child)
    assert (child.returncode, stopped["error"]["kind"] in ("disk", "disk_full")) == (1, True)
    assert not list(workspace.incoming.iterdir())
    assert not list(workspace.slots.glob("*.json"))
    filler.unlink()
    again = ended(begin(workspace, [*road.words, "--dry-run"]))
    assert (again["changed"], again["skipped"]) == (True, [])


@pytest.mark.fault(8)
def test_what_is_still_being_written_waits_for_the_next_sync(
    make_sshd: Callable[..., Sshd], source_root: Path, workspace: Workspace
) -> None:
    path = junk(source_root)
    words = [*MODEL, *make_sshd().words()]
    child = begin(workspace, [*words, "source.settle_s=3"])
    assert child.stderr is not None
    assert child.stderr.readline().startswith("changed: ")
    with path.open("ab") as stream:
        stream.write(b"more")
    result = ended(child)
    assert (child.returncode, result["deployed"]) == (0, False)
    assert "still being written" in result["skipped"][0]["reason"]
    assert kinds(workspace) == ["postponed"]
    ended(begin(workspace, words))
    assert refused(workspace) == [sha256_file(path)]


@pytest.mark.fault(9)
def test_what_is_overwritten_in_place_during_the_copy_is_dropped(
    held: Callable[[], tuple[subprocess.Popen[str], Proxy, list[str]]], source_root: Path, workspace: Workspace
) -> None:
    path = junk(source_root)
    child, proxy, _ = held()
    path.write_bytes(secrets.token_bytes(SIZE))
    proxy.resume()
    result = ended(child)
    assert (child.returncode, result["deployed"]) == (0, False)
    assert "changed while it was copied" in result["skipped"][0]["reason"]
    assert not list(workspace.incoming.iterdir())
    assert kinds(workspace) == ["postponed"]


@pytest.mark.fault(10)
def test_what_is_replaced_by_a_rename_during_the_copy_is_one_whole_version_after_the_other(
    held: Callable[[], tuple[subprocess.Popen[str], Proxy, list[str]]], source_root: Path, workspace: Workspace
) -> None:
    path = junk(source_root)
    newer = junk(source_root, ".new", 10)
    first, second = sha256_file(path), sha256_file(newer)
    child, proxy, words = held()
    newer.replace(path)
    proxy.resume()
    ended(child)
    assert refused(workspace) == [first]
    ended(begin(workspace, words))
    assert refused(workspace) == [first, second]


@pytest.mark.fault(11)
def test_what_is_deleted_during_the_copy_is_put_off_without_a_message(
    held: Callable[[], tuple[subprocess.Popen[str], Proxy, list[str]]], source_root: Path, workspace: Workspace
) -> None:
    path = junk(source_root)
    child, proxy, words = held()
    path.unlink()
    proxy.resume()
    assert "gone" in ended(child)["skipped"][0]["reason"]
    assert ended(begin(workspace, words))["candidate"] is None
    assert kinds(workspace) == ["postponed"]


@pytest.mark.fault(16)
def test_a_corrupt_best_is_told_once_and_the_next_best_is_taken(
    make_sshd: Callable[..., Sshd], engine: Callable[..., Result], road: Road, inbox: Inbox
) -> None:
    bad = road.put("bad", "checkpoints_cycle10/best_model.pth", 100)
    road.put("a", "checkpoints_cycle9/best_model.pth", 200)
    words = [*MODEL, *make_sshd().words(), *inbox.words]
    first = engine("sync", "--json", *words)
    assert (first.json["deployed"], road.holds()) == (True, "a"), first.err
    assert engine("sync", "--json", *words).json["changed"] is False
    assert "checkpoints_cycle9" in sorted(inbox.wait_for(2))[1]
    assert [str(bad) in text for text in inbox.texts].count(True) == 1
    assert len(inbox.texts) == 2


@pytest.mark.long(8)
@pytest.mark.fault(17)
def test_a_line_that_drops_again_and_again_is_tried_a_bounded_number_of_times(
    make_sshd: Callable[..., Sshd], make_proxy: Callable[..., Proxy], source_root: Path, workspace: Workspace
) -> None:
    digest = sha256_file(junk(source_root))
    server = make_sshd()
    proxy = make_proxy(server.port, [MIDDLE, 20_000, None])
    server.trust(proxy.port)
    words = [*MODEL, *server.words(), f"source.port={proxy.port}"]
    ended(begin(workspace, words))
    assert (refused(workspace), proxy.connections) == ([digest], 3)
    dead = make_proxy(server.port, [20_000])
    server.trust(dead.port)
    junk(source_root)
    lost = ended(begin(workspace, [*words, f"source.port={dead.port}"]))
    assert lost["error"]["kind"] == "source_unreachable"
    assert "broke off" in lost["error"]["message"]
    assert dead.connections <= 5


@pytest.mark.fault(18)
def test_a_line_that_stalls_is_given_up_and_what_came_is_kept(
    make_sshd: Callable[..., Sshd], make_proxy: Callable[..., Proxy], source_root: Path, workspace: Workspace
) -> None:
    digest = sha256_file(junk(source_root))
    server = make_sshd()
    proxy = make_proxy(server.port, [MIDDLE], stall=True)
    server.trust(proxy.port)
    words = [*MODEL, *server.words(), f"source.port={proxy.port}", "source.timeout_s=3"]
    child = begin(workspace, words)
    lost = ended(child)
    assert (child.returncode, lost["error"]["kind"]) == (1, "source_unreachable")
    assert f"{arrival(workspace, digest).name}.part" in [path.name for path in workspace.incoming.iterdir()]


@pytest.mark.fault(20)
def test_a_revoked_key_and_a_host_that_is_gone_are_one_message_each_and_so_is_the_end(
    make_sshd: Callable[..., Sshd], engine: Callable[..., Result], workspace: Workspace, inbox: Inbox
) -> None:
    server = make_sshd()
    words = [*MODEL, *server.words(), *inbox.words]
    keys = server.folder / "authorized_keys"
    let_in = keys.read_text()
    assert engine("sync", "--json", *words).code == 0
    keys.write_text("")
    assert [engine("sync", "--json", *words).json["error"]["kind"] for _ in range(2)] == ["login_refused"] * 2
    since = engine("status", "--json").json["last_sync"]["failing_since"]
    assert since
    keys.write_text(let_in)
    server.stop()
    assert [engine("sync", "--json", *words).json["error"]["kind"] for _ in range(2)] == ["source_unreachable"] * 2
    assert engine("status", "--json").json["last_sync"]["failing_since"] == since
    server.start()
    for _ in range(2):
        assert engine("sync", "--json", *words).code == 0
    assert engine("status", "--json").json["last_sync"]["failing_since"] is None
    told = [event["detail"]["reason"] for event in read_events(workspace) if event["kind"] == "alert"]
    assert len(inbox.wait_for(3)) == len(told) == 3
    for text, part in zip(told, ("does not let", "cannot connect", "works again"), strict=True):
        assert part in text


@pytest.mark.fault(51)
def test_a_server_tells_once_that_looks_have_stopped_and_once_that_they_come_again(
    road: Road, engine: Callable[..., Result], config: Path, inbox: Inbox
) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    words = [*road.words, *inbox.words, "source.poll_minutes=0.02"]
    assert engine("sync", "--json", *words, "notify.events=alert").json["deployed"] is True
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(road.workspace.root)]
    server = subprocess.Popen(
        [*command, "serve", "tobe", *words], cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        inbox.wait_for(1)
        time.sleep(1.5)
        assert len(inbox.texts) == 1, "still missed, and said already"
        assert "stopped looking" in inbox.texts[0]
        until(lambda: engine("sync", "--json", *words).code == 0 and len(inbox.texts) > 1, "the next message")
        assert "looks again" in inbox.texts[1]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE_S)
