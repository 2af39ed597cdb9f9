"""The audit log, newest first, one line an event in words."""

from __future__ import annotations

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Event

ROLES = {
    "promoted": "good", "deployed": "tobe", "rolled_back": "warning", "refused": "danger", "rejected": "danger",
    "alert": "danger", "compared": "accent", "trained": "accuracy", "held": "warning", "undeployed": "warning",
}  # fmt: skip

TARGETS = {"deployed": "TO-BE", "promoted": "AS-IS", "rolled_back": "AS-IS"}


def items(view: View) -> list[Event]:
    """Newest first, filtered."""
    found = view.store.events
    rows = list(reversed(found.events)) if found else []
    wanted = view.ui.filters.get("events", "").lower()
    return [row for row in rows if wanted in _searched(row)] if wanted else rows


def selected(view: View) -> Event | None:
    rows = items(view)
    cursor = view.ui.place("events").cursor
    return rows[cursor] if 0 <= cursor < len(rows) else None


def title(view: View) -> Row:
    row = Row(_("Events"), "title")
    found = view.store.events
    if found:
        row.put(f" {text.number(found.total)}", "dim")
    if wanted := view.ui.filters.get("events"):
        row.put(f" /{wanted}", "accent")
    fresh = view.fresh("events")
    if fresh.state != "live":
        row.put(" ").put(*view.state(fresh))
    return row


def draw(view: View, width: int, height: int) -> list[Row]:
    rows = items(view)
    if not rows:
        filtered = view.ui.filters.get("events")
        return [Row(_("nothing matches the filter") if filtered else _("nothing has happened yet"), "dim")]
    place = view.ui.place("events")
    place.fit(len(rows), height)
    focused = view.ui.focus == "events"
    return [
        _line(view, rows[index], width, focused and index == place.cursor)
        for index in range(place.top, min(len(rows), place.top + height))
    ]


def describe(event: Event) -> str:
    """What happened, without the kind: its subject and the detail that says most."""
    detail = event.detail
    words = [_subject(event)]
    if event.kind in TARGETS:
        words.append(f"→ {TARGETS[event.kind]}")
    if event.kind == "compared":
        verdict = str(detail.get("verdict"))
        words.append({"tobe": _("TO-BE wins"), "asis": _("AS-IS wins")}.get(verdict, _("undecided")))
    elif event.kind in ("refused", "rejected", "alert", "held") and detail.get("reason"):
        words.append(str(detail["reason"]))
    elif event.kind == "trained" and isinstance(detail.get("accuracy"), int | float):
        words.append(text.percent(detail["accuracy"]))
    if detail.get("forced"):
        words.append(_("forced"))
    if isinstance(detail.get("cycle"), int) and event.kind not in ("synced", "refused"):
        words.append(f"{_('cycle')} {detail['cycle']}")
    return " ".join(word for word in words if word)


def _subject(event: Event) -> str:
    subject = event.subject
    if len(subject) >= 32 and all(digit in "0123456789abcdef" for digit in subject):
        return subject[:8]
    if event.kind == "compared":
        return f"#{subject.removeprefix('comparison ')}"
    if subject in ("asis", "tobe"):
        return "AS-IS" if subject == "asis" else "TO-BE"
    return subject.rsplit("/", 1)[-1].removeprefix("run ")


def _searched(event: Event) -> str:
    return f"{event.kind} {event.subject} {event.actor} {event.host} {describe(event)}".lower()


def _line(view: View, event: Event, width: int, cursor: bool) -> Row:
    row = Row(ground="selection" if cursor else "background")
    then = text.moment(event.at)
    old = then is not None and view.now - then >= 86400
    stamp = event.at[5:10] if old else text.clock(event.at)
    row.put(stamp + " ", "dim")
    row.put(_(event.kind.replace("_", " ")) + " ", ROLES.get(event.kind, ""))
    row.put(describe(event))
    if event.actor and width - row.at >= len(event.actor) + 4:
        row.put(f" {event.actor.split('@')[0]}", "dim")
    return row.cut(width)
