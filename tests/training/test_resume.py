"""An interrupted run, gone on with, ends in the very same bytes as one that was left alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import Failed, Interrupted, UsageError
from engine.store.events import read_events
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.training.runs import claim_run, list_runs, process_identity, read_metrics
from engine.training.runs import find_run as find
from tests.conftest import shared_folder
from tests.training.conftest import SMALL, runner

WORDS = (*SMALL, "training.epochs=6", "training.ema_decay=0.9")


def same_tensors(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_tensors(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_tensors, left, right))
    return bool(left == right)


def assert_same_run(one: Path, other: Path) -> None:
    left, right = (torch.load(run / "last.pth", weights_only=True) for run in (one, other))
    for key in ("model_state_dict", "ema_state_dict", "optimizer_state_dict", "best", "epoch", "step"):
        assert same_tensors(left[key], right[key]), key
    figures = [
        [(row["epoch"], row["train_loss"], row["loss"], row["accuracy"]) for row in read_metrics(find_run(run))]
        for run in (one, other)
    ]
    assert figures[0] == figures[1]


def find_run(run: Path) -> Any:
    return find(Workspace(run.parents[1]), run.name)


@pytest.fixture
def undisturbed(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupts, as 0001: the same for every test."""
    made = shared_folder(tmp_path_factory, "undisturbed", lambda folder: runner(Workspace(folder))(*WORDS))
    shutil.copytree(made, workspace.root)
    return workspace.runs / "0001"


@pytest.mark.long(11)
@pytest.mark.fault(47)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_ended_by_a_signal_goes_on_bit_for_bit(
    undisturbed: Path, workspace: Workspace, engine: Callable[..., Any], config: Path, how: signal.Signals
) -> None:
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
    words = [*command, "train", *WORDS, "training.save_every_steps=3"]
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    run = workspace.runs / "0002"
    while child.poll() is None and len(read_metrics(find_run(run)) if run.exists() else []) < 2:
        time.sleep(0.01)
    child.send_signal(how)
    error = child.communicate()[1]
    if how == signal.SIGTERM:
        assert child.returncode == 130
        assert "--resume 0002" in error
        assert list_runs(workspace)[0]["status"] == "interrupted"
    else:
        assert list_runs(workspace)[0]["status"] == "lost"
    done = engine("train", "--resume", "latest", "training.num_workers=1", "--json")
    assert done.code == 0, done.err
    assert done.json["run"] == "0002"
    assert_same_run(undisturbed, run)
    trained = [event["subject"] for event in read_events(workspace) if event["kind"] == "trained"]
    assert trained == ["run 0001", "run 0002"]


