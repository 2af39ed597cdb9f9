"""The audit log, newest first, one line an event in words."""

from __future__ import annotations

from rich.cells import cell_len

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _, said
from engine.protocol import Event

# a kind's role and the sign before it, by its name in `Glyphs`
KINDS = {
    "promoted": ("good", "up"), "deployed": ("tobe", "arrow"), "rolled_back": ("warning", "down"),
    "refused": ("danger", "bad"), "rejected": ("danger", "bad"), "alert": ("danger", "warn"),
    "compared": ("accent", "doing"), "trained": ("accuracy", "done"), "held": ("warning", "mark"),
    "unheld": ("dim", "mark"), "unrejected": ("dim", "mark"), "undeployed": ("warning", "down"), "failed": ("danger", "bad"),
}  # fmt: skip

TABLE = 64  # cells from which on kind, subject and person stand in columns
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
        shown = f"{len(items(view))}/" if view.ui.filters.get("events") else ""
        row.put(f" {shown}{text.number(found.total)}", "dim")
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
        said = _("nothing matches the filter") if filtered else _("nothing has happened yet")
        return [Row(_("no figures yet") if view.store.events is None else said, "dim").cut(width)]
    place = view.ui.place("events")
    place.fit(len(rows), height)
    place.first = 0
    focused = view.ui.focus == "events"
    return [
        _line(view, rows[index], width, focused and index == place.cursor)
        for index in range(place.top, min(len(rows), place.top + height))
    ]


def describe(event: Event, arrow: str = "→") -> str:
    """What happened, without the kind: its subject and the detail that says most."""
    detail = event.detail
    words = [_subject(event)]
    if event.kind in TARGETS:
        words.append(f"{arrow} {TARGETS[event.kind]}")
    if event.kind == "compared":
        verdict = str(detail.get("verdict"))
        words.append({"tobe": _("TO-BE wins"), "asis": _("AS-IS wins")}.get(verdict, _("undecided")))
    elif event.kind in ("refused", "rejected", "unrejected", "baked", "alert", "held") and detail.get("reason"):
        words.append(said(str(detail["reason"])))
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
    role, sign = KINDS.get(event.kind, ("", "dot"))
    row.put(stamp + " ", "dim").put(getattr(view.glyphs, sign) + " ", role)
    kind, actor = _(event.kind.replace("_", " ")), event.actor.split("@")[0]
    if width < TABLE:
        row.put(kind + " ", role).put(describe(event, view.glyphs.arrow))
        return row.put(f"  {actor}", "dim").cut(width) if row.at + len(actor) + 2 <= width else row.cut(width)
    row.cell(kind, 12, role).put(" ")
    host = event.actor.partition("@")[2] or event.host
    tail = f"  {actor}" + (f" {_('on')} {host}" if width >= 2 * TABLE and host else "")
    row.put(text.clip(describe(event, view.glyphs.arrow), width - row.at - max(14, cell_len(tail))))
    return row.to(max(row.at, width - max(14, cell_len(tail)))).put(tail, "dim").cut(width)
