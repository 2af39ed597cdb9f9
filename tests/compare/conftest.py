"""Two small HTTP servers that behave as slots do, and as slots should not: errors, delays, a changed release."""

from __future__ import annotations

import hashlib
import json
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from engine.config import Settings, load_settings
from engine.release.bundle import Manifest, Origin, Release, write_release
from engine.release.control import socket_path
from engine.release.slots import write_pointer
from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S

CLASSES = ["cat", "dog"]


def release_of(workspace: Workspace, name: str) -> Release:
    """A release without a net: enough for a pointer and for what its manifest says."""
    manifest = Manifest(
        architecture={"name": "litecnn", "settings": {}},
        classes=CLASSES,
        input={},
        preprocess={"img_size": 16, "resize": "crop", "mean": [0.5] * 3, "std": [0.5] * 3},
        parameters=1,
        checkpoint=Origin(
            name=name, sha256=hashlib.sha256(f"{name}.pth".encode()).hexdigest(), md5="0" * 32, bytes=1
        ),
    )
    workspace.releases.mkdir(parents=True, exist_ok=True)
    return write_release(workspace.releases, manifest, b"", b"")


class Slot:
    """A slot's server. `answer(body) -> (status, label)` may also sleep; or it gives (status, the whole answer)."""

    def __init__(self, workspace: Workspace, slot: str, name: str) -> None:
        self.workspace, self.slot = workspace, slot
        self.answer: Callable[[bytes], tuple[int, Any]] = lambda content: (200, content.split(b"|")[0].decode())
        self.classes = list(CLASSES)
        self.state = "live"
        self.bodies: list[bytes] = []
        self.hold(name)
        owner = self

        class Http(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one segment an answer, not two with 40 ms between them

            def do_GET(self) -> None:
                self._send(200, {"release": owner.served, "classes": owner.classes, "slot": slot})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                owner.bodies.append(body)
                status, said = owner.answer(body)
                answer = said if isinstance(said, dict) else {"label": said, "index": 0, "confidence": 1.0}
                self._send(status, answer | {"release": owner.served})

            def _send(self, status: int, value: dict[str, Any]) -> None:
                text = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None:
                pass

        class Private(Http):
            def do_GET(self) -> None:
                self._send(
                    200, {"state": owner.state, "release": owner.served, "port": owner.port, "problem": None}
                )

            def address_string(self) -> str:
                return slot

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # a client that timed out has gone

        self.http = Quiet(("127.0.0.1", 0), Http)
        self.port = self.http.server_address[1]
        path = socket_path(workspace, slot)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.private = socketserver.ThreadingUnixStreamServer(os.fspath(path), Private)
        self.private.daemon_threads = True
        for server in (self.http, self.private):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def hold(self, name: str) -> None:
        """Put the release of that name into the slot, pointer and server."""
        release = release_of(self.workspace, name)
        write_pointer(self.workspace, self.slot, release, "test")
        self.served = release.id

    def hold_release(self, release: Release) -> None:
        """Put a real release into the slot; `answer` is still the test's."""
        write_pointer(self.workspace, self.slot, release, "test")
        self.served, self.classes = release.id, release.manifest.classes

    def wrong_on(self, *numbers: int) -> None:
        """Answer the label in the image's bytes, but for these images the other one."""
        wrong = {str(number).encode() for number in numbers}

        def answer(content: bytes) -> tuple[int, str]:
            label, number = content.split(b"|")
            return 200, {"cat": "dog", "dog": "cat"}[label.decode()] if number in wrong else label.decode()

        self.answer = answer

    def slow_on(self, *numbers: int, seconds: float) -> None:
        slow = {str(number).encode() for number in numbers}

        def answer(content: bytes) -> tuple[int, str]:
            label, number = content.split(b"|")
            if number in slow:
                time.sleep(seconds)
            return 200, label.decode()

        self.answer = answer

    def stop(self) -> None:
        for server in (self.http, self.private):
            server.shutdown()
            server.server_close()


@pytest.fixture
def slots(workspace: Workspace) -> Iterator[tuple[Slot, Slot]]:
    """AS-IS with release "old" and TO-BE with release "new", both answering right."""
    pair = Slot(workspace, "asis", "old"), Slot(workspace, "tobe", "new")
    yield pair
    for slot in pair:
        slot.stop()


def write_images(folder: Path, count: int, start: int = 0) -> Path:
    """Images 0.. in class folders `cat` and `dog`; the bytes are the label and the number."""
    for number in range(start, start + count):
        label = CLASSES[number % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number:05d}.png").write_bytes(f"{label}|{number}".encode())
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """200 labelled images."""
    return write_images(tmp_path / "labelled", 200)


@pytest.fixture
def settings(workspace: Workspace, images: Path) -> Settings:
    return load_settings(None, workspace.root, [f"ab.data={images}", f"ab.timeout_s={PATIENCE_S}"]).settings
