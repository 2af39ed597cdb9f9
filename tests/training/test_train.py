"""Real trainings, seconds long: what is written, what is said, what is never overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import Failed, UsageError
from engine.store.events import read_events
from engine.store.workspace import Workspace
from engine.tasks.images.models import build_model
from engine.tasks.images.preprocess import Preprocess
from engine.training.runs import find_run, list_runs, read_metrics
from tests.training.conftest import SMALL

CONTRACT = ("run", "status", "device", "precision", "epochs", "best", "checkpoint", "samples_per_s",
            "peak_memory_bytes", "seconds_s")  # fmt: skip


def test_a_training_from_the_command_line(engine: Callable[..., Any], workspace: Workspace) -> None:
    done = engine("train", "training.epochs=3", "data.img_size=16", "--json", "--device", "cpu")
    assert done.code == 0, done.err
    result = done.json
    assert set(CONTRACT) <= set(result)
    assert (result["run"], result["status"], result["device"]) == ("0001", "completed", "cpu")
    assert result["best"]["accuracy"] > 0.8
    assert set(result["best"]) >= {"epoch", "accuracy", "f1_macro", "loss"}
    assert result["peak_memory_bytes"] > 0
    path = workspace.root / "checkpoints" / "checkpoints_cycle1" / "best_model_cycle1.pth"
    assert result["checkpoint"] == str(path)
    percent = f"Acc: {result['best']['accuracy'] * 100:.2f}%"
    assert f"{percent}: saved {path}; TO-BE gets it within 30 minutes" in done.err

    checkpoint = torch.load(path, weights_only=True)
    card = checkpoint["understudy"]
    assert checkpoint["accuracy"] == result["best"]["accuracy"]
    assert "optimizer_state_dict" not in checkpoint
    assert (card["cycle"], card["run"], card["classes"]) == (1, "0001", list("0123456789"))
    assert Preprocess.from_dict(card["preprocess"]).img_size == 16
    model = build_model(card["architecture"]["name"], 10, settings=card["architecture"]["settings"])
    model.load_state_dict(checkpoint["model_state_dict"])

    folder = find_run(workspace, "latest")
    assert [row["epoch"] for row in read_metrics(folder)] == [1, 2, 3]
    report = json.loads(folder.report.read_text())
    assert (report["checked"], report["ok"], report["corrupt"]) == (1397, 1397, [])
    assert json.loads(folder.progress.read_text())["epoch"] == 3
    assert "optimizer_state_dict" in torch.load(folder.last, weights_only=True)
    trained = [event for event in read_events(workspace) if event["kind"] == "trained"]
    assert [event["subject"] for event in trained] == ["run 0001"]

    shown = engine("runs", "--json").json["runs"]
    assert [(entry["run"], entry["status"]) for entry in shown] == [("0001", "completed")]
    assert len(engine("runs", "1", "--json").json["runs"][0]["metrics"]) == 3
    assert "completed" in engine("runs").out


def test_the_next_run_takes_the_next_cycle(fit: Callable[..., Any], workspace: Workspace) -> None:
    assert fit(*SMALL, "training.epochs=1")["cycle"] == 1
    (workspace.root / "checkpoints" / "checkpoints_cycle9").mkdir()
    assert fit(*SMALL, "training.epochs=1")["cycle"] == 10


def test_a_better_best_of_the_cycle_stays(fit: Callable[..., Any], workspace: Workspace) -> None:
    good = fit(*SMALL, "training.epochs=6", "training.cycle=5")
    before = Path(good["checkpoint"]).read_bytes()
    lines: list[str] = []
    worse = fit(*SMALL, "training.epochs=1", "training.cycle=5", lines=lines)
    assert worse["status"] == "completed"
    assert worse["checkpoint"] == str(workspace.runs / "0002" / "best.pth")
    assert Path(good["checkpoint"]).read_bytes() == before
    assert any("--overwrite" in line for line in lines)
    replaced = fit(*SMALL, "training.epochs=1", "training.cycle=5", overwrite=True)
    assert replaced["checkpoint"] == good["checkpoint"]
    assert torch.load(good["checkpoint"], weights_only=True)["understudy"]["run"] == "0003"


def test_an_absent_device_falls_back_and_says_so(fit: Callable[..., Any]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    lines: list[str] = []
    result = fit(*SMALL, "training.epochs=1", "device.prefer=cuda", lines=lines)
    assert result["device"] == "cpu"
    assert any("cuda is not available here" in line for line in lines)


def test_a_loss_that_is_no_number_ends_the_run(fit: Callable[..., Any], workspace: Workspace) -> None:
    with pytest.raises(Failed, match=r"lower training\.learning_rate") as caught:
        fit(*SMALL, "training.epochs=3", "training.learning_rate=1e30", "training.warmup_fraction=0")
    assert caught.value.kind == "diverged"
    assert list_runs(workspace)[0]["status"] == "failed"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("model=nowhere_at_all:net",), "nowhere_at_all"),
        (("model=engine.tasks.images.models:nothing",), "nothing"),
        (("model=engine.tasks.images.models:parameter_count",), "factory"),
        (("model=builtins:dict", "model.settings={}"), "factory"),
        (("model.settings.widths=[1, 2]",), "litecnn cannot be built"),
        (("model.pretrained=true",), "published weights"),
        (("training.precision=fp16", "device.prefer=cpu"), "fp16"),
    ],
)
def test_what_cannot_be_trained_is_said_and_leaves_no_run(
    fit: Callable[..., Any], workspace: Workspace, overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        fit(*SMALL, *overrides)
    assert said in str(caught.value)
    assert not list(workspace.root.rglob("00*"))
    assert not list(workspace.root.rglob("checkpoints_cycle*"))


def test_ones_own_net(fit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "our_net.py").write_text(
        "from torch import nn\n"
        "def factory(num_classes, width=4):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(width), nn.Flatten(), nn.Linear(3 * width * width, num_classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = fit(*SMALL, "training.epochs=1", "model=our_net:factory", "model.settings.width=8")
    card = torch.load(result["checkpoint"], weights_only=True)["understudy"]
    assert card["architecture"] == {"name": "our_net:factory", "settings": {"width": 8}}


@pytest.mark.parametrize(
    ("words", "works"),
    [(("training.batch_size=1",), "training.batch_size=2"),
     (("training.batch_size=5", "training.micro_batch=1"), "training.micro_batch=3"),
     (("training.batch_size=1", "training.micro_batch=1"), "training.batch_size=2 training.micro_batch=2")],
)  # fmt: skip
def test_batch_norms_of_one_sample_are_refused_with_what_works(
    fit: Callable[..., Any], words: tuple[str, ...], works: str
) -> None:
    with pytest.raises(UsageError) as refused:
        fit(*SMALL, "data.img_size=8", *words)
    assert refused.value.hint == f"this works: {works}"


def test_interval_checkpoints(fit: Callable[..., Any], workspace: Workspace) -> None:
    fit(*SMALL, "training.epochs=2", "training.save_every_steps=3", "training.max_checkpoints=2")
    found = sorted(path.name for path in (workspace.runs / "0001" / "checkpoints").glob("*.pt"))
    assert found == ["checkpoint_epoch2_step15.pt", "checkpoint_epoch2_step16.pt"]


def test_a_net_that_cannot_be_compiled_is_trained_without(
    fit: Callable[..., Any], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(net: torch.nn.Module) -> torch.nn.Module:
        return Broken(net)

    class Broken(torch.nn.Module):
        """Fails late: the batch norms have moved."""

        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.net(images)
            raise RuntimeError("no C++ compiler")

    words = (*SMALL, "data.val_fraction=0.85", "training.epochs=1")
    fit(*words)
    monkeypatch.setattr(torch, "compile", broken)
    lines: list[str] = []
    fit(*words, "training.compile=true", lines=lines)
    assert any("training.compile fails here (no C++ compiler): going on without it" in line for line in lines)
    left, right = (find_run(workspace, run).read_manifest() for run in ("1", "2"))
    assert right["state_sha256"] == left["state_sha256"]
    assert right["compiled"] is False


def test_a_devices_table_counts_for_more_than_the_file_and_less_than_the_line(
    fit: Callable[..., Any], workspace: Workspace
) -> None:
    from engine.config import load_settings
    from engine.training.plan import on_device, without_overruled

    words = (
        *SMALL,
        "data.val_fraction=0.85",
        "training.epochs=1",
        "device.prefer=cpu",
        "device.cpu.batch_size=16",
    )
    fit(*words, "device.cpu.memory_limit_gb=8")
    kept = find_run(workspace, "1").read_manifest()["settings"]["training"]
    assert kept["batch_size"] == 16
    loaded = load_settings(None, workspace.root, (*words, "training.batch_size=24"))
    assert on_device(without_overruled(loaded.settings, loaded), "cpu").training.batch_size == 24


def test_a_memory_limit_is_the_allocators() -> None:
    from engine.devices.limits import memory_limit
    from engine.training.shortage import is_shortage

    with memory_limit("cpu", 256 * 2**20, print):
        torch.empty(2**20)
        with pytest.raises(RuntimeError) as caught:
            torch.empty(2**28)  # 1 GiB
    assert is_shortage(caught.value)
    assert len(torch.empty(2**28)) == 2**28
