"""`notify`: one message to every configured channel, what could not be sent kept for the next time."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.config.secrets import mask
from engine.errors import Busy, UnderstudyError
from engine.notify import outbox
from engine.notify.channels import Channel, Message, Outcome, configured, post
from engine.store.clock import timestamp
from engine.store.events import append_event, read_events
from engine.store.files import read_json, write_json
from engine.store.heads import note_head
from engine.store.locks import hold
from engine.store.workspace import Workspace

TEST = "test"  # the kind that goes out whatever `notify.events` says
NOTHING = (
    "no channel for messages is configured: set DISCORD_WEBHOOK_URL, or TELEGRAM_BOT_TOKEN and "
    "TELEGRAM_CHAT_ID, or WEBHOOK_URL and WEBHOOK_SECRET, in the environment or .env"
)
_WITH_HEAD = ("promoted", "rolled_back")
_LOG = logging.getLogger("understudy.notify")


def notify(workspace: Workspace, settings: Settings, kind: str, text: str) -> dict[str, Any]:
    """Send `text` to every configured channel, and first what earlier ones did not get.

    Args:
        kind: the event that the message tells of ("deployed", ...); one that `notify.events` leaves out
            is not sent. "test" always is. A promotion or rollback also carries the audit log's head.

    Returns:
        `sent`, the channels that have it; `failed`, a list of `{channel, reason}`; `note`, a sentence when
        there was nothing to do. It never raises for a channel, a disk or the log, and takes at most about
        `notify.timeout_s` a message.
    """
    text = mask(text)
    result: dict[str, Any] = {"sent": [], "failed": [], "note": None}
    if kind != TEST and kind not in settings.notify.events:
        return {**result, "note": f"notify.events leaves out '{kind}'"}
    channels = configured(settings)
    if not channels:
        first = kind == TEST or _first_time(workspace)
        return {**result, "note": NOTHING if first else None}
    result |= _deliver(workspace, settings, kind, _with_head(workspace, kind, text), channels)
    for failure in result["failed"]:
        _LOG.warning("the message did not reach %s: %s", failure["channel"], failure["reason"])
    return result


def flush(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Send what waits and is due, without a new message.

    Returns:
        `sent`, the channels that got something; `waiting`, how many messages still wait.

    Raises:
        Busy: another process is at it.
    """
    with hold(workspace.lock("notify"), "send what waited"):
        sent = _send_waiting(workspace, configured(settings), settings.notify.timeout_s)
    return {"sent": sorted(sent), "waiting": len(outbox.waiting(workspace)[0])}


def _deliver(
    workspace: Workspace, settings: Settings, kind: str, text: str, channels: list[Channel]
) -> dict[str, Any]:
    timeout_s, path = settings.notify.timeout_s, None
    entry = outbox.new_entry(kind, text, [channel.name for channel in channels])
    if kind != TEST:
        with contextlib.suppress(OSError):  # a full disk must not keep the message back
            path = outbox.put(workspace, entry)
    with contextlib.suppress(Busy, OSError), hold(workspace.lock("notify"), "send what waited"):
        _send_waiting(workspace, channels, timeout_s, besides=path)
    outcome = _to_all(workspace, channels, _message(entry), timeout_s)
    if path is not None:
        with contextlib.suppress(OSError):
            # A refusal for good (wrong secret) waits too: the operator mends it and gets what was missed.
            outbox.settle(path, entry, [failure["channel"] for failure in outcome["failed"]])
    _record(workspace, entry, outcome)
    return outcome


def _send_waiting(
    workspace: Workspace, channels: list[Channel], timeout_s: float, besides: Path | None = None
) -> set[str]:
    """Send what waits, oldest first; a channel that fails once is not tried again in this round."""
    known = {channel.name: channel for channel in channels}
    down: set[str] = set()
    reached: set[str] = set()
    entries, dropped = outbox.waiting(workspace)
    if dropped:
        reason = f"{dropped} message{'s' if dropped > 1 else ''} could never be sent and will not be any more"
        append_event(workspace, "alert", "messages", {"severity": "warning", "reason": reason})
    for path, entry in entries:
        if path == besides or not outbox.is_due(entry):
            continue
        wanted = [known[name] for name in entry["channels"] if name in known and name not in down]
        outcome = _to_all(workspace, wanted, _message(entry, repeat=True), timeout_s)
        down |= {failure["channel"] for failure in outcome["failed"]}
        reached |= set(outcome["sent"])
        outbox.settle(path, entry, [name for name in entry["channels"] if name not in outcome["sent"]])
        if outcome["sent"]:
            _record(workspace, entry, outcome, repeat=True)
    return reached


def _to_all(workspace: Workspace, channels: list[Channel], message: Message, timeout_s: float) -> dict[str, Any]:
    """Post to each channel at once, but to none that asked to be left alone for now."""
    paused = outbox.pauses(workspace)

    def send(channel: Channel) -> Outcome:
        if until := paused.get(channel.name):
            return Outcome(f"asked to be left alone until {until[11:19]}; it goes out later")
        return post(channel, message, timeout_s)

    with ThreadPoolExecutor(max(1, len(channels))) as pool:
        outcomes = list(zip(channels, pool.map(send, channels), strict=True))
    for channel, outcome in outcomes:
        if outcome.pause_s:
            with contextlib.suppress(OSError):  # forgotten with a full disk: the service says it again
                outbox.pause(workspace, channel.name, outcome.pause_s)
    return {
        "sent": [channel.name for channel, outcome in outcomes if outcome.problem is None],
        "failed": [
            {"channel": channel.name, "reason": mask(outcome.problem)}
            for channel, outcome in outcomes
            if outcome.problem is not None
        ],
    }


def _message(entry: dict[str, Any], *, repeat: bool = False) -> Message:
    return Message(str(entry.get("id") or ""), str(entry["kind"]), str(entry["text"]), str(entry["at"]), repeat)


def _with_head(workspace: Workspace, kind: str, text: str) -> str:
    """The text with the audit log's last hash, which is then in many hands and cannot be made up any more."""
    if kind not in _WITH_HEAD:
        return text
    try:
        newest = read_events(workspace, last=1)
        if not newest:
            return text
        note_head(workspace, newest[-1])
    except OSError as error:
        _LOG.warning("the audit log's head was not remembered: %s", error)
        return text
    line = f"log: {newest[-1]['hash']}"
    return text if "\nlog: " in text else f"{text}\n{line}"


def _record(workspace: Workspace, entry: dict[str, Any], outcome: dict[str, Any], *, repeat: bool = False) -> None:
    text = str(entry["text"])
    first_line = text.splitlines()[0] if text else ""
    detail = {**outcome, "text": first_line[:200], "message": entry.get("id")}
    try:
        append_event(workspace, "notified", str(entry["kind"]), {**detail, **({"repeat": True} if repeat else {})})
    except (UnderstudyError, OSError) as error:
        _LOG.warning("the audit log did not take the message's record: %s", error)


def _first_time(workspace: Workspace) -> bool:
    """Whether this is the first time in this workspace that nothing is configured; says so once."""
    path = workspace.state / "notify.json"
    try:
        if read_json(path):
            return False
        write_json(path, {"unconfigured_said_at": timestamp()})
    except (UnderstudyError, OSError):
        return False
    _LOG.warning(NOTHING)
    return True
