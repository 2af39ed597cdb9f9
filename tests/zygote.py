"""A warm engine that forks: each command is a process of its own, but its imports were paid for once.

`python -m engine VERB` spends a fifth of a second on imports before its first line, and the suite runs it hundreds
of times. The mother imports what the quick verbs import (no torch, no threads), then forks for each command; the child
gets its own arguments, environment, folder and output files, and ends with the engine's exit code. What the start
itself costs and imports is held by `test_import_hygiene.py` and by the tests that start the engine by hand.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

_QUICK = (
    "ab",
    "checkpoints",
    "cron",
    "events",
    "label",
    "logs",
    "notify",
    "release",
    "status",
    "sync",
    "workspace",
)


class Mother:
    """The mother process as a worker of pytest sees it."""

    def __init__(self, project: Path) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], cwd=project, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self._socket = ours
        self._answers = ours.makefile("r")

    def run(self, words: list[str], folder: Path, env: dict[str, str], cwd: Path, timeout: float) -> int:
        """The exit code of one command; what it says goes to `folder/out` and `folder/err`.

        Raises:
            TimeoutError: it took longer.
        """
        order = {"words": [str(word) for word in words], "folder": str(folder), "env": env, "cwd": str(cwd)}
        self._socket.settimeout(timeout)
        self._socket.sendall(json.dumps(order).encode() + b"\n")
        return int(self._answers.readline())

    def close(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait(20)


def main() -> None:
    """Fork for each order until the socket ends."""
    from engine.cli.main import VERBS

    for name in _QUICK:
        importlib.import_module(f"engine.cli.{VERBS[name][0] if name in VERBS else name}")
    assert "torch" not in sys.modules
    gc.freeze()
    channel = socket.socket(fileno=int(sys.argv[1]))
    with channel, channel.makefile("r") as orders:
        for line in orders:
            child = os.fork()
            if child == 0:
                channel.close()
                _become(json.loads(line))
            _, status = os.waitpid(child, 0)
            channel.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _become(order: dict[str, Any]) -> None:
    """Be `python -m engine WORDS...`; never returns."""
    code = 70
    try:
        for number, name in ((1, "out"), (2, "err")):
            handle = os.open(f"{order['folder']}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        os.environ.clear()
        os.environ.update(order["env"])
        os.chdir(order["cwd"])
        sys.argv = ["engine", *order["words"]]
        from engine.__main__ import main as engine

        code = engine()
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
