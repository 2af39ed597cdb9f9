"""`notify`: one message to every configured channel, what could not be sent kept for the next time."""

from __future__ import annotations

import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engine.config import Settings
from engine.config.secrets import mask
from engine.errors import Busy, UnderstudyError
from engine.notify import outbox
from engine.notify.channels import Channel, configured, post
from engine.store.clock import timestamp
from engine.store.events import append_event
from engine.store.files import read_json, write_json
from engine.store.locks import hold
from engine.store.workspace import Workspace

TEST = "test"  # the kind that goes out whatever `notify.events` says
NOTHING = (
    "no channel for messages is configured: set DISCORD_WEBHOOK_URL, or TELEGRAM_BOT_TOKEN and "
    "TELEGRAM_CHAT_ID, in the environment or .env"
)
_LOG = logging.getLogger("understudy.notify")


def notify(workspace: Workspace, settings: Settings, kind: str, text: str) -> dict[str, Any]:
    """Send `text` to every configured channel, and first what earlier ones did not get.

    Args:
        kind: the event that the message tells of ("deployed", ...); one that `notify.events` leaves out
            is not sent. "test" always is.

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
    result |= _deliver(workspace, settings, kind, text, channels)
    for failure in result["failed"]:
        _LOG.warning("the message did not reach %s: %s", failure["channel"], failure["reason"])
    return result


def _deliver(
    workspace: Workspace, settings: Settings, kind: str, text: str, channels: list[Channel]
) -> dict[str, Any]:
    timeout_s = settings.notify.timeout_s
    entry, path = {"kind": kind, "text": text, "at": timestamp(), "channels": [c.name for c in channels]}, None
    if kind != TEST:
        with contextlib.suppress(OSError):  # a full disk must not keep the message back
            path = outbox.put(workspace, kind, text, [channel.name for channel in channels])
    with contextlib.suppress(Busy, OSError), hold(workspace.lock("notify"), "send what waited"):
        _send_waiting(workspace, channels, timeout_s, besides=path)
    outcome = _to_all(channels, text, timeout_s)
    if path is not None:
        with contextlib.suppress(OSError):
            # A refusal for good (wrong secret) waits too: the operator mends it and gets what was missed.
            outbox.settle(path, entry, [failure["channel"] for failure in outcome["failed"]])
    _record(workspace, kind, text, outcome)
    return outcome


def _send_waiting(workspace: Workspace, channels: list[Channel], timeout_s: float, besides: object) -> None:
    known = {channel.name: channel for channel in channels}
    down: set[str] = set()
    for path, entry in outbox.waiting(workspace):
        if path == besides:
            continue
        wanted = [known[name] for name in entry["channels"] if name in known and name not in down]
        if not wanted:
            continue
        when = str(entry["at"])[:16].replace("T", " ")
        text = f"(sent again, from {when}) {entry['text']}"
        outcome = _to_all(wanted, text, timeout_s)
        down |= {failure["channel"] for failure in outcome["failed"]}
        outbox.settle(path, entry, [name for name in entry["channels"] if name not in outcome["sent"]])
        if outcome["sent"]:
            _record(workspace, str(entry.get("kind")), text, outcome, repeat=True)


def _to_all(channels: list[Channel], text: str, timeout_s: float) -> dict[str, Any]:
    with ThreadPoolExecutor(len(channels)) as pool:
        problems = list(pool.map(lambda channel: post(channel, text, timeout_s), channels))
    pairs = list(zip(channels, problems, strict=True))
    return {
        "sent": [channel.name for channel, problem in pairs if problem is None],
        "failed": [{"channel": c.name, "reason": mask(problem)} for c, problem in pairs if problem is not None],
    }


def _record(workspace: Workspace, kind: str, text: str, outcome: dict[str, Any], *, repeat: bool = False) -> None:
    first_line = text.splitlines()[0] if text else ""
    detail = {**outcome, "text": first_line[:200], **({"repeat": True} if repeat else {})}
    try:
        append_event(workspace, "notified", kind, detail)
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
