"""Torch comes late: the quick verbs, run as they are run, import neither it nor its kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S, PROJECT
from tests.release.bundles import make_release, put

HEAVY = {"torch", "numpy", "sklearn", "scipy", "onnx", "onnxruntime", "matplotlib", "PIL", "pandas"}
NETWORK = {"httpx", "asyncssh", "starlette", "uvicorn"}


@pytest.fixture
def lived_in(workspace: Workspace) -> Workspace:
    """A workspace with both slots filled and a backup, so that the verbs have something to read."""
    for cycle in (1, 2):
        put(workspace, "asis", make_release(workspace, f"cycle {cycle}", cycle=cycle))
    put(workspace, "tobe", make_release(workspace, "cycle 3", cycle=3))
    return workspace


def imported(workspace: Workspace, config: Path, *words: str, lines: int = 0) -> tuple[int, set[str]]:
    """The exit code of an engine command, and the top-level packages that it imported.

    Args:
        lines: it is ended when it has said so many.
    """
    command = [sys.executable, "-X", "importtime", "-m", "engine", "--config", str(config)]
    with config.with_name("imports").open("w+") as said:
        child = subprocess.Popen(
            [*command, "--workspace", str(workspace.root), *words],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert child.stdout is not None
        if lines:
            for _ in range(lines):
                child.stdout.readline()
            child.terminate()
        child.communicate(timeout=PATIENCE_S)
        said.seek(0)
        names = [line.rpartition("|")[2].strip() for line in said if line.startswith("import time:")]
    return child.returncode, {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    ("words", "code", "forbidden"),
    [
        ("status", 0, HEAVY | NETWORK),
        ("events", 0, HEAVY | NETWORK),
        ("runs", 0, HEAVY | NETWORK),
        ("checkpoints", 0, HEAVY | NETWORK),
        ("config show", 0, HEAVY | NETWORK),
        ("sync --dry-run", 0, HEAVY | NETWORK),
        ("sync", 0, HEAVY | NETWORK),
        ("devices", 0, HEAVY | NETWORK),
        ("rollback", 0, HEAVY | NETWORK),
        ("promote --dry-run", 3, HEAVY | NETWORK),
        ("promote --force --reason test", 0, HEAVY),
        ("notify hello", 0, HEAVY | NETWORK),
        ("hold", 0, HEAVY | NETWORK),
        ("cloud plan --samples-per-s 100", 0, HEAVY | NETWORK | {"sky", "ray"}),
        ("doctor", 0, HEAVY | {"httpx", "starlette", "uvicorn"}),
    ],
)
def test_a_quick_verb_imports_nothing_heavy(
    lived_in: Workspace, config: Path, words: str, code: int, forbidden: set[str]
) -> None:
    done, names = imported(lived_in, config, *words.split())
    assert done == code
    assert "engine" in names
    assert names & forbidden == set()


def test_watch_imports_nothing_heavy(lived_in: Workspace, config: Path) -> None:
    done, names = imported(lived_in, config, "watch", "--interval", "0.2", lines=12)  # each kind at least once
    assert done == 0
    assert "engine" in names
    assert names & (HEAVY | NETWORK) == set()
