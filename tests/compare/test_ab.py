"""`run_ab` and the verb `ab` against two real servers that behave well and badly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.compare import records
from engine.compare import statistics as st
from engine.compare.ab import run_ab
from engine.compare.gate import gate
from engine.config import Settings
from engine.errors import Busy, Failed, UsageError
from engine.store.events import read_events
from engine.store.locks import hold
from engine.store.workspace import Workspace
from tests.compare.conftest import Slot, write_images
from tests.conftest import PATIENCE_S

Pair = tuple[Slot, Slot]


def rows_of(workspace: Workspace, identity: int) -> list[list[str | None]]:
    return list(json.loads((workspace.comparisons / f"{identity}.json").read_text())["rows"])


def test_counts_figures_and_the_stored_rows(workspace: Workspace, settings: Settings, slots: Pair) -> None:
    asis, tobe = slots
    asis.wrong_on(*range(30))
    tobe.wrong_on(*range(20, 34))
    progress: list[tuple[int, int]] = []
    result = run_ab(workspace, settings, on_progress=lambda done, total: progress.append((done, total)))

    assert (result["id"], result["n"], result["status"]) == (1, 200, "completed")
    assert [result[cell] for cell in ("both_right", "asis_only", "tobe_only", "both_wrong")] == [166, 4, 20, 10]
    assert (result["asis"]["correct"], result["tobe"]["correct"]) == (170, 186)
    assert result["asis"]["accuracy"] == 0.85
    assert result["asis"]["ci95"] == list(st.wilson(170, 200))
    assert (result["asis"]["port"], result["asis"]["release"]) == (asis.port, asis.served)
    assert result["difference"] == pytest.approx(0.08)
    assert result["difference_ci95"] == list(st.difference_interval(20, 4, 200))
    assert (result["exact_p"], result["p_value"]) == st.mcnemar(20, 4)
    assert result["e_value"] == pytest.approx(st.e_value(20, 4))
    assert result["verdict"] == "tobe"
    assert result["images_needed"] == st.images_needed(0.12, 0.08)
    assert [(row["label"], row["n"]) for row in result["per_class"]] == [("cat", 100), ("dog", 100)]
    assert sum(row["tobe_correct"] for row in result["per_class"]) == 186
    assert result["asis"]["p50_ms"] <= result["asis"]["p99_ms"]
    assert progress[-1] == (200, 200)
    assert result["gate"]["open"]

    rows = rows_of(workspace, 1)
    assert len({row[0] for row in rows}) == 200
    assert sum(row[1] == row[2] for row in rows) == 170
    assert sorted(asis.bodies) == sorted(tobe.bodies)
    last = json.loads((workspace.state / "last_ab.json").read_text())
    assert last["id"] == 1
    assert "rows" not in last
    event = read_events(workspace)[-1]
    assert (event["kind"], event["detail"]["tobe"], event["detail"]["n"]) == ("compared", tobe.served, 200)


def test_what_runs_can_be_watched_and_what_differs_be_listed(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    slots[0].wrong_on(3, 8)
    seen: list[dict[str, object] | None] = []
    result = run_ab(
        workspace, settings, on_progress=lambda done, total: seen.append(records.running_comparison(workspace))
    )
    assert seen[0] is not None
    assert [seen[0][name] for name in ("id", "planned", "running")] == [1, 200, True]
    assert records.running_comparison(workspace) is None
    assert result["e_needed"] == pytest.approx(20)
    differing = records.differing_rows(workspace, 1)
    assert {row["name"] for row in differing} == {"dog/00003.png", "cat/00008.png"}
    assert {(row["asis"], row["tobe"]) for row in differing} == {("cat", "dog"), ("dog", "cat")}


def test_the_order_is_the_seeds_and_grows_with_the_number(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    few = run_ab(workspace, settings, images=20, seed=3)
    more = run_ab(workspace, settings, images=50, seed=3)
    other = run_ab(workspace, settings, images=20, seed=4)
    first, second, third = (rows_of(workspace, result["id"]) for result in (few, more, other))
    assert second[:20] == first
    assert third != first
    assert [few["uses"], more["uses"], other["uses"]] == [0, 1, 2]
    assert (few["fresh"], more["fresh"]) == (20, 30)


def test_without_a_seed_images_not_compared_yet_come_first(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    first = run_ab(workspace, settings, images=120)
    second = run_ab(workspace, settings, images=120)
    assert (first["fresh"], second["fresh"]) == (120, 80)
    seen = {row[0] for identity in (1, 2) for row in rows_of(workspace, identity)}
    assert len(seen) == 200
    assert gate(workspace, settings)["evidence"]["n"] == 200


def test_a_few_errors_are_wrong_answers_shown_apart_and_many_leave_it_undecided(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    asis, tobe = slots
    asis.wrong_on(*range(100, 160))
    tobe.answer = lambda content: (
        (500, "") if content in (b"cat|0", b"dog|1") else (200, content.split(b"|")[0].decode())
    )
    few = run_ab(workspace, settings)
    assert (few["tobe"]["errors"], few["tobe"]["correct"], few["verdict"]) == (2, 198, "tobe")
    assert few["error_reasons"]["tobe"] == {"HTTP 500": 2}

    tobe.answer = lambda content: (500, "") if content[-1:] == b"0" else (200, content.split(b"|")[0].decode())
    many = run_ab(workspace, settings)
    assert many["tobe"]["errors"] == 20
    assert many["verdict"] == "undecided"
    assert "20 of 200" in many["reason"]


@pytest.mark.fault(33)
def test_time_outs_are_shown_and_leave_it_undecided(workspace: Workspace, settings: Settings, slots: Pair) -> None:
    slots[1].slow_on(0, 1, 2, seconds=PATIENCE_S)
    settings.ab.timeout_s = 1
    result = run_ab(workspace, settings, images=200)
    assert result["tobe"]["errors"] >= 3
    assert result["verdict"] == "undecided"
    assert "no answer in 1 s" in result["reason"]
    assert not gate(workspace, settings)["open"]


def test_a_slot_that_dies_ends_the_comparison_soon(workspace: Workspace, settings: Settings, slots: Pair) -> None:
    answered = 0

    def answer(content: bytes) -> tuple[int, str]:
        nonlocal answered
        answered += 1
        return (200, content.split(b"|")[0].decode()) if answered <= 50 else (500, "")

    slots[0].answer = answer
    result = run_ab(workspace, settings)
    assert result["status"] == "stopped"
    assert 60 < result["n"] < 90
    assert result["verdict"] == "undecided"


def test_a_full_queue_is_asked_again(workspace: Workspace, settings: Settings, slots: Pair) -> None:
    turned_away: set[bytes] = set()

    def answer(content: bytes) -> tuple[int, str]:
        if content not in turned_away and content.endswith(b"0"):
            turned_away.add(content)
            return 503, ""
        return 200, content.split(b"|")[0].decode()

    slots[1].answer = answer
    result = run_ab(workspace, settings, images=60)
    assert turned_away
    assert result["tobe"]["errors"] == 0


def test_what_both_slots_refuse_is_no_image_and_what_one_refuses_is_its_error(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    asis, tobe = slots
    asis.answer = lambda content: (422, "") if content == b"cat|0" else (200, content.split(b"|")[0].decode())
    tobe.answer = lambda content: (
        (415, "") if content in (b"cat|0", b"cat|2") else (200, content.split(b"|")[0].decode())
    )
    result = run_ab(workspace, settings)
    assert result["n"] == 199
    assert [entry["path"] for entry in result["unusable"]] == [str(Path("cat/00000.png"))]
    assert (result["asis"]["errors"], result["tobe"]["errors"]) == (0, 1)


def test_a_slot_that_changes_stops_the_comparison_and_what_was_answered_is_kept(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    _, tobe = slots
    old, seen = tobe.served, 0

    def answer(content: bytes) -> tuple[int, str]:
        nonlocal seen
        seen += 1
        if seen == 50:
            tobe.hold("newer")
        return 200, content.split(b"|")[0].decode()

    tobe.answer = answer
    with pytest.raises(Failed, match=f"TO-BE changed from {old[:8]} to ") as stopped:
        run_ab(workspace, settings)
    assert stopped.value.kind == "slot_changed"
    last = json.loads((workspace.state / "last_ab.json").read_text())
    assert (last["status"], last["tobe"]["release"]) == ("stopped", old)
    assert 40 <= last["n"] < 120
    assert "not compared yet" in gate(workspace, settings)["reason"]


def test_labels_that_one_release_does_not_know_are_left_out(
    workspace: Workspace, settings: Settings, slots: Pair, images: Path
) -> None:
    slots[1].classes = ["dog", "bird"]
    result = run_ab(workspace, settings)
    assert (result["n"], result["excluded"]) == (100, {"cat": 100})
    slots[1].classes = ["bird"]
    with pytest.raises(UsageError, match="label that both releases know"):
        run_ab(workspace, settings)


@pytest.mark.fault(34)
def test_nothing_to_compare_when_both_slots_hold_the_same(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    slots[1].hold("old")
    result = run_ab(workspace, settings)
    assert (result["n"], result["verdict"], result["images_needed"]) == (0, "undecided", None)
    assert "nothing to compare" in result["reason"]
    assert read_events(workspace)[-1]["kind"] == "compared"
    assert not result["gate"]["open"]


def test_slots_that_are_empty_down_or_somebody_elses(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    asis, tobe = slots
    asis.state = "empty"
    with pytest.raises(Failed, match=r"AS-IS \(\d+\) is empty"):
        run_ab(workspace, settings)
    asis.state = "live"
    honest = asis.served
    asis.served = "f" * 64
    with pytest.raises(Failed, match="serves ffffffff, not"):
        run_ab(workspace, settings)
    asis.served = honest
    asis.port, mine = tobe.port, asis.port
    with pytest.raises(Failed, match="answered by another server"):
        run_ab(workspace, settings)
    asis.port = mine
    tobe.stop()
    with pytest.raises(Failed, match=r"TO-BE \(\d+\) is down") as down:
        run_ab(workspace, settings)
    assert "serve" in down.value.hint
    (workspace.slots / "tobe.json").unlink()
    with pytest.raises(Failed, match="TO-BE is empty"):
        run_ab(workspace, settings)
    assert not workspace.comparisons.exists()


def test_one_comparison_at_a_time(workspace: Workspace, settings: Settings, slots: Pair) -> None:
    with hold(workspace.lock("compare"), "ab"), pytest.raises(Busy, match="compare is held by ab"):
        run_ab(workspace, settings)


def test_an_image_that_changes_meanwhile_is_noticed(
    workspace: Workspace, settings: Settings, slots: Pair, images: Path
) -> None:
    def answer(content: bytes) -> tuple[int, str]:
        for path in images.rglob("*.png"):
            path.write_bytes(path.read_bytes() + b" ")
        return 200, "cat"

    slots[0].answer = answer
    with pytest.raises(Failed, match="changed during the comparison"):
        run_ab(workspace, settings)


def command(workspace: Workspace, images: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "engine", "--workspace", str(workspace.root), "ab", f"ab.data={images}", *words]


def test_the_verb_prints_the_documents_lines(workspace: Workspace, slots: Pair, images: Path) -> None:
    asis, tobe = slots
    asis.wrong_on(*range(15))
    tobe.wrong_on(*range(5, 18))
    write_images(images, 0)
    done = subprocess.run(
        command(workspace, images, "--images", "200"), capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[:3] == [
        f"AS-IS ({asis.port}): accuracy 92.50% (185/200)",
        f"TO-BE ({tobe.port}): accuracy 93.50% (187/200)",
        "winner: undecided",
    ]
    assert "difference +1.00 points, 95% interval" in done.stdout
    assert "both right 182, only AS-IS 3, only TO-BE 5, both wrong 10" in done.stdout
    assert "gate: closed: about " in done.stdout

    tobe.wrong_on()
    again = subprocess.run(command(workspace, images, "--json"), capture_output=True, text=True, check=False)
    result = json.loads(again.stdout)
    assert (again.returncode, result["verdict"], result["tobe_only"]) == (0, "tobe", 15)


def test_ctrl_c_keeps_what_was_answered(workspace: Workspace, slots: Pair, images: Path) -> None:
    reached, over = threading.Event(), threading.Event()

    def answer(content: bytes) -> tuple[int, str]:
        if len(slots[1].bodies) >= 40:
            reached.set()
            over.wait(PATIENCE_S)
            time.sleep(0.05)
        return 200, content.split(b"|")[0].decode()

    slots[1].answer = answer
    process = subprocess.Popen(
        command(workspace, images, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert reached.wait(PATIENCE_S)
    os.kill(process.pid, signal.SIGINT)
    over.set()
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    result = json.loads(out)
    assert result["status"] == "interrupted"
    assert 30 <= result["n"] < 200
    assert len(rows_of(workspace, 1)) == result["n"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "0"], "--images"),
        (["--seed", "x"], "--seed"),
        (["--data", "/no/such/folder"], "no labelled images at"),
        (["ab.data=null", "data=folder"], "ab.data"),
    ],
)
def test_bad_input(workspace: Workspace, slots: Pair, images: Path, words: list[str], said: str) -> None:
    done = subprocess.run(command(workspace, images, *words), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not workspace.comparisons.exists()


def test_empty_folders_and_files_that_are_no_set(
    workspace: Workspace, settings: Settings, slots: Pair, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.md").write_text("no images")
    for path in (tmp_path / "empty", tmp_path / "note.md"):
        with pytest.raises(UsageError):
            run_ab(workspace, settings, data=path)
