"""A running slot: `python -m engine serve` as a child, on a free port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from engine.release.bundle import Release
from engine.release.control import slot_stats
from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S, PROJECT, free_port, until
from tests.serving.releases import make_release, point


def freeze(pid: int) -> None:
    """Stop every thread of a process, and return when they stand: until then one of them could still answer."""
    os.kill(pid, signal.SIGSTOP)
    process = psutil.Process(pid)

    def stands() -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):  # a thread that has just ended
            return all(psutil.Process(thread.id).status() == psutil.STATUS_STOPPED for thread in process.threads())
        return False

    until(stands, "every thread stands")


class Served:
    """One `serve` process. `states` are the objects that it printed."""

    def __init__(self, workspace: Workspace, *words: str, slot: str = "asis", ports: dict[str, int] | None = None):
        self.workspace, self.slot = workspace, slot
        self.ports = ports or {"asis": free_port(), "tobe": free_port()}
        self.port = self.ports["asis" if slot == "all" else slot]
        config = workspace.root.parent / f"{slot}-{self.port}.toml"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text("".join(f"[servers.{name}]\nport = {port}\n" for name, port in self.ports.items()))
        command = ["--config", str(config), "--workspace", str(workspace.root), "serve", slot, "--json", *words]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            start_new_session=True,
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S)

    def state(self) -> dict[str, Any]:
        """The next object that the server prints; its error when it ends instead."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        text = self.process.stdout.readline()
        assert text, self.process.stderr.read()
        return dict(json.loads(text))

    def stats(self, slot: str | None = None) -> dict[str, Any]:
        found = slot_stats(self.workspace, slot or self.slot, PATIENCE_S)
        assert found is not None
        return found

    def predict(self, content: bytes, **options: Any) -> httpx.Response:
        return self.http.post("/predict", content=content, **options)

    def family(self) -> list[psutil.Process]:
        """This process and all below it."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        self.http.close()
        try:
            self.stop()
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()


def gone(processes: list[psutil.Process]) -> bool:
    def alive(process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    return not any(map(alive, processes))


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Starts `serve` processes that end with the test."""
    running: list[Served] = []

    def start(*arguments: Any, **options: Any) -> Served:
        running.append(Served(*arguments, **options))
        return running[-1]

    yield start
    for served in running:
        served.close()


LIMITS = (
    "servers.max_body_bytes=300000",
    "servers.max_pixels=1000000",
    "servers.receive_timeout_s=60",
    "servers.threads=2",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("serving") / "workspace")


@pytest.fixture(scope="module")
def release(home: Workspace) -> Release:
    made = make_release(home, "a")
    point(home, "asis", made)
    return made


@pytest.fixture(scope="module")
def live(home: Workspace, release: Release) -> Iterator[Served]:
    """A slot with a release and small limits, shared by a module's tests."""
    served = Served(home, *LIMITS)
    try:
        assert served.state()["state"] == "live"
        yield served
    finally:
        served.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(Workspace(Path(tmp_path_factory.mktemp("empty")) / "workspace"), slot="tobe")
    try:
        assert served.state()["state"] == "empty"
        yield served
    finally:
        served.close()
