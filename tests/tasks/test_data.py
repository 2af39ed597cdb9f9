"""What training sees: layouts, bad files, splits, the digits that nothing but a comparison may see."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.cli.main import main
from engine.config.schema import Data
from engine.errors import UsageError
from engine.tasks.images.data import DataSet, heldout_digits, load_data
from engine.tasks.images.preprocess import Preprocess
from engine.tasks.report import KINDS, counted, refuse, sentences


def data(root: Path, **keys: object) -> Data:
    return Data.model_validate({"kind": "folder", "root": root, "img_size": 16, **keys})


def put(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    root = tmp_path / "classes"
    for i in range(10):
        put(root / "cat" / f"{i}.png", i)
        put(root / "dog" / f"{i}.png", 100 + i)
    return root


def counts(made: DataSet) -> tuple[int, ...]:
    report = made.report
    found = (report["ok"], *(len(report[kind]) for kind in KINDS))
    assert report["checked"] == sum(found)
    return found


def reasons(made: DataSet) -> dict[str, str]:
    return {item["path"]: item["reason"] for kind in KINDS for item in made.report[kind]}


def test_class_folders_are_split_by_seed(classes: Path) -> None:
    first, again, other = (load_data(data(classes), seed) for seed in (0, 0, 1))
    assert first.classes == ["cat", "dog"]
    assert (len(first.train), len(first.val)) == (16, 4)
    assert np.bincount(first.val.labels).tolist() == [2, 2]
    assert (first.val.names, first.fingerprint) == (again.val.names, again.fingerprint)
    assert first.val.names != other.val.names
    assert first.fingerprint != other.fingerprint


@pytest.mark.fault(50)
def test_every_kind_of_bad_file_is_named_and_counted(classes: Path, tmp_path: Path) -> None:
    (classes / "cat" / "text.jpg").write_text("no image at all")
    (classes / "cat" / "cut.png").write_bytes((classes / "cat" / "0.png").read_bytes()[:200])
    (classes / "dog" / "nothing.png").touch()
    shutil.copy(classes / "dog" / "0.png", classes / "dog" / "again.png")
    for name in ("cat", "dog"):
        put(classes / name / "both.png", 7777)
    (classes / "dog" / "notes.txt").write_text("ignored by its name")
    made = load_data(data(classes), 0)
    assert counts(made) == (20, 2, 1, 2, 1)
    said = reasons(made)
    assert set(said) == {"cat/text.jpg", "cat/cut.png", "dog/nothing.png", "dog/again.png", "cat/both.png",
                         "dog/both.png"}  # fmt: skip
    assert "cat and dog" in said["dog/both.png"]
    assert said["dog/again.png"] == "the same image as dog/0.png"
    assert made.report["ignored"] == ["dog/notes.txt"]
    assert len(made.train) + len(made.val) == 20
    assert (
        "6 of 26 files are at fault (2 corrupt, 1 empty, 2 mislabelled, 1 duplicates)"
        in sentences(made.report, tmp_path)[0]
    )
    with pytest.raises(UsageError, match="6 of 26 files are at fault"):
        refuse(made.report)


def test_a_file_that_is_named_as_another_format_is_named_and_used(classes: Path, tmp_path: Path) -> None:
    (classes / "cat" / "0.png").rename(classes / "cat" / "0.jpg")
    made = load_data(data(classes), 0)
    assert counts(made) == (19, 0, 0, 1, 0)
    assert reasons(made) == {"cat/0.jpg": "its name says JPEG, its content is PNG"}
    assert len(made.train) + len(made.val) == 20
    assert sentences(made.report, tmp_path)[0].endswith("0 of them are left out")


def test_the_same_picture_in_other_bytes_is_a_duplicate(classes: Path) -> None:
    Image.open(classes / "cat" / "0.png").save(classes / "cat" / "again.bmp")
    made = load_data(data(classes), 0)
    assert reasons(made) == {"cat/again.bmp": "the same picture, in other bytes, as cat/0.png"}
    assert counted(made.report) == "1 duplicates"


@pytest.mark.fault(50)
def test_an_image_in_train_and_val_stays_in_val_alone(classes: Path, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    shutil.copytree(classes, root / "train")
    put(root / "val" / "cat" / "a.png", 500)
    put(root / "val" / "dog" / "b.png", 501)
    shutil.copy(root / "train" / "cat" / "3.png", root / "val" / "cat" / "leak.png")
    put(root / "val" / "bird" / "c.png", 502)
    made = load_data(data(root), 0)
    assert (len(made.train), len(made.val)) == (19, 3)
    assert counts(made) == (22, 0, 0, 1, 1)
    assert reasons(made) == {
        "train/cat/3.png": "the same image as val/cat/leak.png, which validates",
        "val/bird/c.png": "its class 'bird' has no training image",
    }
    shutil.rmtree(root / "val" / "dog")
    (root / "train" / "fish").mkdir()
    put(root / "train" / "horse" / "only.png", 503)
    problems = {item["class"]: item["problem"] for item in load_data(data(root), 0).report["class_problems"]}
    assert problems == {"fish": "no_images", "bird": "no_images", "dog": "only_in_train", "horse": "one_image"}


@pytest.mark.parametrize("header", ["image,label\n", "bild,art\n", ""])
def test_a_csv_with_or_without_a_header(classes: Path, header: str) -> None:
    rows = [f"cat/{i}.png,cat" for i in range(10)] + [f"dog/{i}.png,dog" for i in range(10)]
    table = classes / "list.csv"
    table.write_text(header + "\n".join([*rows, "cat/missing.png,cat", "dog/1.png,"]) + "\n")
    made = load_data(data(table), 0)
    assert (made.classes, len(made.train), len(made.val)) == (["cat", "dog"], 16, 4)
    assert counts(made) == (20, 1, 0, 1, 0)


def test_a_csv_with_its_own_parts(classes: Path) -> None:
    table = classes / "list.csv"
    rows = [f"{c},{c}/{i}.png,{'val' if i < 3 else 'train'}" for c in ("cat", "dog") for i in range(10)]
    table.write_text("label,path,split\n" + "\n".join(rows) + "\n")
    made = load_data(data(table), 0)
    assert (len(made.train), len(made.val)) == (14, 6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: root / "nowhere", "no data at"),
        (lambda root: None, "data.root is not set"),
        (lambda root: (root / "empty").mkdir() or root / "empty", "class folders"),
        (lambda root: put(root / "one" / "cat" / "1.png", 1).parents[1], "only one class"),
        (lambda root: (root / "a.csv").write_text("image,kind\nx,y\n") and root / "a.csv", "no column 'label'"),
        (lambda root: (root / "a.csv").touch() or root / "a.csv", "is empty"),
        (lambda root: (root / "a.csv").write_bytes(b"\xff\xfe\x00") and root / "a.csv", "as CSV"),
        (lambda root: (root / "a.zip").write_bytes(b"PK") and root / "a.zip", "no folder and no CSV"),
    ],
)
def test_no_usable_data_is_said(tmp_path: Path, make: object, said: str) -> None:
    root = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(UsageError, match=said) as caught:
        load_data(data(root) if root else Data(kind="folder"), 0)
    assert caught.value.hint


def test_the_test_digits_are_seen_by_no_training(tmp_path: Path) -> None:
    folder = heldout_digits(tmp_path / "digits-test")
    files = sorted(folder.rglob("*.png"))
    assert len(files) == 400
    assert sorted(path.name for path in folder.iterdir()) == list("0123456789")
    settings = Data(kind="digits", img_size=32)
    preprocess = Preprocess(32, settings.resize, (0.5,) * 3, (0.5,) * 3)
    held = {preprocess.pixels(path.read_bytes()).tobytes() for path in files}
    for seed in (0, 1):
        made = load_data(settings, seed)
        seen = {part.pixels([i]).tobytes() for part in (made.train, made.val) for i in range(len(part))}
        assert not held & seen
        assert len(made.train) + len(made.val) == 1397
    stamp = folder.stat().st_mtime_ns
    assert heldout_digits(folder).stat().st_mtime_ns == stamp
    other = heldout_digits(tmp_path / "again")
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in sorted(other.rglob("*.png"))]


@pytest.mark.fault(50)
def test_the_verb_shows_the_report_and_strict_refuses(
    classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def data_verb(*words: str) -> tuple[int, str]:
        code = main(["--workspace", str(tmp_path / "workspace"), "data", str(classes), *words])
        return code, capsys.readouterr().out

    assert data_verb("--strict")[0] == 0
    (classes / "dog" / "nothing.png").touch()
    code, out = data_verb("--json")
    assert (code, json.loads(out)["empty"]) == (
        0,
        [{"path": "dog/nothing.png", "reason": "the file has no bytes"}],
    )
    code, out = data_verb("--strict", "--json")
    assert (code, json.loads(out)["error"]["kind"]) == (2, "bad_data")
    code, out = data_verb("--strict")
    assert code == 2
    assert "dog/nothing.png: the file has no bytes" in out
    assert not (tmp_path / "workspace" / "runs").exists()


def test_data_needs_no_torch() -> None:
    code = "import sys, engine.tasks.images.data as d; d.heldout_digits; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
