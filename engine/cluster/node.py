"""What runs on a node: an engine command as a child of the Ray worker, tied to it by a pipe.

The worker may be killed at any moment: the pipe ends with it, and the child stops by itself between two steps, with
all that it has done saved. Nothing here imports Ray or torch.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from engine.store.locks import holder
from engine.training.runs import RunFolder

_POLL_S = 0.05
_ORPHAN_S = 300.0  # what a child whose worker was lost may take for its last step and the save


class Unseen(Exception):
    """A node does not see the workspace."""


class Killed(Exception):
    """A child that was ended by a signal, or by the loss of another: it can go on where it stood."""


def begin(
    root: str, words: Sequence[str], env: Mapping[str, str], *, first: bool = True
) -> subprocess.Popen[bytes]:
    """Start `engine WORDS` for the run in `root`, once no other process is at it; its words go to the run's log.

    Args:
        first: of several processes of a run one holds it for all.

    Raises:
        Unseen: the run's folder is not there.
        Killed: another process still holds the run.
    """
    child = RunFolder(Path(root))
    if not child.root.is_dir():
        raise Unseen(
            f"node {socket.gethostname()} does not see {root}: the workspace must lie where all nodes see it"
        )
    deadline = time.monotonic() + _ORPHAN_S
    while first and (who := holder(child.lock)) is not None:
        if time.monotonic() > deadline:
            raise Killed(f"run {child.run} is still held by pid {who.get('pid')}")
        time.sleep(_POLL_S)
    places = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with child.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "engine", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={**os.environ, **env, "PYTHONPATH": os.pathsep.join(places)},
            start_new_session=True,
        )


def attend(process: subprocess.Popen[bytes], asked: Callable[[], bool] = lambda: False) -> int:
    """Wait for the child's end; its exit code.

    Args:
        asked: whether it is to stop between two steps; so is a cancelled task, which Ray tells by KeyboardInterrupt.

    Raises:
        Killed: it was ended by a signal.
    """
    told = False
    try:
        while process.poll() is None:
            try:
                time.sleep(_POLL_S)
                stop = asked() and not told
            except KeyboardInterrupt:
                stop = True
            if stop:
                process.send_signal(signal.SIGINT if told else signal.SIGTERM)
                told = True
    finally:
        if process.stdin:
            process.stdin.close()
    if process.returncode < 0:
        raise Killed(f"its process was ended by signal {-process.returncode}")
    return process.returncode


def train(root: str, words: Sequence[str], env: Mapping[str, str]) -> int:
    """One run of a sweep, from its beginning or from where it stood; the child's exit code.

    Raises:
        Unseen, Killed: as `begin` and `attend`.
    """
    return attend(begin(root, words, env))
