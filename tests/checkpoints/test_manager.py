"""`CheckpointManager`: saved whole, listed, pruned, verified, mirrored."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoints import CheckpointManager
from engine.errors import Failed, UsageError
from engine.store.files import sha256_file


def net(fill: float = 0.0) -> torch.nn.Module:
    model = torch.nn.Linear(3, 2)
    torch.nn.init.constant_(model.weight, fill)
    return model


def optimizer_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer


def fill(manager: CheckpointManager, count: int, start: int = 1) -> list[Path]:
    return [manager.save_checkpoint(net(n), None, n, n * 500, 1 / n) for n in range(start, start + count)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_saved_and_loaded_again_with_the_optimizer(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    model = net(1.0)
    optimizer = optimizer_of(model)
    path = manager.save_checkpoint(
        model, optimizer, 10, 5000, 0.25, {"fid": np.float32(0.5), "top": torch.tensor(3)}, {"note": "first"}
    )
    assert path == tmp_path / "checkpoint_epoch10_step5000.pt"
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["sha256"] == sha256_file(path)
    assert (facts["epoch"], facts["step"], facts["loss"], facts["metrics"]) == (
        10,
        5000,
        0.25,
        {"fid": 0.5, "top": 3},
    )

    other = net(7.0)
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=1.0)
    loaded = manager.load_checkpoint(path, other, other_optimizer)
    assert {k: loaded[k] for k in ("epoch", "step", "loss", "metrics", "metadata")} == {
        "epoch": 10, "step": 5000, "loss": 0.25, "metrics": {"fid": 0.5, "top": 3}, "metadata": {"note": "first"},
    }  # fmt: skip
    assert torch.equal(other.state_dict()["weight"], model.state_dict()["weight"])
    mine, theirs = optimizer.state_dict(), other_optimizer.state_dict()
    assert theirs["param_groups"] == mine["param_groups"]
    assert torch.equal(theirs["state"][0]["exp_avg"], mine["state"][0]["exp_avg"])


def test_listed_oldest_first_by_number_not_by_name(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, max_checkpoints=20)
    fill(manager, 11)
    listed = manager.list_checkpoints()
    assert [entry["epoch"] for entry in listed] == list(range(1, 12))
    assert [entry["step"] for entry in listed] == [500 * n for n in range(1, 12)]
    assert listed[3]["loss"] == 0.25
    assert Path(listed[0]["path"]).is_file()


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, max_checkpoints=3)
    fill(manager, 5)
    assert names(tmp_path) == [
        f"checkpoint_epoch{n}_step{n * 500}.{kind}" for n in (3, 4, 5) for kind in ("json", "pt")
    ]
    with pytest.raises(UsageError):
        CheckpointManager(tmp_path, max_checkpoints=0)


def test_a_training_begun_anew_counts_as_newer(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, max_checkpoints=2)
    fill(manager, 2, start=8)
    manager.save_checkpoint(net(1.0), None, 1, 500, 1.0)
    assert [entry["epoch"] for entry in manager.list_checkpoints()] == [9, 1]


def test_saving_the_same_position_again_replaces_it(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save_checkpoint(net(1.0), None, 1, 1, 1.0)
    path = manager.save_checkpoint(net(2.0), None, 1, 1, 0.5)
    model = net()
    assert manager.load_checkpoint(path, model)["loss"] == 0.5
    assert float(model.state_dict()["weight"][0, 0]) == 2.0


def test_latest_falls_back_over_damaged_files_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = CheckpointManager(tmp_path)
    model = net()
    assert manager.load_latest_checkpoint(model) is None
    first, second, third = fill(manager, 3)
    content = bytearray(third.read_bytes())
    content[len(content) // 2] ^= 1
    third.write_bytes(content)
    second.write_bytes(second.read_bytes()[:100])
    second.with_suffix(".json").unlink()
    loaded = manager.load_latest_checkpoint(model)
    assert loaded is not None
    assert loaded["epoch"] == 1
    assert {Path(entry["path"]) for entry in loaded["skipped"]} == {third, second}
    assert "passed over a damaged checkpoint" in caplog.text
    first.write_bytes(b"")
    with pytest.raises(Failed, match="none of the 3 checkpoints"):
        manager.load_latest_checkpoint(model)


def test_a_missing_foreign_or_hostile_file(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    with pytest.raises(UsageError, match="no checkpoint at"):
        manager.load_checkpoint(tmp_path / "nothing.pt", net())
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(Failed, match="cannot be read"):
        manager.load_checkpoint(tmp_path / "text.pt", net())
    path = fill(manager, 1)[0]
    with pytest.raises(Failed, match="does not fit this model"):
        manager.load_checkpoint(path, torch.nn.Linear(4, 4))

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (str(tmp_path / "owned"),)

    torch.save({"model_state_dict": Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(Failed):
        manager.load_checkpoint(tmp_path / "hostile.pt", net())
    assert not (tmp_path / "owned").exists()


def test_only_plain_values_are_taken(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    with pytest.raises(UsageError, match=r"metadata\.model"):
        manager.save_checkpoint(net(), None, 1, 1, 1.0, metadata={"model": net()})
    path = manager.save_checkpoint(net(), None, 1, 1, float("nan"))
    assert json.loads(path.with_suffix(".json").read_text())["loss"] is None


def test_a_mirror_that_vanishes_gets_what_it_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mirror, away = tmp_path / "drive", tmp_path / "elsewhere"
    manager = CheckpointManager(tmp_path / "own", max_checkpoints=3, mirror=mirror)
    fill(manager, 2)
    assert names(mirror) == names(tmp_path / "own")
    mirror.rename(away)
    with caplog.at_level(logging.WARNING):
        fill(manager, 3, start=3)
    assert not mirror.exists()
    assert caplog.text.count("is away") == 1
    away.rename(mirror)
    fill(manager, 1, start=6)
    assert names(mirror) == names(tmp_path / "own")
    for path in mirror.glob("*.pt"):
        assert sha256_file(path) == sha256_file(tmp_path / "own" / path.name)


def test_a_mirror_that_is_lost_is_filled_when_a_new_one_is_there(tmp_path: Path) -> None:
    mirror = tmp_path / "drive"
    fill(CheckpointManager(tmp_path / "own", mirror=mirror), 2)
    shutil.rmtree(mirror)
    fill(CheckpointManager(tmp_path / "own", mirror=mirror), 1, start=3)
    assert not mirror.exists()
    mirror.mkdir()
    CheckpointManager(tmp_path / "own", mirror=mirror)
    assert names(mirror) == names(tmp_path / "own")


def test_a_mirror_that_cannot_be_written_stops_no_saving(tmp_path: Path) -> None:
    mirror = tmp_path / "drive"
    mirror.write_text("a file")
    path = CheckpointManager(tmp_path / "own", mirror=mirror).save_checkpoint(net(), None, 1, 1, 1.0)
    assert path.is_file()


def test_a_damaged_checkpoint_is_not_mirrored(tmp_path: Path) -> None:
    own, mirror = tmp_path / "own", tmp_path / "drive"
    first, second = fill(CheckpointManager(own), 2)
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    CheckpointManager(own, mirror=mirror)
    assert names(mirror) == names(own)[2:]
    assert second.name in names(mirror)


def test_from_drive_on_a_new_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drive = tmp_path / "MyDrive"
    monkeypatch.setattr("engine.checkpoints.manager.DRIVE", drive)
    manager = CheckpointManager(tmp_path / "own", google_drive_sync=True)
    fill(manager, 1)
    assert "is not mounted" in caplog.text
    drive.mkdir()
    fill(manager, 1, start=2)
    assert len(names(drive / "MDM_Checkpoints")) == 4

    fresh, model = CheckpointManager(tmp_path / "new", google_drive_sync=True), net()
    assert fresh.load_latest_checkpoint(model) is None
    loaded = fresh.load_latest_checkpoint(model, from_drive=True)
    assert loaded is not None
    assert (loaded["epoch"], float(model.state_dict()["weight"][0, 0])) == (2, 2.0)
    shutil.rmtree(drive)
    loaded = manager.load_latest_checkpoint(model, from_drive=True)
    assert loaded is not None
    assert Path(loaded["path"]).parent == tmp_path / "own"


@pytest.mark.fault(7)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = CheckpointManager(tmp_path)
    fill(manager, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.store.files.os.fsync", full)
    with pytest.raises(Failed, match="No space left"):
        fill(manager, 1, start=2)
    assert [entry["epoch"] for entry in manager.list_checkpoints()] == [1]
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob(".*.part"))


def test_the_room_is_light_to_enter() -> None:
    code = "import sys, engine.checkpoints; print(engine.checkpoints.CheckpointManager.__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["CheckpointManager", "False"]


def test_every_so_many_steps(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, save_every_steps=1000)
    found = [manager.save_if_due(net(), None, 1, step, 0.5) for step in (1, 999, 1000, 1001, 2000)]
    assert [path and path.name for path in found] == [
        None, None, "checkpoint_epoch1_step1000.pt", None, "checkpoint_epoch1_step2000.pt"
    ]  # fmt: skip
    assert CheckpointManager(tmp_path).save_if_due(net(), None, 1, 1000, 0.5) is None
    with pytest.raises(UsageError):
        CheckpointManager(tmp_path, save_every_steps=-1)


def test_the_latest_from_the_mirror_on_a_new_machine(tmp_path: Path) -> None:
    """A mirror that is there is looked at first; when it is away the own folder serves."""
    mirror, model = tmp_path / "drive" / "run", net()
    fill(CheckpointManager(tmp_path / "old", mirror=mirror), 3)
    fresh = CheckpointManager(tmp_path / "new", mirror=mirror)
    assert fresh.load_latest(model) is None
    found = fresh.load_latest(model, from_mirror=True)
    assert found is not None
    assert (found["epoch"], found["step"]) == (3, 1500)
    assert Path(found["path"]).parent == mirror
    assert bool((model.weight == 3).all())
    fill(fresh, 1, start=4)
    assert sorted(path.stem for path in mirror.glob("*.pt"))[-1] == "checkpoint_epoch4_step2000"
    mirror.rename(tmp_path / "away")
    found = fresh.load_latest(model, from_mirror=True)
    assert found is not None
    assert found["epoch"] == 4
