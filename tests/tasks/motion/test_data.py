"""Folders of motions: read, checked, split, and turned into batches that depend on nothing but their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.config import Settings, load_settings
from engine.errors import UsageError
from engine.tasks.motion.clips import Clip, array_of, read_clips, windows
from engine.tasks.task import load_task
from tests.tasks.motion.conftest import TINY

Make = Callable[..., Any]


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Settings]:
    def make(root: Path, *more: str) -> Settings:
        words = [f"model.settings.{key}={value}" for key, value in TINY.items()]
        return load_settings(None, tmp_path, ["task=motion", f"data.root={root}", *words, *more]).settings

    return make


def test_a_task_brings_its_groups(settings: Make, tmp_path: Path) -> None:
    found = settings(tmp_path)
    assert (found.model.name, found.training.learning_rate, found.data.kind) == ("mdm", 0.0001, "folder")
    assert settings(tmp_path, "training=transformer").training.learning_rate == 0.00005


def test_humanml_has_its_own_split_statistics_and_texts(settings: Make, humanml: Path) -> None:
    task = load_task("motion", settings(humanml))
    assert (task.train_samples, task.val_samples) == (8 + 4, 4)  # those of more than 12 frames give two windows
    card = task.card()
    assert card["preprocess"]["mean"] == pytest.approx([0.3] * 7)
    assert card["architecture"]["settings"]["condition_width"] == 5
    assert (card["classes"], task.report["checked"], task.report["ok"]) == ([], 10, 10)
    x0, _, condition, times, noise = next(task.val_batches(3, workers=0))
    assert times.tolist() == [2, 10, 17]
    assert torch.equal(x0[0], x0[2])
    first = (np.load(humanml / "new_joint_vecs" / "000008.npy")[:12] - 0.3) / 0.7
    assert np.allclose(x0[0], first, atol=1e-5)
    assert not torch.equal(noise[0], noise[1])
    assert np.allclose(condition[0], np.load(humanml / "text_embeddings" / "000008.npy")[0])


def test_batches_depend_on_seed_epoch_and_index_alone(settings: Make, humanml: Path) -> None:
    tasks = [load_task("motion", settings(humanml)) for _ in range(2)]
    whole = list(tasks[0].train_batches(3, 4, start=0, workers=0))
    rest = list(tasks[1].train_batches(3, 4, start=1, workers=0))
    assert len(whole) == 3
    assert all(torch.equal(a, b) for a, b in zip(whole[1], rest[0], strict=True))
    other = next(tasks[0].train_batches(4, 4, start=0, workers=0))
    assert not torch.equal(whole[0][4], other[4])
    short = next(batch for batch in whole if batch[1].min() == 0)
    row = int(short[1].min(1).values.argmin())
    assert not short[0][row][short[1][row] == 0].any()  # what is beyond a motion's end is 0, and masked


def test_the_loss_leaves_padding_out_and_accuracy_is_the_variance_explained(settings: Make, humanml: Path) -> None:
    task = load_task("motion", settings(humanml))
    batch = next(task.val_batches(12, workers=0))
    inputs, targets = task.prepare(batch, training=False)
    x0, mask = targets[:2]
    assert inputs.shape == (12, task.shape.packed)
    assert float(task.loss(x0 + (1 - mask)[..., None] * 9, targets)) == 0
    for answer, expected in ((x0, 1.0), (torch.zeros_like(x0), 0.0), (x0 * 0.5, 0.75), (-x0, 0.0)):
        tally = task.tally()
        tally.add(answer, targets)
        assert tally.result()["accuracy"] == pytest.approx(expected, abs=1e-6)


def test_deepmimic_validates_on_the_end_of_each_clip(settings: Make, deepmimic: Path) -> None:
    task = load_task("motion", settings(deepmimic))
    assert list(task.classes) == ["dance", "walk"]
    assert task.describe() == "DeepMimic, 44 values a frame, windows of 12 frames, 2 actions"
    clips = read_clips(deepmimic, 0.2)
    assert [(clip.name, clip.frames, clip.action) for clip in clips.val][2] == ("humanoid3d_walk", 8, 1)
    assert sum(clip.frames for clip in clips.train + clips.val) == 40 + 41 + 42
    shown = [batch[2] for epoch in range(12) for batch in task.train_batches(epoch, 8, start=0, workers=0)]
    rows = torch.cat(shown).sum(1)
    assert set(rows.tolist()) == {0.0, 1.0}  # some are shown without their action, for guidance
    assert load_task("motion", settings(deepmimic, "model.settings.condition=none")).shape.condition_width == 0


def test_bad_files_are_named_and_left_out(humanml: Path) -> None:
    folder = humanml / "new_joint_vecs"
    (folder / "000001.npy").write_bytes((folder / "000001.npy").read_bytes()[:-8])
    (folder / "000002.npy").write_bytes((folder / "000003.npy").read_bytes())
    np.save(folder / "000004.npy", np.full((20, 7), np.nan, np.float32))
    np.save(folder / "000005.npy", np.zeros((20, 6), np.float32))
    np.save(folder / "000006.npy", np.zeros((3, 7), np.float32))
    np.save(folder / "000007.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    found = read_clips(humanml, 0.2)
    assert [clip.name for clip in found.train] == ["000000", "000002"]
    assert {kind: len(items) for kind, items in found.faults.items()} == {
        "corrupt": 4, "empty": 1, "mislabelled": 0, "duplicates": 1
    }  # fmt: skip
    with pytest.raises(ValueError, match="bytes long"):
        array_of((folder / "000000.npy").read_bytes()[:-4])


@pytest.mark.parametrize(
    ("more", "said"),
    [("model.settings.condition=action", "name no actions"), ("model.settings.depth=3", "no setting 'depth'"),
     ("model.settings.features=9", "the data have 7"), ("model.settings.num_heads=3", "no multiple"),
     ("data.root=nowhere", "no folder"), ("model=resnet34", "has no net 'resnet34'")],
)  # fmt: skip
def test_what_makes_no_sense_is_said(settings: Make, humanml: Path, more: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_task("motion", settings(humanml, more))


def test_windows_cover_a_clip() -> None:
    assert list(windows(Clip("a", 5), 12)) == [0]
    assert list(windows(Clip("a", 12), 12)) == [0]
    assert list(windows(Clip("a", 30), 12)) == [0, 12, 18]
