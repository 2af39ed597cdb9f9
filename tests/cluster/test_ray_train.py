"""One training in two processes that Ray Train places, one of which is killed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from engine.store.workspace import Workspace
from engine.training.runs import RunFolder, describe_run
from tests.conftest import until

DEADLINE_S = 180


@pytest.mark.long(64)
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ray", "pandas", "pyarrow")),
    reason="the extra cluster is not installed",
)
def test_a_training_whose_worker_is_killed_goes_on_exactly_there(workspace: Workspace) -> None:
    words = ["cluster.address=auto", "training.processes=2", "training.epochs=3", "data.val_fraction=0.8",
             "data.img_size=8", "device.prefer=cpu", "training.save_every_steps=2"]  # fmt: skip
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace.root), "train", *words, "--json"]
    folder = RunFolder(workspace.runs / "0001")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ours:
        deadline = time.monotonic() + DEADLINE_S
        while not (folder.last.exists() and describe_run(folder).get("progress")):
            assert ours.poll() is None, ours.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(until(lambda: _second(ours.pid), "the process of rank 1"), signal.SIGKILL)
        output, said = ours.communicate(timeout=DEADLINE_S)
    assert ours.returncode == 0, said
    result = json.loads(output)
    assert (result["status"], result["epochs"]) == ("completed", 3)
    assert "resumed at" in folder.log.read_text()


def _second(pid: int) -> int:
    """The process of rank 1 below Ray's workers; 0 where none is seen."""
    for one in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # another may have ended meanwhile
            if "train" in one.cmdline() and one.environ().get("RANK") == "1":
                return one.pid
    return 0
