"""The recipe's settings: what each does to the weights, and that a resume keeps all of it bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.config.schema import Training
from engine.errors import Interrupted, UsageError
from engine.store.workspace import Workspace
from engine.tasks.images.models import build_model
from engine.training import loop
from engine.training.optim import build_optimizer, freeze
from engine.training.runs import find_run, read_metrics
from engine.training.schedule import learning_rate
from tests.training.test_resume import assert_same_run


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_a_schedule_warms_up_peaks_and_ends(schedule: str) -> None:
    settings = Training(schedule=schedule, learning_rate=0.1, warmup_fraction=0.2)  # type: ignore[arg-type]
    rates = [learning_rate(step, 100, settings) for step in range(100)]
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) in (19, 20)
    assert rates[:20] == sorted(set(rates[:20]))
    assert rates[-1] == pytest.approx(0.1) if schedule == "constant" else rates[-1] < 0.001
    assert learning_rate(0, 1, Training(schedule=schedule)) > 0  # type: ignore[arg-type]


def test_decay_spares_norms_biases_and_what_the_net_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4, 3))
            self.layer = nn.Linear(3, 3)

        def no_weight_decay(self) -> set[str]:
            return {"position"}

    for name, kind in (("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)):
        net = Net()
        optimizer = build_optimizer(net, Training(optimizer=name), "cpu")  # type: ignore[arg-type]
        assert isinstance(optimizer, kind)
        decayed, plain = optimizer.param_groups
        assert decayed["params"] == [net.layer.weight]
        assert plain["params"] == [net.position, net.layer.bias]
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)


def test_what_can_be_frozen() -> None:
    net = build_model("litecnn", 3)
    frozen = freeze(net, ["backbone"])
    assert {name for name, weight in net.named_parameters() if weight.requires_grad} == {
        "head.weight",
        "head.bias",
    }
    assert any(isinstance(module, nn.BatchNorm2d) for module in frozen)
    net = build_model("litecnn", 3)
    freeze(net, ["2", "head.*"])
    kept = [name for name, weight in net.named_parameters() if not weight.requires_grad]
    assert {name for name in kept if not name.startswith(("stem.", "body.0."))} == {"head.weight", "head.bias"}
    assert net.body[1].depthwise.weight.requires_grad
    with pytest.raises(UsageError, match="no weight is called 'layer1"):
        freeze(net, ["layer1.*"])
    with pytest.raises(UsageError, match="nothing to learn"):
        freeze(net, ["*"])


def test_early_stop_ends_a_run_that_got_no_better(
    fit: Callable[..., Any], workspace: Workspace, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_rank", lambda row: 0)
    words = ("data=folder", f"data.root={photos}", "data.img_size=16", "training.batch_size=8")
    result = fit(*words, "training.epochs=9", "training.early_stop=2")
    assert (result["status"], result["best"]["epoch"]) == ("completed", 1)
    assert [row["epoch"] for row in read_metrics(find_run(workspace, result["run"]))] == [1, 2, 3]


RECIPE = (
    "data.augment=document", "data.img_size=24", "training.epochs=3", "training.batch_size=8", "training.optimizer=sgd",
    "training.schedule=onecycle", "training.clip_norm=0.5", "training.ema_decay=0.9", "training.early_stop=3",
    "training.freeze=stem.*", "training.class_weights=balanced", "training.sampling=balanced", "training.mixup=0.2",
    "training.cutmix=1.0", "training.randaugment=2", "training.erasing=0.5", "training.precision=bf16",
)  # fmt: skip


def test_a_resume_keeps_every_part_of_the_recipe(
    fit: Callable[..., Any], workspace: Workspace, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("data=folder", f"data.root={photos}", *RECIPE)
    whole = fit(*words)["run"]
    step, taken = loop.Trainer._gradients, 0

    def cut(self: loop.Trainer, batch: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 6:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(loop.Trainer, "_gradients", cut)
    with pytest.raises(Interrupted) as stopped:
        fit(*words)
    monkeypatch.undo()
    run = stopped.value.payload["run"]
    fit(resume=run)
    assert_same_run(find_run(workspace, whole).root, find_run(workspace, run).root)
