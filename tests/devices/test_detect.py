"""CUDA, then MPS, then the CPU; a device asked for and not there is replaced, and it is said."""

from __future__ import annotations

import pytest
import torch

from engine.devices.detect import choose_device


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_the_cpu_is_always_there() -> None:
    chosen = choose_device()
    assert (chosen.kind, chosen.note) == ("cpu", "")
    assert chosen.name


def test_cuda_before_mps_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device().kind == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Test GPU")
    assert (choose_device().kind, choose_device().name) == ("cuda", "Test GPU")
    assert choose_device("cpu").kind == "cpu"


@pytest.mark.parametrize("wanted", ["cuda", "mps", "xpu"])
def test_an_absent_device_falls_back_with_a_note(wanted: str) -> None:
    chosen = choose_device(wanted)
    assert chosen.kind == "cpu"
    assert chosen.note.startswith(f"{wanted} is not available here")
    assert chosen.note.endswith("using cpu")
