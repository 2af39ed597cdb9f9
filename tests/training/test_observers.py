"""Whoever looks on at a run: trackers that hang, crash or are slow never touch it; people hear of it once."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.config import load_settings
from engine.notify.alerts import clear_alert
from engine.store.clock import timestamp
from engine.store.events import read_events
from engine.store.files import write_json
from engine.store.workspace import Workspace
from engine.training import alerts
from engine.training.alerts import RunAlerts, check_runs
from engine.training.observers import Observers, observers
from engine.training.runs import FIELDS, RunFolder, claim_run, process_identity
from engine.training.trackers import choose
from engine.training.trackers.feed import Feed
from tests.conftest import PATIENCE_S

GONE = 2**22 + 1


def feed(tmp_path: Path, code: str, said: list[str], **more: Any) -> Feed:
    options = {"env": dict(os.environ), "log": tmp_path / "trackers.log", "waiting": 20, "timeout_s": PATIENCE_S}
    return Feed("fake", [sys.executable, "-c", code], said.append, **(options | more))


def test_a_tracker_that_hangs_costs_the_run_its_deadline_alone(tmp_path: Path) -> None:
    said: list[str] = []
    hanging = feed(tmp_path, "import time; time.sleep(600)", said, timeout_s=0.3)
    row = {"text": "x" * 5000}
    slowest = 0.0
    for number in range(200):
        began = time.monotonic()
        hanging.step({**row, "step": number})
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < 60  # of the 600 that it sleeps: the queue took it, the pipe did not
    assert hanging.dropped > 100
    hanging.ended({})
    hanging.settle()
    assert any("did not end within 0.3 s" in line for line in said)
    assert any("too slow for" in line for line in said)
    with pytest.raises(ProcessLookupError):
        os.kill(hanging.pid, 0)


def test_a_tracker_that_crashes_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    crashing = feed(tmp_path, "print('no such project', flush=True); import os; os._exit(3)", said)
    for number in range(50):
        crashing.step({"step": number, "text": "x" * 5000})
    crashing.ended({})
    crashing.settle()
    assert [line for line in said if "failed" in line] == [
        "note: tracker fake failed (no such project); the run goes on without it"
    ]


def test_a_tracker_gets_everything_in_order_and_its_log_keeps_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    said: list[str] = []
    code = (
        "import sys,os,json\nfor line in sys.stdin: print(json.loads(line)['what'], os.environ['WANDB_API_KEY'])"
    )
    reading = feed(tmp_path, code, said, env=choose.child_environment())
    for what in ("started", "epoch", "step", "ended", "settle"):
        getattr(reading, what)(*([] if what == "settle" else [{"n": 1}]))
    reading._reader.join(PATIENCE_S)
    lines = [line.split()[2:] for line in (tmp_path / "trackers.log").read_text().splitlines()]
    assert lines == [[what, "****"] for what in ("started", "epoch", "step", "ended")]
    assert said == []


def test_an_observer_that_raises_is_left_out(tmp_path: Path) -> None:
    said: list[str] = []

    class Broken(SimpleNamespace):
        def started(self, manifest: dict[str, Any]) -> None:
            raise RuntimeError("boom")

    both = Observers([("broken", Broken())], said.append)
    both.started({})
    both.epoch({})
    both.ended({})
    assert said == ["note: broken failed (RuntimeError: boom); the run goes on without it"]


def test_a_tracker_that_is_not_installed_or_switched_off(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda name: None if name == "mlflow" else object())
    settings = load_settings(None, workspace.root, ["training.trackers=mlflow,wandb"]).settings
    said: list[str] = []
    assert list(choose.trackers(workspace, settings, claim_run(workspace), said.append)) == []
    assert said == ["note: tracker mlflow is not installed (pip install 'understudy[trackers]'); the run goes on"]


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from engine.training.trackers.tensorboard import TensorBoard

    board = TensorBoard({"folder": str(tmp_path)})
    board.started({"run": "0001", "settings": {"training": {"seed": 3, "nesterov": True}}})
    board.step({"epoch": 2, "step": 3, "steps": 8, "loss": 0.4, "samples_per_s": None, "memory_bytes": 5})
    board.epoch({"epoch": 2, "loss": 0.5, "accuracy": 0.75, "at": "now"})
    board.ended({})
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(point.step, point.value) for point in read.Scalars("epoch/accuracy")] == [(2, 0.75)]
    assert read.Scalars("train/loss")[0].step == 11
    assert "_hparams_/session_start_info" in read.Tags()["tensors"]


def test_weights_and_biases_goes_on_with_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    run = SimpleNamespace(
        define_metric=lambda *a, **k: None,
        log=lambda row: calls.append(("log", row)),
        summary=SimpleNamespace(update=lambda row: calls.append(("summary", row))),
        finish=lambda exit_code: calls.append(("finish", exit_code)),
    )

    def init(**words: Any) -> Any:
        calls.append(("init", words))
        return run

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **k: k))
    monkeypatch.delitem(sys.modules, "engine.training.trackers.wandb", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    from engine.training.trackers.wandb import WandB

    what = {"folder": str(tmp_path), "project": "p", "wandb_entity": None, "run": "0001"}
    for _ in range(2):
        tracker = WandB(what)
        tracker.started({"model": "litecnn", "settings": {}})
        tracker.epoch({"epoch": 1, "loss": 0.5})
        tracker.ended({"status": "completed", "best": {"accuracy": 0.9}})
    first, second = (words for name, words in calls if name == "init")
    assert first["id"] == second["id"]
    assert (first["mode"], first["resume"]) == ("offline", "allow")
    assert ("log", {"epoch/loss": 0.5, "epoch": 1}) in calls
    assert ("finish", 0) in calls
    monkeypatch.delitem(sys.modules, "engine.training.trackers.wandb")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages that went out."""
    texts: list[str] = []
    for module in (alerts, sys.modules[clear_alert.__module__]):
        monkeypatch.setattr(module, "notify", lambda workspace, settings, kind, text: texts.append(text))
    return texts


