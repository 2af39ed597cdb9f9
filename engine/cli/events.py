"""`events`: the audit log."""

from __future__ import annotations

import contextlib
import json
import re
from datetime import datetime, timedelta
from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.errors import Failed, UsageError, nearest
from engine.store.clock import now, parse
from engine.store.events import KINDS, follow_events, read_events, verify_events

_HASH = re.compile(r"\b[0-9a-f]{32}(?:[0-9a-f]{32})?\b")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


@click.command(cls=Verb)
@click.option("--last", type=click.IntRange(min=1), help="Only the newest N events.")
@click.option("--kind", multiple=True, help="Only events of this kind; may be given again.")
@click.option(
    "--subject", metavar="TEXT", help="Only events whose subject holds this (a release, a slot, a file)."
)
@click.option("--since", metavar="TIME", help="Only events since: 2026-02-06, 2026-02-06T09:25, 30m, 12h, 7d.")
@click.option("--follow", is_flag=True, help="Go on printing new events, one a line, until stopped.")
@click.option("--verify", is_flag=True, help="Check the chain of hashes, and the heads that were sent: one line.")
@click.option("--head", metavar="HASH", help="With --verify: the hash from a message that must be in the log.")
def events(
    session: Session,
    last: int | None,
    kind: tuple[str, ...],
    subject: str | None,
    since: str | None,
    follow: bool,
    verify: bool,
    head: str | None,
) -> None:
    """Show or follow the audit log: who did what, when; newest last."""
    for word in kind:
        if word not in KINDS:
            raise UsageError(f"unknown kind of event '{word}'", nearest(word, KINDS))
    if head is not None and not (verify and re.fullmatch(r"[0-9a-f]{8,64}", head)):
        raise UsageError("'--head' is a hash of 8 hex digits or more, with --verify", "copy it from the message")
    start = _moment(since) if since else None

    def wanted(event: dict[str, Any]) -> bool:
        return (
            (not kind or event["kind"] in kind)
            and (subject is None or subject in event["subject"])
            and (start is None or parse(event["at"]) >= start)
        )

    if verify and (broken := verify_events(session.workspace, head)):
        raise Failed(broken, "compare with the head hash in the last promotion message", kind="chain_broken")
    if follow:
        with contextlib.suppress(KeyboardInterrupt):  # a signal is this stream's ordinary end
            for event in follow_events(session.workspace, stop=lambda: False):
                if wanted(event):
                    session.emit(event, _line)
        return
    filtered = bool(kind or subject or start)
    listed = filtered or last is not None or not verify
    found = [event for event in read_events(session.workspace, None if filtered else last) if wanted(event)]
    result: dict[str, Any] = {"events": found[-last:] if last else found}
    if verify:
        newest = read_events(session.workspace, 1)
        result |= {"verified": True, "head": newest[-1]["hash"] if newest else None}
        result["checked"] = newest[-1]["id"] if newest else 0
    session.emit(result, lambda value: _text(value, filtered, listed))


def _moment(text: str) -> datetime:
    """A time, or how long ago: a time without an offset is the host's own."""
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text):
        return now() - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
    try:
        moment = parse(text)
    except ValueError:
        raise UsageError(f"'{text}' is not a time", "write 2026-02-06, 2026-02-06T09:25, 30m, 12h or 7d") from None
    return moment if moment.tzinfo else moment.astimezone()


def _text(result: dict[str, Any], filtered: bool, listed: bool) -> str:
    lines = []
    if listed:
        lines += [_line(event) for event in result["events"]] or [
            "no such events" if filtered else "no events yet"
        ]
    if result.get("verified"):
        held = f"the chain of {result['checked']:,} events holds; its head is {result['head']}"
        lines.append(f"verified: {held if result['checked'] else 'there are no events yet'}")
    return "\n".join(lines)


def _shown(key: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2%}" if key == "accuracy" else f"{value:.4g}"
    return str(value) if isinstance(value, str | int) else json.dumps(value, ensure_ascii=False)


def _line(event: dict[str, Any]) -> str:
    facts = [
        f"{key}={_shown(key, value)}"
        for key, value in event["detail"].items()
        if value not in (None, "", [], {}) and value != event["subject"]
    ]
    when = event["at"][:19].replace("T", " ")
    line = f"{when}  {event['kind']:<12} {event['subject']}  ({event['actor']})  {' '.join(facts)}"
    return _HASH.sub(lambda found: found[0][:8], line).rstrip()
