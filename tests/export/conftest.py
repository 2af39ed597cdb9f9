"""A small net that reads digits, made without training, and admission in the test's own process."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import Settings, load_settings
from engine.export.pipeline import export_checkpoint
from engine.export.subject import Subject, open_subject
from engine.release import convert
from engine.release.admission_child import check_and_convert
from engine.release.card import card_terms
from engine.release.refusal import Refusal
from engine.store.workspace import Workspace
from engine.tasks.images.digits import training_digits
from engine.tasks.images.models import build_model
from engine.tasks.medium import Limits
from engine.tasks.task import load_kind
from tests.conftest import shared_folder

SIDE = 16
CARD: dict[str, Any] = {
    "format": 1,
    "task": "images",
    "architecture": {"name": "litecnn", "settings": {"widths": [16, 32, 64], "depths": [0, 2, 1]}},
    "classes": list("0123456789"),
    "preprocess": {"img_size": SIDE, "resize": "crop", "mean": [0.5] * 3, "std": [0.25] * 3},
    "cycle": 1,
    "run": None,
}


def save(path: Path, net: torch.nn.Module, card: dict[str, Any]) -> Path:
    torch.save({"model_state_dict": net.state_dict(), "epoch": 3, "accuracy": 0.9, "understudy": card}, path)
    return path


def _digits_net(folder: Path) -> None:
    """Convolutions as they are drawn, and a head fitted to them by least squares: right for about nine in ten."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    net: Any = build_model("litecnn", 10, settings=CARD["architecture"]["settings"]).eval()
    pictures, labels, _ = training_digits()
    medium = load_kind("images").medium(CARD)
    inputs = []
    for picture in pictures[:900]:
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        inputs.append(medium.decode(stream.getvalue(), Limits()))
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        x = torch.from_numpy(np.stack(inputs))
        for norm in norms:
            norm.momentum = None
        net.train()(x)  # measures the batch norms' figures
        net.eval()
        features = net.body(net.stem(x)).mean((2, 3)).double()
        features = torch.cat([features, torch.ones(len(features), 1)], 1)
        wanted = torch.nn.functional.one_hot(torch.from_numpy(labels[:900]), 10).double()
        ridge = features.T @ features + 1e-4 * torch.eye(features.shape[1])
        weights = torch.linalg.solve(ridge, features.T @ wanted).float() * 8
        net.head.weight.copy_(weights[:-1].T)
        net.head.bias.copy_(weights[-1])
    save(folder / "digits.pth", net, CARD)


@pytest.fixture(scope="session")
def digits_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_folder(tmp_path_factory, "digits-net", _digits_net) / "digits.pth"


@pytest.fixture(autouse=True)
def _quick_admission(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The checks of the child without a process, and the quick one of the two exporters."""

    def run(
        workspace: Workspace, settings: Settings, folder: Path, copy: Path, size: int, name: str, *expected: Any,
        convert: bool,
    ) -> dict[str, Any]:  # fmt: skip
        classes, task = expected
        job = {"checkpoint": str(copy), **card_terms(settings), "expect_classes": classes, "expect_task": task}
        try:
            return json.loads(json.dumps(check_and_convert(job | {"convert": convert}, folder)))
        except Refusal as refusal:
            return {"ok": False, "check": refusal.check, "message": refusal.message, "hint": refusal.hint,
                    "dangerous": refusal.dangerous, "lasting": refusal.lasting}  # fmt: skip

    threads = torch.get_num_threads()
    monkeypatch.setattr("engine.release.admit.run_child", run)
    monkeypatch.setattr(convert, "_exported", None)  # calling it fails
    yield
    assert torch.get_num_threads() == threads


@pytest.fixture
def settings(workspace: Workspace) -> Settings:
    return load_settings(None, workspace.root).settings


@pytest.fixture
def subject(workspace: Workspace, settings: Settings, digits_net: Path) -> Subject:
    return open_subject(workspace, settings, str(digits_net))


@pytest.fixture
def export(workspace: Workspace, digits_net: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`export("export.pruning=true", formats=["onnx"], lines=[])` writes the net into `tmp_path/out`."""

    def run(
        *overrides: str, checkpoint: object = digits_net, lines: list[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        settings = load_settings(None, workspace.root, overrides).settings
        say = lines.append if lines is not None else lambda line: None
        return export_checkpoint(workspace, settings, str(checkpoint), tmp_path / "out", say=say, **options)

    return run


@pytest.fixture(autouse=True)
def _short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.export.options.Options.__init__", _with_budget(0.0))


def _with_budget(seconds: float) -> Callable[..., None]:
    from engine.export.options import Options

    made = Options.__init__

    def init(self: Options, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **{"budget_s": seconds, **named})

    return init
