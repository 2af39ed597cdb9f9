"""`notify`: a test message to every configured channel."""

from __future__ import annotations

import socket
from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.errors import Failed, UsageError
from engine.notify.send import TEST
from engine.notify.send import flush as send_waiting
from engine.notify.send import notify as send


@click.command(cls=Verb, words=("TEXT", 0, None))
@click.option("--flush", is_flag=True, help="Send what waits and is due; no new message.")
def notify(session: Session, words: list[str], flush: bool) -> None:
    """Send a test message to every configured channel."""
    text = " ".join(words).strip()
    if flush:
        if text:
            raise UsageError("'--flush' takes no message", "leave the text out")
        session.emit(send_waiting(session.workspace, session.settings), _flushed)
        return
    if not text:
        raise UsageError("the message is empty", 'write: notify "TEXT"')
    result = send(session.workspace, session.settings, TEST, f"{text}\n({socket.gethostname()})")
    if result["failed"] and not result["sent"]:
        reasons = "; ".join(f"{failure['channel']}: {failure['reason']}" for failure in result["failed"])
        failure = Failed(f"no channel took the message ({reasons})", "mend it, then try again", kind="not_sent")
        failure.payload = {**failure.as_json(), **result}
        raise failure
    session.emit(result, _text)


def _flushed(result: dict[str, Any]) -> str:
    sent = f"sent to {', '.join(result['sent'])}" if result["sent"] else "nothing was sent"
    return f"{sent}; {result['waiting']} still wait"


def _text(result: dict[str, Any]) -> str:
    lines = [f"sent to {', '.join(result['sent'])}"] if result["sent"] else []
    lines += [f"failed: {failure['channel']}: {failure['reason']}" for failure in result["failed"]]
    return "\n".join([*lines, *([result["note"]] if result["note"] else [])])