def running(workspace: Workspace, **facts: Any) -> RunFolder:
    folder = claim_run(workspace)
    known = {**FIELDS, "run": folder.run, "settings": {"training": {"batch_size": 10}}, **process_identity()}
    folder.write_manifest(known | facts)
    return folder


def test_a_run_that_died_is_told_of_once_and_again_when_it_goes_on(workspace: Workspace, sent: list[str]) -> None:
    settings = load_settings(None, workspace.root).settings
    folder = running(workspace, pid=GONE)
    for _ in range(3):
        assert check_runs(workspace, settings) == [f"run 0001: its process (pid {GONE}) ended without a word"]
    assert len(sent) == 1
    assert "train --resume 0001" in sent[0]
    folder.write_manifest(folder.read_manifest() | process_identity())
    assert check_runs(workspace, settings) == []
    assert sent[1].startswith("Alert: run 0001 goes on")
    assert [event["subject"] for event in read_events(workspace) if event["kind"] == "alert"] == ["run 0001"] * 2


def test_a_run_that_stands_still_is_told_of(workspace: Workspace, sent: list[str]) -> None:
    settings = load_settings(None, workspace.root, ["training.stalled_minutes=5"]).settings
    folder = running(workspace)
    progress = {"phase": "train", "steps": 100, "samples_per_s": 1.0, "updated_at": timestamp(time.time() - 400)}
    write_json(folder.progress, progress)
    assert check_runs(workspace, settings) == []  # fifty steps of ten seconds are longer
    write_json(folder.progress, progress | {"samples_per_s": 10.0})
    assert check_runs(workspace, settings) == ["run 0001: no step for 6:40"]
    write_json(folder.progress, progress | {"samples_per_s": 10.0, "phase": "validate", "steps": 200})
    assert check_runs(workspace, settings) == []
    assert len(sent) == 2


def test_the_end_of_a_run_is_told_of(workspace: Workspace, sent: list[str]) -> None:
    settings = load_settings(None, workspace.root).settings
    folder = running(workspace)
    told = RunAlerts(workspace, settings, folder)
    told.ended({"status": "failed", "error": "the loss is no number any more", "error_kind": "diverged"})
    assert sent[0].startswith("Alert: run 0001 has diverged\nthe loss is no number")
    told = RunAlerts(workspace, settings, folder)
    told.started({})
    best = {"accuracy": 0.5, "f1_macro": 0.25, "epoch": 3}
    told.ended(folder.read_manifest() | {"status": "completed", "best": best, "epochs": 4, "seconds_s": 61})
    assert [text.splitlines()[0] for text in sent[1:]] == [
        "Alert: run 0001 goes on",
        "Trained: run 0001, None on None",
    ]
    RunAlerts(workspace, settings, folder, alone=False).ended({"status": "completed"})
    assert len(sent) == 3  # a sweep tells of its runs' ends


def test_observers_of_a_run_without_trackers_are_the_notifier_alone(workspace: Workspace, sent: list[str]) -> None:
    settings = load_settings(None, workspace.root, ["training.stalled_minutes=0"]).settings
    folder = running(workspace)
    every = observers(workspace, settings, folder, lambda line: None)
    every.started({})
    every.step({})
    every.epoch({})
    every.ended(folder.read_manifest() | {"status": "interrupted"})
    assert sent == []
