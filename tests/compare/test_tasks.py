"""Other tasks than images on the same road: checkpoint, release, answers, comparison, promotion, rollback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.compare.ab import run_ab
from engine.compare.gate import gate
from engine.config import load_settings
from engine.errors import UsageError
from engine.release import convert
from engine.release.admission_child import check_and_convert
from engine.release.bundle import Manifest, Origin, Release, write_release
from engine.release.promote import promote, rollback
from engine.release.refusal import Refusal
from engine.release.slots import read_pointer
from engine.serving.runtime import Model
from engine.store.workspace import Workspace
from engine.tasks.go.board import point_names
from engine.tasks.go.records import read_record
from engine.tasks.go.shards import shard_bytes
from engine.tasks.medium import whole
from engine.tasks.task import load_kind
from examples import detector
from tests.compare.conftest import Slot
from tests.tasks.go.test_parse import random_game

OWN = "examples.detector:Detector"
GO_CARD = {
    "task": "go",
    "architecture": {"name": "plain8x2", "settings": {}},
    "classes": point_names(9),
    "preprocess": {"board_size": 9},
}
OWN_CARD = {
    "task": OWN,
    "architecture": {"name": "grid", "settings": {"width": 4}},
    "classes": list(detector.SHAPES),
    "preprocess": detector.NORMAL,
}
Make = Callable[..., Release]


@pytest.fixture
def make(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A release from a checkpoint with random weights, through every check of admission, in this process."""
    monkeypatch.setattr(convert, "_exported", None)  # calling it fails, so that the quick exporter is taken

    def run(card: dict[str, Any], seed: int, **job: Any) -> Release:
        torch.manual_seed(seed)
        net = load_kind(card["task"]).net(card)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_var, 0.5, 2)
        path = tmp_path / f"{seed}.pth"
        state = {"model_state_dict": net.state_dict(), "epoch": 1, "understudy": {"format": 1, **card}}
        torch.save(state, path)
        order = {"checkpoint": str(path), "source": {}, "trusted": [], "task": card["task"]}
        result = check_and_convert(order | {"expect_classes": None, "expect_task": None} | job, tmp_path)
        fields = (
            "task",
            "architecture",
            "classes",
            "preprocess",
            "input",
            "output",
            "golden",
            "probes",
            "parameters",
        )
        origin = Origin(name=path.name, sha256=f"{seed:064x}", md5="0" * 32, bytes=1)
        manifest = Manifest(**{name: result[name] for name in fields}, checkpoint=origin)
        files = ((tmp_path / name).read_bytes() for name in ("model.onnx", "weights.safetensors"))
        workspace.releases.mkdir(parents=True, exist_ok=True)
        return write_release(workspace.releases, manifest, *files)

    return run


def reply(model: Model, body: bytes) -> tuple[int, dict[str, Any]]:
    found = model.predict(body, 3)
    return 200, dict(json.loads(found.body + b"}"))


def test_a_go_net_goes_the_whole_way(workspace: Workspace, slots: tuple[Slot, Slot], make: Make) -> None:
    games = [read_record(random_game(seed, moves=30).encode()) for seed in range(40)]
    folder = workspace.root / "go" / "shards"
    folder.mkdir(parents=True)
    (folder / "batch_0001.npz").write_bytes(shard_bytes(games))
    old, new = make(GO_CARD, 1), make(GO_CARD, 2)
    for slot, release in zip(slots, (old, new), strict=True):
        model = Model(release, 1_000_000)
        model.warm_up()
        slot.hold_release(release)
        slot.answer = lambda body, model=model: reply(model, body)
    card = model.card()
    assert (card["task"], card["input"]["name"], card["input"]["shape"]) == ("go", "planes", [-1, 24, 9, 9])
    assert card["input"]["media_types"] == ["application/x-go-sgf"]
    _, answer = reply(model, b"(;GM[1]SZ[9];B[ee])")
    best = answer["top_k"][0]
    assert (answer["label"], answer["index"]) == (best["label"], best["index"])
    assert point_names(9)[(best["row"] - 1) * 9 + best["column"] - 1] == answer["label"] != "E5"

    settings = load_settings(None, workspace.root, ["go.val_fraction=0.7", "gate.min_images=5"]).settings
    result = run_ab(workspace, settings)
    assert (result["n"], result["asis"]["errors"], result["unusable"]) == (result["available"], 0, [])
    assert 20 <= result["n"] < 40
    assert "one position each" in result["data"]
    again = run_ab(workspace, settings, seed=7)
    assert (again["available"], again["data_key"] != result["data_key"]) == (result["available"], True)

    for slot in slots:
        slot.stop()
    done = promote(workspace, settings, gate, force=True, reason="to see it")
    assert (done["promoted"], done["to"]) == (True, new.id)
    back = rollback(workspace, settings, done["backup"])
    pointer = read_pointer(workspace, "asis")
    assert pointer is not None
    assert back["restored"] == pointer.release == old.id


