"""Fixtures shared by all tests: a fresh workspace, the engine as a child process, free ports."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.store.workspace import Workspace
from tests.zygote import Mother

PROJECT = Path(__file__).resolve().parents[1]
SECRETS = (
    "DISCORD_WEBHOOK_URL", "TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "UNDERSTUDY_ADMIN_TOKEN", "WEBHOOK_URL",
    "WEBHOOK_SECRET",
)  # fmt: skip

PATIENCE_S = 90.0  # for what comes at once on an idle machine: a test waits for states, never for times
_PORTS, _PORTS_EACH, _WORKERS = 20_000, 1000, 12  # below those that Linux gives to whoever asks for any
_numbers = itertools.count(os.getpid())

VARIABLES = ("UNDERSTUDY_CONFIG", "UNDERSTUDY_WORKSPACE", "UNDERSTUDY_ENVIRONMENT", "UNDERSTUDY_LOG_FORMAT")


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
    """A port that nobody has now, and that no other worker of this run is given before it is taken."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    for number in itertools.islice(_numbers, _PORTS_EACH):
        port = _PORTS + worker * _PORTS_EACH + number % _PORTS_EACH
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def until(true: Callable[[], Any], what: str = "it", seconds: float = PATIENCE_S) -> Any:
    """What `true` gives once that is something."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.01)
    return found


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One more than the cores: a test that waits for a child leaves its core to another."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked `long` first, in equal shares for the workers, so that none is left alone with it at the end.

    `--dist worksteal` gives each worker an equal part of the items, one behind the other, before any steals.
    """
    workers = int(getattr(config, "workerinput", {}).get("workercount", 1))
    marked = [(mark.args[0], item) for item in items if (mark := item.get_closest_marker("long"))]
    shares: list[tuple[float, list[pytest.Item]]] = [(0.0, []) for _ in range(workers)]
    for seconds, item in sorted(marked, key=lambda one: -one[0]):
        least = min(range(workers), key=lambda number: shares[number][0])
        shares[least] = (shares[least][0] + seconds, [*shares[least][1], item])
    taken = {id(item) for _, item in marked}
    others = [item for item in items if id(item) not in taken]
    count, items[:] = len(items), []
    for number, (_, share) in enumerate(shares):
        size = (count - len(items)) // (workers - number) - len(share)
        items += share + others[: max(0, size)]
        del others[: max(0, size)]
    items += others


def shared_folder(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], None]) -> Path:
    """A folder that is made once for all workers of this run: what fills it takes seconds."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = folder.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            fill(making)
            making.rename(folder)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace in a folder of the test's own."""
    return Workspace(tmp_path / "workspace")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRETS, *VARIABLES, "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A partial config file with free ports, for the engine commands of one test."""
    path = tmp_path / "config.toml"
    path.write_text(
        f"[servers.asis]\nport = {free_port()}\n[servers.tobe]\nport = {free_port()}\n[source]\nsettle_s = 0.05\n"
    )
    return path


@pytest.fixture(scope="session")
def mother() -> Iterator[Mother]:
    """The warm engine of this worker."""
    started = Mother(PROJECT)
    yield started
    started.close()


@pytest.fixture
def engine(workspace: Workspace, config: Path, mother: Mother) -> Callable[..., Result]:
    """Runs an engine command in a process of its own, on the test's workspace and config:
    `engine("status", "--json")`."""

    def run(*words: str, env: dict[str, str] | None = None, timeout: float = 240) -> Result:
        command = ["--config", str(config), "--workspace", str(workspace.root), *words]
        with tempfile.TemporaryDirectory() as name:
            said = Path(name)
            code = mother.run(command, said, {**os.environ, **(env or {})}, PROJECT, timeout)
            return Result(code, (said / "out").read_text(), (said / "err").read_text())

    return run
