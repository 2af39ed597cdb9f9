"""One event and one message a change of state: when trouble begins or becomes another, and when it ends."""

from __future__ import annotations

import contextlib
from typing import Any

from engine.config import Settings
from engine.errors import Failed
from engine.notify.messages import alert_message
from engine.notify.send import notify
from engine.store.clock import timestamp
from engine.store.events import append_event
from engine.store.files import read_json, write_json
from engine.store.locks import hold
from engine.store.workspace import Workspace


def raise_alert(
    workspace: Workspace,
    settings: Settings,
    key: str,
    state: str,
    subject: str,
    text: str,
    fix: str = "",
    *,
    recorded: bool = False,
) -> bool:
    """Tell of trouble, once until it is another or has ended; call it with a lock of the key's own held.

    Args:
        key: what is in trouble ("source", "looks", "asis").
        state: a word for the kind of trouble; a text that varies from one time to the next is not a change.
        recorded: whoever saw the trouble has written its event.

    Returns:
        Whether it was told now. A crash in between tells it again.
    """
    before = _standing(workspace).get(key)
    if before and before["state"] == state:
        return False
    if not recorded:
        append_event(workspace, "alert", key, {"reason": text, "kind": state})
    notify(workspace, settings, "alert", alert_message(subject, text, fix=fix))
    since = before["since"] if before else timestamp()
    _remember(workspace, key, {"state": state, "since": since, "text": text})
    return True


def clear_alert(workspace: Workspace, settings: Settings, key: str, subject: str) -> bool:
    """Tell that the trouble has ended, if any was told; returns whether it was told now."""
    before = _standing(workspace).get(key)
    if before is None:
        return False
    append_event(workspace, "alert", key, {"reason": subject, "since": before["since"]})
    when = before["since"][:19].replace("T", " ")
    notify(workspace, settings, "alert", alert_message(subject, f"since {when}: {before['text']}"))
    _remember(workspace, key, None)
    return True


def is_told(workspace: Workspace, key: str, state: str) -> bool:
    """Whether people have been told of this trouble, and not yet of its end."""
    standing = _standing(workspace).get(key)
    return standing is not None and standing["state"] == state


def _standing(workspace: Workspace) -> dict[str, dict[str, Any]]:
    try:
        found = read_json(workspace.state / "alerts.json")
    except Failed:
        return {}  # said once more, which is better than not at all
    items = found.items() if isinstance(found, dict) else ()
    return {key: item for key, item in items if isinstance(item, dict) and {"state", "since", "text"} <= {*item}}


def _remember(workspace: Workspace, key: str, item: dict[str, Any] | None) -> None:
    with contextlib.suppress(OSError), hold(workspace.lock("alerts"), "remember an alert", wait=True):
        standing = _standing(workspace)  # others may have written theirs meanwhile
        standing.pop(key, None)
        write_json(workspace.state / "alerts.json", {**standing, key: item} if item else standing)
