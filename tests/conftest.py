"""Fixtures shared by all tests: a fresh workspace, the engine as a child process, free ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.store.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
SECRETS = (
    "DISCORD_WEBHOOK_URL", "TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "UNDERSTUDY_ADMIN_TOKEN", "WEBHOOK_URL",
    "WEBHOOK_SECRET",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What one engine command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        lines = self.out.splitlines()
        assert len(lines) == 1, f"expected one JSON object, got: {self.out!r} / {self.err!r}"
        return dict(json.loads(lines[0]))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace in a folder of the test's own."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, "UNDERSTUDY_CONFIG", "UNDERSTUDY_WORKSPACE", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A partial config file with free ports, for the engine commands of one test."""
    path = tmp_path / "config.toml"
    path.write_text(
        f"[servers.asis]\nport = {free_port()}\n[servers.tobe]\nport = {free_port()}\n[source]\nsettle_s = 0.05\n"
    )
    return path


@pytest.fixture
def engine(workspace: Workspace, config: Path) -> Callable[..., Result]:
    """Runs `python -m engine` on the test's workspace and config: `engine("status", "--json")`."""

    def run(*words: str, env: dict[str, str] | None = None, timeout: float = 240) -> Result:
        command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
        done = subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=PROJECT,
            env={**os.environ, **(env or {})},
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run
