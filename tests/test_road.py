"""The whole road through the command line, on a small real model: what an operator does on one day."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S, PROJECT, Result, until


@pytest.fixture
def served(workspace: Workspace, config: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts `serve all` on the test's workspace when called; stopped at the end."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        command = ["serve", "all", "--config", str(config), "--workspace", str(workspace.root), "--json"]
        child = subprocess.Popen(
            [sys.executable, "-m", "engine", *command],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.wait(PATIENCE_S)


@pytest.mark.long(41)
def test_the_whole_road(
    engine: Callable[..., Result], workspace: Workspace, served: Callable[[], subprocess.Popen[str]]
) -> None:
    empty = engine("status", "--json").json
    assert {slot["state"] for slot in empty["slots"].values()} <= {"empty", "down"}
    assert empty["gate"]["open"] is False
    nothing = engine("sync", "--json")
    assert (nothing.code, nothing.json["changed"], nothing.json["candidate"]) == (0, False, None)

    first = engine("train", "training.epochs=1", "training.cycle=1", "--json")
    assert first.code == 0, first.err
    assert first.json["status"] == "completed"
    assert Path(first.json["checkpoint"]).name == "best_model_cycle1.pth"
    dry = engine("sync", "--dry-run", "--json").json
    assert dry["changed"] is True
    assert dry["deployed"] is False
    synced = engine("sync", "--json")
    assert synced.code == 0, synced.err
    assert synced.json["deployed"] is True
    assert synced.json["candidate"]["cycle"] == 1
    release_1 = synced.json["release"]
    again = engine("sync", "--json").json
    assert (again["changed"], again["deployed"]) == (False, False)

    refused = engine("promote", "--json")
    assert refused.code == 3
    assert refused.json["promoted"] is False
    assert refused.json["reason"]
    assert engine("promote", "--force").code == 2
    forced = engine("promote", "--force", "--reason", "first one", "--json")
    assert forced.code == 0, forced.err
    assert (forced.json["promoted"], forced.json["backup"], forced.json["to"]) == (True, None, release_1)

    server = served()
    until(
        lambda: all(slot["state"] == "live" for slot in engine("status", "--json").json["slots"].values()),
        "both slots live",
    )
    second = engine(
        "train", "training.epochs=6", "data.img_size=16", "training.cycle=2", "training.seed=1", "--json"
    )
    assert second.code == 0, second.err
    synced = engine("sync", "--json").json
    release_2 = synced["release"]
    assert synced["deployed"], synced
    assert release_2 not in (None, release_1)
    status = engine("status", "--json").json
    assert status["slots"]["tobe"]["release"] == release_2
    assert status["slots"]["tobe"]["state"] == "live"
    assert status["slots"]["asis"]["release"] == release_1

    closed = engine("promote", "--json")
    assert closed.code == 3, "nothing was compared yet"
    compared = engine("ab", "--images", "300", "--json")
    assert compared.code == 0, compared.err
    result = compared.json
    assert result["n"] == 300
    cells = ("both_right", "asis_only", "tobe_only", "both_wrong")
    assert sum(result[cell] for cell in cells) == 300
    assert result["tobe"]["correct"] == result["both_right"] + result["tobe_only"]
    assert result["verdict"] == "tobe", result

    gate = engine("status", "--json").json["gate"]
    assert gate["open"] is True, gate
    dry = engine("promote", "--dry-run", "--json").json
    assert dry["promoted"] is False
    assert engine("status", "--json").json["slots"]["asis"]["release"] == release_1
    promoted = engine("promote", "--json")
    assert promoted.code == 0, promoted.err
    assert (promoted.json["from"], promoted.json["to"]) == (release_1, release_2)
    assert promoted.json["forced"] is False
    backup = promoted.json["backup"]
    port = status["slots"]["asis"]["port"]
    assert backup.startswith(f"model_{port}_backup_")
    assert (workspace.backups / backup).is_file()
    model = httpx.get(f"http://127.0.0.1:{port}/model", timeout=PATIENCE_S).json()
    assert (model["release"], model["slot"]) == (release_2, "asis")

    listed = engine("rollback", "--json").json["backups"]
    assert [entry["name"] for entry in listed] == [backup]
    assert listed[0]["verified"] is True
    rolled = engine("rollback", backup, "--json")
    assert rolled.code == 0, rolled.err
    assert rolled.json["restored"] == release_1
    assert rolled.json["backup"] == backup
    assert rolled.json["backup_made"] != backup
    assert httpx.get(f"http://127.0.0.1:{port}/model", timeout=PATIENCE_S).json()["release"] == release_1
    assert engine("promote", "--json").code == 3, "after a rollback the gate is closed to what was taken down"

    kinds = [event["kind"] for event in engine("events", "--verify", "--json").json["events"]]
    for kind in ("trained", "synced", "deployed", "started", "compared", "promoted", "rolled_back"):
        assert kind in kinds
    assert kinds.count("promoted") == 2

    server.send_signal(signal.SIGTERM)
    server.wait(PATIENCE_S)
    down = engine("status", "--json").json["slots"]
    assert {slot["state"] for slot in down.values()} == {"down"}


@pytest.mark.long(48)
def test_demo_drives_every_stage_and_leaves_nothing_running(
    engine: Callable[..., Result], workspace: Workspace
) -> None:
    result = engine("demo", "--json", "training.epochs=6", "data.img_size=16")
    assert result.code == 0, result.err
    stages = result.json["stages"]
    assert [stage["name"] for stage in stages] == [
        "train_1",
        "sync_1",
        "serve",
        "promote_1",
        "train_2",
        "sync_2",
        "compare",
        "promote_2",
        "rollback",
    ]
    assert all(stage["ok"] for stage in stages)
    assert _processes_that_mention(workspace.root) == []
    status = engine("status", "--json").json
    assert status["backups"]
    other = engine("demo", "--json", "--workspace", str(PROJECT / "docs"))
    assert other.code == 2, "a folder that is not a demo's is never emptied"


def _processes_that_mention(root: Path) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(root) in command and int(folder.name) != os.getpid():
            found.append(json.dumps(command))
    return found
