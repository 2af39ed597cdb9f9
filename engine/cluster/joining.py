"""Joining a Ray cluster, or starting one on this machine for as long as a command lasts.

One that is started here listens on the loopback address alone, with a token that nobody else knows, without
dashboard; usage statistics are off either way. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import Failed, UsageError

AUTO = "auto"
_FOUND = Path("/tmp/ray/ray_current_cluster")  # where `ray start` notes its address, and a killed one leaves it
_ANSWERS_S = 2.0
_STORE_BYTES = 512 * 1024**2  # of a cluster that is started here: a few blocks of requests at a time lie in it
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
_TOKEN = secrets.token_hex(32)  # of this process: Ray reads it once
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}  # the first: loopback


@dataclass(frozen=True)
class Share:
    """What one task gets: cores, GPUs. Ray starts it where both are free."""

    cpus: int
    gpus: int = 0

    def options(self) -> dict[str, Any]:
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


@dataclass(frozen=True)
class Cluster:
    """A cluster that has been joined.

    Attributes:
        ray: the module.
        nodes: of each living node its cores and GPUs.
    """

    ray: Any
    nodes: tuple[Share, ...]

    @property
    def cpus(self) -> int:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)

    @property
    def shown(self) -> str:
        machines = "one node" if len(self.nodes) == 1 else f"{len(self.nodes)} nodes"
        return f"{machines}, {self.cpus} cores" + (f", {self.gpus} GPUs" if self.gpus else "")

    def share(self, cpus: int | None, *, gpu: bool, at_once: int | None = None) -> tuple[Share, int]:
        """What one of several equal tasks gets, and how many go on at a time.

        Args:
            cpus: `cluster.cpus`; None: a GPU's share of its node's cores, without GPUs those of a whole node.
            gpu: whether a task can use a GPU.
            at_once: so many; None: one a GPU, else as many as there are such shares.

        Raises:
            UsageError: no node has so many cores.
        """
        able = [node for node in self.nodes if node.gpus] if gpu and self.gpus else list(self.nodes)
        gpus = 1 if gpu and self.gpus else 0
        most = max(node.cpus for node in able)
        if cpus and cpus > most:
            raise UsageError(f"cluster.cpus={cpus}, but no node has more than {most} cores", "lower it")
        if not cpus and gpus:
            cpus = max(1, min(node.cpus // node.gpus for node in able))
        elif not cpus:
            whole = min(node.cpus for node in able)
            cpus = max(1, min(whole, self.cpus // at_once)) if at_once else whole
        fitting = sum(min(node.cpus // cpus, node.gpus if gpus else node.cpus) for node in able)
        return Share(cpus, gpus), at_once or max(1, fitting)

    def task(
        self, function: Callable[..., Any], share: Share, retries: int, again: tuple[type[Exception], ...] = ()
    ) -> Any:
        """A function of this package as a Ray task: `task.remote(...)`, done again where its worker is lost.

        Args:
            again: errors of the function after which it is done again too.
        """
        options = share.options() | {"max_retries": retries, "retry_exceptions": list(again) or False}
        return self.ray.remote(**options)(function)


@contextlib.contextmanager
def join(address: str, say: Callable[[str], None]) -> Iterator[Cluster]:
    """Be part of the cluster at `address` for the block; "auto": of this host's, else of one that is started here.

    Raises:
        UsageError: Ray is not installed.
        Failed: there is no cluster, or it does not let us in.
    """
    here = address == AUTO and not (os.environ.get("RAY_ADDRESS") or _stands())
    variables = _QUIET | (_ALONE | {"RAY_AUTH_TOKEN": _TOKEN} if here else {})
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(variables))
        ray = _import()
        options: dict[str, Any] = {"address": address}
        if here:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="understudy-ray-", dir="/tmp",
                                                                     ignore_cleanup_errors=True))  # fmt: skip
            options = {
                "address": "local",
                "num_cpus": _cores(),
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
            }
            options |= {"_temp_dir": folder}  # its sockets want a short path
        try:
            with _signals_kept():
                ray.init(**options, log_to_driver=False, logging_level="ERROR", namespace="understudy")
        except (ConnectionError, RuntimeError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise Failed(
                f"no Ray cluster at {address} ({reason})",
                "start one with: ray start --head, or set cluster.address=auto",
                kind="no_cluster",
            ) from None
        # Ray prints what befalls its workers on standard output, where with --json one object belongs; no setting
        # stops that, and each run's log says what became of it
        ray._private.worker._worker_logs_enabled = False
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            shares = (Share(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes)
            cluster = Cluster(ray, tuple(share for share in shares if share.cpus))
            if not cluster.nodes:
                raise Failed(f"the Ray cluster at {address} has no cores", "add a node with some")
            say(f"Ray {ray.__version__}, {'started here' if here else 'joined'}: {cluster.shown}")
            yield cluster
        finally:
            with _signals_kept():
                ray.shutdown()


def _import() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"cluster.address is set, and Ray cannot be imported ({error})",
            "install it with: pip install 'understudy[cluster]'",
            kind="not_installed",
        ) from None
    return ray


def _stands() -> bool:
    """Whether the cluster that was last begun on this host answers."""
    try:
        host, port = _FOUND.read_text().strip().rsplit(":", 1)
        socket.create_connection((host, int(port)), _ANSWERS_S).close()
    except (OSError, ValueError):
        return False
    return True


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """The variables for the block, where the person has not set them."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; a stop that was asked for goes our own way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
