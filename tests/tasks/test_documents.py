"""The synthetic document set: repeatable, readable as data, its two parts apart in fonts and layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config.schema import Data
from engine.errors import UsageError
from engine.tasks.images.data import load_data
from engine.tasks.images.documents import (
    find_families,
    photograph,
    share_families,
    write_documents,
)
from engine.tasks.images.kinds import KINDS


def test_a_small_set_is_data_to_train_on(tmp_path: Path) -> None:
    report = write_documents(tmp_path / "set", classes=2, per_class=2, val_per_class=1, seed=5)
    assert report["synthetic"]
    data = load_data(Data(root=tmp_path / "set", img_size=32), 0)
    assert data.classes == list(KINDS)[:2] == report["classes"]
    assert (len(data.train), len(data.val)) == (4, 2)
    with pytest.raises(UsageError, match="not empty"):
        write_documents(tmp_path / "set")
    with pytest.raises(UsageError, match="17 kinds"):
        write_documents(tmp_path / "other", classes=18)


def test_parts_share_no_fonts_and_a_photograph_can_be_repeated() -> None:
    fonts = share_families(find_families())
    assert fonts["train"]
    assert fonts["val"]
    assert not {family.name for family in fonts["train"]} & {family.name for family in fonts["val"]}
    once = photograph("receipt", "val", 3, 0, fonts["val"])
    assert once == photograph("receipt", "val", 3, 0, fonts["val"])
    assert once != photograph("receipt", "val", 4, 0, fonts["val"])


@pytest.mark.parametrize("name", list(KINDS))
def test_each_kind_can_be_drawn(name: str) -> None:
    fonts = share_families(find_families())
    assert photograph(name, "train", 0, 1, fonts["train"])[:2] == b"\xff\xd8"


def test_one_maker_of_fonts_is_too_few() -> None:
    families = [family for family in find_families() if family.name.startswith("DejaVu")]
    with pytest.raises(UsageError, match="two makers"):
        share_families(families)
