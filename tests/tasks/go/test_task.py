"""Training on shards: bounded memory, exact order, exact resume, and going on from a run's weights."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import load_settings
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.tasks.go.net import build_net
from engine.tasks.go.parse import parse
from engine.tasks.go.plan import Filters
from engine.tasks.go.task import load_task
from engine.training.runs import RunFolder
from tests.conftest import until
from tests.tasks.go.test_parse import random_game

OVERRIDES = [
    "go.board_size=9",
    "go.net=plain8x2",
    "go.val_fraction=0.3",
    "go.games_per_shard=5",
    "go.batch_size=32",
]


@pytest.fixture
def shards(tmp_path: Path, engine: Callable[..., Any], workspace: Workspace) -> Path:
    games = tmp_path / "games"
    games.mkdir()
    for seed in range(14):
        (games / f"{seed}.sgf").write_text(random_game(seed, moves=30))
    answer = engine("go", "parse", str(games), "--json", *OVERRIDES)
    assert (answer.code, answer.json["games"], answer.json["shards"]) == (0, 14, 3)
    return workspace.root / "go" / "shards"


def task_of(shards: Path, *more: str) -> Any:
    return load_task(load_settings(None, None, [*OVERRIDES, f"go.shards={shards}", *more]).settings)


def test_every_position_of_the_training_games_comes_once_an_epoch(shards: Path) -> None:
    task = task_of(shards)
    batches = list(task.train_batches(0, 7, start=0, workers=0))
    assert len(batches) == task.train_samples // 7
    assert task.train_samples + task.report["val"] == 14 * 30
    rows = [tuple(planes.flatten().tolist()) for batch in batches for planes in batch[0]]
    turned = len({(sum(row), row) for row in rows})
    assert turned > 0.9 * len(rows)


def test_a_batch_depends_on_seed_epoch_and_number_alone(shards: Path) -> None:
    whole = list(task_of(shards).train_batches(1, 32, start=0, workers=0))
    for start in (1, 3, len(whole) - 1):
        rest = list(task_of(shards).train_batches(1, 32, start=start, workers=0))
        assert len(rest) == len(whole) - start
        for (planes, moves), (planes_again, moves_again) in zip(whole[start:], rest, strict=True):
            assert torch.equal(planes, planes_again)
            assert torch.equal(moves, moves_again)
    other = next(iter(task_of(shards).train_batches(2, 32, start=0, workers=0)))
    assert not torch.equal(other[1], whole[0][1])


def test_slices_of_a_pass_are_epochs_of_their_own(shards: Path) -> None:
    task = task_of(shards, "go.epoch_positions=100")
    whole = task_of(shards)
    slices = round(whole.train_samples / 100)
    assert task.train_samples == whole.train_samples // slices

    def moves(task: Any, epoch: int, start: int = 0) -> list[int]:
        return [int(m) for _, part in task.train_batches(epoch, 10, start=start, workers=0) for m in part]

    whole_pass = [int(m) for _, part in whole.train_batches(0, 1, start=0, workers=0) for m in part]
    for number in range(slices):
        begin = number * task.train_samples
        assert moves(task, number) == whole_pass[begin : begin + task.train_samples // 10 * 10]
    assert moves(task, 1, start=3) == moves(task, 1)[30:]
    assert moves(task, slices) != moves(task, 0)


def test_games_of_other_shards_judge_and_never_train(shards: Path, tmp_path: Path) -> None:
    games = tmp_path / "others"
    games.mkdir()
    for seed in (0, 50, 51):  # the first is among the training's games too
        (games / f"{seed}.sgf").write_text(random_game(seed, moves=30))
    parse([games], tmp_path / "judges", filters=Filters(size=9), games_per_shard=2, workers=1)
    task = task_of(shards, f"go.val_shards={tmp_path / 'judges'}")
    assert (task.report["games"], task.report["val_games"]) == (14, 3)
    assert (task.train_samples, task.val_samples) == (13 * 30, 3 * 30)
    assert task.fingerprint != task_of(shards).fingerprint
    with pytest.raises(UsageError, match="no shard of games"):
        task_of(shards, f"go.val_shards={tmp_path}")


def test_a_game_stays_held_out_whatever_is_added(shards: Path) -> None:
    task = task_of(shards)
    digests = np.arange(1000, dtype=np.uint64) * np.uint64(7919)
    held = task._held_out(digests)
    assert 0.25 < held.mean() < 0.35
    assert np.array_equal(held[::2], task._held_out(digests[::2]))


def test_an_empty_folder_and_wrong_names_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no shard of games"):
        task_of(tmp_path)
    with pytest.raises(UsageError, match="unknown Go network"):
        build_net("resnet", 9)


def test_micro_batches_give_the_same_gradients(shards: Path) -> None:
    task = task_of(shards)
    batch = next(iter(task.train_batches(0, 32, start=0, workers=0)))
    inputs, targets = task.prepare(batch, training=True)
    net = task.build_model(pretrained=False).eval()  # batch norms would see other batches
    task.loss(net(inputs), targets).backward()
    whole = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    for part in (slice(0, 8), slice(8, 32)):
        share = len(inputs[part]) / len(inputs)
        (task.loss(net(inputs[part]), (targets[0][part],)) * share).backward()
    for one, other in zip(whole, net.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.long(19)
def test_stats_tell_the_size_of_what_trains(engine: Callable[..., Any], workspace: Workspace) -> None:
    folder = RunFolder(workspace.runs / "0001")
    folder.root.mkdir(parents=True)
    manifest = {"status": "running", "task": "go", "host": socket.gethostname(), "pid": os.getpid()}
    folder.write_manifest(manifest)
    stats = engine("go", "stats", "--json").json
    assert (stats["running"], stats["process"]["pid"]) == ("0001", os.getpid())
    assert stats["process"]["vms_bytes"] > stats["process"]["rss_bytes"] > 0
    assert f"run 0001, pid {os.getpid()}: RSS" in engine("go", "stats").out
    folder.write_manifest(manifest | {"host": "elsewhere"})
    assert "run 0001, its process is not on this host" in engine("go", "stats").out


def test_training_goes_on_where_it_was_killed_and_then_from_its_weights(
    shards: Path, engine: Callable[..., Any], workspace: Workspace, config: Path
) -> None:
    words = [*OVERRIDES, "go.epochs=3", "training.save_every_steps=2", "training.cycle=1"]
    first = engine("go", "train", "--json", *words)
    assert first.code == 0, first.err
    assert (first.json["status"], first.json["unit"]) == ("completed", "positions")
    assert 0 <= first.json["best"]["accuracy"] <= first.json["best"]["top5"] <= 1

    child = subprocess.Popen(
        [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root), "go", "train",
         "--fresh", *words[:-1], "training.cycle=2"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    until((workspace.runs / "0002" / "last.pth").exists, "a state")
    child.send_signal(signal.SIGKILL)
    child.wait()
    again = engine("go", "train", "--json", *words[:-1])
    assert again.code == 0, again.err
    assert again.json["run"] == "0002"
    states = [
        torch.load(workspace.runs / run / "last.pth", weights_only=True)["model_state_dict"]
        for run in ("0001", "0002")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())

    more = engine("go", "train", "--json", *OVERRIDES, "go.epochs=1")
    assert more.json["run"] == "0003"
    assert "begins with the weights of" in more.err
    stats = engine("go", "stats", "--json", *OVERRIDES).json
    assert (stats["shards"], stats["games"], stats["runs"], stats["epochs_done"]) == (3, 14, 3, 7)
    moves = engine("go", "suggest", "--json", "--top-k", "3", *OVERRIDES).json["moves"]
    assert len(moves) == 3
    assert moves[0]["confidence"] >= moves[1]["confidence"]
    held = engine("go", "suggest", "--json", "--held-out", "2", "--slots", *OVERRIDES).json
    assert (held["held_out"], len(held["board"]), held["nets"][0]["moves"]) == (2, 9, held["moves"])
    assert held["played"]
    over = engine("go", "suggest", "--json", "--held-out", str(held["of"] + 1), *OVERRIDES)
    assert over.code == 2, "no position has two numbers"
    assert f"there are {held['of']} held-out positions" in over.json["error"]["message"]
    assert sum(row.count(".") for row in held["board"]) < 81 or held["last"] is None
    refused = engine("go", "reset", "--json", *OVERRIDES)
    assert refused.code == 3
    unasked = engine("go", "reset", *OVERRIDES)
    assert (unasked.code, "confirm with --yes" in unasked.err) == (3, True), "nobody can answer without a terminal"
    assert engine("go", "suggest", "--move", "3", *OVERRIDES).code == 2
    assert engine("go", "play", "--json", *OVERRIDES).json["error"]["kind"] == "usage"
    said = engine("go", "suggest", *OVERRIDES).out.splitlines()
    header = next(line for line in said if "confidence" in line)
    assert header.split() == ["move", "row", "column", "confidence"]
    assert "--runs" not in engine("go", "--help").out  # reset has no such option
    assert engine("go", "reset", "--yes", "--json", *OVERRIDES).json["removed"] > 0
    assert engine("go", "stats", "--json", *OVERRIDES).json["shards"] == 0
