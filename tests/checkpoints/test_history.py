"""The verb `checkpoints`: what is there, where it stands, and what prune and reset remove."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import CheckpointManager
from engine.config import load_settings
from engine.release.bundle import Manifest, Origin, release_path, write_release
from engine.release.slots import write_pointer
from engine.store.clock import timestamp
from engine.store.files import sha256_file, write_json
from engine.store.workspace import Workspace

Engine = Callable[..., Any]


def best(workspace: Workspace, cycle: int, name: str | None = None, age_s: float = 0.0) -> Path:
    """A file under a best checkpoint's name, its content of its own."""
    path = workspace.root / "checkpoints" / f"checkpoints_cycle{cycle}" / (name or f"best_model_cycle{cycle}.pth")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{cycle} {name}".encode())
    moment = time.time() - age_s
    os.utime(path, (moment, moment))
    return path


def released(workspace: Workspace, path: Path, slot: str | None = None, **origin: Any) -> str:
    content = path.read_bytes()
    manifest = Manifest(
        architecture={"name": "litecnn", "settings": {}},
        classes=["a", "b"],
        input={},
        preprocess={},
        parameters=1,
        checkpoint=Origin(
            name=path.name,
            sha256=sha256_file(path),
            md5=hashlib.md5(content).hexdigest(),
            bytes=len(content),
            **origin,
        ),
    )
    workspace.releases.mkdir(parents=True, exist_ok=True)
    release = write_release(workspace.releases, manifest, b"onnx", b"weights")
    if slot:
        write_pointer(workspace, slot, release, "test")
    return release.id


def by_name(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"/".join(Path(one["path"]).parts[-2:]): one for one in result["checkpoints"]}


def test_nothing_yet(engine: Engine) -> None:
    assert engine("checkpoints", "--json").json == {"checkpoints": []}
    assert "no checkpoint yet" in engine("checkpoints", "list").out


def test_where_each_one_stands(engine: Engine, workspace: Workspace) -> None:
    for cycle in range(1, 8):
        best(workspace, cycle, age_s=1000 - cycle)
    other = best(workspace, 7, "my_model_final.pth", age_s=500)
    folder = other.parents[1]
    asis = released(
        workspace, folder / "checkpoints_cycle1/best_model_cycle1.pth", "asis", cycle=1, epoch=4, accuracy=0.9
    )
    released(
        workspace, folder / "checkpoints_cycle2/best_model_cycle2.pth", "tobe", cycle=2, epoch=9, accuracy=0.95
    )
    kept = released(workspace, folder / "checkpoints_cycle3/best_model_cycle3.pth", loss=0.5)
    released(workspace, folder / "checkpoints_cycle4/best_model_cycle4.pth")
    backup = workspace.backups / f"model_{port(engine)}_backup_20260206_092530.bin"
    backup.parent.mkdir()
    backup.write_bytes(release_path(workspace, kept).read_bytes())
    refused = sha256_file(folder / "checkpoints_cycle5/best_model_cycle5.pth")
    write_json(
        workspace.state / "refused.json", {refused: {"message": "is not a checkpoint", "check": "container"}}
    )

    result = engine("checkpoints", "list", "--json").json
    found = by_name(result)
    states = {name: one["state"] for name, one in found.items()}
    assert states == {
        "checkpoints_cycle1/best_model_cycle1.pth": "asis",
        "checkpoints_cycle2/best_model_cycle2.pth": "tobe",
        "checkpoints_cycle3/best_model_cycle3.pth": "backup",
        "checkpoints_cycle4/best_model_cycle4.pth": "released",
        "checkpoints_cycle5/best_model_cycle5.pth": "refused",
        "checkpoints_cycle6/best_model_cycle6.pth": "superseded",
        "checkpoints_cycle7/best_model_cycle7.pth": "new",
        "checkpoints_cycle7/my_model_final.pth": "unused",
    }
    first = found["checkpoints_cycle1/best_model_cycle1.pth"]
    assert (first["cycle"], first["epoch"], first["accuracy"], first["release"]) == (1, 4, 0.9, asis)
    assert found["checkpoints_cycle5/best_model_cycle5.pth"]["reason"] == "is not a checkpoint"
    unknown = found["checkpoints_cycle6/best_model_cycle6.pth"]
    assert (unknown["cycle"], unknown["epoch"], unknown["accuracy"]) == (6, None, None)
    assert [one["cycle"] for one in result["checkpoints"] if one["state"] != "unused"] == [7, 6, 5, 4, 3, 2, 1]
    shown = engine("checkpoints").out
    assert "90.00%" in shown
    assert "refused (is not a checkpoint)" in shown


def port(engine: Engine) -> int:
    return int(engine("config", "show", "--json").json["settings"]["servers.asis.port"]["value"])


