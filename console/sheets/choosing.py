"""Sheets with a list: one row is chosen with the arrows, the mouse or by typing a part of its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from console.actions import ACTIONS, sign
from console.desk import Desk
from console.sheets.base import Field, Sheet, steps
from console.view import View
from console.widgets.entry import Entry
from console.widgets.rows import Row
from console.words import _

HIDDEN = ("palette", "close", "up", "down", "page_up", "page_down", "top", "bottom")


@dataclass(frozen=True)
class Choice:
    """A row: its name, what it says, what choosing it does, and what it tries on while the cursor is on it."""

    name: str
    says: str
    act: Callable[[], None]
    keys: str = ""
    theme: str = ""


class Choose(Sheet):
    """Choose one row; Enter does it. A theme under the cursor is worn until the sheet closes."""

    cancel = "Close"
    wide = 96
    rows_at_most = 16

    def __init__(self, desk: Desk, heading: str, choices: list[Choice], cursor: int = 0) -> None:
        self.choices = choices
        self.cursor = cursor
        self._top = 0
        self._worn = desk.look.name
        super().__init__(desk)
        self.heading = heading

    def needed_fields(self) -> list[Field]:
        return [Field("find", ">")]

    def starts_typing(self) -> bool:
        return True

    def found(self) -> list[Choice]:
        """The rows that hold every word that was typed."""
        wanted = self.value("find").lower().split()
        return [one for one in self.choices if all(word in f"{one.name} {one.says}".lower() for word in wanted)]

    def body(self, view: View, width: int) -> list[Row]:
        found = self.found()
        window = max(3, min(self.rows_at_most, self.desk.size.height - 8))
        self.cursor = max(0, min(self.cursor, len(found) - 1))
        self._top = top = max(0, self.cursor - window + 1)
        keys = max((len(one.keys) for one in self.choices), default=0)
        rows = []
        for index, one in enumerate(found[top : top + window], top):
            chosen = index == self.cursor
            row = Row(ground="selection" if chosen else "background")
            row.put((view.glyphs.cursor if chosen else " ") + " ", "accent").cell(one.name, 24)
            if keys:
                row.cell(one.keys, 10, "accent")
            rows.append(row.put(one.says, "dim").cut(width))
        if not found:
            rows.append(Row(_("nothing matches"), "dim"))
        return rows + [Row() for _line in range(min(window, len(self.choices)) - len(rows))]

    def typed(self, entry: Entry) -> None:
        self._to(0)

    def key(self, key: str) -> bool:
        moved = steps({"ctrl+n": "down", "ctrl+p": "up"}.get(key, key))
        if moved is None:
            return False
        self._to(self.cursor + moved)
        return True

    def click(self, row: int) -> None:
        if self._top + row < len(self.found()):
            self._to(self._top + row)
            self._choose()

    def _to(self, row: int) -> None:
        found = self.found()
        self.cursor = max(0, min(row, len(found) - 1))
        wanted = found[self.cursor].theme if found else ""
        if self.desk.look.name != (wanted or self._worn):
            self.desk.wear(wanted or self._worn)
        self.draw(self.desk.view())

    def submitted(self, entry: Entry) -> None:
        self._choose()

    def _choose(self) -> None:
        found = self.found()
        if found:
            self.desk.close_sheet(self)
            found[self.cursor].act()

    def closed(self) -> None:
        if self.desk.look.name != self._worn:
            self.desk.wear(self._worn)


class Palette(Choose):
    """Every action that makes sense now, and every theme."""

    def __init__(self, desk: Desk) -> None:
        choices = [
            Choice(
                _(action.label),
                _(action.help),
                _later(desk, action.id),
                " ".join(sign(key) for key in desk.keys_of(action.id)),
            )
            for action in ACTIONS
            if action.id not in HIDDEN and desk.offered(action)
        ]
        super().__init__(desk, _("Palette"), [*choices, *_themes(desk, f"{_('theme')}: ")])


def themes(desk: Desk) -> Choose:
    """All themes, each tried on under the cursor."""
    choices = _themes(desk)
    worn = next((index for index, one in enumerate(choices) if one.theme == desk.look.name), 0)
    return Choose(desk, _("Theme"), choices, worn)


def _themes(desk: Desk, before: str = "") -> list[Choice]:
    return [
        Choice(f"{before}{name}", _(theme.description), _wear(desk, name), theme=name)
        for name, theme in sorted(desk.themes.items())
    ]


def _wear(desk: Desk, name: str) -> Callable[[], None]:
    def act() -> None:
        desk.wear(name)
        desk.say(f'{_("theme")}: {name}  ({_("to keep it")}: console.theme = "{name}")', "dim")

    return act


def _later(desk: Desk, action: str) -> Callable[[], None]:
    return lambda: desk.later(action)


def logs(desk: Desk) -> Choose:
    """The logs that can be shown on the log pane."""
    choices = []
    if command := desk.last_command():
        choices.append(Choice(command, _("the last command that was started here"), _follow(desk, "")))
    for name, says in (
        ("asis", _("AS-IS's server")),
        ("tobe", _("TO-BE's server")),
        ("sync", _("the looks at the source")),
    ):
        choices.append(Choice(name, says, _follow(desk, name)))
    runs = desk.store.runs
    for run in runs.runs if runs else []:
        choices.append(Choice(run.run, f"{_('run')}  {_(run.status)}  {run.model or ''}", _follow(desk, run.run)))
    return Choose(desk, _("Log"), choices)


def _follow(desk: Desk, name: str) -> Callable[[], None]:
    return lambda: desk.follow(name)
