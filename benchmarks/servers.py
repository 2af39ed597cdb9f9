"""Servers as child processes for the benchmarks: started, stopped while others are measured, measured."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import psutil

from engine.store.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]


class Running:
    """A server process with all below it. `ready_s` is the time from its start to its first good answer."""

    def __init__(self, process: subprocess.Popen[Any], port: int, ready_s: float) -> None:
        self.process, self.port, self.ready_s = process, port, ready_s

    def family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def pause(self) -> None:
        """Stop it, so that its idling costs whoever is measured nothing."""
        for one in self.family():
            one.suspend()

    def go_on(self) -> None:
        for one in self.family():
            one.resume()

    def memory_bytes(self) -> int:
        """Resident memory of the whole family; pages that two of them share count twice."""
        return sum(one.memory_info().rss for one in self.family())

    def processor_s(self) -> float:
        """User and system time of the whole family so far."""
        times = [one.cpu_times() for one in self.family()]
        return sum(one.user + one.system for one in times)


class Foreign:
    """While it is entered: `own_s`, the processor time of those measured (with wrk, a child of ours), and
    `share`, that of all others as a share of all processors."""

    def __init__(self, processor_s: Callable[[], float]) -> None:
        self._processor_s = processor_s
        self.own_s = self.share = 0.0

    def __enter__(self) -> Foreign:
        self._begun = (self._processor_s(), _children_s(), _busy_s(), time.perf_counter())
        return self

    def __exit__(self, *_: object) -> None:
        own, children, busy, moment = self._begun
        self.own_s = self._processor_s() - own
        others = _busy_s() - busy - self.own_s - (_children_s() - children)
        self.share = max(0.0, others) / (time.perf_counter() - moment) / (os.cpu_count() or 1)


def _children_s() -> float:
    found = os.times()
    return found.user + found.system + found.children_user + found.children_system


def _busy_s() -> float:
    found = psutil.cpu_times()
    return float(found.user + found.system + found.nice + getattr(found, "irq", 0) + getattr(found, "softirq", 0))


@contextmanager
def running(port: int, path: str, *command: str) -> Iterator[Running]:
    """A server process, ready when `path` answers below 500 (404 and 405 count: it listens)."""
    words = tempfile.TemporaryFile()  # noqa: SIM115 - the child writes to it as long as it lives
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=PROJECT, stdout=words, stderr=words)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port, path):
            if process.poll() is not None or time.monotonic() > deadline:
                words.seek(0)
                raise SystemExit(f"{' '.join(command)} did not start: {words.read().decode()[-500:]}")
            time.sleep(0.02)
        found = Running(process, port, time.perf_counter() - begun)
        yield found
        found.go_on()
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
        for one in family:
            if one.is_running():
                one.kill()


def slot(workspace: Workspace, port: int, *settings: str) -> AbstractContextManager[Running]:
    """Our TO-BE server of `workspace` on `port`."""
    words = ("--workspace", str(workspace.root), "serve", "tobe", f"servers.tobe.port={port}", *settings)
    return running(port, "/health/ready", "engine", *words)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def machine() -> str:
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
