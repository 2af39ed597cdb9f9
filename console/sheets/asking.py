"""The smaller sheets: confirm one thing, read one thing, help, palette."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from console.actions import ACTIONS, sign
from console.sheets.base import Field, Sheet
from console.view import View
from console.widgets.entry import Entry
from console.widgets.rows import Row
from console.words import _

if TYPE_CHECKING:
    from console.app import ConsoleApp


class Ask(Sheet):
    """One thing to be confirmed: what happens in words, and the fields it needs."""

    def __init__(
        self,
        console: ConsoleApp,
        heading: str,
        lines: list[Row],
        confirm: str,
        act: Callable[[Ask], str | None],
        fields: list[Field] | None = None,
    ) -> None:
        self.lines = lines
        self.act = act
        self.confirm = confirm
        self._fields = fields or []
        super().__init__(console)
        self.heading = heading

    def needed_fields(self) -> list[Field]:
        return self._fields

    def body(self, view: View, width: int) -> list[Row]:
        return [*self.lines, *([Row()] if self._fields else [])]

    def starts_typing(self) -> bool:
        return bool(self._fields)

    def on_entry_submitted(self, event: Entry.Submitted) -> None:
        """Enter on the last line confirms: nothing that is asked here takes anything from production."""
        event.stop()
        if event.entry.id == self._fields[-1].id and self.confirmed():
            self.console.close_sheet(self)
        elif event.entry.id != self._fields[-1].id:
            self.screen.focus_next()

    def confirmed(self) -> bool:
        """`act` does it, or says what is missing."""
        missing = self.act(self)
        if missing:
            self.say(missing)
        return not missing


class Read(Sheet):
    """Lines to read, with a window that moves over them."""

    cancel = "Close"
    wide = 96

    def __init__(self, console: ConsoleApp, heading: str, lines: Callable[[View, int], list[Row]]) -> None:
        self.lines = lines
        self.top = 0
        super().__init__(console)
        self.heading = heading

    def body(self, view: View, width: int) -> list[Row]:
        rows = self.lines(view, width)
        window = max(1, self.console.size.height - 6)
        self.top = max(0, min(self.top, len(rows) - window))
        return rows[self.top : self.top + window]

    def key(self, key: str) -> bool:
        page = max(1, self.console.size.height - 7)
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page}.get(key)
        if steps is None:
            return False
        self.top = max(0, self.top + steps)
        self.draw(self.console.view())
        return True


def help_lines(console: ConsoleApp) -> Callable[[View, int], list[Row]]:
    """All keys by group, two columns where there is room."""

    def lines(_view: View, width: int) -> list[Row]:
        rows: list[Row] = []
        groups = dict.fromkeys(action.group for action in ACTIONS)
        for group in groups:
            if group == "Replay" and not console.replaying:
                continue
            rows.append(Row(_(group), "bold"))
            for action in (one for one in ACTIONS if one.group == group):
                keys = " ".join(sign(key) for key in console.keys_of(action.id))
                rows.append(Row("  ").cell(keys, 14, "accent").put(_(action.help)).cut(width))
            rows.append(Row())
        return rows[:-1]

    return lines


class Palette(Sheet):
    """Type a part of a name, choose with the arrows, Enter does it."""

    cancel = "Close"
    wide = 72

    def __init__(self, console: ConsoleApp) -> None:
        self.cursor = 0
        super().__init__(console)
        self.heading = _("Palette")

    def needed_fields(self) -> list[Field]:
        return [Field("find", ">")]

    def starts_typing(self) -> bool:
        return True

    def _choices(self) -> list[tuple[str, str, str, Callable[[], None]]]:
        """(name, keys, what it does, do it)"""
        wanted = self.value("find").lower().split()
        found: list[tuple[str, str, str, Callable[[], None]]] = []
        for action in ACTIONS:
            if action.id in ("palette", "close", "up", "down") or not self.console.offered(action):
                continue
            keys = " ".join(sign(key) for key in self.console.keys_of(action.id))
            found.append((_(action.label), keys, _(action.help), _later(self.console, action.id)))
        for theme in self.console.themes.values():
            found.append(
                (f"{_('theme')}: {theme.name}", "", _(theme.description), _theme(self.console, theme.name))
            )
        return [one for one in found if all(word in f"{one[0]} {one[2]}".lower() for word in wanted)]

    def body(self, view: View, width: int) -> list[Row]:
        choices = self._choices()
        window = max(3, min(14, self.console.size.height - 8))
        self.cursor = max(0, min(self.cursor, len(choices) - 1))
        top = max(0, self.cursor - window + 1)
        rows = []
        for index, (name, keys, says, _do) in enumerate(choices[top : top + window], top):
            row = Row(ground="selection" if index == self.cursor else "background")
            row.put((view.glyphs.cursor if index == self.cursor else " ") + " ", "accent")
            row.cell(name, 22).cell(keys, 10, "accent").put(says, "dim").cut(width)
            rows.append(row)
        return rows + [Row() for _line in range(window - len(rows))]

    def typed(self, entry: Entry) -> None:
        self.cursor = 0
        self.draw(self.console.view())

    def key(self, key: str) -> bool:
        steps = {"up": -1, "down": 1, "pageup": -10, "pagedown": 10}.get(key)
        if steps is None:
            return False
        self.cursor += steps
        self.draw(self.console.view())
        return True

    def on_entry_submitted(self, event: Entry.Submitted) -> None:
        event.stop()
        choices = self._choices()
        self.console.close_sheet(self)
        if choices:
            choices[self.cursor][3]()


def _later(console: ConsoleApp, action: str) -> Callable[[], None]:
    def act() -> None:
        console.call_later(console.do, action)

    return act


def _theme(console: ConsoleApp, name: str) -> Callable[[], None]:
    return lambda: console.choose_theme(name)
