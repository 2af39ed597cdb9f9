"""Every hostile, broken or wrong checkpoint is refused with its reason, told once, and never executed."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.config import Settings
from engine.errors import Failed
from engine.release import child
from engine.release.admission_child import check_and_convert
from engine.release.admit import Rejected, admit
from engine.release.convert import disagreement
from engine.release.opcodes import check_pickle
from engine.release.refusal import Refusal
from engine.store.events import append_event, read_events, search_events
from engine.store.files import digest_file, read_json
from engine.store.workspace import Workspace
from tests.conftest import PROJECT, Result
from tests.release.checkpoints import CLASSES, Touch, card, content, save
from tests.release.hostile import CASES, FILES, WRONG, ZIPS
from tests.release.hostile_pickles import PICKLES, STORAGES, Case, canary
from tests.release.test_admission import job_for

EXTRAS = {"argparse.Namespace", "numpy scalar", "numpy array of objects", "a datetime", "the whole model"}


def made(case: Case, folder: Path) -> Path:
    path = folder / "checkpoints_cycle7" / "best_model.pth"
    path.parent.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and zipfile warn of what is made wrong on purpose
        case.make(path)
    return path


@pytest.mark.fault(23, 24, 25)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.torch])
def test_refused_before_torch_is_imported(
    name: str, workspace: Workspace, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real child, in which torch cannot be imported."""
    (tmp_path / "first" / "torch").mkdir(parents=True)
    (tmp_path / "first" / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), *sys.path])
    case = CASES[name]
    path = made(case, tmp_path / "source")
    for news in (True, False):
        with pytest.raises(Rejected) as caught:
            admit(workspace, settings, path, name=path.name, cycle=7, expect_classes=None)
        error = caught.value
        assert (error.exit_code, error.check, error.dangerous) == (1, case.check, case.dangerous), error
        assert case.words in str(error)
        assert error.hint
        assert error.news is news
        assert str(workspace.root) not in str(error)
    kinds = [event["kind"] for event in read_events(workspace)]
    assert kinds == (["refused", "alert"] if case.dangerous else ["refused"]), "once"
    assert len(read_json(workspace.state / "refused.json") or {}) == 1
    assert not canary(path).exists()
    assert not list(workspace.releases.glob("*"))
    assert not list(workspace.incoming.glob("*"))


@pytest.mark.fault(26, 27, 28)
@pytest.mark.parametrize("name", WRONG)
def test_refused_by_what_torch_read(name: str, tmp_path: Path) -> None:
    """In this process: importing torch anew takes seconds. The benchmark runs them all through the verb."""
    case = CASES[name]
    path = made(case, tmp_path)
    with pytest.raises(Refusal) as caught:
        check_and_convert(job_for(path, expect_classes=CLASSES), tmp_path)
    assert (caught.value.check, caught.value.dangerous) == (case.check, case.dangerous), caught.value
    assert case.words in f"{caught.value.message}: {caught.value.hint}"
    assert not (tmp_path / "model.onnx").exists()


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) == sum(map(len, (PICKLES, ZIPS, FILES, STORAGES, WRONG)))
    assert len(CASES) >= 120
    scanned = {name: case.check for name, case in CASES.items() if not case.torch}
    assert {"pickle", "crc"} <= set(scanned.values())
    assert scanned.keys() >= EXTRAS
    assert {"finite", "golden", "classes"} <= {case.check for case in WRONG.values()}


@pytest.mark.fault(23)
def test_what_is_sound_passes_the_scan(tmp_path: Path) -> None:
    """Optimiser, half precision, tied weights, a parameter, a device: what real checkpoints hold."""
    net = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    shared = torch.ones(4)
    value = {
        "model_state_dict": {**net.state_dict(), "half": torch.ones(2).half(), "a": shared, "b": shared[1:]},
        "optimizer_state_dict": optimiser.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "history": [{"epoch": 1, "loss": 0.5, "best": True, "words": "é 한", "none": None, "bytes": b"ab"}],
        "shape": torch.Size([1, 2]),
        "big": 2**80,
    }
    path = save(tmp_path / "sound.pth", value)
    import zipfile

    with zipfile.ZipFile(path) as archive:
        found = check_pickle(archive.read("sound/data.pkl"))
    assert len(found.storages) >= 6


@pytest.mark.fault(23)
def test_the_verb_says_it_and_exits_1(engine: Callable[..., Result], tmp_path: Path) -> None:
    path = save(tmp_path / "best_model.pth", content(payload=Touch(tmp_path / "owned")))
    done = engine("deploy", str(path), "--json")
    assert done.code == 1
    assert done.json["error"]["kind"] == "rejected"
    assert "it was not executed" in done.json["error"]["message"]
    assert not (tmp_path / "owned").exists()
    kinds = [event["kind"] for event in engine("events", "--json").json["events"]]
    assert kinds.count("refused") == kinds.count("alert") == 1


def test_a_reader_that_crashes_takes_nothing_along(
    workspace: Workspace, settings: Settings, tmp_path: Path
) -> None:
    path = made(PICKLES["a key that crashes its reader"], tmp_path / "source")
    with pytest.raises(child.Unchecked, match=r"died of SIGSEGV|cannot be read") as caught:
        admit(workspace, settings, path, name=path.name, cycle=None, expect_classes=None)
    assert caught.value.exit_code == 1
    assert [event["kind"] for event in read_events(workspace)] == ["refused"]