def test_what_a_run_says_of_its_files(engine: Engine, workspace: Workspace) -> None:
    path = best(workspace, 3)
    run = workspace.runs / "0001"
    CheckpointManager(run / "checkpoints").save_checkpoint(
        torch.nn.Linear(2, 2), None, 2, 40, 0.7, {"accuracy": 0.8}, {"cycle": 3}
    )
    (run / "last.pth").write_bytes(b"state")
    manifest = {
        "started_at": timestamp(time.time() - 60),
        "finished_at": timestamp(),
        "status": "completed",
        "cycle": 3,
        "epoch": 5,
        "checkpoint": str(path),
        "best": {"epoch": 4, "step": 80, "accuracy": 0.91, "loss": 0.3},
    }
    write_json(run / "manifest.json", manifest)
    found = by_name(engine("checkpoints", "--json").json)
    mine = found["checkpoints_cycle3/best_model_cycle3.pth"]
    assert [mine[name] for name in ("epoch", "step", "accuracy", "loss", "run")] == [4, 80, 0.91, 0.3, "0001"]
    interval = found["checkpoints/checkpoint_epoch2_step40.pt"]
    assert [interval[name] for name in ("state", "cycle", "epoch", "step", "accuracy", "loss")] == [
        "interval", 3, 2, 40, 0.8, 0.7,
    ]  # fmt: skip
    assert found["0001/last.pth"]["state"] == "resume"
    assert found["0001/last.pth"]["epoch"] == 5

    path.write_bytes(b"somebody else's, later")
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    assert (
        by_name(engine("checkpoints", "--json").json)["checkpoints_cycle3/best_model_cycle3.pth"]["accuracy"]
        is None
    )


def test_facts_outlive_their_release_and_the_memory_can_be_thrown_away(
    engine: Engine, workspace: Workspace
) -> None:
    path = best(workspace, 1)
    identity = released(workspace, path, accuracy=0.93)
    assert engine("checkpoints", "--json").json["checkpoints"][0]["accuracy"] == 0.93
    release_path(workspace, identity).unlink()
    assert engine("checkpoints", "--json").json["checkpoints"][0]["accuracy"] == 0.93
    (workspace.state / "checkpoints.json").write_text("{")
    again = engine("checkpoints", "--json").json["checkpoints"][0]
    assert (again["accuracy"], again["sha256"]) == (None, sha256_file(path))


def test_prune_keeps_bests_and_what_slots_hold(engine: Engine, workspace: Workspace) -> None:
    paths = {cycle: best(workspace, cycle, age_s=100 - cycle) for cycle in range(1, 6)}
    old = [best(workspace, 5, f"checkpoint_epoch{n}.pth", age_s=90 - n) for n in (10, 20, 50)]
    released(workspace, paths[1], "asis", cycle=1)
    released(workspace, old[0], "tobe")
    preview = engine("checkpoints", "prune", "--dry-run", "training.max_checkpoints=1", "--json").json
    assert [Path(entry["path"]).name for entry in preview["removed"]] == ["checkpoint_epoch20.pth"]
    assert all(path.exists() for path in old)
    done = engine("checkpoints", "prune", "training.max_checkpoints=1")
    assert done.code == 0
    assert "removed" in done.out
    assert [path.exists() for path in old] == [True, False, True]
    assert all(path.exists() for path in paths.values())

    result = engine("checkpoints", "prune", "--keep", "2", "--json").json
    assert sorted(Path(entry["path"]).name for entry in result["removed"]) == [
        "best_model_cycle2.pth",
        "best_model_cycle3.pth",
    ]
    assert [cycle for cycle, path in paths.items() if path.exists()] == [1, 4, 5]
    assert len(result["checkpoints"]) == 5


def test_prune_takes_the_json_along(engine: Engine, workspace: Workspace) -> None:
    folder = workspace.runs / "0001" / "checkpoints"
    manager = CheckpointManager(folder, max_checkpoints=4)
    for n in range(1, 5):
        manager.save_checkpoint(torch.nn.Linear(2, 2), None, n, n, 1.0)
    engine("checkpoints", "prune", "training.max_checkpoints=2")
    assert sorted(path.name for path in folder.iterdir()) == [
        f"checkpoint_epoch{n}_step{n}.{kind}" for n in (3, 4) for kind in ("json", "pt")
    ]


def test_reset_needs_a_word_and_leaves_what_is_good(engine: Engine, workspace: Workspace) -> None:
    path = best(workspace, 1)
    state = workspace.runs / "0001" / "last.pth"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"state")
    asked = engine("checkpoints", "reset", "--json")
    assert asked.code == 2
    assert json.loads(asked.out)["error"]["kind"] == "unconfirmed"
    assert state.exists()
    assert engine("checkpoints", "reset", "--yes", "--json").json["removed"][0]["path"] == str(state)
    assert not state.exists()
    assert path.exists()


@pytest.mark.parametrize(
    "words", [["lst"], ["list", "--keep", "2"], ["prune", "--keep", "0"], ["prune", "--yes"], ["--dry-run"]]
)
def test_bad_input(engine: Engine, words: list[str]) -> None:
    result = engine("checkpoints", *words)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")


def test_torch_stays_away(workspace: Workspace) -> None:
    import subprocess
    import sys

    code = (
        "import sys, pathlib; from engine.cli.checkpoints import checkpoint_history, standings;"
        "from engine.config import load_settings; from engine.store.workspace import Workspace;"
        f"w = Workspace(pathlib.Path({str(workspace.root)!r})); s = load_settings(None, w.root).settings;"
        "checkpoint_history(w, s, standings(w, s)); print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    best(workspace, 1)
    assert load_settings(None, workspace.root).settings.checkpoints_root == workspace.root / "checkpoints"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
