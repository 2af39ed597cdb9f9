"""The two things a sheet can hold besides text: a line to type on, and a button. Both one row, no blinking."""

from __future__ import annotations

from rich.cells import cell_len
from textual import events
from textual.message import Message
from textual.strip import Strip

from console.theme import ConsoleTheme
from console.widgets.canvas import Canvas
from console.widgets.rows import Row


class Entry(Canvas, can_focus=True):
    """A line of text being typed."""

    class Changed(Message):
        def __init__(self, entry: Entry) -> None:
            super().__init__()
            self.entry = entry

    class Submitted(Message):
        def __init__(self, entry: Entry) -> None:
            super().__init__()
            self.entry = entry

    def __init__(self, theme: ConsoleTheme, *, id: str, prompt: str = "", ground: str = "sheet") -> None:
        super().__init__(theme, id=id)
        self.value = ""
        self.prompt = prompt
        self.ground = ground
        self.at = 0

    def set(self, value: str) -> None:
        self.value, self.at = value, len(value)
        self.refresh()

    def on_key(self, event: events.Key) -> None:
        """Printable keys and the usual editing keys; everything else goes on to the sheet."""
        before = self.value
        if event.key == "enter":
            self.post_message(self.Submitted(self))
        elif event.key == "backspace":
            self.value = self.value[: max(0, self.at - 1)] + self.value[self.at :]
            self.at = max(0, self.at - 1)
        elif event.key == "delete":
            self.value = self.value[: self.at] + self.value[self.at + 1 :]
        elif event.key in ("left", "right"):
            self.at = max(0, min(len(self.value), self.at + (1 if event.key == "right" else -1)))
        elif event.key in ("home", "end"):
            self.at = 0 if event.key == "home" else len(self.value)
        elif event.key == "ctrl+u":
            self.value, self.at = self.value[self.at :], 0
        elif event.is_printable and event.character:
            self._insert(event.character)
        else:
            return
        event.stop()
        event.prevent_default()
        self.refresh()
        if self.value != before:
            self.post_message(self.Changed(self))

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        self._insert(" ".join(event.text.split()))
        self.refresh()
        self.post_message(self.Changed(self))

    def _insert(self, text: str) -> None:
        self.value = self.value[: self.at] + text + self.value[self.at :]
        self.at += len(text)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        room = max(1, width - cell_len(self.prompt) - 1)
        start = 0
        while cell_len(self.value[start : self.at]) > room - 1:
            start += 1
        row = Row(self.prompt, "accent", self.ground)
        if not self.has_focus:
            row.put(self.value[start:], "underline")
            return (
                row.to(width).strip(width, self.look) if row.at < width else row.cut(width).strip(width, self.look)
            )
        row.put(self.value[start : self.at], "underline")
        under = self.value[self.at : self.at + 1] or " "
        row.put(under, "reverse").put(self.value[self.at + 1 :], "underline")
        row.put(" " * (width - row.at), "underline")
        return row.strip(width, self.look)


class Press(Canvas, can_focus=True):
    """A button: `[ Promote ]`. Enter, space or the mouse press it."""

    class Pressed(Message):
        def __init__(self, button: Press) -> None:
            super().__init__()
            self.button = button

    def __init__(self, theme: ConsoleTheme, label: str, *, id: str, role: str = "accent") -> None:
        super().__init__(theme, id=id)
        self.label = label
        self.role = role

    @property
    def cells(self) -> int:
        return cell_len(self.label) + 4

    def on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "space"):
            event.stop()
            event.prevent_default()
            self.post_message(self.Pressed(self))

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.post_message(self.Pressed(self))

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def render_line(self, y: int) -> Strip:
        roles = f"{self.role} bold reverse" if self.has_focus else self.role
        return Row(f"[ {self.label} ]", roles, "sheet").strip(self.size.width, self.look)