def test_a_task_of_ones_own_is_compared_by_its_own_measure(
    workspace: Workspace, slots: tuple[Slot, Slot], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AS-IS answers by a net of random weights, TO-BE what is there: the gate opens by itself."""
    monkeypatch.setattr(detector, "COMPARE", 40)
    old, new = make(OWN_CARD, 1), make(OWN_CARD, 2)
    model = Model(old, 1_000_000, trusted=OWN)
    model.warm_up()
    assert model.output == {"name": "values", "dtype": "FP32", "shape": [-1, 8, 8, 8]}
    medium = load_kind(OWN).medium(OWN_CARD)
    settings = load_settings(None, workspace.root, [f"task={OWN}", "gate.min_images=20"]).settings
    truth = {item.read(): item.truth for item in medium.labelled(settings, None, 0).images}
    slots[0].answer = lambda body: reply(model, body)
    slots[1].answer = lambda body: (200, whole(medium.answer(perfect(truth[body]), np.zeros(0), 5)))
    for slot, release in zip(slots, (old, new), strict=True):
        slot.hold_release(release)

    with pytest.raises(UsageError, match="does not trust"):
        run_ab(workspace, load_settings(None, workspace.root).settings)
    result = run_ab(workspace, settings)
    assert (result["n"], result["tobe"]["correct"], result["excluded"]) == (40, 40, {})
    assert result["asis"]["correct"] < 10
    assert (result["verdict"], result["gate"]["open"]) == ("tobe", True)
    for slot in slots:
        slot.stop()
    assert promote(workspace, settings, gate)["to"] == new.id


def perfect(objects: list[detector.Object]) -> np.ndarray:
    """The row of a net that sees exactly these objects."""
    grid = detector._arrays([(np.zeros((1, 1, 3), np.uint8), objects)], 3)[1][0]
    row = np.full((8, 8, 8), -9.0, np.float32)
    row[0] = np.where(grid[..., 0] > 0, 9, -9)
    row[1:5] = np.moveaxis(
        np.log(np.clip(grid[..., 1:5], 1e-3, 1 - 1e-3) / np.clip(1 - grid[..., 1:5], 1e-3, 1)), -1, 0
    )
    for y, x in np.argwhere(grid[..., 0] > 0):
        row[5 + int(grid[y, x, 5]), y, x] = 9
    return row


def test_a_card_is_not_enough_to_run_code_and_slots_serve_one_task(make: Make) -> None:
    with pytest.raises(Refusal, match="which this host does not trust") as refused:
        make(OWN_CARD, 3, task="images")
    assert (refused.value.check, refused.value.hint) == ("task", f'set task = "{OWN}" if that code is yours')
    with pytest.raises(Refusal, match="AS-IS serves 'images'"):
        make(GO_CARD, 3, expect_task="images")
    with pytest.raises(Refusal, match="of no Go net"):
        make(GO_CARD | {"classes": ["A1", "B1"]}, 3)
