"""`status` and its advice: one glance, on workspaces in every station of the road."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from engine.protocol import Gate, Health, Held, LastSync, Lock, Run, Slot, Slots
from engine.store.clock import now, timestamp
from engine.store.files import write_json
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.watch.advice import advise
from tests.conftest import Result
from tests.release.bundles import make_release, put

A, B = "a" * 64, "b" * 64
CLOSED = Gate(open=False, reason="these two releases were not compared yet", evidence={"n": 0})


def slots(asis: str | None, tobe: str | None) -> Slots:
    def one(port: int, release: str | None) -> Slot:
        return Slot(port=port, state="live" if release else "empty", release=release)

    return Slots(asis=one(8891, asis), tobe=one(8892, tobe))


DOWN = Slot(port=8891, state="down", release=A, problem="no server answers")
TRAINING = [Run(run="0002", status="running")]


@pytest.mark.parametrize(
    ("here", "health", "runs", "files", "action"),
    [
        (slots(None, None), Health(), [], False, "train"),
        (slots(A, B), Health(gate=replace(CLOSED, evidence={"n": 0, "rejected": True})), [], False, "wait"),
        (slots(None, None), Health(), TRAINING, False, "wait"),
        (slots(None, None), Health(), [], True, "sync"),
        (slots(None, B), Health(), [], True, "force"),
        (slots(A, None), Health(), [], True, "sync"),
        (slots(A, B), Health(gate=CLOSED), [], True, "compare"),
        (slots(A, B), Health(gate=CLOSED, locks=[Lock(name="compare", pid=1)]), [], True, "wait"),
        (
            slots(A, B),
            Health(gate=replace(CLOSED, images_missing=480, evidence={"n": 100})),
            [],
            True,
            "more_images",
        ),
        (
            slots(A, B),
            Health(gate=replace(CLOSED, evidence={"n": 900}, reason="AS-IS is better")),
            [],
            True,
            "wait",
        ),
        (slots(A, B), Health(gate=Gate(open=True, reason="TO-BE is better")), [], True, "promote"),
        (slots(A, A), Health(), [], True, "none"),
        (slots(A, A), Health(held=Held()), [], True, "unhold"),
        (replace(slots(A, B), asis=DOWN), Health(gate=Gate(open=True, reason="")), [], True, "serve"),
        (slots(A, B), Health(unfinished="promote"), [], True, "recover"),
        (slots(A, A), Health(last_sync=LastSync(at=timestamp(), error="no route")), [], True, "look"),
        (slots(A, A), Health(missed_looks=3), [], True, "sync"),
    ],
)
def test_the_most_urgent_step_comes_first(
    here: Slots, health: Health, runs: list[Run], files: bool, action: str
) -> None:
    found = advise(here, health, runs, checkpoints=files)
    assert found.action == action
    assert found.text


def test_a_fresh_workspace(engine: Callable[..., Result], workspace: Workspace) -> None:
    done = engine("status", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert {slot["state"] for slot in found["slots"].values()} == {"empty"}
    assert found["gate"]["open"] is False
    assert (found["last_sync"], found["last_ab"], found["runs"], found["backups"]) == (None, None, [], [])
    assert found["next"]["action"] == "train"
    assert not workspace.root.exists()  # looking changes nothing
    assert "python -m engine train" in engine("status").out


def test_slots_backups_and_what_is_missed(engine: Callable[..., Result], workspace: Workspace) -> None:
    old, new = make_release(workspace, "old", cycle=7, accuracy=0.85), make_release(workspace, "new", cycle=8)
    put(workspace, "tobe", new)
    put(workspace, "asis", old)
    since = timestamp(now() - timedelta(hours=2, minutes=10))
    error = {"kind": "unreachable", "message": "no route to the source", "hint": ""}
    write_json(workspace.state / "last_sync.json", {"at": since, "changed": False, "error": error})
    write_json(workspace.state / "hold.json", {"at": timestamp(), "actor": "hana", "reason": "wait for Monday"})
    found = engine("status", "--json").json
    asis = found["slots"]["asis"]
    fields = [
        "port",
        "state",
        "release",
        "sha256",
        "md5",
        "cycle",
        "epoch",
        "accuracy",
        "since",
        "requests",
        "p50_ms",
        "p99_ms",
    ]
    assert set(fields) <= asis.keys()
    assert (asis["state"], asis["release"], asis["cycle"], asis["accuracy"]) == ("down", old.id, 7, 0.85)
    assert found["last_sync"]["error"] == "no route to the source"
    assert found["missed_looks"] == 4
    assert found["held"]["by"] == "hana"
    text = engine("status").out
    for part in (
        "AS-IS",
        "85.00%",
        old.id[:8],
        "no server answers",
        "wait for Monday",
        "4 looks missed",
        "serve asis",
    ):
        assert part in text


def test_damage_is_said_and_never_breaks_it(engine: Callable[..., Result], workspace: Workspace) -> None:
    workspace.slots.mkdir(parents=True)
    (workspace.slots / "asis.json").write_text("{")
    workspace.state.mkdir()
    (workspace.state / "last_sync.json").write_text("[")
    (workspace.state / "hold.json").write_text("{")
    workspace.journal.write_text("{")
    (workspace.runs / "0001").mkdir(parents=True)
    (workspace.runs / "0001" / "manifest.json").write_text("nothing")
    done = engine("status", "--json")
    assert done.code == 0, done.err
    found = done.json
    assert "damaged" in found["slots"]["asis"]["problem"]
    assert found["unfinished"] == "damaged journal"
    assert found["gate"]["open"] is False
    assert found["runs"][0]["status"] == "lost"


def test_who_holds_a_lock_is_said(engine: Callable[..., Result], workspace: Workspace) -> None:
    with hold(workspace.lock("sync"), "sync"):
        (lock,) = engine("status", "--json").json["locks"]
    assert (lock["name"], lock["pid"]) == ("sync", os.getpid())
    assert engine("status", "--json").json["locks"] == []
    workspace.lock("slots").write_text(json.dumps({"pid": 2**22 + 1, "purpose": "promote", "since": timestamp()}))
    assert engine("status", "--json").json["locks"] == []  # a holder that was killed holds nothing
