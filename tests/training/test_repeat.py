"""A manifest names what a run was made with, and `train --from RUN` makes it again, to the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.config import load_settings
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.training.plan import kept_settings, repeated_settings, resumed_settings
from engine.training.provenance import differences
from engine.training.runs import find_run
from engine.training.state import state_digest
from tests.training.conftest import SMALL

WORDS = (*SMALL, "data.val_fraction=0.85", "training.epochs=1", "training.ema_decay=0.9")


@pytest.mark.long(9)
def test_a_run_is_repeated_to_the_same_bytes_and_what_differs_is_said(
    fit: Callable[..., Any], engine: Callable[..., Any], workspace: Workspace
) -> None:
    fit(*WORDS)
    first = find_run(workspace, "1")
    manifest = first.read_manifest()
    assert manifest["code"]["version"]
    assert manifest["packages"]["torch"] == torch.__version__
    assert (manifest["seed"], manifest["threads"], manifest["device"]) == (3, torch.get_num_threads(), "cpu")
    assert manifest["fingerprint"]
    assert manifest["settings"]["training"]["ema_decay"] == 0.9
    first.write_manifest(manifest | {"python": "3.10.1"})

    done = engine("train", "--from", "1", "--json")
    assert done.code == 0, done.err
    second = find_run(workspace, "2")
    assert second.read_manifest()["state_sha256"] == manifest["state_sha256"]
    assert second.read_manifest()["repeats"] == "0001"
    assert "run 0002 ends with the same weights and optimiser as run 0001, bit for bit" in done.err
    assert "not as in run 0001: Python: now" in done.err
    state = torch.load(second.last, weights_only=True)
    assert state_digest(state) == manifest["state_sha256"]
    next(iter(state["model_state_dict"].values())).add_(1e-6)
    assert state_digest(state) != manifest["state_sha256"]


def test_a_repetition_takes_what_the_line_changes_a_resume_does_not(workspace: Workspace) -> None:
    kept = load_settings(None, workspace.root, WORDS).settings
    loaded = load_settings(None, workspace.root, ("training.seed=4",))
    repeated = repeated_settings(loaded, kept_settings(kept))
    assert (repeated.training.seed, repeated.training.ema_decay, repeated.data.img_size) == (4, 0.9, 16)
    with pytest.raises(UsageError, match="would change the result"):
        resumed_settings(loaded, kept_settings(kept))


def test_differences_are_named() -> None:
    clean = {"version": "1", "commit": "a" * 40, "changed": False}
    before = {"code": clean, "packages": {"torch": "2.1", "timm": "1.0"}, "fingerprint": "abc", "device": "cuda"}
    now = {
        "code": clean | {"commit": "b" * 40},
        "packages": {"torch": "2.2"},
        "fingerprint": "abd",
        "device": "cpu",
    }
    assert differences(before, now) == [
        "code: commit is bbbbbbbbbbbbbbbb, was aaaaaaaaaaaaaaaa",
        "packages: torch is 2.2, was 2.1",
        "packages: timm is absent, was 1.0",
        "data: now abd, was abc",
        "device: now cpu, was cuda",
    ]
    assert differences(before, before) == []
