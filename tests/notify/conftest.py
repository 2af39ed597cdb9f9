"""A real loopback HTTP server that stands where Discord, Telegram and a webhook of one's own stand."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from engine.config import Settings
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace

TOKEN = "123456:very-secret-token"
HOOK = "hook-secret-part"
KEY = "webhook-signing-key"


@dataclass
class Service:
    """What the service got, and what it answers: a list of (status, headers, body), the last one for ever."""

    port: int = 0
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    raw: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], dict[str, Any]]] = field(default_factory=lambda: [(200, {}, {})])
    connections: int = 0  # open ones


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):  # its client may be killed
                super().handle()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            body = json.loads(raw)
            state.got.append((self.path, body))
            state.raw.append(({name.lower(): value for name, value in self.headers.items()}, raw))
            status, headers, answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if status != 204:
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def process_request(self, *request: Any) -> None:
            state.connections += 1
            super().process_request(*request)

        def process_request_thread(self, *request: Any) -> None:
            try:
                super().process_request_thread(*request)
            finally:
                state.connections -= 1

    server = Server(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def settings(port: int, **more: Any) -> Settings:
    return Settings.model_validate(
        {"notify": {"telegram_api": f"http://127.0.0.1:{port}", "timeout_s": 5, **more}}
    )


@pytest.fixture
def both(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("DISCORD_WEBHOOK_URL", f"http://127.0.0.1:{service.port}/api/{HOOK}")
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("TELEGRAM_CHAT_ID", "-1001234")
    return service


def texts(service: Service) -> list[str]:
    """What Discord's stand-in got, oldest first."""
    return [body["content"] for path, body in service.got if HOOK in path]


def hurry(workspace: Workspace) -> None:
    """Let time pass: what is put off is due, and what asked for a pause has had it."""
    for path in (workspace.state / "outbox").glob("*-*.json"):
        write_json(path, {**(read_json(path) or {}), "next": "2026-01-01T00:00:00+00:00"})
    (workspace.state / "outbox" / "paused.json").unlink(missing_ok=True)
