"""The log of a run or a slot: its newest lines, following the end until the person looks back."""

from __future__ import annotations

import re

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_WORDS = (
    (re.compile(r"\b(error|critical|fatal|traceback)\b", re.IGNORECASE), "danger"),
    (re.compile(r"\bwarn(ing)?\b", re.IGNORECASE), "warning"),
)
_STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ](\d\d:\d\d:\d\d)\S*\s+|(\d\d:\d\d:\d\d)\s+")


def items(view: View) -> list[str]:
    """The lines that hold the filter's text, oldest first."""
    lines = list(view.log.lines) if view.log else []
    wanted = view.ui.filters.get("log", "").lower()
    return [line for line in lines if wanted in line.lower()] if wanted else lines


def title(view: View) -> Row:
    row = Row(_("Log"), "title")
    log = view.log
    if log is None:
        return row
    row.put(f" {log.name}", "dim")
    if wanted := view.ui.filters.get("log"):
        row.put(f" /{wanted}", "accent")
    place = view.ui.place("log")
    if (below := place.seen - 1 - place.cursor) > 0:
        row.put(f" {view.glyphs.down}{text.number(below)} " + _("below"), "warning")
    if log.problem:
        row.put(f" {view.glyphs.warn} {_('not followed')}", "warning")
    return row


def draw(view: View, width: int, height: int) -> list[Row]:
    log = view.log
    if log is None:
        return [Row(_("no log is followed"), "dim").cut(width)]
    lines = items(view)
    problem = [Row(text.clip(f"{view.glyphs.warn} {log.problem}", width), "warning")] if log.problem else []
    room = max(1, height - len(problem))
    below = view.ui.place("log").follow(len(lines), room)
    if not lines:
        filtered = view.ui.filters.get("log")
        return problem or [
            Row(_("nothing matches the filter") if filtered else _("nothing was said yet"), "dim").cut(width)
        ]
    end = len(lines) - below
    return [*(_line(line, width) for line in lines[max(0, end - room) : end]), *problem][-height:]


def _line(line: str, width: int) -> Row:
    said = _CONTROL.sub("", line.expandtabs(4)).rstrip()
    role = next((role for pattern, role in _WORDS if pattern.search(said)), "")
    row = Row()
    stamp = _STAMP.match(said)
    if stamp:
        row.put((stamp[1] or stamp[2]) + " ", "dim")
        said = said[stamp.end() :]
    return row.put(said, role).cut(width)