def test_a_net_that_eats_memory_is_ended(
    workspace: Workspace, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small in the file, huge when it answers: 4096 pixels a side."""
    own = card(preprocess={"img_size": 4096, "resize": "crop", "mean": [0.5] * 3, "std": [0.5] * 3})
    path = save(tmp_path / "best_model.pth", content(understudy=own))
    monkeypatch.setattr("engine.release.child.LIMITS", replace(child.LIMITS, memory_bytes=700_000_000))
    with pytest.raises(child.Unchecked, match="of memory") as caught:
        admit(workspace, settings, path, name=path.name, cycle=None, expect_classes=None)
    assert (caught.value.kind, caught.value.news) == ("limits", True)
    assert [event["detail"]["check"] for event in read_events(workspace)] == ["limits"]


def test_code_in_the_child_cannot_get_out(
    workspace: Workspace, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A factory that this host trusts tries everything; the layers that `doctor` names hold each attempt."""
    own = card(architecture={"name": "tests.release.factories:tries_to_escape", "settings": {}})
    path = save(tmp_path / "own.pth", content(understudy=own))
    trusting = settings.model_copy(
        update={"source": settings.source.model_copy(update={"model": own["architecture"]["name"]})}
    )
    monkeypatch.setenv("UNDERSTUDY_ADMIN_TOKEN", "very-secret-word")
    monkeypatch.setenv("SOMEBODYS_API_TOKEN", "very-secret-word")
    layers = child.layers(tmp_path)
    (tmp_path / "a file").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("LC_PORT", str(server.getsockname()[1]))
        monkeypatch.setenv("LC_OUTSIDE", str(tmp_path))
        with pytest.raises(Failed) as caught:
            admit(workspace, trusting, path, name=path.name, cycle=None, expect_classes=None)
    found = dict(word.split(":", 1) for word in caught.value.message.split() if ":" in word)
    assert found["secrets"] == ""
    if layers.isolated:
        assert found["connect"] != "DONE"
    if layers.calls:
        assert {found[name] for name in ("connect", "listen", "program", "kill")} == {"EPERM"}
    if layers.files:
        assert {found[name] for name in ("write", "remove", "parent")} <= {"EACCES", "EPERM"}
    if not (layers.isolated and layers.files):
        pytest.skip(f"this host allows no more than: {layers}")


_KILLED = """
import os, signal, sys
from pathlib import Path
from engine.config import load_settings
from engine.release import admit, remembered as room
from engine.store.workspace import Workspace
root, path, when = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
real = {"append": room.append_event, "memory": room.write_json}
def dies(*arguments):
    if when == "after the memory" and "refused.json" in str(arguments[0]):
        real["memory"](*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
def append(workspace, kind, *rest):
    real["append"](workspace, kind, *rest)
    if when == f"after {kind}":
        os.kill(os.getpid(), signal.SIGKILL)
room.append_event = append
if when in ("before the memory", "after the memory"):
    room.write_json = dies
admit.admit(Workspace(root), load_settings(None, root).settings, path, name=path.name, cycle=None,
            expect_classes=None)
"""


@pytest.mark.fault(23)
@pytest.mark.parametrize("when", ["after refused", "after alert", "before the memory", "after the memory"])
def test_a_kill_between_the_log_and_the_memory_loses_and_doubles_nothing(
    when: str, workspace: Workspace, tmp_path: Path
) -> None:
    path = made(PICKLES["STACK_GLOBAL"], tmp_path / "source")
    for expected in (-signal.SIGKILL, None):
        code = _KILLED if expected else _KILLED.replace("os.kill(", "(lambda *_: None)(")
        words = [sys.executable, "-c", code, str(workspace.root), str(path), when if expected else "never"]
        done = subprocess.run(words, cwd=PROJECT, capture_output=True, check=False)
        if expected:
            assert done.returncode == expected, done.stderr.decode()
    assert [event["kind"] for event in read_events(workspace)] == ["refused", "alert"]
    assert digest_file(path).sha256 in (read_json(workspace.state / "refused.json") or {})


@pytest.mark.fault(46)
def test_a_lost_memory_is_made_again_from_the_log(
    workspace: Workspace, settings: Settings, tmp_path: Path
) -> None:
    path = made(FILES["text"], tmp_path / "source")
    for damage in (None, b"", b"{", b"\xff\xfe"):
        if damage is not None:
            (workspace.state / "refused.json").write_bytes(damage)
        with pytest.raises(Rejected) as caught:
            admit(workspace, settings, path, name=path.name, cycle=None, expect_classes=None)
        assert caught.value.news is (damage is None)
    assert len(read_events(workspace)) == 1
    sha256 = digest_file(path).sha256
    append_event(workspace, "deployed", "x", {"sha256": sha256})
    assert [event["kind"] for event in search_events(workspace, sha256)] == ["deployed", "refused"]


def test_doctor_names_the_layers(engine: Callable[..., Result], tmp_path: Path) -> None:
    checks = {check["name"]: check for check in engine("doctor", "--json").json["checks"]}
    sandbox = checks["sandbox"]
    assert sandbox["ok"]
    assert "limits on time, memory and file size" in sandbox["detail"]
    assert str(child.layers(tmp_path)) in sandbox["detail"]


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    ("precision", "moved", "flipped", "said"),
    [
        ("fp32", 5e-5, 0, None),
        ("fp32", 5e-4, 0, "1e-04|0.0001"),
        ("int8", 5e-3, 3, None),
        ("int8", 5e-3, 4, "96.00% of images, 97% are needed"),
        ("int8", float("nan"), 0, "NaN"),
        ("fp32", float("nan"), 0, "NaN"),
    ],
)
def test_a_conversion_must_agree(precision: str, moved: float, flipped: int, said: str | None) -> None:
    wanted = np.tile(np.array([0.5, 0.3, 0.2]), (100, 1))
    answers = wanted + moved
    answers[:flipped] = [0.3, 0.5, 0.2]
    found = disagreement(wanted, answers, precision)
    assert found is None if said is None else re.search(said, found or ""), found
