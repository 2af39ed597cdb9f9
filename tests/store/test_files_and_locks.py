"""Atomic files and kernel locks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import Busy, Failed
from engine.store.files import atomic_writer, copy_verified, digest_file, read_json, write_json
from engine.store.locks import hold, holder


def test_a_failed_write_leaves_the_old_content_and_no_scratch(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError, match="halfway"), atomic_writer(target) as stream:
        stream.write(b"half")
        raise RuntimeError("halfway")
    assert read_json(target) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_a_copy_is_verified_and_never_overwrites(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content" * 1000)
    digest = digest_file(source)
    copy_verified(source, tmp_path / "copy", digest.sha256)
    assert digest_file(tmp_path / "copy") == digest
    with pytest.raises(FileExistsError):
        copy_verified(source, tmp_path / "copy", digest.sha256)
    with pytest.raises(Failed, match="content"):
        copy_verified(source, tmp_path / "other", "0" * 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "source"]


def test_damaged_json_is_said_and_missing_json_is_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") is None
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(Failed, match="damaged"):
        read_json(tmp_path / "bad.json")


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "slots.lock"
    code = (
        "import sys,time; from pathlib import Path; from engine.store.locks import hold\n"
        f"with hold(Path({str(lock)!r}), 'promote'):\n print('held', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(Busy, match=rf"promote \(pid {child.pid}\) since"), hold(lock, "rollback"):
        pytest.fail("the lock was given twice")
    assert (holder(lock) or {})["pid"] == child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with hold(lock, "rollback"):
        assert (holder(lock) or {})["purpose"] == "rollback"
    assert holder(lock) is None
