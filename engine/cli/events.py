"""`events`: the audit log."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.errors import Failed, UsageError, nearest
from engine.store.events import KINDS, follow_events, read_events, verify_events

_HASH = re.compile(r"\b[0-9a-f]{32}(?:[0-9a-f]{32})?\b")


@click.command(cls=Verb)
@click.option("--last", type=click.IntRange(min=1), help="Only the newest N events.")
@click.option("--kind", help="Only events of this kind.")
@click.option("--follow", is_flag=True, help="Go on printing new events, one a line, until stopped.")
@click.option("--verify", is_flag=True, help="Check the chain of hashes.")
def events(session: Session, last: int | None, kind: str | None, follow: bool, verify: bool) -> None:
    """Show or follow the audit log: who did what, when; newest last."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"unknown kind of event '{kind}'", nearest(kind, KINDS))
    if verify and (broken := verify_events(session.workspace)):
        raise Failed(broken, "compare with the head hash in the last promotion message", kind="chain_broken")
    if follow:
        with contextlib.suppress(KeyboardInterrupt):  # a signal is this stream's ordinary end
            for event in follow_events(session.workspace, stop=lambda: False):
                if kind in (None, event["kind"]):
                    session.emit(event, _line)
        return
    found = [
        event
        for event in read_events(session.workspace, last if kind is None else None)
        if kind in (None, event["kind"])
    ]
    result: dict[str, Any] = {"events": found[-last:] if last else found}
    if verify:
        result["verified"] = True
    session.emit(result, lambda value: "\n".join(map(_line, value["events"])) or "no events yet")


def _line(event: dict[str, Any]) -> str:
    facts = [
        f"{key}={value if isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False)}"
        for key, value in event["detail"].items()
        if value not in (None, "", [], {}) and value != event["subject"]
    ]
    when = event["at"][:19].replace("T", " ")
    line = f"{when}  {event['kind']:<12} {event['subject']}  ({event['actor']})  {' '.join(facts)}"
    return _HASH.sub(lambda found: found[0][:8], line).rstrip()
