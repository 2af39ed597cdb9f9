"""A real training on one's own server, killed in the middle, ends in the bytes of the same training at home."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks._rented import Rented, missing
from benchmarks.resume import WORDS
from engine.cloud.provider import Job
from engine.cloud.ssh import SshProvider
from engine.config import load_settings
from engine.store.workspace import Workspace
from tests.conftest import until

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))
PROJECT = Path(__file__).resolve().parents[2]
# a net of a few thousand weights with all that has a state
SAVED = ("training.epochs=5", "training.save_every_steps=2", "training.num_workers=0")


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here and there: a net this small gains nothing by two, and they wait for each other beside other work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)


@pytest.mark.long(12)
def test_killed_there_and_the_same_bytes(tmp_path: Path, workspace: Workspace, one_thread: None) -> None:
    from engine.training.runs import claim_run
    from engine.training.train import train

    words = [*WORDS, *SAVED]
    run = claim_run(workspace)
    train(workspace, load_settings(None, workspace.root, words).settings, run)
    wanted = run.read_manifest()
    with Rented(tmp_path / "host") as host:
        server = host.settings(
            python=sys.executable, files=["engine/**/*", "benchmarks/*.py", "config.toml"], grace_s=20
        )
        provider, there = SshProvider(server), host.home / "understudy" / "workspace"
        for made in (workspace.cache, workspace.data):  # what both would make takes seconds
            if made.is_dir():
                shutil.copytree(made, there / made.name)
        machine = provider.launch(Job("exact", ("train", *words), PROJECT))
        until(lambda: (there / "runs" / "0001" / "previous.pth").exists())
        os.kill(json.loads((there / "runs" / "0001" / "manifest.json").read_text())["pid"], signal.SIGKILL)
        log = "\n".join(provider.logs(machine, follow=True))
        provider.bring_home(machine, tmp_path / "home")
        found = json.loads((tmp_path / "home" / "0001" / "manifest.json").read_text())
        assert "killed by signal 9" in log
        assert (found["status"], found["threads"]) == ("completed", wanted["threads"])
        assert found["state_sha256"] == wanted["state_sha256"]
        assert not host.training()
