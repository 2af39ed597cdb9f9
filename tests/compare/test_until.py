"""`ab --until-decided`, and comparisons that are killed: peeking is paid for, and cannot be hidden."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.cli.ab import text
from engine.compare import records
from engine.compare import statistics as st
from engine.compare.ab import run_ab
from engine.compare.asking import Answer, Answers
from engine.compare.deciding import Rule
from engine.compare.gate import gate
from engine.compare.images import Labelled
from engine.compare.labels import Live
from engine.compare.records import Pool
from engine.compare.until import Until
from engine.config import Settings
from engine.store.clock import timestamp
from engine.store.events import read_events
from engine.store.files import write_json
from engine.store.workspace import Workspace
from tests.compare.conftest import Slot, write_images
from tests.conftest import PATIENCE_S
from tests.conftest import until as wait_for

Pair = tuple[Slot, Slot]


def test_it_stops_where_the_evidence_is_enough(workspace: Workspace, settings: Settings, slots: Pair) -> None:
    slots[0].wrong_on(*range(0, 200, 2))
    result = run_ab(workspace, settings, until_decided=True)
    assert (result["verdict"], result["status"], result["until_decided"]) == ("tobe", "completed", True)
    assert 100 <= result["n"] < 120  # gate.min_images is 100, and E is over 20 long before
    assert "decided for TO-BE" in result["reason"]
    assert result["gate"]["open"]
    assert gate(workspace, settings)["evidence"]["e_value"] >= 20


def test_it_stops_for_as_is_too(workspace: Workspace, settings: Settings, slots: Pair) -> None:
    slots[1].wrong_on(*range(0, 200, 2))
    result = run_ab(workspace, settings, until_decided=True)
    assert (result["verdict"], result["n"] < 120) == ("asis", True)
    assert not result["gate"]["open"]


def test_undecided_goes_to_the_most_images_and_the_next_one_goes_on_from_there(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    slots[0].wrong_on(*range(0, 200, 14))
    first = run_ab(workspace, settings, until_decided=True, images=60)
    assert (first["n"], first["verdict"]) == (60, "undecided")
    assert "not decided after 60 images" in first["reason"]
    second = run_ab(workspace, settings, until_decided=True)
    assert (second["verdict"], second["fresh"]) == ("tobe", second["n"])
    assert second["pooled"]["n"] == 60 + second["n"]
    evidence = gate(workspace, settings)["evidence"]
    assert (evidence["n"], evidence["looks"]) == (60 + second["n"], 2)
    assert gate(workspace, settings)["open"]


def test_one_look_that_ran_until_decided_is_never_judged_by_its_p_value(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    slots[0].wrong_on(*range(0, 200, 25))
    result = run_ab(workspace, settings, until_decided=True)
    assert result["p_value"] < 0.05
    assert (result["n"], result["verdict"], result["gate"]["open"]) == (200, "undecided", False)


def test_a_set_that_is_used_up_is_said_and_nothing_is_lost(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    slots[0].wrong_on(*range(0, 200, 50))
    first = run_ab(workspace, settings, until_decided=True, images=150)
    assert (first["used_up"], "the last of" in first["reason"]) == (False, False)
    last = run_ab(workspace, settings, until_decided=True)
    assert (last["n"], last["used_up"], last["verdict"]) == (50, True, "undecided")
    assert "these were the last of" in last["reason"]
    assert "label more images" in last["reason"]
    kept = records.last_comparison(workspace)

    again = run_ab(workspace, settings, until_decided=True)
    assert (again["id"], again["n"], again["fresh"], again["used_up"]) == (2, 50, 0, True)
    assert (again["verdict"], again["pooled"]["n"], again["gate"]["open"]) == ("undecided", 200, False)
    assert again["reason"].startswith(f"every image of {settings.ab.data} was asked before, and it is not decided")
    assert "label more images" in again["reason"]
    assert "only AS-IS" in text(again)
    assert records.last_comparison(workspace) == kept
    assert len([event for event in read_events(workspace) if event["kind"] == "compared"]) == 2


def test_with_no_image_left_what_was_decided_stays_decided(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    slots[0].wrong_on(*range(0, 200, 10))
    first = run_ab(workspace, settings, images=500)
    again = run_ab(workspace, settings, until_decided=True)
    assert (first["notes"], again["notes"]) == (["500 images were wanted, 200 are there: each is asked once"], [])
    assert (first["verdict"], again["verdict"], again["id"]) == ("tobe", "tobe", 1)
    assert first["reason"] in again["reason"], "one look at a fixed number is judged as it was"
    assert again["gate"] == first["gate"]


def test_after_a_rollback_the_whole_set_is_new_evidence(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    slots[0].wrong_on(*range(0, 200, 4))
    run_ab(workspace, settings, images=200)
    release = str(slots[1].served)
    write_json(workspace.state / "taken_down.json", {release: timestamp()})
    assert not gate(workspace, settings)["open"]
    again = run_ab(workspace, settings, until_decided=True)
    assert (again["verdict"], again["gate"]["open"], again["fresh"]) == ("tobe", True, 0)


def _answered(*outcomes: str) -> tuple[list[Labelled], Answers]:
    """b: only TO-BE right; c: only AS-IS; =: both; e: TO-BE gave no answer; .: not answered yet."""
    chosen = [
        Labelled(Path(f"{place}.png"), f"{place}.png", "x", f"{place:064x}") for place in range(len(outcomes))
    ]
    said = {"b": ("y", "x"), "c": ("x", "y"), "=": ("x", "x"), "e": ("x", None)}

    def pair(kind: str) -> dict[str, Answer] | None:
        if kind == ".":
            return None
        asis, tobe = said[kind]
        return {"asis": Answer(asis, 1.0), "tobe": Answer(tobe, 1.0, 200 if tobe else 0, None if tobe else "late")}

    return chosen, Answers([pair(kind) for kind in outcomes])


def _until(outcomes: str, before: Pool | None = None, least: int = 1) -> tuple[Until, Answers]:
    chosen, answers = _answered(*outcomes)
    return Until(Rule(0.05, None, least), before or Pool(), Live(), chosen, answers), answers


def test_only_the_beginning_without_gaps_is_counted() -> None:
    wins = next(n for n in range(1, 99) if st.log_e_value(n, 0) >= np.log(20))
    until, answers = _until("." + "b" * (wins + 5))
    assert until() is None
    answers.pairs[0] = answers.pairs[1]
    assert until() == wins
    assert until.winner == "tobe"
    assert until() == wins


def test_errors_of_a_server_never_decide() -> None:
    until, _ = _until("b" * 40 + "e" * 3)
    assert until() is not None
    until, _ = _until("e" + "b" * 40)
    assert until() is None


def test_earlier_evidence_counts_and_the_least_number_of_images_is_kept() -> None:
    until, _ = _until("b" * 8, Pool(n=300, b=20, c=6))
    assert until() is not None
    until, _ = _until("b" * 60, least=50)
    assert until() == 50


def test_equal_models_are_told_apart_in_less_than_alpha_of_all_runs() -> None:
    random = np.random.default_rng(8)
    rule, named, trials = Rule(0.05, None, 100), 0, 100
    for _ in range(trials):
        chosen, answers = _answered(*random.choice(["b", "c", "="], p=[0.1, 0.1, 0.8], size=500))
        named += Until(rule, Pool(), Live(), chosen, answers)() is not None
    assert named / trials < 0.05


@pytest.mark.fault(33)
def test_time_outs_leave_it_undecided_however_it_is_stopped(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    slots[0].wrong_on(*range(50))
    slots[1].slow_on(*range(10), seconds=PATIENCE_S)
    settings.ab.timeout_s, settings.ab.concurrency = 1, 20
    result = run_ab(workspace, settings, until_decided=True)
    assert (result["n"], result["tobe"]["errors"] >= 10, result["verdict"]) == (200, True, "undecided")
    assert "no answer in 1 s" in result["reason"]
    assert not result["gate"]["open"]


def _start(workspace: Workspace, images: Path, *words: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "engine",
        "--workspace",
        str(workspace.root),
        "ab",
        f"ab.data={images}",
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_comparison_that_is_killed_has_been_a_look(
    workspace: Workspace, settings: Settings, slots: Pair, images: Path
) -> None:
    """Whoever saw its figures in `state/ab_progress.json` cannot take them back by killing it."""
    asis, tobe = slots
    asis.wrong_on(*range(8))
    run_ab(workspace, settings, images=100, seed=1)
    assert gate(workspace, settings)["evidence"]["looks"] == 1

    steady, asked = tobe.answer, len(tobe.bodies)
    released = threading.Event()

    def slowly(content: bytes) -> tuple[int, Any]:
        released.wait(
            0.05 if len(tobe.bodies) < asked + 100 else PATIENCE_S
        )  # it does not end before it is killed
        return steady(content)

    tobe.answer = slowly
    process = _start(workspace, images)
    try:
        shown = wait_for(
            lambda: (found := records.running_comparison(workspace)) and found["n"] and found, "a look"
        )
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    released.set()

    record: dict[str, Any] = json.loads((workspace.comparisons / "2.json").read_text())
    assert record["status"] == "interrupted"
    assert record["n"] >= shown["n"]
    assert len(record["rows"]) == record["n"]
    answer = gate(workspace, settings)
    assert answer["evidence"]["looks"] == 2
    assert answer["ab"]["id"] == 2
    assert [event["detail"]["id"] for event in read_events(workspace) if event["kind"] == "compared"] == [1]

    run_ab(workspace, settings)
    logged = [event["detail"] for event in read_events(workspace) if event["kind"] == "compared"]
    assert [(detail["id"], detail["status"]) for detail in logged] == [
        (1, "completed"),
        (2, "interrupted"),
        (3, "completed"),
    ]
    assert "unlogged" not in json.loads((workspace.comparisons / "2.json").read_text())


def test_a_crash_between_the_record_and_its_event_gives_one_event(
    workspace: Workspace, settings: Settings, slots: Pair
) -> None:
    run_ab(workspace, settings, images=20)
    path = workspace.comparisons / "1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unlogged": True}))
    run_ab(workspace, settings, images=20)
    assert [e["detail"]["id"] for e in read_events(workspace) if e["kind"] == "compared"] == [1, 2]


def test_the_verb_prints_both_latencies_and_the_classes_with_a_gap(
    workspace: Workspace, slots: Pair, images: Path
) -> None:
    slots[0].wrong_on(*range(0, 60, 2))
    write_images(images, 0)
    done = _start(workspace, images, "--until-decided", "--max-images", "150")
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0, err
    assert "winner: TO-BE" in out
    assert "AS-IS p50" in out
    assert "class" in out
    assert "cat" in out
    assert "gate: open" in out
    wrong = _start(workspace, images, "--max-images", "5")
    wrong.communicate(timeout=60)
    assert wrong.returncode == 2
