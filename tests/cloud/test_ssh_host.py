"""The host's side by itself. What is uploaded: what git tracks as it is now, never a secret; only what is lacking, and on
from where it broke. What is answered, and what is counted."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.cloud.host.answers import state
from engine.cloud.host.boot import settle_line
from engine.cloud.host.job import JobFolder, held, write
from engine.cloud.host.receive import Refused, receive, send
from engine.cloud.ledger import Entry
from engine.cloud.provider import Job
from engine.cloud.ssh import read_state
from engine.cloud.upload import Item, is_secret, list_code, list_data
from engine.errors import UsageError


@pytest.mark.parametrize(
    "name",
    [".env", "deploy/.env.production", "keys/server.pem", "id_ed25519", ".ssh/config", ".aws/config", "a/secrets.toml",
     "kaggle.json", "TLS.KEY"],
)  # fmt: skip
def test_secrets_stay(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", [".env.example", "engine/config/secrets.py", "keyboard.py", "docs/secrets.md"])
def test_code_goes(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.skipif(shutil.which("git") is None, reason="no git on this host")
def test_what_git_tracks_as_it_is_now(tmp_path: Path) -> None:
    for name, text in (
        ("a.py", "1"),
        ("gone.py", "1"),
        ("b c.py", "1"),
        (".env", "TOKEN=x"),
        ("new.py", "untracked"),
    ):
        (tmp_path / name).write_text(text)
    for words in (["init", "-q"], ["add", "-f", "a.py", "gone.py", "b c.py", ".env"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (tmp_path / "gone.py").unlink()
    first = list_code(tmp_path, None)
    (tmp_path / "a.py").write_text("2")
    second = list_code(tmp_path, None)
    assert [item.path for item in first.items] == ["a.py", "b c.py"]
    assert first.left_out == (".env",)
    assert first.id != second.id
    assert [item.path for item in list_code(tmp_path, ["*.py"]).items] == ["a.py", "b c.py", "new.py"]
    with pytest.raises(UsageError, match="nothing to upload"):
        list_code(tmp_path, [".env"])


def test_no_git_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="git cannot list") as refused:
        list_code(tmp_path / "nowhere", None)
    assert "cloud.ssh.files" in refused.value.hint


def sent(
    root: Path, kind: str, place: str, source: Path, items: list[Item], limit: int | None = None
) -> dict[str, Any]:
    """One sending of `items`, its line cut after `limit` bytes; what the host answered, and what it had asked for."""
    order = {"kind": kind, "place": place, "files": [[i.path, i.size, i.tag, i.mode] for i in items]}
    going = io.BytesIO()
    with contextlib.suppress(Refused):  # what it asks for depends on nothing that is sent
        receive(root, order, io.BytesIO(), going)
    lines = going.getvalue().splitlines()
    wanted = json.loads(lines[0])["wanted"] if lines else []
    content = b"".join((source / items[number].path).read_bytes()[offset:] for number, offset in wanted)
    return receive(root, order, io.BytesIO(content[:limit]), io.BytesIO()) | {"wanted": wanted}


def test_code_is_sent_once_and_stays_as_it_was(tmp_path: Path) -> None:
    code, root = tmp_path / "code", tmp_path / "root"
    (code / "deep").mkdir(parents=True)
    (code / "a.py").write_text("one")
    (code / "deep" / "run.sh").write_text("two")
    (code / "deep" / "run.sh").chmod(0o755)
    first = list_code(code, ["**/*"])
    assert sent(root, "code", f"code/{first.id}", code, list(first.items))["sent"] == 2
    assert sent(root, "code", f"code/{first.id}", code, list(first.items))["sent"] == 0
    (code / "a.py").write_text("three")
    second = list_code(code, ["**/*"])
    done = sent(root, "code", f"code/{second.id}", code, list(second.items))
    assert (done["sent"], done["bytes"]) == (1, 5)
    assert (root / "code" / first.id / "a.py").read_text() == "one"  # a run that goes on keeps its code
    assert os.access(root / "code" / second.id / "deep" / "run.sh", os.X_OK)
    wrong = [Item("a.py", 5, "0" * 64, 0o644)]
    with pytest.raises(Refused, match="did not arrive as it was sent"):
        sent(root, "code", "code/wrong", code, wrong)
    for path in ("/etc/passwd", "../outside"):
        with pytest.raises(Refused, match="leads out of"):
            receive(
                root, {"kind": "code", "place": "code/x", "files": [[path, 1, "", 0]]}, io.BytesIO(), io.BytesIO()
            )


def test_data_is_kept_alike_and_goes_on_where_it_broke(tmp_path: Path) -> None:
    data, root = tmp_path / "data", tmp_path / "root"
    (data / "cat").mkdir(parents=True)
    (data / "cat" / "1.png").write_bytes(b"x" * 1000)
    (data / "cat" / "2.png").write_bytes(b"y" * 5000)
    (data / ".hidden").write_bytes(b"z")
    items = list_data(data)
    with pytest.raises(Refused, match="broke off"):
        sent(root, "data", "data/set", data, items, limit=3000)
    done = sent(root, "data", "data/set", data, items)
    assert done["wanted"] == [[1, 2000]]
    assert (root / "data/set/cat/2.png").read_bytes() == b"y" * 5000
    assert sent(root, "data", "data/set", data, items)["wanted"] == []

    (data / "cat" / "1.png").unlink()
    (data / "cat" / "2.png").write_bytes(b"w" * 5000)
    job = JobFolder(root, "busy")
    write(job.order, json.dumps({"data": ["data/set"]}))
    with held(job.lock), pytest.raises(Refused, match="it has changed at home"):
        sent(root, "data", "data/set", data, list_data(data))
    done = sent(root, "data", "data/set", data, list_data(data))
    assert (done["sent"], done["removed"]) == (1, 1)
    assert sorted(path.name for path in (root / "data/set/cat").iterdir()) == ["2.png"]
    with pytest.raises(UsageError, match="no data at"):
        list_data(tmp_path / "nowhere")


def test_a_run_comes_home_its_index_last(tmp_path: Path) -> None:
    run = tmp_path / "workspace" / "runs" / "0001"
    run.mkdir(parents=True)
    for name in ("last.json", "last.pth", ".last.new.part", "run.lock", "manifest.json", "train.log"):
        (run / name).write_text(name)
    facts = (run / "train.log").stat()
    going = io.BytesIO()
    send(tmp_path, {"run": "0001", "have": {"train.log": [facts.st_size, facts.st_mtime_ns]}}, going)
    text, names = going.getvalue(), []
    while text:
        line, text = text.split(b"\n", 1)
        header = json.loads(line)
        names.append(header["path"])
        text = text[header["size"] :]
    assert names == ["last.pth", "manifest.json", "last.json"]


def test_the_bill_ends_when_the_job_did() -> None:
    """And not with the look that saw it; a machine that died has not lived to its next beat."""
    entry = Entry("a", "ssh", Job("a", ("train",), Path()), 3600.0, None, 0.0).begun(100.0)
    answer: dict[str, Any] = {
        "here": True,
        "kept": False,
        "wanted": "run",
        "now": time.time(),
        "beat": time.time() - 40,
    }
    lost = read_state({**answer, "state": {"status": "running"}})
    assert (lost.state, lost.job) == ("preempted", "running")
    assert lost.ended_at == pytest.approx(time.time() - 39, abs=5)
    assert entry.seen(replace(lost, ended_at=150.0), 190.0).cost_usd(500.0) == 50.0
    assert entry.seen(replace(lost, ended_at=50.0), 190.0).cost_usd(500.0) == 0.0
    by_hand = read_state({**answer, "state": {"status": "stopped"}})
    assert (by_hand.state, by_hand.job) == ("stopped", "failed")


def test_the_line_of_a_reboot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There while a job wants it, gone after; what else is in the crontab stays, and one that cannot be read too."""
    table, root = tmp_path / "table", tmp_path / "ro%ot"
    command = tmp_path / "crontab"
    command.write_text(
        f'#!/bin/sh\ncase $1 in -l) cat {table} 2>/dev/null || {{ echo "$SAYS" >&2; exit 1; }};; -) cat >{table};; esac\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SAYS", "no crontab for student")
    job = JobFolder(root, "a")
    write(job.order, json.dumps({"boot": True}))
    job.want("run")
    assert settle_line(root) is None
    line = table.read_text()
    assert line.startswith("@reboot ")
    assert line.endswith(f"ro\\%ot # understudy {tmp_path}/ro\\%ot\n")
    table.write_text(f"5 * * * * mine\n{line}")
    assert settle_line(root) is None
    assert table.read_text().count("@reboot") == 1
    job.want("stop")
    assert settle_line(root) is None
    assert table.read_text() == "5 * * * * mine\n"
    table.unlink()
    monkeypatch.setenv("SAYS", "you may not use it")
    job.want("run")
    assert settle_line(root) == "crontab -l: you may not use it"
    assert not table.exists()


def test_what_the_gpus_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The busiest one counts; a device that says nothing of its use is left out; no nvidia-smi is no GPU."""
    command = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    job = JobFolder(tmp_path, "a")
    write(job.order, "{}")
    job.want("run")
    assert read_state(state(job)).gpu_use is None
    said = "NVIDIA H200, 1024, 143771, 7\nNVIDIA H200, 2048, 143771, 93\nOdd, [N/A], [N/A], [N/A]\n"
    command.write_text(f"#!/bin/sh\nprintf '{said}'\n")
    command.chmod(0o755)
    seen = read_state(state(job))
    assert (seen.gpu_use, seen.gpu_memory_used_bytes, seen.gpu_memory_total_bytes) == (
        0.93,
        2048 << 20,
        143771 << 20,
    )
    command.write_text("#!/bin/sh\necho 'no driver' >&2; exit 9\n")
    assert state(job)["gpus"] is None
