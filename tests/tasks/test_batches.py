"""Batches are a function of (seed, epoch, number): threads, a start in the middle and the cache change nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.config.schema import Data
from engine.tasks.images import batches as making
from engine.tasks.images.batches import train_batches, val_batches
from engine.tasks.images.data import DataSet, load_data
from engine.tasks.images.order import epoch_order

LABELS = np.array([0] * 40 + [1] * 8 + [2] * 3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(24):
        path = tmp_path / "photos" / "abc"[number % 3] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


def test_the_order_is_a_permutation_of_its_own_each_epoch() -> None:
    orders = [epoch_order(1, epoch, LABELS) for epoch in range(3)]
    assert all(sorted(order) == list(range(len(LABELS))) for order in orders)
    assert not np.array_equal(orders[0], orders[1])
    assert np.array_equal(orders[2], epoch_order(1, 2, LABELS))


def test_balanced_sampling_shows_each_class_as_often() -> None:
    orders = [epoch_order(1, epoch, LABELS, "balanced") for epoch in range(4)]
    for order in orders:
        images = order % len(LABELS)
        assert np.bincount(LABELS[images]).tolist() == [17, 17, 17]
        assert len(set(order)) == len(order)  # an image that comes again has another ticket: another augmentation
        assert np.bincount(images)[48:].tolist() in ([5, 6, 6], [6, 5, 6], [6, 6, 5])
    assert np.array_equal(orders[1], epoch_order(1, 1, LABELS, "balanced"))
    shown = np.concatenate(orders) % len(LABELS)
    assert len(set(shown[shown < 40])) > 30  # of the large class another part each time


@pytest.mark.parametrize("level", ["standard", "document"])
@pytest.mark.parametrize("sampling", ["uniform", "balanced"])
def test_batches_do_not_depend_on_threads_place_or_cache(
    photos: Path, level: str, sampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batches(made: DataSet, start: int, workers: int) -> list[tuple[torch.Tensor, ...]]:
        return list(train_batches(made.train, level, 5, 2, 4, sampling=sampling, start=start, workers=workers))

    kept = load_data(Data(kind="folder", root=photos, img_size=16), 0)
    bare = load_data(Data(kind="folder", root=photos, img_size=16, cache_bytes=0), 0)
    whole = batches(kept, 0, 0)
    assert len(whole) == 4
    monkeypatch.setattr(making, "_PIECE", 3)  # samples that a thread makes at a time
    for start, again in ((0, batches(kept, 0, 3)), (0, batches(bare, 0, 1)), (2, batches(bare, 2, 4))):
        assert len(again) == len(whole) - start
        for one, other in zip(whole[start:], again, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_validation_is_in_order_and_what_ends_early_ends(photos: Path) -> None:
    made = load_data(Data(kind="folder", root=photos, img_size=16), 0)
    taken = list(val_batches(made.val, 4, workers=2))
    assert torch.cat([labels for _, labels in taken]).tolist() == made.val.labels.tolist()
    begun = train_batches(made.train, "none", 0, 0, 2, sampling="uniform", start=0, workers=2)
    next(begun)
    begun.close()
