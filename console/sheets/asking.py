"""The smaller sheets: confirm one thing, read one thing, help."""

from __future__ import annotations

from collections.abc import Callable

from console import text
from console.actions import ACTIONS, sign
from console.desk import Desk
from console.sheets.base import Field, Sheet, steps
from console.view import View
from console.widgets.entry import Entry
from console.widgets.rows import Row
from console.words import _


class Ask(Sheet):
    """One thing to be confirmed: what happens in words, and the fields it needs.

    `order` gives the engine's words or raises `Refused`. A grave one is confirmed by its button alone.
    """

    def __init__(
        self,
        desk: Desk,
        heading: str,
        lines: list[Row],
        confirm: str,
        order: Callable[[Ask], tuple[str, ...]],
        fields: list[Field] | None = None,
        *,
        grave: bool = False,
    ) -> None:
        self.lines = lines
        self.order = order
        self.confirm = confirm
        self.confirm_role = "warning" if grave else "accent"
        self.grave = grave
        self._fields = fields or []
        super().__init__(desk)
        self.heading = heading

    def needed_fields(self) -> list[Field]:
        return self._fields

    def body(self, view: View, width: int) -> list[Row]:
        lines = [part for row in self.lines for part in _wrapped(row, width)]
        return [*lines, *([Row()] if self._fields else [])]

    def starts_typing(self) -> bool:
        return bool(self._fields) and not self.grave

    def submitted(self, entry: Entry) -> None:
        """Enter on the last line confirms what takes nothing from production."""
        if entry.id == self._fields[-1].id and not self.grave:
            self.confirm_now()
        else:
            self.screen.focus_next()

    def confirmed(self) -> bool:
        self.desk.run_engine(*self.order(self))
        return True


class Read(Sheet):
    """Lines to read, with a window that moves over them."""

    cancel = "Close"
    wide = 96

    def __init__(self, desk: Desk, heading: str, lines: Callable[[View, int], list[Row]]) -> None:
        self.lines = lines
        self.top = 0
        super().__init__(desk)
        self.heading = heading

    def body(self, view: View, width: int) -> list[Row]:
        rows = self.lines(view, width)
        window = max(1, self.desk.size.height - 6)
        self.top = max(0, min(self.top, len(rows) - window))
        shown = rows[self.top : self.top + window]
        if len(rows) > window:
            below = len(rows) - window - self.top
            shown[-1] = Row(f"{view.glyphs.down} {below + 1} {_('more lines')}", "dim") if below else shown[-1]
        return shown

    def key(self, key: str) -> bool:
        moved = steps(key, max(1, self.desk.size.height - 7))
        if moved is None:
            return False
        self.top = max(0, self.top + moved)
        self.draw(self.desk.view())
        return True


def _wrapped(row: Row, width: int) -> list[Row]:
    """A row that is one sentence on as many rows as it needs."""
    if row.at <= width or len(row.spans) > 1:
        return [row]
    (sentence, roles), *_rest = row.spans
    return [Row(part, roles) for part in text.wrap(sentence, width)]


def help_lines(desk: Desk) -> Callable[[View, int], list[Row]]:
    """All keys by group, as they are set on this console."""

    def lines(_view: View, width: int) -> list[Row]:
        rows: list[Row] = []
        for group in dict.fromkeys(action.group for action in ACTIONS):
            if group == "Replay" and not desk.replaying:
                continue
            rows.append(Row(_(group), "bold"))
            for action in (one for one in ACTIONS if one.group == group):
                keys = " ".join(sign(key) for key in desk.keys_of(action.id))
                role = "accent" if desk.offered(action) else "dim"
                rows.append(Row("  ").cell(keys, 14, role).put(_(action.help)).cut(width))
            rows.append(Row())
        return rows[:-1]

    return lines
