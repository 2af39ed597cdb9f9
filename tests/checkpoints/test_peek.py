"""Reading what a checkpoint says of itself without torch, from files that torch wrote and from hostile ones."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoints.peek import peek


def saved(tmp_path: Path, **content: Any) -> Path:
    path = tmp_path / "c.pth"
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    torch.save(
        {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict(), **content}, path
    )
    return path


def test_a_full_checkpoint_of_the_teams_own(tmp_path: Path) -> None:
    path = saved(tmp_path, epoch=42, accuracy=87.2, loss=0.4321, history=[{"epoch": 1}], best={"accuracy": 3})
    assert peek(path) == {"epoch": 42, "accuracy": pytest.approx(0.872), "loss": 0.4321}


def test_a_card_says_more(tmp_path: Path) -> None:
    card = {"format": 1, "cycle": 300, "step": 70_000, "classes": ["a", "b"], "preprocess": {"mean": [0.5] * 3}}
    assert peek(saved(tmp_path, epoch=2, accuracy=0.5, loss=1.0, understudy=card)) == {
        "epoch": 2, "accuracy": 0.5, "loss": 1.0, "cycle": 300, "step": 70_000,
    }  # fmt: skip


def test_a_light_one_says_nothing(tmp_path: Path) -> None:
    assert peek(saved(tmp_path)) == {}
    torch.save(OrderedDict(weight=torch.ones(2)), tmp_path / "weights.pth")
    assert peek(tmp_path / "weights.pth") == {}


def test_values_that_are_not_plain_are_left_out(tmp_path: Path) -> None:
    path = saved(tmp_path, epoch=True, accuracy=np.float64(0.9), loss=float("nan"), step=torch.tensor(3))
    assert peek(path) == {}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_nothing_is_imported_or_called(tmp_path: Path, protocol: int) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    path = tmp_path / "hostile.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"epoch": 3, "x": Hostile(), "loss": 0.5}, protocol))
    assert peek(path) == {"epoch": 3, "loss": 0.5}
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02.",
        b"\x80\x02}q\x00X",
        b"(((((",
        b"\x80\x02h\x05.",
        b"not a pickle",
        b"\x80\x02]K\x01s.",
    ],
)
def test_damaged_pickles_are_only_misread(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    assert peek(path) == {}


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("hello")
    assert peek(tmp_path / "text.pth") == {}
    assert peek(tmp_path / "nothing.pth") == {}
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme", "hello")
    assert peek(tmp_path / "other.pth") == {}
