"""`deploy`, `hold`, `unhold`, `reject` through the command line, on real checkpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engine.config import Settings
from engine.release.admit import refusal
from engine.release.bundle import read_release, release_path, write_release
from engine.release.deploy import deploy
from engine.release.hold import reject, rejection, unreject
from engine.release.rebuild import FROM_LOG
from engine.release.slots import read_pointer
from engine.store.events import read_events
from engine.store.files import digest_file
from engine.store.locks import hold
from engine.store.workspace import Workspace
from tests.conftest import PROJECT, Result, until
from tests.release import checkpoints
from tests.release.bundles import make_release

Engine = Callable[..., Result]
Used = tuple[Workspace, Path, Path]


def kinds(workspace: Workspace) -> list[str]:
    return [event["kind"] for event in read_events(workspace)]


def promoted(engine: Engine) -> None:
    assert engine("promote", "--force", "--reason", "test").code == 0


def test_a_checkpoint_goes_to_tobe_and_again_there_is_nothing_to_do(engine: Engine, used: Used) -> None:
    workspace, first, _ = used
    digest = digest_file(first)
    held = read_pointer(workspace, "tobe")
    assert held is not None
    done = engine("deploy", str(first), "--json")
    assert done.code == 0, done.err
    result = done.json
    assert (result["changed"], result["deployed"], result["skipped"]) == (True, True, [])
    assert (result["from"], result["seconds_s"] >= 0) == (held.release, True)
    candidate = result["candidate"]
    assert (candidate["md5"], candidate["sha256"], candidate["bytes"]) == (digest.md5, digest.sha256, digest.bytes)
    assert (candidate["path"], candidate["cycle"]) == (str(first), 2), (
        "the file's own word goes before its folder's"
    )
    assert candidate["modified_at"][:2] == "20"
    pointer = read_pointer(workspace, "tobe")
    assert pointer is not None
    assert (pointer.release, pointer.checkpoint.sha256) == (result["release"], digest.sha256)
    event = read_events(workspace)[-1]
    assert (event["kind"], event["detail"]["to"], event["detail"]["slot"]) == (
        "deployed",
        result["release"],
        "tobe",
    )

    again = engine("deploy", str(first), "--json")
    assert again.code == 0
    assert (again.json["changed"], again.json["deployed"], again.json["release"]) == (
        False,
        False,
        result["release"],
    )
    assert len(read_events(workspace)) == 3
    assert "nothing to do" in engine("deploy", str(first)).out
    moved = shutil.copy(first, first.parent.parent / "elsewhere.pth")
    assert engine("deploy", moved, "--json").json["release"] == result["release"], "the bytes count, not the name"
    assert read_pointer(workspace, "asis") is None


def test_wrong_paths_and_words(engine: Engine, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no checkpoint")
    for words, code, kind in (
        (["deploy", str(tmp_path / "gone.pth")], 2, "not_found"),
        (["deploy", str(tmp_path)], 2, "not_a_file"),
        (["deploy"], 2, "usage"),
        (["deploy", str(tmp_path / "text.pth")], 1, "rejected"),
        (["deploy", str(tmp_path / "text.pth"), "--new-classes"], 2, "usage"),
        (["deploy", str(tmp_path / "text.pth"), "--new-classes", "--reason", " "], 2, "usage"),
        (["reject", "abcdef"], 2, "unknown_release"),
    ):
        result = engine(*words, "--json")
        assert (result.code, result.json["error"]["kind"]) == (code, kind), words
        assert result.json["error"]["hint"]
    assert read_pointer(workspace, "tobe") is None
    assert kinds(workspace) == ["refused"], "once, though it was given twice"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "best_model.pth"
    path.write_text("x")
    path.chmod(0)
    result = engine("deploy", str(path), "--json")
    assert result.code == 2
    assert "chmod 644" in result.json["error"]["hint"]


@pytest.mark.fault(52)
def test_hold_keeps_tobe_as_it_is(engine: Engine, used: Used) -> None:
    workspace, first, _ = used
    held = engine("hold", "--reason", "demo today", "--json").json
    assert (held["held"], held["changed"], held["reason"]) == (True, True, "demo today")
    assert engine("hold", "--json").json["changed"] is False
    before = read_pointer(workspace, "tobe")
    busy = engine("deploy", str(first), "--json")
    assert (busy.code, busy.json["error"]["kind"]) == (4, "held")
    assert "demo today" in busy.json["error"]["message"]
    assert engine("deploy", str(first.with_name("gone.pth"))).code == 2, "a wrong argument is said first"
    assert read_pointer(workspace, "tobe") == before
    assert engine("promote", "--force", "--reason", "x").code == 0, "holding TO-BE does not hold AS-IS"
    freed = engine("unhold", "--json").json
    assert (freed["held"], freed["changed"]) == (False, True)
    assert engine("unhold", "--json").json["changed"] is False
    assert engine("deploy", str(first), "--json").json["deployed"] is True
    assert [kind for kind in kinds(workspace) if "held" in kind] == ["held", "unheld"]


@pytest.mark.fault(52)
def test_a_comparison_under_way_keeps_tobe(engine: Engine, used: Used) -> None:
    workspace, first, _ = used
    with hold(workspace.lock("compare"), "ab"):
        busy = engine("deploy", str(first), "--json")
        assert (busy.code, busy.json["error"]["kind"]) == (4, "comparing")
    assert engine("deploy", str(first)).code == 0


def test_a_rejected_release_never_comes_back(engine: Engine, used: Used, settings: Settings) -> None:
    workspace, first, second = used
    pointer = read_pointer(workspace, "tobe")
    assert pointer is not None
    rejected = engine("reject", pointer.release[:8], "--reason", "confuses owls", "--json").json
    assert (rejected["rejected"], rejected["changed"], rejected["slots"]) == (pointer.release, True, ["tobe"])
    assert engine("reject", pointer.release, "--json").json["changed"] is False
    assert engine("deploy", str(first)).code == 0
    for options in ((), ("--new-classes", "--reason", "x")):
        again = engine("deploy", str(second), *options, "--json")
        assert (again.code, again.json["error"]["kind"]) == (1, "rejected")
        assert "confuses owls" in again.json["error"]["message"]
    why = refusal(workspace, settings, digest_file(second).sha256)
    assert why is not None
    assert "rejected" in why
    assert kinds(workspace).count("rejected") == 1


def test_a_rejection_by_mistake_is_taken_back(engine: Engine, used: Used, settings: Settings) -> None:
    workspace, first, second = used
    release = read_pointer(workspace, "tobe").release  # type: ignore[union-attr]
    assert engine("deploy", str(first)).code == 0
    engine("reject", release, "--reason", "the wrong one")
    hint = engine("deploy", str(second), "--json").json["error"]["hint"]
    assert "reject --undo" in hint
    release_path(workspace, release).rename(workspace.root / "pruned")  # the order outlives the file
    assert engine("reject", "--undo", "ffffffff").code == 2
    undone = engine("reject", "--undo", release[:8], "--reason", "it was the other", "--json").json
    assert (undone["rejected"], undone["undone"], undone["changed"]) == (None, [release], True)
    (workspace.root / "pruned").rename(release_path(workspace, release))
    assert "nothing to do" in engine("reject", release, "--undo").out
    event = read_events(workspace)[-1]
    assert (event["kind"], event["subject"], event["actor"]) == ("unrejected", release, undone["actor"])
    assert (event["detail"]["reason"], event["detail"]["rejected_by"]) == ("it was the other", undone["actor"])
    assert refusal(workspace, settings, digest_file(second).sha256) is None
    assert engine("deploy", str(second), "--json").json["release"] == release
    assert FROM_LOG["rejected.json"](read_events(workspace)) is None, "nor does a repair bring it back"


def test_taking_a_rejection_back_counts_for_the_whole_checkpoint(workspace: Workspace) -> None:
    one = make_release(workspace, "one")
    other = write_release(workspace.releases, one.manifest.model_copy(update={"parameters": 11}), b"x", b"y")
    reject(workspace, one.id)
    reject(workspace, other.id)
    assert set(unreject(workspace, other.id[:6])["undone"]) == {one.id, other.id}
    assert rejection(workspace, release=one.id, sha256=one.manifest.checkpoint.sha256) is None
    reject(workspace, one.id)
    assert unreject(workspace, other.id)["undone"] == [one.id], "it was barred by the other one's rejection"


def test_other_classes_than_production_need_the_option_and_a_reason(
    engine: Engine, used: Used, settings: Settings, tmp_path: Path
) -> None:
    workspace, first, _ = used
    promoted(engine)
    classes = ["cat", "dog", "owl", "fox"]
    path = checkpoints.save(tmp_path / "more.pth", checkpoints.content(3, classes))
    refused = engine("deploy", str(path), "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (1, "rejected")
    assert "has 4 classes, AS-IS has 3" in refused.json["error"]["message"]
    assert "--new-classes" in refused.json["error"]["hint"]
    why = refusal(workspace, settings, digest_file(path).sha256)
    assert why is not None
    assert "4 classes" in why

    admitted = engine("deploy", str(path), "--new-classes", "--reason", "foxes came", "--json")
    assert admitted.code == 0, admitted.err
    release = read_release(release_path(workspace, admitted.json["release"]), expect=admitted.json["release"])
    assert (release.manifest.classes, release.manifest.new_classes_reason) == (classes, "foxes came")
    assert read_events(workspace)[-1]["detail"]["new_classes_reason"] == "foxes came"
    assert engine("deploy", str(first)).code == 0


def test_rooms_above_call_deploy(used: Used, settings: Settings) -> None:
    workspace, first, _ = used
    release = deploy(workspace, settings, first, name="best_model_cycle1.pth", cycle=1).release
    pointer = read_pointer(workspace, "tobe")
    assert pointer is not None
    assert pointer.release == release.id


def test_a_deploy_that_is_killed_while_it_converts_takes_its_child_along(
    engine: Engine, used: Used, config: Path, tmp_path: Path
) -> None:
    workspace, _, _ = used
    path = checkpoints.save(tmp_path / "best_model.pth", checkpoints.content(9))
    before = read_pointer(workspace, "tobe")
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
    deploying = subprocess.Popen([*command, "deploy", str(path)], cwd=PROJECT)
    found = until(lambda: [pid for pid in psutil.pids() if _runs(pid, str(workspace.incoming))], "its child")
    deploying.kill()
    deploying.wait()
    until(lambda: not [pid for pid in found if _runs(pid, str(workspace.incoming))], "its child's end")
    assert read_pointer(workspace, "tobe") == before
    (tmp_path / "text.pth").write_text("x")
    assert engine("deploy", str(tmp_path / "text.pth")).code == 1
    assert not list(workspace.incoming.iterdir()), "the next command drops the scratch"


def _runs(pid: int, word: str) -> bool:
    try:
        return any(word in part for part in psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
