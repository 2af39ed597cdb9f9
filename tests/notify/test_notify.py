"""Messages over a real loopback HTTP server that stands where Discord and Telegram stand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from engine.config import Settings
from engine.notify import notify
from engine.notify.channels import shorten
from engine.notify.messages import (
    alert_message,
    compared_message,
    deployed_message,
    log_head,
    promoted_message,
    rolled_back_message,
)
from engine.store.events import append_event, read_events
from engine.store.workspace import Workspace
from tests.conftest import Result, free_port

TOKEN = "123456:very-secret-token"
HOOK = "hook-secret-part"


@dataclass
class Service:
    """What the service got, and what it answers: a list of (status, headers, body), the last one for ever."""

    port: int = 0
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], dict[str, Any]]] = field(default_factory=lambda: [(200, {}, {})])


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            state.got.append((self.path, body))
            status, headers, answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if status != 204:
                self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield state
    server.shutdown()
    server.server_close()


def settings(port: int, **more: Any) -> Settings:
    return Settings.model_validate(
        {"notify": {"telegram_api": f"http://127.0.0.1:{port}", "timeout_s": 2, **more}}
    )


@pytest.fixture
def both(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setenv("DISCORD_WEBHOOK_URL", f"http://127.0.0.1:{service.port}/api/{HOOK}")
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("TELEGRAM_CHAT_ID", "-1001234")
    return service


def test_both_channels_get_the_text(workspace: Workspace, both: Service) -> None:
    assert notify(workspace, settings(both.port), "deployed", "New model") == {
        "sent": ["discord", "telegram"],
        "failed": [],
        "note": None,
    }
    got = dict(both.got)
    assert got[f"/api/{HOOK}"] == {"content": "New model", "allowed_mentions": {"parse": []}}
    telegram = got[f"/bot{TOKEN}/sendMessage"]
    assert (telegram["chat_id"], telegram["text"]) == ("-1001234", "New model")
    (event,) = read_events(workspace)
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


def test_retry_after_is_obeyed_once(workspace: Workspace, both: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TELEGRAM_BOT_TOKEN")
    monkeypatch.delenv("TELEGRAM_CHAT_ID")
    both.answers = [(429, {"Retry-After": "1"}, {"retry_after": 0.01}), (204, {}, {})]
    assert notify(workspace, settings(both.port), "alert", "x")["sent"] == ["discord"]
    assert len(both.got) == 2


def test_a_longer_wait_than_the_time_out_keeps_the_message_for_later(workspace: Workspace, both: Service) -> None:
    both.answers = [(429, {}, {"parameters": {"retry_after": 60}})]
    result = notify(workspace, settings(both.port), "promoted", "Promoted")
    assert result["sent"] == []
    assert "asks to wait 60 s" in result["failed"][0]["reason"]
    assert len(both.got) == 2  # one a channel, no hammering

    both.answers, both.got = [(200, {}, {})], []
    notify(workspace, settings(both.port), "alert", "Later")
    texts = [body["content"] for path, body in both.got if HOOK in path]
    assert texts[1] == "Later"
    assert texts[0].startswith("(sent again, from ")
    assert texts[0].endswith("Promoted")
    both.got = []
    notify(workspace, settings(both.port), "alert", "Last")
    assert [body["content"] for path, body in both.got if HOOK in path] == ["Last"]


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
    if fault == "refused":
        both.answers = [(401, {}, {"description": f"Unauthorized {TOKEN}"})]
    elif fault == "no server":
        port = free_port()
        monkeypatch.setenv("DISCORD_WEBHOOK_URL", f"http://127.0.0.1:{port}/api/{HOOK}")
    elif fault == "no address":
        monkeypatch.setenv("DISCORD_WEBHOOK_URL", f"discord.com/{HOOK}")
        both.answers = [(500, {}, {})]
    else:
        both.answers = [(302, {"Location": f"http://127.0.0.1:{port}/bot{TOKEN}"}, {})]
    result = notify(workspace, settings(port), "alert", f"text with {TOKEN}")
    assert [failure["channel"] for failure in result["failed"]] == ["discord", "telegram"]
    everything = json.dumps(result) + workspace.events.read_text() + caplog.text
    everything += "".join(path.read_text() for path in workspace.state.rglob("*.json"))
    assert TOKEN not in everything
    assert HOOK not in everything


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
