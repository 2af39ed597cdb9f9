"""JSON logs: what a record holds, that every verb says its words so, and that `logs` shows them to people."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from engine.store import logjson
from engine.store.events import append_event
from engine.store.logfile import last_lines
from engine.store.workspace import Workspace

FIELDS = {"time", "level", "logger", "message", "run", "release", "request_id"}


@pytest.fixture(autouse=True)
def _text_again() -> Iterator[None]:
    yield
    logjson.begin("text")
    logjson.about(run="", release="")


def records(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(set(one) >= FIELDS for one in found)
    return found


def test_a_record_holds_what_a_log_service_looks_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "averysecretkey")
    logjson.begin("json")
    logjson.begin("json")
    logjson.about(run="0007")
    logjson.about(release="ab12")
    logjson.say("first\nsecond averysecretkey")
    logjson.say("")
    try:
        raise ValueError("in averysecretkey")
    except ValueError:
        logging.getLogger("other").exception("failed", extra={"release": "cd34", "request_id": "r-1"})
    words = ("127.0.0.1:5", "GET", "/model?a=1", "1.1", 200)
    access = logging.getLogger(logjson.ACCESS)
    access.setLevel(logging.INFO)
    access.info('%s - "%s %s HTTP/%s" %d', *words)
    said, failed, asked = records(capsys.readouterr().err)
    assert datetime.fromisoformat(said["time"]).tzinfo is not None
    assert said["message"] == "first\nsecond ****"
    assert (said["level"], said["run"], said["release"], said["request_id"]) == ("INFO", "0007", "ab12", None)
    assert (failed["level"], failed["release"], failed["request_id"]) == ("ERROR", "cd34", "r-1")
    assert "ValueError: in ****" in failed["exception"]
    assert (asked["method"], asked["path"], asked["status"]) == ("GET", "/model?a=1", 200)
    logjson.begin("text")
    logjson.say("no record")
    assert capsys.readouterr().err == ""


def test_events_are_records_with_their_release_and_run(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    append_event(workspace, "held", "TO-BE", {"reason": "before"})
    logjson.begin("json")
    append_event(workspace, "promoted", "AS-IS", {"from": "aa", "to": "bb"})
    append_event(workspace, "trained", "run 0003", {"epoch": 2})
    append_event(workspace, "alert", "sync", {"reason": "no disk"})
    promoted, trained, alert = records(capsys.readouterr().err)
    assert (promoted["kind"], promoted["release"]) == ("promoted", "bb")
    assert (trained["kind"], trained["run"]) == ("trained", "0003")
    assert (alert["level"], alert["message"]) == ("WARNING", "alert sync: no disk")


@pytest.mark.parametrize("how", ["variable", "setting"])
def test_every_verb_says_its_words_and_its_error_as_records(how: str, engine: Callable) -> None:
    env = {"UNDERSTUDY_LOG_FORMAT": "json"} if how == "variable" else {}
    words = [] if how == "variable" else ["logging.format=json"]
    held = engine("hold", "--reason", "a test", *words, "--json", env=env)
    assert held.json["held"]
    assert [one["kind"] for one in records(held.err)] == ["held"]
    refused = engine("reject", "abcdef", *words, "--json", env=env)
    assert refused.code == 2
    last = records(refused.err)[-1]
    assert last["level"] == "ERROR"
    assert (last["kind"], last["hint"]) == (refused.json["error"]["kind"], refused.json["error"]["hint"])
    assert logjson.is_last(refused.err.splitlines()[-1].encode())
    assert not logjson.is_last(held.err.splitlines()[-1].encode())
    sync = engine("sync", "--dry-run", *words, env=env)
    records(sync.err)


def test_an_error_before_the_settings_is_a_record_by_the_variable(engine: Callable) -> None:
    (one,) = records(engine("stauts", env={"UNDERSTUDY_LOG_FORMAT": "json"}).err)
    assert one["kind"] == "unknown_verb"
    bare = engine("stauts")
    assert bare.err.startswith("error: unknown verb"), "and nothing else is"


def test_people_are_shown_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logjson.begin("json")
    logjson.say("epoch 1\n\x1b[31mdone")
    logging.getLogger("understudy").error("went wrong")
    text = capsys.readouterr().err
    file = tmp_path / "train.log"
    file.write_text(text + '{"time": "torn\n' + "a plain line\n")
    first, second, torn, plain = last_lines(file, 10)
    assert first.endswith(" epoch 1 done")
    assert second.endswith(" ERROR went wrong")
    assert (torn, plain) == ('{"time": "torn', "a plain line")


def test_warnings_of_python_are_records_too(capsys: pytest.CaptureFixture[str]) -> None:
    import warnings

    logjson.begin("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn_explicit("careful", UserWarning, "x.py", 3)
    logging.captureWarnings(False)
    (one,) = records(capsys.readouterr().err)
    assert (one["logger"], one["level"]) == ("py.warnings", "WARNING")
    assert "careful" in one["message"]
