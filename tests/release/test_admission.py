"""What is admitted, what is refused with which words, and that nothing of a refused file is run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load as load_safetensors

from engine.config import Settings
from engine.errors import UsageError
from engine.release import child
from engine.release.admission_child import check_and_convert
from engine.release.admit import Rejected, admit, refusal
from engine.release.bundle import Release, read_release
from engine.release.refusal import Refusal
from engine.release.slots import open_slot
from engine.store.events import read_events
from engine.store.files import digest_file
from engine.store.workspace import Workspace
from engine.tasks.images.models import build_model
from engine.tasks.images.preprocess import Preprocess
from tests.release.checkpoints import (
    CLASSES,
    SETTINGS,
    SIDE,
    Touch,
    card,
    content,
    save,
)
from tests.release.factories import linear


def give(workspace: Workspace, settings: Settings, path: Path, **options: Any) -> Release:
    options = {"name": path.name, "cycle": None, "expect_classes": None, **options}
    return admit(workspace, settings, path, **options)


def refused(workspace: Workspace, settings: Settings, path: Path, **options: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        give(workspace, settings, path, **options)
    error = caught.value
    assert (error.exit_code, error.kind) == (1, "rejected")
    assert error.message.startswith(path.name)
    assert error.hint
    assert str(workspace.root) not in str(error)
    assert not list(workspace.releases.glob("*.release"))
    assert not list(workspace.incoming.glob("*"))
    return error


def job_for(path: Path, **fields: Any) -> dict[str, Any]:
    """What the child is told, for checks in this process: importing torch anew takes seconds."""
    source = dict.fromkeys(("model", "classes", "img_size", "mean", "std"))
    return {
        "checkpoint": str(path),
        "source": source,
        "trusted": [],
        "task": "images",
        "expect_classes": None,
        "expect_task": None,
        **fields,
    }


def test_a_release_answers_as_the_checkpoint_did(used: tuple[Workspace, Path, Path]) -> None:
    workspace, _, second = used
    release = open_slot(workspace, "tobe")
    assert release is not None
    manifest = release.manifest
    assert manifest.classes == CLASSES
    assert manifest.input == {"name": "image", "dtype": "FP32", "shape": [-1, 3, SIDE, SIDE]}
    digest = digest_file(second)
    origin = manifest.checkpoint
    assert (origin.sha256, origin.md5, origin.bytes) == (digest.sha256, digest.md5, digest.bytes)
    assert (origin.cycle, origin.epoch, origin.accuracy, origin.loss) == (2, 3, 0.9, 0.25)

    net = build_model("litecnn", len(CLASSES), settings=SETTINGS).eval()
    net.load_state_dict(load_safetensors(release.weights()))
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
    images = Preprocess.from_dict(manifest.preprocess).normalize(pixels)
    with torch.inference_mode():
        wanted = torch.softmax(net(torch.from_numpy(images)), 1).numpy()
    session = onnxruntime.InferenceSession(release.onnx(), providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].name == "probabilities"
    answers = session.run(None, {"image": images})[0]
    assert np.abs(answers - wanted).max() < 1e-5


def test_equal_checkpoints_give_equal_bytes_without_a_trace_of_the_machine(
    used: tuple[Workspace, Path, Path], tmp_path: Path
) -> None:
    workspace, _, second = used
    before = open_slot(workspace, "tobe")
    assert before is not None
    folder = tmp_path / "another" / "place"
    folder.mkdir(parents=True)
    check_and_convert(job_for(second), folder)
    assert (folder / "model.onnx").read_bytes() == before.onnx()
    assert (folder / "weights.safetensors").read_bytes() == before.weights()
    raw = before.path.read_bytes()
    for word in (b".py", b"site-packages", str(workspace.root).encode(), b"admission", str(Path.cwd()).encode()):
        assert word not in raw
    model = onnx.load_from_string(before.onnx())
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_the_same_bytes_are_converted_once(used: tuple[Workspace, Path, Path], settings: Settings) -> None:
    workspace, first, _ = used
    identity = next(
        path.stem
        for path in workspace.releases.glob("*.release")
        if read_release(path).manifest.checkpoint.cycle == 2
    )
    made = {path: path.stat().st_mtime_ns for path in workspace.releases.iterdir()}
    release = give(workspace, settings, first)
    assert {path: path.stat().st_mtime_ns for path in workspace.releases.iterdir()} == made
    assert len(identity) == len(release.id) == 64


def test_a_damaged_release_is_made_again_under_the_same_name(
    used: tuple[Workspace, Path, Path], settings: Settings
) -> None:
    workspace, _, second = used
    release = give(workspace, settings, second)
    release.path.write_bytes(release.path.read_bytes()[:-1])
    assert give(workspace, settings, second).id == release.id
    assert read_release(release.path, expect=release.id)


def test_the_teams_own_file_is_made_of_what_the_settings_say(
    workspace: Workspace, settings_with: Callable[..., Settings], tmp_path: Path
) -> None:
    state = build_model("litecnn", len(CLASSES)).state_dict()
    prefixed = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
    path = save(tmp_path / "best_model.pth", {"model_state_dict": prefixed, "accuracy": 87.2, "epoch": 12})
    error = refused(workspace, settings_with("source.model=litecnn"), path)
    assert error.check == "settings"
    for key in ("source.classes", "source.img_size", "source.mean", "source.std"):
        assert key in str(error)
    assert "source.model" not in error.message
    complete = settings_with(
        "source.model=litecnn",
        "source.classes=cat,dog,owl",
        f"source.img_size={SIDE}",
        "source.mean=0.5,0.5,0.5",
        "source.std=0.5,0.5,0.5",
    )
    notes: list[str] = []
    release = give(workspace, complete, path, cycle=7, notes=notes)
    assert release.manifest.checkpoint.cycle == 7
    assert release.manifest.checkpoint.accuracy == pytest.approx(0.872)
    assert "DataParallel" in notes[0]


def test_a_factory_of_ones_own_only_where_the_settings_trust_it(tmp_path: Path) -> None:
    factory = "engine.tasks.images.models:litecnn"
    own = card(architecture={"name": factory, "settings": SETTINGS})
    path = save(tmp_path / "own.pth", content(understudy=own))
    with pytest.raises(Refusal) as caught:
        check_and_convert(job_for(path, trusted=["another:factory", None]), tmp_path)
    assert caught.value.check == "architecture"
    assert f'source.model = "{factory}"' in caught.value.hint
    made = check_and_convert(job_for(path, trusted=[factory]), tmp_path)
    assert made["architecture"]["name"] == factory


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    ("way", "check"),
    [("straight", None), ("branching", None), ("counting", "convert"), ("guessing", "agreement")],
)
def test_nets_that_are_hard_to_convert(way: str, check: str | None, tmp_path: Path) -> None:
    factory = "tests.release.factories:linear"
    torch.manual_seed(0)
    own = card(architecture={"name": factory, "settings": {"way": way}})
    path = save(tmp_path / "own.pth", content(understudy=own, model_state_dict=linear(3, way).state_dict()))
    job = job_for(path, trusted=[factory])
    if check is None:
        assert check_and_convert(job, tmp_path)["parameters"] == 3 * 16 * 16 * 3 + 3
        return
    with pytest.raises(Refusal) as caught:
        check_and_convert(job, tmp_path)
    assert caught.value.check == check, caught.value.message


@pytest.mark.fault(23)
def test_a_hostile_pickle_is_refused_unexecuted_with_a_critical_alert(
    workspace: Workspace, settings: Settings, tmp_path: Path
) -> None:
    mark = tmp_path / "owned"
    path = save(tmp_path / "best_model.pth", content(payload=Touch(mark)))
    error = refused(workspace, settings, path)
    assert error.dangerous
    assert error.news
    assert "posix.system" in error.message
    assert "not executed" in error.message
    again = refused(workspace, settings, path)
    assert again.dangerous
    assert not again.news
    assert not mark.exists()
    events = read_events(workspace)
    assert [event["kind"] for event in events] == ["refused", "alert"], "once a hash"
    assert events[1]["detail"]["severity"] == "critical"
    assert events[0]["detail"]["sha256"] == digest_file(path).sha256


def test_a_refusal_is_remembered_until_what_mattered_changes(
    workspace: Workspace, settings_with: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best_model.pth"
    path.write_text("no checkpoint")
    sha256 = digest_file(path).sha256
    assert refusal(workspace, settings_with(), sha256) is None
    refused(workspace, settings_with(), path)
    why = refusal(workspace, settings_with(), sha256)
    assert why is not None
    assert "text file" in why
    monkeypatch.setattr("engine.release.admit.run_child", lambda *_: pytest.fail("opened again"))
    refused(workspace, settings_with(), path)
    assert refusal(workspace, settings_with("source.img_size=64"), sha256) is None
    assert len(read_events(workspace)) == 1


def test_links_and_pipes(workspace: Workspace, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    outside = save(tmp_path / "elsewhere" / "model.pth", content())
    link = tmp_path / "here" / "best_model.pth"
    link.symlink_to(outside)
    assert str(outside) in refused(workspace, settings, link).hint
    dangling = tmp_path / "here" / "dangling.pth"
    dangling.symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError):
        give(workspace, settings, dangling)
    pipe = tmp_path / "pipe.pth"
    os.mkfifo(pipe)
    assert "regular file" in refused(workspace, settings, pipe).message
    with pytest.raises(UsageError, match="folder"):
        give(workspace, settings, tmp_path)


@pytest.mark.fault(28)
def test_other_classes_than_expected(used: tuple[Workspace, Path, Path], settings: Settings) -> None:
    workspace, first, _ = used

    def why(expected: list[str]) -> str:
        with pytest.raises(Rejected) as caught:
            give(workspace, settings, first, expect_classes=expected)
        assert caught.value.check == "classes"
        assert "--new-classes" in caught.value.hint
        return caught.value.message

    assert "another order: number 0 is 'cat', in AS-IS 'dog'" in why(["dog", "cat", "owl"])
    assert "has 3 classes, AS-IS has 2" in why(["cat", "dog"])
    assert "number 2 is 'owl', in AS-IS 'fox'" in why(["cat", "dog", "fox"])
    assert give(workspace, settings, first, expect_classes=CLASSES).manifest.new_classes_reason is None


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (replace(child.LIMITS, wall_s=0.2), "longer than"),
        (replace(child.LIMITS, memory_bytes=40_000_000, memory_per_byte=0), "of memory"),
        (replace(child.LIMITS, cpu_s=1), "SIG"),
    ],
)
def test_limits_end_the_child_and_are_not_held_against_the_file(
    limits: child.Limits,
    said: str,
    workspace: Workspace,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = save(tmp_path / "best_model.pth", content())
    monkeypatch.setattr("engine.release.child.LIMITS", limits)
    for news in (True, False):
        with pytest.raises(child.Unchecked, match=said) as caught:
            give(workspace, settings, path)
        assert (caught.value.exit_code, caught.value.news) == (1, news)
        assert caught.value.kind in ("limits", "crashed")
    assert refusal(workspace, settings, digest_file(path).sha256) is None
    assert not list(workspace.incoming.glob("*"))
    assert [event["kind"] for event in read_events(workspace)] == ["refused"], "told once"


def test_what_a_killed_admission_left_is_swept(
    used: tuple[Workspace, Path, Path], settings: Settings, tmp_path: Path
) -> None:
    workspace, first, _ = used
    left = workspace.incoming / "admission-dead"
    left.mkdir(parents=True)
    (left / "checkpoint.pth").write_bytes(b"half")
    part = workspace.releases / "..making-1.part.x.part"
    part.write_bytes(b"half")
    give(workspace, settings, first)
    assert not left.exists()
    assert not part.exists()


def test_a_second_look_is_quick(used: tuple[Workspace, Path, Path], settings: Settings) -> None:
    workspace, first, _ = used
    started = time.process_time()
    give(workspace, settings, first)
    assert time.process_time() - started < 1.0, "nothing is converted again"
