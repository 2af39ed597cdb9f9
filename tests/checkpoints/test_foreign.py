"""Other programs' files: read as data alone, laid beside a net by the prefix that fits."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from engine.checkpoints.foreign import adopt, align, read_foreign
from engine.errors import UsageError


def net(classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, classes))


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


@pytest.fixture
def lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, dict[str, Any]]:
    """A file as Lightning writes it, with a config object of a package that is not installed."""
    module = ModuleType("omegaconf_like")
    exec("class Config:\n    def __init__(self): self.a = 1\nclass Attributes(dict): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "omegaconf_like", module)
    state = net().state_dict()
    content = {
        "epoch": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**prefixed(state, "model."), "loss.weight": torch.ones(5)},
        "hyper_parameters": {
            "cfg": module.Config(),
            "args": argparse.Namespace(lr=1),
            "root": Path("/x"),
            "t": int,
        },
        "hparams": module.Attributes(a=module.Attributes(b=1)),
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best": torch.tensor(0.9)}},
    }
    path = tmp_path / "best.ckpt"
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, "omegaconf_like")
    return path, state


def test_a_lightning_file_with_objects_is_read_as_data_and_another_head_is_said(
    lightning: tuple[Path, dict[str, Any]],
) -> None:
    path, state = lightning
    model = net(classes=3)
    before = model[2].weight.clone()
    facts, lines = adopt(model, path)
    assert torch.equal(model[0].weight, state["0.weight"])
    assert torch.equal(model[2].weight, before)
    assert facts["initialised"] == ["2.weight", "2.bias"]
    assert "omegaconf_like" not in sys.modules
    said = "\n".join(lines)
    assert "'model.' was taken off their names" in said
    assert "2.weight [3, 16] (the file's is [5, 16])" in said
    assert "omegaconf_like.Config" in said
    assert "loss.weight" in said


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "net.", "backbone.", "_orig_mod.", "model._orig_mod.backbone."]
)
def test_prefixes(tmp_path: Path, prefix: str) -> None:
    state = net().state_dict()
    torch.save(prefixed(state, prefix), tmp_path / "bare.pth")
    found = align(net().state_dict(), read_foreign(tmp_path / "bare.pth").state)
    assert found.complete
    assert found.share == 1
    assert not found.surplus


def test_averaged_weights_go_first(tmp_path: Path) -> None:
    plain, mean = net().state_dict(), net().state_dict()
    for number, content in enumerate(
        (
            {"state_dict": plain, "state_dict_ema": prefixed(mean, "module.")},
            {"state_dict": {**prefixed(plain, "net."), **prefixed(mean, "ema_net.module.")}},
        )
    ):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        model = net()
        adopt(model, path)
        assert torch.equal(model[0].weight, mean["0.weight"])


def test_a_net_that_wraps_the_file_s_own(tmp_path: Path) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

    save_file(net().state_dict(), tmp_path / "w.safetensors")
    assert "'inner.' was put before their names" in adopt(Wrapped(), tmp_path / "w.safetensors")[1][0]


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (net(), "which is never run"),
        ({"state_dict": net().state_dict(), "x": _Runs()}, "which is never run"),
        ([1], "holds a list"),
        ({"epoch": 1}, "holds no weights"),
        ({"other.weight": torch.ones(4, 4)}, "fits only 0%"),
        (net().state_dict() | {"0.bias": torch.full((16,), float("nan"))}, "NaN or Inf in '0.bias'"),
    ],
)
def test_what_is_no_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=said):
        adopt(net(), tmp_path / "x.pth")
    assert not (tmp_path / "ran").exists()


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(net().state_dict(), path)
    whole = path.read_bytes()
    place = whole.index(b"data/0") + 100  # within the first tensor, which follows its name
    for content in (whole[:500], b"junk", b"", whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
        path.write_bytes(content)
        with pytest.raises(UsageError) as caught:
            read_foreign(path)
        assert caught.value.kind == "damaged"
    for missing in (tmp_path, tmp_path / "no.pth"):
        with pytest.raises(UsageError, match=r"is a folder|does not exist"):
            read_foreign(missing)
