"""Several processes for one run on this machine: one a GPU, started here as torchrun would, without its noise.

Over several machines torchrun itself is the way: `torchrun --nnodes ... -m engine train ...` on each.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.config import Settings
from engine.training.signals import StopRequest

STORE = "UNDERSTUDY_RENDEZVOUS"
_TICK_S = 0.1
_GRACE_S = 60.0  # for the others to end by themselves when one has; a step and a save fit in it


def rank() -> int:
    """This process's number in its run, 0 where it is alone."""
    return int(os.environ.get("RANK", "0")) if launched() else 0


def launched() -> bool:
    """Whether this process is one of several of a run, started by torchrun or by `launch`."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def started_here() -> bool:
    """Whether `launch` has started this process: then the one that did tells the result."""
    return STORE in os.environ


def process_count(settings: Settings) -> int:
    """How many processes of this machine a run takes: `training.processes`, or one a CUDA device."""
    if wanted := settings.training.processes:
        return wanted
    if settings.device.prefer not in ("auto", "cuda"):
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def launch(command: Sequence[str], processes: int, stop: StopRequest, say: Callable[[str], None]) -> int:
    """Run `command` in so many processes until all have ended.

    Args:
        command: an engine command; its standard output goes to our standard error.
        stop: passed on to them, once.

    Returns:
        The exit code of the first process, or of another one that failed before it.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // processes))
    with tempfile.TemporaryDirectory(prefix="understudy-") as folder:
        common = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "OMP_NUM_THREADS": threads}
        common |= {STORE: (Path(folder) / "rendezvous").as_uri()}
        children = [
            subprocess.Popen(
                command,
                env=os.environ | common | {"RANK": str(number), "LOCAL_RANK": str(number)},
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                start_new_session=True,  # Ctrl-C comes through `stop`, to all of them alike
            )
            for number in range(processes)
        ]
        try:
            return _watch(children, stop, say)
        finally:
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()


def _watch(children: list[subprocess.Popen[bytes]], stop: StopRequest, say: Callable[[str], None]) -> int:
    told, deadline = False, None
    first_bad: int | None = None
    while any(child.poll() is None for child in children):
        if stop and not told:
            for child in children:
                child.send_signal(signal.SIGTERM)
            told = True
        bad = [number for number, child in enumerate(children) if child.poll()]
        if bad and deadline is None:
            deadline = time.monotonic() + _GRACE_S
            first_bad = children[bad[0]].returncode
        if deadline and time.monotonic() > deadline:
            say(f"process {bad[0]} has ended with code {first_bad}: ending the others")
            break
        time.sleep(_TICK_S)
    return first_bad or children[0].returncode or 0
