"""The local source: how deep it looks, and files that cannot be read."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.sync.local import LocalSource
from engine.sync.source import Unreachable, Unreadable

NOBODY = 65534


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so the block runs as another user."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def put(root: Path, path: str, content: bytes = b"x") -> Path:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return target


def test_how_deep_it_looks(source_root: Path) -> None:
    for path in (
        "checkpoints_cycle1/best_model.pth",
        "checkpoints_cycle1/log.txt",
        "checkpoints_cycle1/deep/best_model.pth",
        "models/model_v2.pth",
        "models/notes.txt",
        "models/deep/model_v2.pth",
        ".cache/model.pth",
        "model.h5",
        "notes.txt",
    ):
        put(source_root, path)
    found = [entry.path for entry in LocalSource(source_root).listing()]
    assert found == [
        "model.h5",
        "checkpoints_cycle1/best_model.pth",
        "checkpoints_cycle1/log.txt",
        "models/model_v2.pth",
    ]


def test_a_crowded_data_folder_is_not_walked_and_hides_no_checkpoint(source_root: Path) -> None:
    (source_root / "data").mkdir()
    for number in range(2100):
        (source_root / "data" / f"{number}.pth").touch()
    for number in range(2100):
        put(source_root, f"checkpoints_cycle1/checkpoint_epoch{number}.pth")
    put(source_root, "checkpoints_cycle1/best_model.pth")
    found = {entry.path for entry in LocalSource(source_root).listing()}
    assert "checkpoints_cycle1/best_model.pth" in found
    assert len([path for path in found if path.startswith("data/")]) == 2000


def test_what_may_not_be_read_says_so(open_folder: Path) -> None:
    closed = put(open_folder, "checkpoints_cycle1/best_model.pth")
    closed.chmod(0)
    (open_folder / "checkpoints_cycle2").mkdir(mode=0o700)
    (open_folder / "checkpoints_cycle2").chmod(0)
    source = LocalSource(open_folder)
    with as_nobody():
        with pytest.raises(Unreadable, match="chmod 644"):
            source.look("checkpoints_cycle1/best_model.pth")
        problems = {entry.path: entry.problem for entry in source.listing()}
    assert problems["checkpoints_cycle2/"] == "cannot be listed (Permission denied)"
    (open_folder / "checkpoints_cycle2").chmod(0o700)


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    assert LocalSource(tmp_path / "none", must_exist=False).listing() == []
    with pytest.raises(Unreachable, match="no folder at"):
        LocalSource(tmp_path / "none").listing()
    put(tmp_path, "file")
    with pytest.raises(Unreachable, match="Not a directory"):
        LocalSource(tmp_path / "file").listing()
