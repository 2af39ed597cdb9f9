"""One look at a source after another, on real checkpoints: what is taken, what is left alone, what is said."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Busy, Failed
from engine.release.hold import hold, unhold
from engine.release.slots import read_pointer
from engine.store.files import digest_file
from engine.store.locks import hold as lock
from engine.sync.source import Unreachable
from engine.sync.state import arrival, begin_taking
from engine.sync.sync import NothingAdmissible
from tests.conftest import PATIENCE_S, PROJECT, Result, until
from tests.sync.conftest import Sshd
from tests.sync.road import MODEL, Road


def reasons(result: dict[str, Any]) -> dict[str, str]:
    return {Path(item["path"]).name: item["reason"] for item in result["skipped"]}


def test_a_changed_checkpoint_is_taken_once(road: Road) -> None:
    path = road.put("a", "checkpoints_cycle2/best_model_cycle2.pth", 100)
    road.put("b", "checkpoints_cycle1/best_model.pth", 200)
    first = road.look()
    digest = digest_file(path)
    assert (first["changed"], first["deployed"]) == (True, True)
    assert first["candidate"] == {
        "path": str(path),
        "cycle": 2,
        "md5": digest.md5,
        "sha256": digest.sha256,
        "bytes": digest.bytes,
        "modified_at": first["candidate"]["modified_at"],
    }
    assert reasons(first) == {"best_model.pth": "older than checkpoints_cycle2/best_model_cycle2.pth"}
    pointer = read_pointer(road.workspace, "tobe")
    assert pointer is not None
    assert (pointer.release, pointer.checkpoint.sha256) == (first["release"], digest.sha256)
    again = road.look()
    assert (again["changed"], again["deployed"], again["candidate"]["sha256"]) == (False, False, digest.sha256)
    assert road.kinds() == ["deployed", "synced"]
    assert list(road.workspace.incoming.iterdir()) == []
    state = road.state()
    assert (state["changed"], state["error"], state["failures"]) == (False, None, 0)


@pytest.mark.fault(12)
def test_same_size_and_time_other_content_is_found_by_its_hash(road: Road) -> None:
    path = road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    road.look()
    facts = path.stat()
    path.write_bytes(road.stock.files["b"].read_bytes())
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size
    assert road.look()["deployed"] is True
    assert road.holds() == "b"


@pytest.mark.fault(8)
def test_what_is_still_being_written_is_put_off(road: Road) -> None:
    path = road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    path.write_bytes(road.stock.files["a"].read_bytes()[:5000])
    whole = road.stock.files["a"].read_bytes()
    first = road.look({"changed": lambda: path.write_bytes(whole)})
    assert (first["changed"], first["deployed"]) == (True, False)
    assert "still being written" in reasons(first)["best_model.pth"]
    assert not [line for line in road.said if line.startswith("fetching")]
    assert road.look()["deployed"] is True
    assert road.kinds() == ["postponed", "deployed", "synced"]


@pytest.mark.fault(16)
def test_a_refused_best_is_remembered_and_the_next_best_is_taken(road: Road) -> None:
    road.put("bad", "checkpoints_cycle10/best_model.pth", 100)
    road.put("a", "checkpoints_cycle9/LiteCNNPro_best.pth", 200)
    result = road.look()
    assert result["deployed"] is True
    assert result["candidate"]["cycle"] == 9
    assert list(reasons(result)) == ["best_model.pth"]
    road.said.clear()
    again = road.look()
    assert (again["changed"], again["candidate"]["cycle"]) == (False, 9)
    assert "refused before" in reasons(again)["best_model.pth"]
    assert not [line for line in road.said if line.startswith("fetching")]
    assert road.kinds().count("refused") == 1
    assert len(road.alerts) == 1


def test_a_stand_in_never_takes_tobe_back(road: Road) -> None:
    road.put("b", "checkpoints_cycle1/best_model.pth", 500)
    held = road.put("a", "checkpoints_cycle2/best_model.pth", 200)
    road.look()
    held.unlink()
    road.put("bad", "checkpoints_cycle3/best_model.pth", 100)
    result = road.look()
    assert (result["changed"], result["deployed"]) == (False, False)
    assert road.holds() == "a"


@pytest.mark.fault(15)
def test_the_combined_checkpoint_wins_while_it_is_there(road: Road) -> None:
    road.put("a", "checkpoints_cycle3/best_model.pth", 10)
    combined = road.put("b", "checkpoints_combined/LiteCNNPro_best.pth", 900)
    first = road.look()
    assert road.holds() == "b"
    assert first["candidate"]["cycle"] is None
    assert "is newer than checkpoints_combined" in first["warnings"][0]
    combined.unlink()
    assert road.look()["candidate"]["cycle"] == 3
    assert road.holds() == "a"


@pytest.mark.fault(13, 14)
def test_a_future_time_does_not_win_over_a_higher_cycle(road: Road) -> None:
    road.put("a", "checkpoints_cycle9/best_model.pth", -7200)
    road.put("b", "checkpoints_cycle10/best_model.pth", 50)
    result = road.look()
    assert road.holds() == "b"
    assert "in the future" in result["warnings"][0]


def test_on_hold_it_waits_and_goes_on_afterwards(road: Road) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    hold(road.workspace, "looking at it")
    result = road.look()
    assert (result["changed"], result["deployed"]) == (True, False)
    assert "on hold" in reasons(result)["best_model.pth"]
    unhold(road.workspace)
    assert road.look()["deployed"] is True


def test_during_a_comparison_it_waits(road: Road) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    with lock(road.workspace.lock("compare"), "ab"):
        result = road.look()
    assert (result["changed"], result["deployed"]) == (True, False)
    assert "waits" in reasons(result)["best_model.pth"]
    assert road.look()["deployed"] is True
    assert road.kinds() == ["postponed", "deployed", "synced"]


def test_a_deploy_by_hand_is_not_undone(road: Road) -> None:
    from engine.release.deploy import deploy

    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    road.look()
    deploy(road.workspace, road.settings, road.stock.files["b"], name="b.pth", cycle=None)
    assert road.look()["changed"] is False
    assert road.holds() == "b"


@pytest.mark.fault(2)
def test_nothing_left_by_a_crash_is_trusted(road: Road) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    sha256 = digest_file(road.stock.files["a"]).sha256
    stale = arrival(road.workspace, "0" * 64)
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    arrival(road.workspace, sha256).write_bytes(b"not what the name says")
    arrival(road.workspace, sha256).with_suffix(".pth.part").write_bytes(b"another beginning")
    notes = [road.workspace.state / f".{name}.json.a1b2c3.part" for name in ("sync_taking", "last_sync")]
    for note in notes:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text("{")
    assert road.look()["deployed"] is True
    assert road.holds() == "a"
    assert list(road.workspace.incoming.iterdir()) == []
    assert not any(note.exists() for note in notes)


def test_a_crash_after_the_deploy_loses_no_event_and_doubles_none(road: Road) -> None:
    from engine.release.deploy import deploy

    path = road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    digest = digest_file(path)
    begin_taking(road.workspace, {"path": str(path), "sha256": digest.sha256})
    deploy(road.workspace, road.settings, path, name=path.name, cycle=1)
    assert road.look()["changed"] is False
    road.look()
    assert road.kinds() == ["deployed", "synced"]


def test_pipes_links_and_empty_files_are_passed_over_without_waiting(road: Road) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 300)
    (road.root / "checkpoints_cycle2").mkdir()
    os.mkfifo(road.root / "checkpoints_cycle2" / "best_model.pth")
    (road.root / "checkpoints_cycle2" / "LiteCNNPro_best.pth").symlink_to("nowhere")
    (road.root / "checkpoints_cycle2" / "best_model_cycle2.pth").touch()
    result = road.look()
    assert road.holds() == "a"
    assert reasons(result)["best_model.pth"] == "not a regular file"
    assert "cannot be read" in reasons(result)["LiteCNNPro_best.pth"]
    assert reasons(result)["best_model_cycle2.pth"] == "empty"


def test_nothing_admissible_is_a_failure_that_names_every_file(road: Road) -> None:
    road.put("bad", "checkpoints_cycle1/best_model.pth", 100)
    with pytest.raises(NothingAdmissible) as error:
        road.look()
    answer = error.value.as_json()
    assert answer["error"]["kind"] == "nothing_admissible"
    assert reasons(answer).keys() == {"best_model.pth"}
    assert road.state()["error"]["kind"] == "nothing_admissible"


@pytest.mark.fault(20)
def test_a_source_out_of_reach_alerts_once_and_says_when_it_is_back(road: Road) -> None:
    road.root.rename(road.root.with_name("away"))
    for _ in range(3):
        with pytest.raises(Unreachable):
            road.look()
    assert road.kinds() == ["alert"]
    assert (road.state()["failures"], road.state()["error"]["kind"]) == (3, "source_unreachable")
    road.root.with_name("away").rename(road.root)
    road.look()
    road.look()
    assert road.kinds() == ["alert", "alert"]
    assert road.state()["failing_since"] is None


@pytest.mark.fault(7)
def test_a_full_disk_ends_cleanly(road: Road) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(Failed) as error:
            road.look({"fetching": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert error.value.kind == "disk_full"
    assert list(road.workspace.incoming.iterdir()) == []
    assert road.look()["deployed"] is True


def test_with_nothing_to_do_nothing_heavy_is_imported(road: Road) -> None:
    road.put("bad", "checkpoints_cycle2/best_model.pth", 50)
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    road.look()
    words = [*road.command()[3:], "--json"]
    script = f"import sys\nfrom engine.cli.main import main\ncode = main({words!r})\n"
    script += "print(code, sorted({'torch', 'asyncssh', 'httpx', 'numpy', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    answer, heavy = done.stdout.splitlines()
    assert json.loads(answer)["changed"] is False
    assert heavy == "0 []"


def test_a_dry_run_changes_nothing(road: Road) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    before = sorted(road.workspace.root.rglob("*"))
    result = road.look(dry_run=True)
    assert (result["changed"], result["deployed"], result["release"]) == (True, False, None)
    assert sorted(road.workspace.root.rglob("*")) == before


@pytest.mark.fault(21, 22)
def test_a_second_sync_is_told_who_is_at_work_and_a_killed_one_frees_the_lock(road: Road) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    first = subprocess.Popen(
        [*road.command(), "source.settle_s=60", "--json"], cwd=PROJECT, stderr=subprocess.PIPE, text=True
    )
    assert first.stderr is not None
    assert first.stderr.readline().startswith("changed")
    second = subprocess.run([*road.command(), "--json"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert second.returncode == 4
    assert f"sync (pid {first.pid}) since" in json.loads(second.stdout)["error"]["message"]
    with pytest.raises(Busy):
        road.look()
    first.kill()
    first.communicate()
    assert road.look()["deployed"] is True


def test_watch_goes_on_after_a_failing_look_and_stops_when_told(road: Road) -> None:
    words = [*road.command(), "--watch", "--json", "source.poll_minutes=0.002"]
    child = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert child.stdout is not None
    try:
        assert json.loads(child.stdout.readline())["changed"] is False
        road.root.rename(road.root.with_name("away"))
        until(lambda: "error" in json.loads(child.stdout.readline()), "a look that fails")  # type: ignore[union-attr]
        road.root.with_name("away").rename(road.root)
        until(lambda: "error" not in json.loads(child.stdout.readline()), "one that works")  # type: ignore[union-attr]
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=PATIENCE_S)
    assert child.returncode == 130


def test_the_command_line_says_it_with_its_exit_codes(
    road: Road, engine: Callable[..., Result], tmp_path: Path
) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    done = engine("sync", *road.words)
    assert done.code == 0
    assert "deployed to TO-BE (" in done.out
    assert engine("sync", "--json", *road.words).json["changed"] is False
    missing = engine("sync", "--json", f"source.root={tmp_path}/none")
    assert (missing.code, missing.json["error"]["kind"]) == (1, "source_unreachable")
    empty = engine("sync", "--json", f"source.root={tmp_path}", "--dry-run")
    assert (empty.code, empty.json["candidate"]) == (0, None)
    incomplete = engine("sync", "--json", "source.kind=ssh")
    assert (incomplete.code, "source.host" in incomplete.err) == (2, True)
    text = tmp_path / "text" / "checkpoints_cycle1" / "best_model.pth"
    text.parent.mkdir(parents=True)
    text.write_text("hello")
    refused = engine("sync", "--json", f"source.root={tmp_path}/text")
    assert refused.code == 1
    assert "text file" in refused.json["error"]["message"]


@pytest.mark.fault(19)
def test_over_ssh_with_a_host_key_that_changes(
    road: Road, make_sshd: Callable[..., Sshd], engine: Callable[..., Result]
) -> None:
    server = make_sshd()
    path = road.put("a", "checkpoints_cycle4/best_model.pth", 100)
    words = [*MODEL, *server.words()]
    first = engine("sync", "--json", *words)
    assert first.code == 0, first.err
    assert (first.json["deployed"], first.json["candidate"]["path"]) == (True, str(path))
    assert engine("sync", "--json", *words).json["changed"] is False
    server.new_host_key()
    road.put("b", "checkpoints_cycle5/best_model.pth", 10)
    for _ in range(2):
        stopped = engine("sync", "--json", *words)
        assert (stopped.code, stopped.json["error"]["kind"]) == (1, "host_key_changed")
    assert road.holds() == "a"
    assert road.kinds().count("alert") == 1
    server.trust()
    assert engine("sync", "--json", *words).json["deployed"] is True


def test_nothing_new_names_the_release_that_the_candidate_is(road: Road) -> None:
    road.put("a", "checkpoints_cycle1/best_model.pth", 100)
    release = road.look()["release"]
    assert road.look()["release"] == release