def test_a_stop_in_any_step_is_resumed_bit_for_bit(
    undisturbed: Path, workspace: Workspace, fit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped again and again, in the middle of epochs and in validation."""
    import engine.training.loop as loop

    original, calls = loop.learning_rate, [0]

    def counting(*arguments: Any) -> float:
        calls[0] += 1
        if calls[0] % 11 == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(loop, "learning_rate", counting)
    with pytest.raises(Interrupted) as caught:
        fit(*WORDS)
    assert caught.value.payload["status"] == "interrupted"
    for _ in range(10):
        try:
            result = fit(resume="0002")
            break
        except Interrupted:
            continue
    assert result["status"] == "completed"
    assert_same_run(undisturbed, workspace.runs / "0002")


class Cut(BaseException):
    """The end of the process at this very place: no handler of ours takes it."""


@pytest.mark.long(10)
@pytest.mark.fault(47)
def test_a_save_cut_anywhere_leaves_a_whole_state(
    fit: Callable[..., Any], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before each of the four renames of a save: the new file's, the sidecar's, the old state's, the new one's."""
    import engine.training.record as record

    words = (*SMALL, "data.val_fraction=0.85", "training.epochs=1", "training.save_every_steps=2")
    fit(*words)
    save, replace, saves, renames = record.save_state, Path.replace, [0], [0]

    def saving(*arguments: Any) -> None:
        saves[0], renames[0] = saves[0] + 1, 0
        save(*arguments)

    for number in range(1, 5):

        def cutting(path: Path, target: Path, number: int = number) -> Path:
            renames[0] += 1
            if (saves[0], renames[0]) == (3, number):
                raise Cut
            return replace(path, target)

        saves[0] = 0
        with monkeypatch.context() as patch, pytest.raises(Cut):
            patch.setattr(record, "save_state", saving)
            patch.setattr(Path, "replace", cutting)
            fit(*words)
        run = workspace.runs / f"{number + 1:04}"
        fit(resume=run.name)
        assert_same_run(workspace.runs / "0001", run)
        assert not list(run.glob(".*"))


@pytest.mark.fault(47)
def test_a_damaged_last_state_falls_back_to_the_one_before(
    fit: Callable[..., Any], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.training.loop as loop

    words = (*SMALL, "training.epochs=2", "training.save_every_steps=3")
    fit(*words)
    original, calls = loop.learning_rate, [0]

    def cutting(*arguments: Any) -> float:
        calls[0] += 1
        if calls[0] == 13:
            raise Cut
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(loop, "learning_rate", cutting)
        fit(*words)
    run = workspace.runs / "0002"
    content = bytearray((run / "last.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "last.pth").write_bytes(content)
    lines: list[str] = []
    fit(resume="latest", lines=lines)
    assert any("last.pth is not what was saved: going on from the state before it" in line for line in lines), (
        lines
    )
    assert_same_run(workspace.runs / "0001", run)

    for name in ("last.pth", "previous.pth"):
        (run / name).write_bytes(b"nothing")
    with pytest.raises(Failed, match=r"last\.pth is not what was saved"):
        fit(resume="2")


def test_another_number_of_threads_is_said_and_undone(fit: Callable[..., Any], workspace: Workspace) -> None:
    fit(*SMALL, "data.val_fraction=0.85", "training.epochs=1")
    threads, lines = torch.get_num_threads(), []
    torch.set_num_threads(threads + 1)
    try:
        fit(resume="1", lines=lines)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert any(f"began with {threads} threads, not {threads + 1}" in line for line in lines)


def test_the_number_of_workers_changes_nothing(
    fit: Callable[..., Any], photos: Path, workspace: Workspace
) -> None:
    words = ("data=folder", f"data.root={photos}", "data.img_size=24", "data.augment=document",
             "training.batch_size=8", "training.epochs=2")  # fmt: skip
    fit(*words)
    fit(*words, "training.num_workers=2", "data.cache_bytes=5000")
    assert_same_run(workspace.runs / "0001", workspace.runs / "0002")


def test_overrides_on_resume(fit: Callable[..., Any], workspace: Workspace, engine: Callable[..., Any]) -> None:
    fit(*SMALL, "training.epochs=1")
    manifest = find(workspace, "1")
    manifest.write_manifest(manifest.read_manifest() | {"status": "interrupted"})
    for override in ("training.epochs=2", "data.img_size=24", "model=litecnn_pro", "training=baseline_768"):
        with pytest.raises(UsageError) as caught:
            fit(override, resume="1")
        assert caught.value.kind == "changes_result"
        assert override in str(caught.value)
    refused = engine("train", "--resume", "1", "training.seed=9", "--json")
    assert refused.code == 2
    assert refused.json["error"]["kind"] == "changes_result"
    assert (
        fit("training.num_workers=1", "notify.timeout_s=3", "training.epochs=1", resume="1")["status"]
        == "completed"
    )


def test_changed_data_cannot_be_resumed(fit: Callable[..., Any], photos: Path, workspace: Workspace) -> None:
    fit("data=folder", f"data.root={photos}", "data.img_size=16", "training.epochs=1")
    run = find(workspace, "1")
    run.write_manifest(run.read_manifest() | {"status": "interrupted"})
    (photos / "red" / "0.jpg").unlink()
    with pytest.raises(UsageError, match="data has changed"):
        fit(resume="1")


def test_a_background_run(engine: Callable[..., Any], workspace: Workspace) -> None:
    done = engine("train", *SMALL, "training.epochs=1", "--detach", "--json")
    assert done.code == 0, done.err
    assert (done.json["run"], done.json["status"]) == ("0001", "running")
    while (entry := list_runs(workspace)[0])["status"] == "running":
        time.sleep(0.05)
    assert entry["status"] == "completed", (workspace.runs / "0001" / "train.log").read_text()
    assert "epoch 1/1" in (workspace.runs / "0001" / "train.log").read_text()


def test_a_run_that_is_going_on_is_busy(
    engine: Callable[..., Any], workspace: Workspace, fit: Callable[..., Any]
) -> None:
    from engine.store.locks import hold

    fit(*SMALL, "training.epochs=1")
    with hold(workspace.runs / "0001" / "run.lock", "train run 0001"):
        assert engine("train", "--resume", "1", "--json").code == 4


def test_a_run_that_holds_its_lock_is_not_lost_when_the_clock_was_set(workspace: Workspace) -> None:
    folder = claim_run(workspace)
    identity = process_identity()
    folder.write_manifest({"status": "running", **identity, "pid_started": identity["pid_started"] - 3600})
    with hold(folder.lock, "train"):
        assert list_runs(workspace)[0]["status"] == "running"
    assert list_runs(workspace)[0]["status"] == "lost"
