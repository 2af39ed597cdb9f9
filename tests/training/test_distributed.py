"""Several processes, one run: the same weights as one process, and one writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.tasks.task import share
from engine.training.distributed import ALONE
from engine.training.runs import find_run, read_metrics
from tests.training.conftest import SMALL

# without batch norms, whose statistics are each process's own, and without mixing, whose partners are
NET = (
    "from torch import nn\n"
    "def factory(num_classes):\n"
    "    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),"
    " nn.Linear(72, num_classes))\n"
)


def test_parts_are_equal_and_cover_every_row() -> None:
    for rows, parts in ((32, 1), (32, 5), (7, 3), (3, 3)):
        found = [row for number in range(parts) for row in range(rows)[share(rows, number, parts)]]
        assert found == list(range(rows))
        sizes = [len(range(rows)[share(rows, number, parts)]) for number in range(parts)]
        assert max(sizes) - min(sizes) <= 1


def test_alone_nothing_is_asked() -> None:
    assert ALONE.lead
    assert ALONE.any(True)
    assert ALONE.total(2.5) == 2.5
    assert ALONE.told("x") == "x"


def test_two_processes_end_with_the_weights_of_one(
    fit: Callable[..., Any],
    engine: Callable[..., Any],
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "plain_net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = (*SMALL, "data.val_fraction=0.85", "data.augment=none", "model=plain_net:factory", "device.prefer=cpu",
             "training.batch_size=31", "training.epochs=2", "training.ema_decay=0.9")  # fmt: skip
    fit(*words)
    done = engine("train", *words, "training.processes=2", "--json", env={"PYTHONPATH": str(tmp_path)})
    assert done.code == 0, done.err
    assert done.json["run"] == "0002"
    assert "2 processes" in done.err
    one, two = (torch.load(workspace.runs / run / "last.pth", weights_only=True) for run in ("0001", "0002"))
    for kind in ("model_state_dict", "ema_state_dict"):
        for name, weight in one[kind].items():
            torch.testing.assert_close(two[kind][name], weight, rtol=0, atol=1e-6)
    rows = [read_metrics(find_run(workspace, run)) for run in ("1", "2")]
    for left, right in zip(*rows, strict=True):
        assert right["train_loss"] == pytest.approx(left["train_loss"], abs=1e-6)
        assert right["accuracy"] == left["accuracy"]
    assert find_run(workspace, "2").read_manifest()["processes"] == 2

    lines: list[str] = []
    fit(resume="2", lines=lines)  # in this one process
    assert any("began with 2 processes, not 1" in line for line in lines)


def test_more_processes_than_samples_in_a_batch(monkeypatch: pytest.MonkeyPatch, fit: Callable[..., Any]) -> None:
    import contextlib

    import engine.training.train as train
    from engine.training.distributed import Group

    class Two(Group):
        def told(self, value: Any) -> Any:
            return value

    monkeypatch.setattr(train, "joined", lambda: contextlib.nullcontext(Two(0, 2)))
    with pytest.raises(UsageError, match="cannot be shared by 2 processes"):
        fit(*SMALL, "training.batch_size=1", "training.epochs=1")
