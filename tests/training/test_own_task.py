"""A task of one's own, by import path: trained like any other, and its checkpoint says what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.checkpoints.files import CARD, load_checkpoint_file
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.tasks.task import load_kind, load_medium
from engine.training.runs import find_run
from examples import detector

OWN = "examples.detector:Detector"


def test_an_object_detector_trains(
    fit: Callable[..., Any], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector, "TRAIN", 48)
    monkeypatch.setattr(detector, "VAL", 16)
    lines: list[str] = []
    words = ("training.epochs=2", "training.batch_size=16", "model.settings.width=4")
    result = fit(*words, task=OWN, lines=lines)
    assert (result["status"], result["unit"]) == ("completed", "images")
    assert 0 <= result["best"]["accuracy"] <= 1
    card = load_checkpoint_file(Path(result["checkpoint"]))[CARD]
    assert (card["task"], card["classes"]) == (OWN, list(detector.SHAPES))
    assert load_medium(card, OWN).shape == (3, 64, 64)
    assert any("3 classes of objects" in line for line in lines)
    assert find_run(workspace, result["run"]).read_manifest()["data"] == OWN, "not the settings'"
    assert any(": grid (" in line for line in lines), "the net is the task's, not the settings' model"


def test_boxes_are_read_from_the_grid_and_judged_by_their_overlap() -> None:
    image, truth = detector.render(3, 5)
    targets = detector._arrays([(image, truth)], 3)[1]
    found = detector.objects_in(targets[0])
    assert detector.matched(found, truth) == len(found) == len(truth)
    one = truth[0]
    half = (one.x1 - one.x0) / 2
    assert detector.matched([one._replace(x0=one.x0 + half, x1=one.x1 + half)], [one]) == 0
    assert detector.matched([one._replace(kind=(one.kind + 1) % 3)], [one]) == 0
    assert detector.objects_of(np.full((8, 8, 8), -9, np.float32)) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [("tables", "unknown task"), ("no.such:Thing", "cannot import"), ("examples.detector:Nothing", "has no 'Nothing'"),
     ("examples.detector:render", "cannot be made"), ("collections:Counter", "has no 'load'")],
)  # fmt: skip
def test_a_name_that_is_no_task_is_said(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_kind(name)
    with pytest.raises(UsageError):
        load_kind(name, trusted="images")
