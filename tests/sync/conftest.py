"""A real OpenSSH server on loopback, and a real checkpoint small enough for many tests."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.config import load_settings
from engine.config.schema import Source as Place
from engine.release.admit import admit
from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S, free_port, shared_folder, until
from tests.sync.road import MODEL, Road, Stock

SSHD = Path("/usr/sbin/sshd")
SFTP = next(
    (
        path
        for path in map(
            Path, ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")
        )
        if path.exists()
    ),
    None,
)


class Sshd:
    """An sshd run by this user, with keys and a known_hosts of its own."""

    def __init__(self, folder: Path, root: Path, *lines: str) -> None:
        self.folder, self.root, self.port = folder, root, free_port()
        folder.mkdir(parents=True)
        self.key, self.host_key = folder / "id_ed25519", folder / "host_ed25519"
        self.known_hosts = folder / "known_hosts"
        for path in (self.key, self.host_key):
            _keygen(path)
        shutil.copy(f"{self.key}.pub", folder / "authorized_keys")
        self.trust()
        (folder / "sshd_config").write_text(
            "\n".join(
                [
                    *lines,
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.host_key}",
                    f"AuthorizedKeysFile {folder}/authorized_keys",
                    f"PidFile {folder}/pid",
                    "StrictModes no",
                    "UsePAM no",
                    f"SetEnv HOME={folder}",  # the login shell reads no settings of this person's
                    "PasswordAuthentication no",
                    "PermitRootLogin yes",
                    f"Subsystem sftp {SFTP}",
                    "",
                ]
            )
        )
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._child = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")], stdout=log, stderr=log
            )
        until(lambda: self._answers() or (self._child and self._child.poll() is not None), "an answer of sshd")
        if self._child.poll() is not None:
            pytest.skip(f"sshd does not start here: {(self.folder / 'log').read_text()[-300:]}")

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait(PATIENCE_S)
            self._child = None

    def trust(self, port: int | None = None) -> None:
        """Write the known_hosts line for this server, as seen on `port`."""
        kind, key = Path(f"{self.host_key}.pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[127.0.0.1]:{port or self.port} {kind} {key}\n")

    def new_host_key(self) -> None:
        self.stop()
        _keygen(self.host_key)
        self.start()

    def place(self, **changes: object) -> Place:
        settings: dict[str, object] = {
            "kind": "ssh",
            "root": str(self.root),
            "host": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "key": self.key,
            "known_hosts": self.known_hosts,
            "timeout_s": PATIENCE_S,
        }
        return Place.model_validate(settings | changes)

    def words(self) -> list[str]:
        """The overrides that point an engine command at this server."""
        shown = self.place().model_dump(mode="json", include={"kind", "root", "host", "port", "user", "key"})
        return [
            *(f"source.{key}={value}" for key, value in shown.items()),
            f"source.known_hosts={self.known_hosts}",
            f"source.timeout_s={PATIENCE_S}",
        ]


class Proxy:
    """Forwards one port to another; each connection is cut, or falls silent, after so many bytes of answer."""

    def __init__(self, target: int, after: list[int | None], stall: bool) -> None:
        self._target, self._after, self._stall = target, after, stall
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.passed: list[int] = []  # bytes of answer, a connection
        self._open: list[socket.socket] = []
        self._resumed = threading.Event()
        self.stalled = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def resume(self) -> None:
        """Let what fell silent go on, without a limit."""
        self._resumed.set()

    def close(self) -> None:
        self.resume()
        for item in (self._listener, *self._open):
            item.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            limit = self._after[min(self.connections, len(self._after) - 1)]
            place, self.connections = self.connections, self.connections + 1
            self.passed.append(0)
            threading.Thread(target=self._pump, args=(client, server, None, None), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, limit, place), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, limit: int | None, place: int | None) -> None:
        passed = 0
        try:
            while chunk := source.recv(16384):
                passed += len(chunk)
                if limit is not None and passed > limit:
                    if not self._stall:
                        break
                    self.stalled.set()
                    self._resumed.wait()
                    limit = None
                sink.sendall(chunk)
                if place is not None:
                    self.passed[place] = passed
        except OSError:
            pass
        for item in (source, sink):
            try:
                item.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def _keygen(path: Path) -> None:
    path.unlink(missing_ok=True)
    Path(f"{path}.pub").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


@pytest.fixture
def source_root(tmp_path: Path) -> Path:
    root = tmp_path / "my cnn"
    root.mkdir()
    return root


@pytest.fixture
def make_sshd(tmp_path: Path, source_root: Path) -> Iterator[Callable[..., Sshd]]:
    """Starts an sshd whose source is `source_root`, with more lines for its config."""
    if not SSHD.exists() or SFTP is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no OpenSSH server on this host")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    started: list[Sshd] = []

    def make(*lines: str) -> Sshd:
        server = Sshd(tmp_path / f"sshd{len(started)}", source_root, *lines)
        started.append(server)
        server.start()
        return server

    yield make
    for server in started:
        server.stop()


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    started: list[Proxy] = []

    def make(target: int, after: list[int | None], *, stall: bool = False) -> Proxy:
        started.append(Proxy(target, after, stall))
        return started[-1]

    yield make
    for proxy in started:
        proxy.close()


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    folder = shared_folder(tmp_path_factory, "stock", _make_stock)
    return Stock({name: folder / f"{name}.pth" for name in "ab"}, Workspace(folder / "workspace"))


def _make_stock(folder: Path) -> None:
    import torch

    from engine.tasks.images.models import build_model

    workspace = Workspace(folder / "workspace")
    settings = load_settings(None, workspace.root, MODEL).settings
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        folder.mkdir(exist_ok=True)
        state = {"model_state_dict": build_model("litecnn", 3).state_dict(), "epoch": 3, "accuracy": 87.2}
        torch.save({**state, "loss": 0.4}, path := folder / f"{name}.pth")
        admit(workspace, settings, path, name="stock", cycle=None, expect_classes=None)


@pytest.fixture
def road(stock: Stock, source_root: Path, workspace: Workspace) -> Road:
    shutil.copytree(stock.workspace.releases, workspace.releases)
    workspace.state.mkdir()
    shutil.copy(stock.workspace.state / "releases.json", workspace.state)
    words = [*MODEL, f"source.root={source_root}"]
    return Road(stock, source_root, workspace, load_settings(None, workspace.root, words).settings, words)


@dataclass
class Inbox:
    """Stands where Telegram stands; `texts` are the messages it got."""

    texts: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def wait_for(self, count: int) -> list[str]:
        """The messages once there are so many of them."""
        until(lambda: len(self.texts) >= count, f"{count} messages")
        return self.texts


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """Where the messages of every engine process of the test arrive that gets `inbox.words`."""
    found = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.texts.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["text"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.words.append(f"notify.telegram_api=http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "1:token")
    monkeypatch.setenv("TELEGRAM_CHAT_ID", "1")
    yield found
    server.shutdown()
    server.server_close()
