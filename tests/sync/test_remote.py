"""The SSH source against a real OpenSSH server: listing, hashing, fetching, host keys, broken lines."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import UsageError
from engine.store.files import digest_file
from engine.sync.part import Part
from engine.sync.remote import RemoteSource
from engine.sync.source import Unreachable, Unreadable
from tests.sync.conftest import Proxy, Sshd

BEST = "checkpoints_cycle2/best_model's $(touch x).pth"


def copied(source: RemoteSource, target: Path) -> tuple[str, int]:
    """Copy BEST to `target`, behind what lies there: the hash of all, and the bytes taken over."""
    seen = source.look(BEST)
    with Part(target, seen.bytes) as part:
        source.fetch(BEST, seen, part)
        return part.sha256(), part.kept


@pytest.fixture
def checkpoint(source_root: Path) -> Path:
    """Three megabytes under a name that a shell would stumble over, among other files."""
    path = source_root / BEST
    path.parent.mkdir()
    path.write_bytes(os.urandom(3_000_000))
    os.utime(path, (1_770_000_000, 1_770_000_000))
    (source_root / "data" / "thudogs").mkdir(parents=True)
    (source_root / "data" / "thudogs" / "deep.pth").write_bytes(b"x")
    (source_root / "data" / "picture.jpg").write_bytes(b"x")
    (source_root / "models").mkdir()
    (source_root / "models" / "model_v2.pth").write_bytes(b"xy")
    (source_root / "model.pt").write_bytes(b"x")
    (source_root / "notes.txt").write_bytes(b"x")
    (source_root / "checkpoints_cycle2" / "log.txt").write_bytes(b"x")
    (source_root / "checkpoints_cycle2" / "link.pth").symlink_to(path)
    (source_root / "checkpoints_cycle2" / "dangling.pth").symlink_to("nowhere")
    (source_root / "checkpoints_cycle2" / "folder.pth").mkdir()
    return path


def test_what_is_listed_and_how_deep(make_sshd: Callable[..., Sshd], checkpoint: Path) -> None:
    with RemoteSource(make_sshd().place()) as source:
        entries = {entry.path: entry for entry in source.listing()}
        assert source.root == str(checkpoint.parents[1])
    assert sorted(entries) == [
        BEST,
        "checkpoints_cycle2/dangling.pth",
        "checkpoints_cycle2/link.pth",
        "checkpoints_cycle2/log.txt",
        "model.pt",
        "models/model_v2.pth",
    ]
    assert (entries[BEST].bytes, entries[BEST].modified, entries[BEST].problem) == (3_000_000, 1_770_000_000, None)
    assert entries["checkpoints_cycle2/link.pth"].bytes == 3_000_000
    assert "cannot be read" in str(entries["checkpoints_cycle2/dangling.pth"].problem)


@pytest.mark.parametrize("sftp_only", [False, True], ids=["shell", "sftp only"])
def test_hash_and_fetch(make_sshd: Callable[..., Sshd], checkpoint: Path, tmp_path: Path, sftp_only: bool) -> None:
    server = make_sshd(*(["ForceCommand internal-sftp"] if sftp_only else []))
    expected, target = digest_file(checkpoint), tmp_path / "part"
    with RemoteSource(server.place()) as source:
        seen = source.look(BEST)
        assert (seen.sha256, seen.bytes) == (expected.sha256, 3_000_000)
        assert source.md5(BEST) == expected.md5
        assert copied(source, target) == (expected.sha256, 0)
        assert target.read_bytes() == checkpoint.read_bytes()
        with pytest.raises(Unreadable, match="gone") as gone:
            source.look("checkpoints_cycle2/none.pth")
        assert gone.value.gone
        with pytest.raises(Unreadable, match="not a regular file"):
            source.look("checkpoints_cycle2/folder.pth")
    assert not (checkpoint.parents[1] / "x").exists()


def test_a_root_below_the_home(make_sshd: Callable[..., Sshd], checkpoint: Path) -> None:
    root = "~/" + os.path.relpath(checkpoint.parents[1], Path.home())
    with RemoteSource(make_sshd().place(root=root)) as source:
        assert BEST in [entry.path for entry in source.listing()]


def test_a_missing_root_says_where(make_sshd: Callable[..., Sshd]) -> None:
    with RemoteSource(make_sshd().place(root="/no/such/folder")) as source:
        with pytest.raises(Unreachable, match="no folder /no/such/folder on") as error:
            source.listing()
        assert "source.root" in error.value.hint


def test_an_unknown_host_key_is_a_hard_stop(make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    server.known_hosts.write_text("")
    with RemoteSource(server.place()) as source, pytest.raises(Unreachable) as error:
        source.listing()
    assert error.value.kind == "host_key_unknown"
    assert "SHA256:" in error.value.message
    assert server.known_hosts.read_text() == ""


@pytest.mark.fault(19)
def test_a_changed_host_key_is_a_hard_stop_that_shows_both(make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    with RemoteSource(server.place()) as source:
        source.listing()
    server.new_host_key()
    before = server.known_hosts.read_text()
    with RemoteSource(server.place()) as source, pytest.raises(Unreachable) as error:
        source.listing()
    assert error.value.kind == "host_key_changed", error.value.message
    assert error.value.message.count("SHA256:") == 2
    assert "ssh-keygen -R" in error.value.hint
    assert server.known_hosts.read_text() == before


def test_another_kind_of_host_key_counts_as_changed(make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    other = server.folder / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", str(other)], check=True)
    kind, key = Path(f"{other}.pub").read_text().split()[:2]
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {kind} {key}\n")
    with RemoteSource(server.place()) as source, pytest.raises(Unreachable) as error:
        source.listing()
    assert error.value.kind == "host_key_changed", error.value.message


def test_a_key_that_is_not_let_in(make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    (server.folder / "authorized_keys").write_text("")
    with RemoteSource(server.place()) as source, pytest.raises(Unreachable, match="does not let") as error:
        source.listing()
    assert "authorized_keys" in error.value.hint


def test_a_key_file_that_is_none(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    server = make_sshd()
    with RemoteSource(server.place(key=tmp_path / "none")) as source, pytest.raises(UsageError, match="none"):
        source.listing()
    (tmp_path / "text").write_text("hello")
    with RemoteSource(server.place(key=tmp_path / "text")) as source, pytest.raises(UsageError, match="text"):
        source.listing()


def test_nobody_listens(make_sshd: Callable[..., Sshd]) -> None:
    server = make_sshd()
    server.stop()
    with RemoteSource(server.place()) as source, pytest.raises(Unreachable, match="Connection refused"):
        source.listing()


def test_a_server_that_accepts_and_says_nothing(make_sshd: Callable[..., Sshd]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = make_sshd().place(port=silent.getsockname()[1], timeout_s=0.3)
        with RemoteSource(place) as source, pytest.raises(Unreachable, match="no answer"):
            source.listing()


@pytest.mark.fault(17)
def test_a_line_that_drops_is_resumed(
    make_sshd: Callable[..., Sshd], make_proxy: Callable[..., Proxy], checkpoint: Path, tmp_path: Path
) -> None:
    server = make_sshd()
    proxy = make_proxy(server.port, [1_000_000, 1_500_000, None])
    server.trust(proxy.port)
    target = tmp_path / "part"
    with RemoteSource(server.place(port=proxy.port)) as source:
        copied(source, target)
    assert target.read_bytes() == checkpoint.read_bytes()
    assert proxy.connections == 3
