"""Out of memory: the step is undone and taken again in smaller parts, and the run ends as if it had begun with those."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import Failed, Interrupted
from engine.store.workspace import Workspace
from engine.training.runs import find_run, list_runs, read_metrics
from engine.training.shortage import is_shortage
from tests.training.conftest import SMALL
from tests.training.test_resume import same_tensors

pytestmark = pytest.mark.fault(48)

# what each device says, in the words of torch's sources
CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 24 GiB"
)
MPS = RuntimeError("MPS backend out of memory (MPS allocated: 18.13 GB, max allowed: 18.13 GB). Tried to allocate")
MPS_BUFFER = RuntimeError("Invalid buffer size: 12.00 GB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: 12")
HOST = MemoryError()

NET = """
from torch import nn

class Gate(nn.Module):
    plan = {}  # (training, number of the pass) -> what to raise, and in which direction
    passes = {True: 0, False: 0}

    def forward(self, x):
        if x.is_meta or type(x).__name__ == "FakeTensor":  # the forecast of `fit`
            return x
        Gate.passes[self.training] += 1
        error, backwards = Gate.plan.get((self.training, Gate.passes[self.training]), (None, False))
        if error and not backwards:
            raise error
        if error:
            def fail(grad):
                raise error
            x.register_hook(fail)
        return x

def factory(num_classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), Gate(), nn.ReLU(), nn.Dropout(0.2),
                         nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), Gate(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Linear(32, num_classes))
"""
ONE = (*SMALL, "data.val_fraction=0.85", "training.epochs=1", "training.ema_decay=0.9", "model=gated_net:factory")
WORDS = (*SMALL, "training.epochs=2", "training.ema_decay=0.9", "model=gated_net:factory")


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A net that raises what its plan says; two gates a pass, so that the batch norm before one has moved already."""
    (tmp_path / "gated_net.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    import gated_net

    yield gated_net.Gate
    del __import__("sys").modules["gated_net"]


def plan(gate: Any, **errors: Any) -> None:
    gate.plan, gate.passes = errors.get("plan", {}), {True: 0, False: 0}


def assert_same_end(one: Path, other: Path) -> None:
    left, right = (torch.load(run / "last.pth", weights_only=True) for run in (one, other))
    for key in ("model_state_dict", "ema_state_dict", "optimizer_state_dict", "best"):
        assert same_tensors(left[key], right[key]), key


def test_a_shortage_ends_as_if_begun_with_the_smaller_parts(
    gate: Any, fit: Callable[..., Any], workspace: Workspace
) -> None:
    plan(gate)
    fit(*ONE, "training.micro_batch=16")
    for number, error in enumerate((CUDA, MPS), 2):
        # in the deeper half of the first pass, or in its backward pass
        plan(gate, plan={(True, 2): (error, number % 2 == 0)})
        lines: list[str] = []
        result = fit(*ONE, lines=lines)
        assert result["status"] == "completed", error
        said = [line for line in lines if "16 samples at a time instead of 32" in line]
        assert len(said) == 1
        assert "batch of 32" in said[0]
        assert_same_end(workspace.runs / "0001", workspace.runs / f"{number:04}")


@pytest.mark.parametrize("error", [CUDA, MPS, MPS_BUFFER, CPU, HOST])
def test_every_devices_words_are_known(error: Exception) -> None:
    assert is_shortage(error)
    assert not is_shortage(type(error)("mat1 and mat2 shapes cannot be multiplied")) or error in (CUDA, HOST)


def test_it_halves_again_is_noted_everywhere_and_survives_a_resume(
    gate: Any, fit: Callable[..., Any], workspace: Workspace
) -> None:
    # the passes of step 3 (of 8) go at once, then in halves; the second half of it fails too
    plan(gate, plan={(True, 5): (CUDA, False), (True, 8): (MPS, True), (False, 1): (CPU, False)})
    fit(*WORDS)
    folder = find_run(workspace, "1")
    manifest = folder.read_manifest()
    noted = [(s["epoch"], s["step"], s["limit"], s["before"], s["now"]) for s in manifest["shortages"]]
    assert noted == [(1, 2, "micro_batch", 32, 16), (1, 2, "micro_batch", 16, 8), (1, 8, "val_batch", 8, 4)]
    assert manifest["micro_batch"] == 8
    assert json.loads(folder.progress.read_text())["micro_batch"] == 8
    assert [row["micro_batch"] for row in read_metrics(folder)] == [8, 8]

    plan(gate, plan={(True, 5): (CUDA, False), (True, 8): (MPS, True), (False, 1): (CPU, False)})
    real, asked = gate.forward, [0]

    def stopping(self: Any, x: Any) -> Any:
        asked[0] += self.training
        if asked[0] == 70:  # in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, x)

    gate.forward = stopping
    with pytest.raises(Interrupted):
        fit(*WORDS)
    plan(gate)
    fit(resume="2")
    assert_same_end(workspace.runs / "0001", workspace.runs / "0002")
    assert len(find_run(workspace, "2").read_manifest()["shortages"]) >= 2


def test_a_shortage_amid_the_change_of_the_weights_goes_back_to_the_last_state(
    gate: Any, fit: Callable[..., Any], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(gate)
    fit(*ONE, "training.micro_batch=16")
    original, calls = torch.amp.GradScaler.step, [0]

    def torn(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        done = original(self, *arguments)
        if calls[0] == 4:
            raise CUDA
        return done

    monkeypatch.setattr(torch.amp.GradScaler, "step", torn)
    fit(*ONE)
    assert_same_end(workspace.runs / "0001", workspace.runs / "0002")


def test_a_sample_that_does_not_fit_ends_the_run_with_what_to_do(
    gate: Any, fit: Callable[..., Any], workspace: Workspace
) -> None:
    plan(gate, plan={(True, number): (CUDA, False) for number in range(1, 20)})
    with pytest.raises(Failed, match=r"one sample at a time .*smaller data\.img_size") as caught:
        fit(*ONE)
    assert (caught.value.kind, caught.value.exit_code) == ("out_of_memory", 1)
    entry = list_runs(workspace)[0]
    assert entry["status"] == "failed"
    assert "out of memory" in entry["error"]
