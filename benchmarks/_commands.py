"""Engine commands as forks of a process that has imported them: real processes without half a second of imports.

`Commands.run("promote", ..., kill_after_s=0.03)` forks one, which runs the command line's own `main` and
exits with its code, and sends it SIGKILL at that moment if it still runs. With `watch` the moment counts from
the replacement of that file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
MODULES = ("engine.cli.main", "engine.cli.release", "engine.cli.sync")
_TICK_S = 0.0005


@dataclass(frozen=True)
class Ran:
    """One command: its exit code (negative: the signal that ended it), its words and how long it ran.

    `tail_s`: how long it ran on after the watched file was replaced, 0 where it was not.
    """

    code: int
    out: str
    err: str
    seconds: float
    tail_s: float

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.out.splitlines()[-1]))


class Commands:
    """Runs engine commands; `common` are the words before each verb, `modules` what is imported beforehand."""

    def __init__(self, *common: str, modules: Sequence[str] = MODULES) -> None:
        self._common = common
        self._server = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._commands", *modules],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, kill_after_s: float | None = None, watch: Path | None = None) -> Ran:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([[*self._common, *words], kill_after_s, watch and str(watch)]) + "\n")
        self._server.stdin.flush()
        return Ran(**json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._server.communicate(timeout=30)


def _run(words: Sequence[str], kill_after_s: float | None, watch: str | None) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        file, changed = _inode(watch), 0.0
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become_command(words, out.fileno(), err.fileno())
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if not changed and _inode(watch) != file:
                changed = time.monotonic()
            since = began if watch is None else changed
            if kill_after_s is not None and since and time.monotonic() >= since + kill_after_s:
                os.kill(pid, signal.SIGKILL)
                kill_after_s = None
            time.sleep(_TICK_S)
        seconds = time.monotonic() - began
        tail_s = time.monotonic() - changed if changed else 0.0
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    code = os.waitstatus_to_exitcode(ended[1])
    return {"code": code, "out": texts[0], "err": texts[1], "seconds": seconds, "tail_s": tail_s}


def _inode(path: str | None) -> int:
    """Which file has that name now; an atomic write gives it to another."""
    return os.stat(path).st_ino if path else 0  # noqa: PTH116 - thousands of times a second


def _become_command(words: Sequence[str], out: int, err: int) -> None:
    from engine.cli.main import main

    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        code = main(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_run(*json.loads(line))) + "\n")
        sys.stdout.flush()
