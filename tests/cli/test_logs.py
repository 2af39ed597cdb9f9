"""`logs` and `train --stop`, as a person calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.store.logfile import LogFile, log_path
from engine.store.workspace import Workspace
from engine.training.runs import RunFolder, list_runs
from tests.conftest import PATIENCE_S, PROJECT, Result, until

SMALL = ("data=digits", "model=litecnn", "training.batch_size=64")


def test_logs_show_the_newest_lines_of_a_named_log(engine: Callable[..., Result], workspace: Workspace) -> None:
    assert engine("logs", "--json").json == {
        "name": "asis", "path": str(log_path(workspace, "asis")), "lines": []
    }  # fmt: skip
    log = LogFile(log_path(workspace, "tobe"))
    log.write("".join(f"line {number}\n" for number in range(200)))
    assert engine("logs", "tobe", "--lines", "2").out == "line 198\nline 199\n"
    assert len(engine("logs", "tobe", "--json").json["lines"]) == 100


def test_an_unknown_log_is_wrong_usage(engine: Callable[..., Result]) -> None:
    done = engine("logs", "asis2", "--json")
    assert done.code == 2
    assert done.json["error"]["kind"] == "unknown_log"
    assert "did you mean 'asis'" in done.json["error"]["hint"]
    assert engine("logs", "7").code == 2


def test_sync_keeps_a_log(engine: Callable[..., Result], workspace: Workspace) -> None:
    engine("sync")
    engine("sync", "source.root=/not/there")
    lines = engine("logs", "sync", "--json").json["lines"]
    assert "nothing there to take" in lines[0]
    assert "error: " in lines[-1]


def test_follow_ends_with_its_reader(workspace: Workspace, config: Path) -> None:
    log = LogFile(log_path(workspace, "asis"))
    log.write("first\n")
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
    child = subprocess.Popen(
        [*command, "logs", "asis", "--follow", "--json"], stdout=subprocess.PIPE, cwd=PROJECT, text=True
    )
    assert child.stdout
    assert json.loads(child.stdout.readline()) == {"name": "asis", "line": "first"}
    log.write("second\n")
    assert json.loads(child.stdout.readline())["line"] == "second"
    child.stdout.close()
    assert child.wait(PATIENCE_S) == 0


def test_a_run_is_stopped_and_says_so_in_its_log(engine: Callable[..., Result], workspace: Workspace) -> None:
    done = engine("train", *SMALL, "training.epochs=500", "--detach", "--json")
    assert done.code == 0, done.err
    until(lambda: list_runs(workspace)[0].get("progress"), "a step")
    stopped = engine("train", "--stop", "latest", "--json")
    assert (stopped.code, stopped.json) == (0, {"run": "0001", "status": "interrupted"})
    assert engine("train", "--stop", "1").out == (
        "run 0001 is interrupted: nothing to stop; go on with: python -m engine train --resume 0001\n"
    )
    lines = engine("logs", "1", "--json").json["lines"]
    assert any("run 0001, cycle 1: litecnn" in line for line in lines)
    assert "error: run 0001 was interrupted" in lines[-1]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="sees by /proc what a process loads")
def test_a_run_that_is_stopped_before_it_began_is_interrupted_and_not_lost(
    engine: Callable[..., Result], workspace: Workspace
) -> None:
    engine("train", *SMALL, "training.epochs=500", "--detach")
    pid = RunFolder(workspace.runs / "0001").read_manifest()["pid"]
    until(lambda: "libtorch" in Path(f"/proc/{pid}/maps").read_text(), "torch, which it is loading")
    os.kill(pid, signal.SIGTERM)
    until(lambda: list_runs(workspace)[0]["status"] != "running", "its end")
    assert list_runs(workspace)[0]["status"] == "interrupted"


def test_stopping_what_is_not_there_is_wrong_usage(engine: Callable[..., Result]) -> None:
    assert engine("train", "--stop", "latest").code == 2
