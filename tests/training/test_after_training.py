"""predict, submit, analyze and ensemble: on releases without torch, on checkpoints, on what cannot be used."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from engine.cli.main import main
from engine.config import load_settings
from engine.errors import UsageError
from engine.release.bundle import Release, release_path
from engine.serving.runtime import Model
from engine.store.workspace import Workspace
from engine.training.charts import draw_confusion_matrix, matrix_text
from engine.training.ensemble import soft_vote, vote_weights
from engine.training.evaluate import Evaluation, calibration, confusions, figures, report
from engine.training.inference import answers, load_for_inference, probabilities
from tests.serving.releases import colour_net, image, make_release

COLOURS = {"a-red": (220, 30, 30), "a-green": (30, 200, 40), "a-blue": (30, 40, 210)}


@pytest.fixture
def release(workspace: Workspace) -> Release:
    return make_release(workspace)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Class folders of four pictures each; one blue picture lies among the red ones."""
    root = tmp_path / "labelled"
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(4):
            shade = tuple(max(0, value - 9 * number) for value in colour)
            Image.new("RGB", (40, 30), shade).save(root / name / f"{name}{number}.png")
    Image.new("RGB", (40, 30), COLOURS["a-blue"]).save(root / "a-red" / "stray.png")
    return root


@pytest.fixture
def run(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """A command in this process: its exit code, its JSON and its standard error."""

    def call(*words: str) -> tuple[int, Any, str]:
        code = main(["--workspace", str(workspace.root), *words, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    return call


def test_predictions_are_what_the_server_answers(
    workspace: Workspace, release: Release, labelled: Path, run: Callable[..., Any]
) -> None:
    code, value, _ = run("predict", str(labelled), "--checkpoint", release.id[:6], "--top-k", "3")
    assert code == 0
    assert len(value["predictions"]) == 13
    served = Model(release, 10**6)
    for one in value["predictions"]:
        answer = json.loads(served.predict(Path(one["path"]).read_bytes(), 3).body + b"}")
        assert (one["label"], one["index"]) == (answer["label"], answer["index"])
        assert one["confidence"] == pytest.approx(answer["confidence"], abs=1e-6)
        assert [entry["label"] for entry in one["top_k"]] == [entry["label"] for entry in answer["top_k"]]


def test_a_file_that_cannot_be_used_is_named_and_the_others_are_answered(
    tmp_path: Path, release: Release, run: Callable[..., Any]
) -> None:
    (tmp_path / "a.jpg").write_bytes(image())
    (tmp_path / "b.jpg").write_bytes(b"no image")
    (tmp_path / "c.jpg").write_bytes(b"")
    path = str(release.path)  # a release's file does as well
    code, value, said = run("predict", *(str(tmp_path / f"{n}.jpg") for n in "bac"), "--checkpoint", path)
    assert code == 1
    assert [one["label"] for one in value["predictions"]] == ["a-red"]
    assert [Path(one["path"]).name for one in value["failed"]] == ["b.jpg", "c.jpg"]
    assert "b.jpg" in said.splitlines()[-1]
    for words in (("nowhere.jpg", "--checkpoint", path), (str(tmp_path / "a.jpg"), "--checkpoint", "ffffff")):
        assert run("predict", *words)[0] == 2


def test_analyze_writes_what_the_console_reads(
    workspace: Workspace, release: Release, labelled: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    (labelled / "a-green" / "broken.png").write_bytes(b"broken")
    (labelled / "purple").mkdir()
    Image.new("RGB", (8, 8)).save(labelled / "purple" / "x.png")
    out = tmp_path / "out"
    code, value, said = run(
        "analyze", "--checkpoint", release.id, "--data", str(labelled), "--output-dir", str(out)
    )
    assert code == 0
    assert value["accuracy"] == pytest.approx(12 / 13)
    assert value["matrix"] == [[4, 0, 1, 0], [0, 4, 0, 0], [0, 0, 4, 0], [0, 0, 0, 0]]
    assert value["report"]["a-red"] == {"precision": 1.0, "recall": 0.8, "f1": pytest.approx(8 / 9), "support": 5}
    assert value["report"]["a-neither"]["precision"] is None
    assert value["f1_macro"] == pytest.approx(f1_score([0] * 5 + [1] * 4 + [2] * 4, [0] * 4 + [2] + [1] * 4 + [2] * 4, average="macro"))  # fmt: skip
    assert value["confusions"][0]["images"][0]["path"] == "a-red/stray.png"
    assert [one["path"] for one in value["failed"]] == ["a-green/broken.png"]
    assert "purple" in said
    assert Image.open(value["confusion_matrix"]).size > (500, 500)
    assert json.loads((out / "analysis.json").read_text()) == value
    assert json.loads((workspace.root / "analysis" / "latest.json").read_text()) == value


def test_submit_keeps_the_samples_rows_columns_and_manner(
    tmp_path: Path, release: Release, run: Callable[..., Any]
) -> None:
    folder = tmp_path / "test"
    folder.mkdir()
    for name, colour in COLOURS.items():
        (folder / f"{name}.jpg").write_bytes(image(colour))
    sample = tmp_path / "sample.csv"
    sample.write_bytes(
        b'\xef\xbb\xbfID;target;note\r\na-blue.jpg;0;"x;y"\r\na-red.jpg;0;\r\na-green.jpg;0;z\r\na-red.jpg;0;\r\n'
    )
    words = ("submit", "--checkpoint", release.id, "--data", str(folder), "--sample", str(sample), "--output")
    code, value, _ = run(*words, str(tmp_path / "s.csv"))
    assert (code, value["rows"], value["values"]) == (0, 4, "index")
    assert (tmp_path / "s.csv").read_bytes() == sample.read_bytes().replace(b"blue.jpg;0", b"blue.jpg;2").replace(
        b"green.jpg;0", b"green.jpg;1"
    )
    code, value, _ = run(*words, str(tmp_path / "s.csv"), "--values", "label")
    assert [row["target"] for row in csv.DictReader((tmp_path / "s.csv").read_text("utf-8-sig").splitlines(), delimiter=";")] == ["a-blue", "a-red", "a-green", "a-red"]  # fmt: skip
    (folder / "more.jpg").write_bytes(b"no image")
    code, value, _ = run(*words, str(tmp_path / "t.csv"))
    assert (code, value["error"]["kind"]) == (2, "extra_images")
    sample.write_text("ID,target\na-red,0\nmore,0\n")  # names without an ending, too
    code, value, _ = run(*words, str(tmp_path / "t.csv"), "--ignore-extra")
    assert (code, [one["path"] for one in value["failed"]]) == (1, ["more"])
    assert (tmp_path / "t.csv").read_text() == "ID,target\na-red,0\nmore,\n"
    assert run(*words, str(tmp_path / "t.csv"), "--ignore-extra", "--fallback", "a-blue")[0] == 0
    assert (tmp_path / "t.csv").read_text() == "ID,target\na-red,0\nmore,2\n"
    sample.write_text("id,a-green,a-red,a-neither,a-blue\na-red,0,0,0,0\n")
    assert run(*words, str(tmp_path / "t.csv"), "--ignore-extra")[0] == 0
    shares = [float(cell) for cell in (tmp_path / "t.csv").read_text().splitlines()[1].split(",")[1:]]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    assert int(np.argmax(shares)) == 1
    (tmp_path / "t.csv").unlink()
    sample.write_text("id,target\nnot_there,0\n")
    code, value, _ = run(*words, str(tmp_path / "t.csv"), "--ignore-extra")
    assert (code, value["error"]["kind"], (tmp_path / "t.csv").exists()) == (2, "missing_images", False)


def test_ensemble_votes_in_one_order_of_classes(
    workspace: Workspace, release: Release, labelled: Path, tmp_path: Path, run: Callable[..., Any]
) -> None:
    doubtful = make_release(workspace, net=colour_net(bias=20))
    other = make_release(workspace, "b")
    words = ("ensemble", "--data", str(labelled), "--output-dir", str(tmp_path / "out"), "--checkpoints")
    code, value, _ = run(*words, release.id, doubtful.id, "--weights", "3,1")
    assert code == 0
    assert value["weights"] == [0.75, 0.25]
    assert [member["accuracy"] for member in value["members"]] == [pytest.approx(12 / 13), 0]
    assert value["accuracy"] == pytest.approx(12 / 13)
    for more, said in (
        ((release.id, other.id), "has no class 'a-red'"),
        ((release.id,), "needs two"),
        ((release.id, doubtful.id, "--weights", "1"), "1 weights for 2"),
        ((release.id, doubtful.id, "--weights", "much"), "not equal"),
    ):
        code, value, _ = run(*words, *more)
        assert code == 2
        assert said in value["error"]["message"]


def test_weights_and_votes(workspace: Workspace, release: Release) -> None:
    settings = load_settings(None, workspace.root).settings
    member = load_for_inference(workspace, settings, release.id)
    assert vote_weights("validation", [member, member]) == [0.5, 0.5]
    rows = [np.array([[1.0, 0.0]], np.float32), np.array([[0.2, 0.8]], np.float32)]
    assert soft_vote(rows, [0.25, 0.75]).tolist() == [[pytest.approx(0.4), pytest.approx(0.6)]]


def test_a_checkpoint_answers_as_its_net(workspace: Workspace, tmp_path: Path) -> None:
    import torch

    from engine.checkpoints.files import save_checkpoint_file
    from engine.tasks.images.models import build_model

    net = build_model("litecnn", 3, settings={"widths": [8, 16], "depths": [0, 1]}).eval()
    card = {
        "format": 1,
        "task": "images",
        "architecture": {"name": "litecnn", "settings": {"widths": [8, 16], "depths": [0, 1]}},
        "classes": ["x", "y", "z"],
        "preprocess": {"img_size": 16, "resize": "squash", "mean": [0.5] * 3, "std": [0.25] * 3},
    }
    state = {f"module.{name}": value for name, value in net.state_dict().items()}
    path = tmp_path / "best.pth"
    save_checkpoint_file(path, {"model_state_dict": state, "accuracy": 87.5, "understudy": card})
    settings = load_settings(None, workspace.root, ["device.prefer=cpu"]).settings
    loaded = load_for_inference(workspace, settings, str(path))
    assert loaded.origin["accuracy"] == 0.875
    inputs = np.random.default_rng(0).normal(size=(40, 3, 16, 16)).astype(np.float32)
    with torch.inference_mode():
        expected = net(torch.from_numpy(inputs)).softmax(1).numpy()
    assert np.abs(probabilities(loaded, inputs) - expected).max() < 1e-5
    card["classes"] = ["x", "y"]
    save_checkpoint_file(path, {"model_state_dict": state, "understudy": card})
    with pytest.raises(UsageError, match=r"head\.weight is \[3, 16\], not \[2, 16\]"):
        load_for_inference(workspace, settings, str(path))


def test_a_release_needs_no_torch(workspace: Workspace, release: Release, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(image())
    code = (
        "import sys; from engine.cli.main import main; "
        f"c = main(['--workspace', {str(workspace.root)!r}, 'predict', {str(tmp_path / 'a.jpg')!r},"
        f" '--checkpoint', {str(release_path(workspace, release.id))!r}]); sys.exit(c or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "a-red" in done.stdout


def test_order_survives_chunks_and_failures(workspace: Workspace, release: Release) -> None:
    from engine.tasks.labelled import Labelled
    from engine.tasks.medium import Limits

    colours = list(COLOURS.values())
    items = [
        Labelled(None, str(n), "", content=b"bad" if n % 10 == 7 else image(colours[n % 3], (20, 20)))
        for n in range(75)
    ]
    loaded = load_for_inference(workspace, load_settings(None, workspace.root).settings, release.id)
    found = list(answers([loaded], items, Limits()))
    assert [number for number, _ in found] == list(range(75))
    for number, answer in found:
        if number % 10 == 7:
            assert isinstance(answer, str)
        else:
            assert not isinstance(answer, str)
            assert answer[0][0].argmax() == number % 3


def test_figures_from_a_known_matrix() -> None:
    rows = np.full((10, 3), 0.075, np.float32)
    answers_ = [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    rows[np.arange(10), answers_] = 0.85
    found = Evaluation(["a", "b", "c"], [str(n) for n in range(10)], np.array([0] * 5 + [1] * 5), rows)
    assert figures(found)["accuracy"] == 0.5
    assert figures(found)["f1_macro"] == pytest.approx((6 / 11 + 4 / 9) / 2)
    assert report(found)["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert [(one["label"], one["taken_for"], one["count"]) for one in confusions(found)] == [("b", "a", 3), ("a", "b", 2)]  # fmt: skip
    error = calibration(found, bins=10)
    assert error["ece"] == pytest.approx(0.35)
    assert error["bins"][8]["n"] == 10


@pytest.mark.parametrize("count", [2, 10, 17, 45, 120])
def test_the_matrix_fits_a_terminal(count: int) -> None:
    matrix = np.random.default_rng(0).integers(0, 1000, (count, count))
    text = matrix_text(matrix, [f"a class with a long name {n}" for n in range(count)])
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= count + 3


def test_a_picture_of_many_classes_and_of_none_for_one(tmp_path: Path) -> None:
    for count in (2, 45):
        matrix = np.eye(count, dtype=np.int64) * 3
        matrix[0] = 0  # a class without images
        draw_confusion_matrix(tmp_path / "m.png", matrix, [f"클래스 {n}" for n in range(count)], "title", "note")
        assert min(Image.open(tmp_path / "m.png").size) > 400
