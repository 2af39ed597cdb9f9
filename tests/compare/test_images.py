"""The labelled set and its order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from engine.compare.images import draw, fingerprint, known_to_both, take
from engine.config import Settings, load_settings
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.tasks.images.labelled import labelled_images
from tests.compare.conftest import write_images


def plain(workspace: Workspace, *overrides: str) -> Settings:
    return load_settings(None, workspace.root, overrides).settings


def test_the_embedded_digits_that_nobody_trained_on(workspace: Workspace) -> None:
    found = labelled_images(plain(workspace))
    assert found.key == "digits"
    assert Counter(image.label for image in found.images) == dict.fromkeys("0123456789", 40)
    assert len(take(draw(found.images, 0), 1000)) == 400


def test_a_folder_with_training_images_gives_its_test_or_validation_part(
    workspace: Workspace, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    for part, start in (("train", 0), ("val", 100), ("test", 200)):
        write_images(root / part, 10, start)
    found = labelled_images(plain(workspace), root)
    assert len(found.images) == 10
    assert found.notes == ["images of test/ only"]
    for path in (root / "test").rglob("*.png"):
        path.unlink()
    for folder in ("test/cat", "test/dog", "test"):
        (root / folder).rmdir()
    found = labelled_images(plain(workspace), root)
    assert {image.name.split("/")[0] for image in found.images} == {"val"}
    assert "validation part" in found.notes[0]


def test_a_csv_names_the_labels_itself(workspace: Workspace, tmp_path: Path) -> None:
    root = write_images(tmp_path / "cat", 4)
    table = root / "labels.csv"
    table.write_text("image,label\ncat/00000.png,dog\ndog/00001.png,bird\n")
    found = labelled_images(plain(workspace), table)
    kept = known_to_both(found, ["cat", "dog"], ["cat", "dog"])
    assert [(image.path.name, image.label) for image in kept.images] == [("00000.png", "dog")]
    assert kept.excluded == {"bird": 1}


def test_the_deepest_known_folder_is_the_label(workspace: Workspace, tmp_path: Path) -> None:
    write_images(tmp_path / "set" / "animals", 4)
    found = labelled_images(plain(workspace), tmp_path / "set")
    kept = known_to_both(found, ["cat", "dog"], ["dog", "cat"])
    assert Counter(image.label for image in kept.images) == {"cat": 2, "dog": 2}


def test_adding_images_moves_no_other_turn(workspace: Workspace, tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", 100)
    before = [image.name for image in draw(labelled_images(plain(workspace), root).images, 5)]
    write_images(root, 100, 100)
    after = [image.name for image in draw(labelled_images(plain(workspace), root).images, 5)]
    assert [name for name in after if name in set(before)] == before
    assert after[:100] != before


def test_stratified_every_beginning_holds_each_label_in_proportion(workspace: Workspace, tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", 200)
    for path in sorted((root / "cat").iterdir())[25:]:
        path.unlink()
    ordered = draw(labelled_images(plain(workspace), root).images, 1, stratified=True)
    for length in range(1, 126):
        cats = sum(image.label == "cat" for image in ordered[:length])
        assert abs(cats - length * 0.2) <= 1, length


def test_the_same_picture_counts_once_and_never_under_two_labels(workspace: Workspace, tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", 10)
    (root / "cat" / "again.png").write_bytes((root / "cat" / "00000.png").read_bytes())
    (root / "cat" / "doubtful.png").write_bytes((root / "dog" / "00001.png").read_bytes())
    found = labelled_images(plain(workspace), root)
    chosen = take(draw(found.images, 0), 100)
    assert len(chosen) == 9
    assert not {"dog/00001.png", "cat/doubtful.png"} & {image.name for image in chosen}
    assert fingerprint(chosen) == fingerprint(reversed(chosen))
    assert fingerprint(chosen) != fingerprint(chosen[1:])


def test_an_image_that_cannot_be_read_is_named(workspace: Workspace, tmp_path: Path) -> None:
    root = write_images(tmp_path / "set", 4)
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UsageError, match=r"gone\.png"):
        take(draw(labelled_images(plain(workspace), root).images, 0), 100)


def test_without_a_labelled_set_the_setting_is_named(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match=r"ab\.data is not set"):
        labelled_images(plain(workspace, "data=folder"))
