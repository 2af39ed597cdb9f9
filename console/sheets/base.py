"""A sheet: an opaque box over the panes that asks or tells one thing, while they go on around it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.widget import Widget

from console.desk import Desk, Panel
from console.orders import Refused
from console.theme import ConsoleTheme
from console.view import View
from console.widgets.canvas import Canvas
from console.widgets.entry import Entry, Press
from console.widgets.rows import Row
from console.words import _

FAR = 10**6


def steps(key: str, page: int = 10) -> int | None:
    """How many rows a key moves on a list; None where it moves none."""
    return {
        "up": -1, "k": -1, "down": 1, "j": 1, "pageup": -page, "pagedown": page,
        "home": -FAR, "g": -FAR, "end": FAR, "G": FAR,
    }.get(key)  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A line to fill in, with its label in front."""

    id: str
    label: str


class Sheet(Panel, can_focus=False):
    """Subclasses say what stands in it; Cancel has the focus unless there is something to type first."""

    DEFAULT_CSS = """
    Sheet { position: absolute; layer: sheet; }
    Sheet > * { position: absolute; }
    """
    heading = ""
    wide = 74
    confirm = ""
    confirm_role = "accent"
    cancel = "Cancel"

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        self.note = ""
        self.fields = self.needed_fields()
        self._frame = Canvas(desk.look)
        self._entries = {field.id: Entry(desk.look, id=field.id) for field in self.fields}
        self._buttons = [Press(desk.look, _(self.cancel), id="cancel")]
        if self.confirm:
            self._buttons.append(Press(desk.look, _(self.confirm), id="confirm", role=self.confirm_role))
        self._placed: tuple[int, ...] = ()

    # what a sheet says ---------------------------------------------------------------------------------

    def needed_fields(self) -> list[Field]:
        """The lines to fill in; asked once, when the sheet opens."""
        return []

    def body(self, view: View, width: int) -> list[Row]:
        """The text above the fields, drawn anew whenever something changes."""
        return []

    def confirmed(self) -> bool:
        """Confirm was pressed; True closes the sheet.

        Raises:
            Refused: why it cannot be done, or not yet; it is said below the fields.
        """
        return True

    def typed(self, entry: Entry) -> None:
        """Something was typed."""

    def submitted(self, entry: Entry) -> None:
        """Enter on a field: to the next one, or to Cancel."""
        self.screen.focus_next()

    def key(self, key: str) -> bool:
        """A key that neither a field nor a button took; whether it was used."""
        return False

    def click(self, row: int) -> None:
        """A click on a row of the body."""

    def value(self, field: str) -> str:
        return self._entries[field].value.strip()

    # its frame -----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield self._frame
        yield from self._entries.values()
        yield from self._buttons

    def on_mount(self) -> None:
        self.draw(self.desk.view())
        first: Widget = next(iter(self._entries.values())) if self.starts_typing() else self._buttons[0]
        first.focus()

    def starts_typing(self) -> bool:
        """Whether the first field has the focus instead of Cancel."""
        return False

    def restyle(self, theme: ConsoleTheme) -> None:
        for widget in (self._frame, *self._entries.values(), *self._buttons):
            widget.restyle(theme)

    def draw(self, view: View) -> None:
        """Text, fields and buttons at the middle of the screen."""
        total_width, total_height = self.desk.size
        width = min(self.wide, total_width - 2)
        inner = width - 4
        rows = self.body(view, inner)
        room = max(1, total_height - 4 - len(self.fields) - (1 if self.note else 0))
        rows = rows[:room]
        height = len(rows) + len(self.fields) + (1 if self.note else 0) + 4
        height = min(height, total_height)
        self._frame.show(self._framed(view, rows, width, height))
        place = ((total_width - width) // 2, max(0, (total_height - height) // 3), width, height)
        if place == self._placed:
            return
        self._placed = place
        _put(self, *place)
        _put(self._frame, 0, 0, width, height)
        labels = max((cell_len(field.label) for field in self.fields), default=0) + 1
        for index, entry in enumerate(self._entries.values()):
            _put(entry, 2 + labels, 1 + len(rows) + index, inner - labels, 1)
        right = width - 2
        for button in reversed(self._buttons):
            right -= button.cells
            _put(button, right, height - 2, button.cells, 1)
            right -= 2

    def _framed(self, view: View, rows: list[Row], width: int, height: int) -> list[Row]:
        glyphs = view.glyphs
        down_right, down_left, up_right, up_left = glyphs.corners
        top = Row(down_right, "accent", "sheet").put(f" {self.heading} ", "bold title")
        top.put(glyphs.horizontal * (width - top.at - 1), "accent").put(down_left, "accent")
        said = [*rows, *(Row(field.label, "dim") for field in self.fields)]
        if self.note:
            said.append(Row(self.note, "danger"))
        said += [Row() for _line in range(height - 2 - len(said))]
        framed = [top]
        for row in said[: height - 2]:
            line = Row(glyphs.vertical, "accent", "sheet").put(" ")
            if row.ground == "selection":
                row.to(width - 4)
                for text, roles in row.spans:
                    line.put(text, f"{roles} selection")
            else:
                line.add(row)
            framed.append(line.to(width - 1).put(glyphs.vertical, "accent"))
        bottom = up_right + glyphs.horizontal * (width - 2) + up_left
        return [*framed, Row(bottom, "accent", "sheet")]

    # what happens --------------------------------------------------------------------------------------

    def say(self, note: str) -> None:
        """Why it cannot be confirmed, below the fields."""
        self.note = note
        self._placed = ()
        self.draw(self.desk.view())

    def on_press_pressed(self, event: Press.Pressed) -> None:
        event.stop()
        if event.button.id == "confirm":
            self.confirm_now()
        else:
            self.desk.close_sheet(self)

    def confirm_now(self) -> None:
        """Do it and close, or say why not."""
        try:
            done = self.confirmed()
        except Refused as refused:
            self.say(str(refused))
            return
        if done:
            self.desk.close_sheet(self)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        if event.widget is self._frame and event.y > 0:
            self.click(event.y - 1)

    def on_entry_changed(self, event: Entry.Changed) -> None:
        event.stop()
        self.typed(event.entry)

    def on_entry_submitted(self, event: Entry.Submitted) -> None:
        event.stop()
        self.submitted(event.entry)

    def move_focus(self, steps: int) -> None:
        self.screen.focus_next() if steps > 0 else self.screen.focus_previous()


def _put(widget: Widget, x: int, y: int, width: int, height: int) -> None:
    widget.styles.offset = (x, y)
    widget.styles.width = width
    widget.styles.height = height
