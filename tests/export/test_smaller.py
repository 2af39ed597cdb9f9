"""Nets made smaller or trained for INT8 before they are exported, and INT8 builds on the way to TO-BE."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from engine.config import Settings, load_settings
from engine.errors import Failed, UsageError
from engine.export import retrain
from engine.export.int8 import Quantized, quantize
from engine.export.labelled import labelled_data
from engine.export.options import Options
from engine.export.prune import prune
from engine.export.quantize import calibrate, sensitivity
from engine.export.release import int8_release
from engine.export.session import open_session, run_batches
from engine.export.slim import Slimmer
from engine.export.steps import Steps
from engine.export.subject import Subject, open_subject
from engine.release.deploy import deploy
from engine.release.slots import read_pointer
from engine.serving.runtime import Model
from engine.store.workspace import Workspace
from engine.tasks.go.board import point_names
from engine.tasks.go.records import read_record
from engine.tasks.go.shards import shard_bytes
from engine.tasks.medium import Limits
from engine.tasks.task import load_kind
from engine.training.quantization import make_quantization_aware
from examples import detector
from tests.export.conftest import save
from tests.release.bundles import make_release, put
from tests.tasks.go.test_parse import random_game

Exporting = Callable[..., dict[str, Any]]
TRAINING = ("export.finetune_epochs=1", "data.val_fraction=0.9", "data.img_size=16", "training.batch_size=32")


def test_structured_pruning_gives_a_checkpoint_like_any_other(
    subject: Subject, workspace: Workspace, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "pruned.pth"
    facts = prune(subject, 0.5, path)
    before, after = facts["parameters"]
    assert after < 0.5 * before
    assert facts["macs"][1] < 0.6 * facts["macs"][0]
    smaller = open_subject(workspace, settings, str(path))
    shapes = smaller.card["architecture"]["settings"]["pruned"]
    assert shapes["head"] == [10, 32]
    assert sum(value.numel() for value in smaller.module.parameters()) == after
    given = subject.medium.golden()
    session = open_session(smaller.onnx)
    wanted = smaller.module(torch.from_numpy(given)).numpy()
    assert np.abs(session.run(None, {"image": given})[0] - wanted).max() < 1e-5


def test_unstructured_pruning_only_makes_zeros(subject: Subject, workspace: Workspace, tmp_path: Path) -> None:
    settings = load_settings(
        None, workspace.root, ["export.pruning_method=unstructured", "export.sparsity=0.4"]
    ).settings
    lines: list[str] = []
    made, facts = Slimmer(workspace, settings, tmp_path, Steps(tmp_path), lines.append).pruned(subject)
    assert facts["parameters"][0] == facts["parameters"][1]
    assert facts["macs"][0] == facts["macs"][1]
    assert 0.3 < facts["zeros"] < 0.45
    assert len(made.onnx) == pytest.approx(len(subject.onnx), rel=0.05)
    assert any("would fill the zeros" in line for line in lines)


def test_pruning_and_fine_tuning_are_steps_that_are_not_done_again(
    export: Exporting, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("export.pruning=true", "export.sparsity=0.5", "export.max_loss=0.5", *TRAINING)
    trained = retrain.train

    def stopped(*arguments: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(*words, formats=["onnx"], images=16)
    monkeypatch.setattr(retrain, "train", trained)
    report = export(*words, formats=["onnx"], images=16)
    made = report["made_smaller"]
    assert (made["method"], made["finetuned_by"]) == ("structured", "0001")
    assert report["release"] != report["original"]["release"]
    assert report["artifacts"][0]["size_ratio"] > 1.5
    monkeypatch.setattr(retrain, "train", stopped)
    export(*words, formats=["onnx"], images=16)
    assert [path.name for path in sorted(workspace.runs.iterdir()) if path.is_dir()] == ["0001"]


def test_quantisation_aware_training_goes_on_from_the_net(
    subject: Subject, workspace: Workspace, tmp_path: Path
) -> None:
    settings = load_settings(None, workspace.root, [*TRAINING, "training.ema_decay=0.9"]).settings
    slimmer = Slimmer(workspace, settings, tmp_path, Steps(tmp_path), lambda line: None)
    trained = slimmer.aware(subject)
    assert trained.card["checkpoint"]["run"] == "0001"
    assert trained.card["checkpoint"]["accuracy"] > 0.5  # the average of weights is judged with ranges of its own
    assert trained.card["architecture"] == subject.card["architecture"]
    assert slimmer.aware(subject).release.id == trained.release.id


def test_layers_compute_as_the_quantised_file_will(subject: Subject) -> None:
    net = copy.deepcopy(subject.module.net).requires_grad_(True)
    names = list(net.state_dict())
    given = torch.from_numpy(subject.medium.golden())
    wanted = net.eval()(given)
    make_quantization_aware(net)
    never_trained = copy.deepcopy(net).eval()
    difference = (net.train().eval()(given) - wanted).abs().max() / wanted.abs().max()
    assert 0 < float(difference.detach()) < 0.3
    assert torch.equal(never_trained(given), net(given))
    net.train()
    with torch.autocast("cpu", torch.bfloat16):
        net(given).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    assert list(net.state_dict()) == names


def test_int8_that_loses_too_much_is_tried_in_dearer_ways(
    subject: Subject, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits()
    data = labelled_data(subject, settings, Options(["int8"], images=24, calibration=16))
    assert not {item.sha256 for item in data.judged} & {item.sha256 for item in data.calibration}
    losses = iter([0.2, 0.1, 0.15, 0.05, 0.0])
    fp32 = np.ones(1000, bool)

    class Right:
        def __init__(self, accuracy: float) -> None:
            self.accuracy, self.right = accuracy, fp32

    monkeypatch.setattr(
        "engine.export.int8.judge", lambda *_: ({"fp32": Right(0.9), "int8": Right(0.9 - next(losses))}, 0)
    )
    asked: list[Subject] = []
    lines: list[str] = []
    found = quantize(
        subject, lambda: data.batches(subject, limits), data.judged, limits, 0.005, lines.append,
        lambda given: asked.append(given) or given,
    )  # fmt: skip
    assert asked == [subject]
    assert found.note["ranges"] == "percentile"  # they lost least: the layers are left in fp32 with these
    assert len(found.note["kept_fp32"]) == 2
    assert found.loss == pytest.approx(0)
    assert any("layers in fp32" in line for line in lines)


def test_the_most_sensitive_layers_are_found(subject: Subject, settings: Settings, tmp_path: Path) -> None:
    data = labelled_data(subject, settings, Options(["int8"], images=8, calibration=16))
    few = list(data.batches(subject, Limits()))
    calibration = calibrate(subject.onnx, few, tmp_path)
    wanted = run_batches(open_session(subject.onnx), few)
    found = sensitivity(calibration, few, wanted)
    assert sorted(layer for layers, _ in found for layer in layers) == sorted(calibration.layers)
    assert [harm for _, harm in found] == sorted((harm for _, harm in found), reverse=True)
    difference = np.abs(run_batches(open_session(calibration.quantized(keep=calibration.layers)), few) - wanted)
    assert float(difference.mean()) < found[0][1] ** 0.5
    with pytest.raises(Failed, match="nothing to calibrate"):
        calibrate(subject.onnx, iter([]), tmp_path)


def test_an_int8_release_travels_the_road(
    workspace: Workspace, digits_net: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.export.release.TOO_MUCH", 0.1)  # one of 80 is more than a point
    settings = load_settings(
        None, workspace.root, ["export.max_loss=0.5", "export.images=80", "export.calibration=32"]
    ).settings
    options: dict[str, Any] = {"name": digits_net.name, "cycle": 1}
    options["build"] = lambda release: int8_release(workspace, settings, release, None)
    done = deploy(workspace, settings, digits_net, **options)
    manifest = done.release.manifest
    assert (manifest.precision, done.release.weights()) == ("int8", b"")
    pointer = read_pointer(workspace, "tobe")
    assert pointer is not None
    assert (pointer.release, pointer.precision) == (done.release.id, "int8")
    model = Model(done.release, 1_000_000)
    model.warm_up()
    digit = next((workspace.data / "digits_test" / "3").iterdir())
    assert b'"label":"3"' in model.predict(digit.read_bytes(), 1).body
    assert not deploy(workspace, settings, digits_net, **options).changed
    with pytest.raises(UsageError, match="int8 build"):
        open_subject(workspace, settings, done.release.id[:8])
    nothing = load_settings(None, workspace.root, ["data.kind=folder"]).settings
    with pytest.raises(Failed, match="needs data"):
        int8_release(workspace, nothing, open_subject(workspace, settings, str(digits_net)).release, None)


@pytest.mark.fault(29)
def test_an_int8_build_that_answers_otherwise_is_refused(
    subject: Subject, workspace: Workspace, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = onnx.load_from_string(subject.onnx)
    for node in proto.graph.node:
        if node.op_type == "Softmax":
            node.input[0], turned = "turned", node.input[0]
            proto.graph.node.insert(len(proto.graph.node) - 1, onnx.helper.make_node("Neg", [turned], ["turned"]))
            break
    made = Quantized(proto.SerializeToString(), subject, 0.0, {})
    monkeypatch.setattr("engine.export.release.quantize", lambda *_: made)
    before = set(workspace.releases.iterdir())
    with pytest.raises(Failed, match="does not agree with fp32: the same class on"):
        int8_release(workspace, settings, subject.release, None)
    assert set(workspace.releases.iterdir()) == before


GO_CARD = {
    "format": 1, "task": "go", "architecture": {"name": "plain8x2", "settings": {}}, "classes": point_names(9),
    "preprocess": {"board_size": 9},
}  # fmt: skip
OWN = "examples.detector:Detector"
OWN_CARD = {
    "format": 1, "task": OWN, "architecture": {"name": "grid", "settings": {"width": 4}},
    "classes": list(detector.SHAPES), "preprocess": detector.NORMAL,
}  # fmt: skip


def _drawn(path: Path, card: dict[str, Any]) -> Path:
    torch.manual_seed(2)
    net = load_kind(card["task"]).net(card)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return save(path, net, card)


@pytest.mark.parametrize("card", [GO_CARD, OWN_CARD], ids=["go", "own"])
def test_other_tasks_are_exported_too(
    export: Exporting, workspace: Workspace, tmp_path: Path, card: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(detector, "VAL", 24)
    folder = workspace.root / "go" / "shards"
    folder.mkdir(parents=True)
    games = [read_record(random_game(seed, moves=20).encode()) for seed in range(40)]
    (folder / "batch_0001.npz").write_bytes(shard_bytes(games))
    put(workspace, "asis", make_release(workspace, "pictures"))  # AS-IS does other work: no matter here
    words = ("go.val_fraction=0.7", f"task={card['task']}", "export.max_loss=0.9")
    path = _drawn(tmp_path / "other.pth", card)
    report = export(*words, checkpoint=path, formats=["onnx", "int8"], images=12, allow_worse=True)
    rows = {row["format"]: row for row in report["artifacts"]}
    assert (sorted(rows), report["skipped"]) == (["int8", "onnx"], [])
    assert rows["onnx"]["max_abs_error"] < min(1e-4, rows["int8"]["max_abs_error"])
    assert rows["int8"]["judged"]["n"] > 4


MOTION_CARD = {
    "format": 1, "task": "motion",
    "architecture": {"name": "mdm", "settings": {
        "features": 4, "frames": 8, "latent_dim": 8, "layers": 1, "num_heads": 2, "ff_size": 8, "condition": "none",
        "condition_width": 0, "diffusion_steps": 10, "pos_embed_max_len": 12}},
    "classes": [], "preprocess": {"mean": [0.0] * 4, "std": [1.0] * 4},
}  # fmt: skip


@pytest.mark.parametrize(
    ("card", "error", "said"),
    [
        (GO_CARD, UsageError, "a net of the task go"),
        (MOTION_CARD, UsageError, "a net of the task motion"),
        (OWN_CARD, Failed, "cannot be rebuilt from its widths"),
    ],
    ids=["go", "motion", "own"],
)
def test_nets_that_cannot_lose_channels_lose_single_weights(
    workspace: Workspace, tmp_path: Path, card: dict[str, Any], error: type[Exception], said: str
) -> None:
    settings = load_settings(None, workspace.root, [f"task={card['task']}"]).settings
    subject = open_subject(workspace, settings, str(_drawn(tmp_path / "other.pth", card)))
    with pytest.raises(error, match=said):
        prune(subject, 0.5, tmp_path / "pruned.pth")
    assert not (tmp_path / "pruned.pth").exists()
    prune(subject, 0.5, tmp_path / "pruned.pth", structured=False)
    assert open_subject(workspace, settings, str(tmp_path / "pruned.pth")).release.id != subject.release.id
