"""Bad input to every verb: the contract's exit code, one clear sentence with the fix, nothing changed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.store.workspace import Workspace
from tests.conftest import Result


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of files that are wrong in one way each."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pth").write_text("this is no checkpoint\n")
    (tmp_path / "nothing.pth").write_bytes(b"")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "cat").mkdir()
    (tmp_path / "words" / "cat" / "a.jpg").write_text("not an image")
    (tmp_path / "list.csv").write_text("image,label\nmissing.jpg,cat\n")
    return tmp_path


CASES = [
    ("train data=folder", 2, "data.root"),
    ("train data=folder data.root={place}/nowhere", 2, "nowhere"),
    ("train data=folder data.root={place}/empty", 2, "empty"),
    ("train data=folder data.root={place}/words", 2, "image"),
    ("train data=folder data.root={place}/list.csv", 2, "missing.jpg"),
    ("train data=folder data.root={place}/text.pth", 2, "data.root"),
    ("train model=litecn", 2, "did you mean 'litecnn'?"),
    ("train model=no_such_module:factory", 2, "no_such_module"),
    ("train training.epochs=0", 2, "training.epochs"),
    ("train --resume 9999", 2, "9999"),
    ("train --nope", 2, "--nope"),
    ("runs 9999", 2, "9999"),
    ("checkpoints lsit", 2, "did you mean 'list'?"),
    ("sync source.root={place}/nowhere", 1, "nowhere"),
    ("sync source.kind=ssh", 2, "source.host"),
    ("sync surplus", 2, "surplus"),
    ("deploy", 2, "PATH"),
    ("deploy {place}/nowhere.pth", 2, "nowhere.pth"),
    ("deploy {place}/empty", 2, "empty"),
    ("deploy {place}/text.pth", 1, "text.pth"),
    ("deploy {place}/nothing.pth", 1, "nothing.pth"),
    ("deploy {place}/text.pth --new-classes", 2, "--reason"),
    ("reject deadbeef", 2, "deadbeef"),
    ("reject", 2, "RELEASE"),
    ("promote", 3, "TO-BE"),
    ("promote --force", 2, "--reason"),
    ("promote --force --reason because", 3, "TO-BE"),
    ("rollback model_1_backup_20260101_000000.bin", 2, "model_1_backup"),
    ("rollback ../../etc/passwd", 2, "passwd"),
    ("ab --data {place}/nowhere", 2, "nowhere"),
    ("ab --data {place}/empty", 2, "empty"),
    ("ab --images 0", 2, "images"),
    ("ab", 1, "AS-IS"),
    ("serve asisi", 2, "did you mean 'asis'?"),
    ("cron isntall", 2, "did you mean 'install'?"),
    ("notify", 2, "TEXT"),
    ("devices surplus", 2, "surplus"),
    ("status surplus", 2, "surplus"),
    ("doctor surplus", 2, "surplus"),
    ("watch --interval 0", 2, "interval"),
    ("watch --host nobody --interval 1", 2, "nobody"),
    ("events --kind synchronised", 2, "did you mean"),
    ("bench nothing", 2, "nothing"),
    ("gate", 2, "unknown verb"),
    ("cloud", 2, "Missing command"),
    ("cloud down nobody", 2, "nobody"),
    ("cloud plan --samples-per-s nan", 2, "no finite number"),
    ("cloud plan data=folder data.root={place}/nowhere", 2, "nowhere"),
    ("cloud launch --budget inf", 2, "no finite number"),
    ("cloud launch cloud.budget_usd=inf", 2, "cloud.budget_usd"),
]


@pytest.mark.parametrize(("line", "code", "said"), CASES, ids=[case[0].replace("{place}/", "") for case in CASES])
def test_bad_input(
    line: str, code: int, said: str, place: Path, engine: Callable[..., Result], workspace: Workspace
) -> None:
    words = line.format(place=place).split()
    result = engine(*words, "--json", timeout=60)
    assert result.code == code, result.err
    answer = result.json
    assert "Traceback" not in result.err
    sentence = result.err.strip().splitlines()[-1]
    assert said in sentence
    if code == 3:
        assert answer["promoted"] is False
        assert answer["reason"]
    else:
        assert set(answer["error"]) == {"kind", "message", "hint"}
        assert answer["error"]["kind"] != "defect", sentence
        assert answer["error"]["hint"], f"says what is wrong but not what to do: {sentence}"
    assert not list(workspace.root.glob("slots/*.json"))
    assert not list(workspace.root.glob("releases/*"))
    assert not list(workspace.root.glob("runs/*/last.pth"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_unreadable_checkpoint_is_usage(place: Path, engine: Callable[..., Result]) -> None:
    (place / "text.pth").chmod(0)
    assert engine("deploy", str(place / "text.pth")).code == 2


@pytest.mark.parametrize("slot", ["asis", "tobe", "all"])
def test_a_port_in_use_is_busy_and_names_the_port(slot: str, engine: Callable[..., Result]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = "asis" if slot == "all" else slot
        result = engine("serve", slot, f"servers.{taken}.port={port}", "--json", timeout=60)
    assert result.code == 4
    assert str(port) in result.err
    assert json.loads(result.out.splitlines()[-1])["error"]["kind"]
