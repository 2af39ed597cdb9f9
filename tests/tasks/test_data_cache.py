"""What a check found is kept and believed only for files that have not changed; decoded images are bounded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.config.schema import Data
from engine.errors import Failed
from engine.tasks.images import check
from engine.tasks.images.data import DataSet, load_data

SIDE = 16
ROW = 3 * SIDE**2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(20):
        put(folder / ("cat" if number < 10 else "dog") / f"{number}.png", number)
    return folder


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were opened, and no waiting for their times to be old enough."""
    opened: list[str] = []
    real = check.look_at

    def look_at(path: Path, preprocess: object) -> object:
        opened.append(path.name)
        return real(path, preprocess)  # type: ignore[arg-type]

    monkeypatch.setattr(check, "look_at", look_at)
    monkeypatch.setattr(check, "_RACY_NS", -1)
    return opened


@pytest.fixture
def load(root: Path, tmp_path: Path, looked_at: list[str]) -> Callable[..., tuple[DataSet, list[str]]]:
    """Load the photos; the data set, and which files were opened for it."""

    def run(**keys: object) -> tuple[DataSet, list[str]]:
        looked_at.clear()
        settings = Data.model_validate({"kind": "folder", "root": root, "img_size": SIDE, **keys})
        return load_data(settings, 0, cache=tmp_path / "cache"), sorted(looked_at)

    return run


def put(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def everything(made: DataSet) -> bytes:
    return b"".join(part.pixels(range(len(part))).tobytes() for part in (made.train, made.val))


Load = Callable[..., tuple[DataSet, list[str]]]


def test_an_unchanged_file_is_not_opened_again(load: Load, root: Path) -> None:
    (root / "dog" / "bad.png").write_text("no image")
    first, opened = load()
    assert len(opened) == 21
    again, opened = load()
    assert opened == []
    assert (again.report, again.fingerprint) == (first.report, first.fingerprint)
    assert everything(again) == everything(first)
    put(root / "cat" / "3.png", 333)
    put(root / "dog" / "new.png", 334)
    (root / "cat" / "5.png").unlink()
    changed, opened = load()
    assert opened == ["3.png", "new.png"]
    fresh = load_data(Data(kind="folder", root=root, img_size=SIDE), 0)
    assert (changed.report, everything(changed)) == (fresh.report, everything(fresh))


def test_a_change_that_keeps_size_and_time_is_seen(
    load: Load, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = root / "cat" / "0.png"
    before, stat = load()[0], target.stat()
    target.write_bytes(target.read_bytes()[:-1] + b"\0")
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after, opened = load()
    assert opened == ["0.png"]
    assert after.fingerprint != before.fingerprint
    monkeypatch.setattr(check, "_RACY_NS", 10**18)  # what is as young as the look at it is looked at again
    target.touch()
    load()
    assert len(load()[1]) == 20


def test_disk_memory_and_nothing_kept_give_the_same_pixels(load: Load) -> None:
    on_disk, _ = load()
    in_memory, opened = load(cache="memory")
    assert opened == []
    none, _ = load(cache_bytes=0)
    half, _ = load(cache_bytes=10 * ROW + 1)
    assert [made.train.is_decoded for made in (on_disk, in_memory, none, half)] == [True, True, False, False]
    assert sum(int((part.rows >= 0).sum()) for part in (half.train, half.val)) == 10
    assert len({everything(made) for made in (on_disk, in_memory, none, half)}) == 1
    assert everything(in_memory) == everything(on_disk)  # and once more, from the memory that is now full


def test_the_kept_files_stay_within_their_limit(load: Load, tmp_path: Path) -> None:
    for side in (16, 17, 18, 19):
        load(img_size=side, cache_bytes=60_000)
    kept = [path for path in (tmp_path / "cache").iterdir() if not path.suffix]
    assert 0 < sum(path.stat().st_size for path in kept) < 60_000 + 10_000
    assert load(img_size=19, cache_bytes=60_000)[1] == []
    next(iter(kept)).write_bytes(b"cut short")
    assert len({everything(load(img_size=16)[0]) for _ in range(2)}) == 1


def test_images_are_decoded_without_a_place_to_keep_them(load: Load, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    made, opened = load()
    assert len(opened) == 20
    assert "is not kept for the next time" in made.report["warnings"][0]
    assert made.train.is_decoded


def test_a_file_that_changes_during_the_training_is_said(load: Load, root: Path) -> None:
    made, _ = load(cache_bytes=0)
    before = made.train.pixels([0])
    for path in root.rglob("*.png"):
        path.touch()  # another time, the same content
    assert (made.train.pixels([0]) == before).all()
    for path in root.rglob("*.png"):
        put(path, 999)
    with pytest.raises(Failed, match="was good before the first epoch"):
        made.train.pixels([0])


def test_two_checks_at_once_look_once(load: Load, looked_at: list[str]) -> None:
    threads = [threading.Thread(target=load) for _ in range(3)]
    looked_at.clear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load()[1] == []
