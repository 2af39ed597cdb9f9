"""Messages over a real loopback HTTP server that stands where Discord and Telegram stand."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from engine.config import Settings
from engine.notify import notify, slots
from engine.notify.alerts import clear_alert, raise_alert
from engine.notify.channels import shorten
from engine.notify.messages import (
    alert_message,
    compared_message,
    deployed_message,
    log_head,
    promoted_message,
    rolled_back_message,
)
from engine.notify.slots import telling_of_slots
from engine.store.events import append_event, read_events, verify_events
from engine.store.workspace import Workspace
from tests.conftest import Result, free_port, until
from tests.notify.conftest import HOOK, KEY, TOKEN, Service, hurry, settings, texts


def test_both_channels_get_the_text(workspace: Workspace, both: Service) -> None:
    assert notify(workspace, settings(both.port), "deployed", "New model") == {
        "sent": ["discord", "telegram"],
        "failed": [],
        "note": None,
    }
    got = dict(both.got)
    (event,) = read_events(workspace)
    words = f"New model\nmessage {event['detail']['message']}"
    assert got[f"/api/{HOOK}"] == {"content": words, "allowed_mentions": {"parse": []}}
    telegram = got[f"/bot{TOKEN}/sendMessage"]
    assert (telegram["chat_id"], telegram["text"]) == ("-1001234", words)
    assert (event["kind"], event["subject"]) == ("notified", "deployed")
    assert event["detail"]["sent"] == ["discord", "telegram"]
    assert not list((workspace.state / "outbox").iterdir())


def test_with_nothing_configured_it_is_said_once_and_nothing_fails(workspace: Workspace) -> None:
    first, second = (notify(workspace, Settings(), "deployed", "x") for _ in range(2))
    assert first["sent"] == first["failed"] == []
    assert "DISCORD_WEBHOOK_URL" in first["note"]
    assert second["note"] is None
    assert read_events(workspace) == []


def test_an_event_that_the_config_leaves_out_is_not_sent(workspace: Workspace, both: Service) -> None:
    result = notify(workspace, settings(both.port, events=["alert"]), "deployed", "x")
    assert result["sent"] == []
    assert both.got == []


def test_one_alert_a_change_of_state(workspace: Workspace, both: Service) -> None:
    found = settings(both.port)

    def tell(state: str | None, text: str = "") -> bool:
        if state is None:
            return clear_alert(workspace, found, "source", "it works again")
        return raise_alert(workspace, found, "source", state, "no source", text, "look at it")

    told = [tell(*words) for words in ((None,), ("gone", "1"), ("gone", "2"), ("full", "3"), (None,), (None,))]
    assert told == [False, True, False, True, True, False]
    assert [text.splitlines()[1] for text in texts(both)[:2]] == ["1", "3"]
    assert "it works again" in texts(both)[2]
    events = [event["detail"] for event in read_events(workspace) if event["kind"] == "alert"]
    assert [event.get("kind") for event in events] == ["gone", "full", None]
    (workspace.state / "alerts.json").write_text("{")
    assert tell("gone", "4")


def test_a_slot_that_cannot_serve_is_told_once_and_so_is_the_end(workspace: Workspace, both: Service) -> None:
    said: list[dict[str, Any]] = []
    state = {"slot": "asis", "port": 8891, "release": "ab12" * 16, "problem": None}
    with telling_of_slots(workspace, settings(both.port), said.append) as announce:
        for problem in (None, "its file is damaged", "its file is damaged", "it does not load", None, None):
            announce({**state, "problem": problem})
        announce({**state, "release": None, "problem": "its server does not start again"})
        until(lambda: len(both.got) == 6, "all messages")
    assert len(said) == 7, "whoever reads the states gets each"
    texts = [body["content"] for path, body in both.got if HOOK in path]
    assert [text.splitlines()[0] for text in texts] == [
        "Alert: AS-IS (8891) serves ab12ab12 still",
        "Alert: AS-IS (8891) is well again",
        "Alert: AS-IS (8891) answers nothing",
    ]
    assert "its file is damaged" in texts[0]
    kinds = [event["kind"] for event in read_events(workspace)]
    assert kinds.count("alert") == 1, "of the trouble its server writes the event; of the end whoever tells it"


def test_a_server_that_is_gone_is_told_once_by_sync(
    workspace: Workspace, both: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_RESTART_S", 0)
    found = settings(both.port)
    append_event(workspace, "started", "asis")
    for slot, kind in (("tobe", "started"), ("tobe", "stopped")):
        append_event(workspace, kind, slot)
    assert [slots.check_served(workspace, found) for _ in range(2)] == [["asis"], ["asis"]]
    (text,) = texts(both)
    assert "AS-IS (8891) answers nothing\nits server is gone" in text
    slots.tell_slot(workspace, found, {"slot": "asis", "port": 8891, "release": "ab" * 32, "problem": None})
    assert "well again" in texts(both)[1]


def test_the_webhook_is_signed(workspace: Workspace, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBHOOK_URL", f"http://127.0.0.1:{service.port}/hook/{HOOK}")
    assert notify(workspace, settings(service.port), "alert", "x")["failed"] == [
        {"channel": "webhook", "reason": "WEBHOOK_SECRET is not set; nothing goes out unsigned"}
    ]
    monkeypatch.setenv("WEBHOOK_SECRET", KEY)
    hurry(workspace)
    assert notify(workspace, settings(service.port), "promoted", "Promoted")["sent"] == ["webhook"]
    assert len(service.got) == 2
    for (_, body), (headers, raw) in zip(service.got, service.raw, strict=True):
        fields = dict(part.split("=", 1) for part in headers["x-understudy-signature"].split(","))
        expected = hmac.new(KEY.encode(), fields["t"].encode() + b"." + raw, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(expected, fields["v1"])
        assert abs(int(fields["t"]) - time.time()) < 300
        assert body["id"] == headers["x-understudy-id"]
    assert [body["repeat"] for _, body in service.got] == [True, False]
    assert service.got[1][1]["kind"] == "promoted"


@pytest.mark.parametrize("kind", ["promoted", "rolled_back"])
def test_a_promotion_carries_the_logs_head_and_the_log_must_keep_it(
    workspace: Workspace, both: Service, kind: str
) -> None:
    append_event(workspace, "alert", "before")
    head = append_event(workspace, kind, "b7c4e1f3")["hash"]
    notify(workspace, settings(both.port), kind, "AS-IS changed")
    assert f"log: {head}" in texts(both)[0]
    assert verify_events(workspace) is None
    lines = workspace.events.read_bytes().splitlines(keepends=True)
    workspace.events.write_bytes(lines[0])
    assert "cut off after line 1" in (verify_events(workspace) or "")


@pytest.mark.fault(40)
@pytest.mark.parametrize("fault", ["refused", "no server", "no address", "loop"])
def test_a_failure_never_raises_and_never_says_a_secret(
    workspace: Workspace,
    both: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    caplog.set_level("DEBUG")
    port = both.port
    monkeypatch.setenv("WEBHOOK_URL", f"http://127.0.0.1:{port}/hook/{HOOK}")
    monkeypatch.setenv("WEBHOOK_SECRET", KEY)
    if fault == "refused":
        both.answers = [(401, {}, {"description": f"Unauthorized {TOKEN} {KEY}"})]
    elif fault == "no server":
        port = free_port()
        monkeypatch.setenv("DISCORD_WEBHOOK_URL", f"http://127.0.0.1:{port}/api/{HOOK}")
        monkeypatch.setenv("WEBHOOK_URL", f"http://127.0.0.1:{port}/hook/{HOOK}")
    elif fault == "no address":
        monkeypatch.setenv("DISCORD_WEBHOOK_URL", f"discord.com/{HOOK}")
        both.answers = [(500, {}, {})]
    else:
        both.answers = [(302, {"Location": f"http://127.0.0.1:{port}/bot{TOKEN}"}, {})]
    result = notify(workspace, settings(port), "alert", f"text with {TOKEN} and {KEY}")
    assert [failure["channel"] for failure in result["failed"]] == ["discord", "telegram", "webhook"]
    everything = json.dumps(result) + workspace.events.read_text() + caplog.text
    everything += "".join(path.read_text() for path in workspace.state.rglob("*.json"))
    assert TOKEN not in everything
    assert HOOK not in everything
    assert KEY not in everything


def test_half_a_telegram_says_what_is_missing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    assert notify(workspace, Settings(), "alert", "x")["failed"] == [
        {"channel": "telegram", "reason": "TELEGRAM_CHAT_ID is not set"}
    ]


def test_a_long_text_is_cut_as_the_services_count() -> None:
    assert shorten("a" * 2000, 2000) == "a" * 2000
    assert shorten("a" * 2001, 2000) == "a" * 1999 + "…"
    cut = shorten("🐶" * 1500, 2000)
    assert len(cut.encode("utf-16-le")) // 2 <= 2000
    assert cut.endswith("🐶…")


def test_the_verb(engine: Callable[..., Result], both: Service) -> None:
    override = f"notify.telegram_api=http://127.0.0.1:{both.port}"
    sent = engine("notify", "hello", "there", "--json", override)
    assert (sent.code, sent.json["sent"]) == (0, ["discord", "telegram"])
    assert both.got[0][1].get("content", both.got[0][1].get("text", "")).startswith("hello there")
    both.answers = [(404, {}, {})]
    failed = engine("notify", "hello", "--json", override)
    assert failed.code == 1
    assert failed.json["error"]["kind"] == "not_sent"
    assert failed.json["sent"] == []
    assert [entry["channel"] for entry in failed.json["failed"]] == ["discord", "telegram"]
    assert TOKEN not in failed.out + failed.err
    assert engine("notify", "--json").code == 2


def test_the_verb_with_nothing_configured(engine: Callable[..., Result]) -> None:
    done = engine("notify", "hello", "--json")
    assert (done.code, done.json["sent"], done.json["failed"]) == (0, [], [])
    assert "DISCORD_WEBHOOK_URL" in done.json["note"]


def test_the_messages_say_what_the_documents_say(workspace: Workspace) -> None:
    new = deployed_message(
        cycle=8,
        name="best_model_cycle8.pth",
        path="checkpoints_cycle8/best_model_cycle8.pth",
        md5="0123456789abcdef" * 2,
        release="b7c4e1f3" * 8,
        port=8892,
    )
    for part in ("cycle 8", "best_model_cycle8.pth", "checkpoints_cycle8/", "hash: 01234567 ", "TO-BE (8892)"):
        assert part in new
    sides = {"asis": {"port": 8891, "correct": 85, "accuracy": 0.85}, "tobe": {"port": 8892, "correct": 87}}
    sides["tobe"]["accuracy"] = 0.87
    outcome = {**sides, "n": 100, "verdict": "undecided", "p_value": 0.5, "images_needed": 1960}
    text = compared_message(outcome)
    assert "AS-IS (8891): accuracy 85.00% (85/100)" in text
    assert "TO-BE (8892): accuracy 87.00% (87/100)" in text
    assert "winner: undecided" in text
    assert "winner: TO-BE" in compared_message({**outcome, "verdict": "tobe"})
    event = append_event(workspace, "promoted", "b7c4e1f3")
    backup = "model_8891_backup_20260206_092530.bin"
    promoted = {"from": "a" * 64, "to": "b" * 64, "backup": backup, "forced": False, "reason": "TO-BE is better"}
    text = promoted_message(promoted, port=8891, head=log_head(workspace))
    assert backup in text
    assert f"log: {event['hash']}" in text
    back = rolled_back_message({"from": "b" * 64, "restored": "a" * 64, "backup": backup}, port=8891)
    assert f"put back: {backup}" in back
    assert "do: start it" in alert_message("AS-IS", "does not answer", fix="start it")
