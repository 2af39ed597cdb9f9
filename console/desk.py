"""What deeds and sheets may ask of the app that holds them: this much, and nothing of how it is built."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from textual.geometry import Size
from textual.widget import Widget

from console.actions import Action
from console.feed import Feed
from console.options import Options
from console.store import Store
from console.theme import ConsoleTheme
from console.view import Ui, View


class Panel(Widget):
    """A widget over the panes that has the keyboard while it is open."""

    @abstractmethod
    def draw(self, view: View) -> None:
        """Draw this moment."""

    @abstractmethod
    def key(self, key: str) -> bool:
        """A key that no field and no button took; whether it was used."""

    @abstractmethod
    def move_focus(self, steps: int) -> None:
        """To the next (1) or the previous (-1) field or button."""

    @abstractmethod
    def restyle(self, theme: ConsoleTheme) -> None:
        """Take another theme."""

    def closed(self) -> None:
        """It is gone from the screen, however it was left."""


class Desk(Protocol):
    """The app, as deeds and sheets see it."""

    options: Options
    themes: dict[str, ConsoleTheme]
    look: ConsoleTheme
    feed: Feed | None
    store: Store
    ui: Ui

    @property
    def size(self) -> Size: ...

    @property
    def replaying(self) -> bool:
        """Whether a recording is drawn: nothing can be changed then."""
        ...

    # looking

    def view(self) -> View:
        """This moment."""
        ...

    def redraw(self) -> None: ...

    def arrange(self) -> None:
        """The focus, the zoom or the size has changed: lay out anew, and draw."""
        ...

    def say(self, sentence: str, role: str = "") -> None:
        """One sentence on the last line, until the next key."""
        ...

    def take(self) -> None:
        """Draw what has come in."""
        ...

    def wear(self, name: str) -> None:
        """Draw with another theme."""
        ...

    def focus_filter(self, wanted: str) -> None:
        """Open the line on which a filter is typed."""
        ...

    def leave_filter(self) -> None: ...

    def follow(self, log: str) -> None:
        """Show this log on the log pane: a slot's, `sync`, a run's, or "" for the last command's."""
        ...

    # doing

    def do(self, action: str) -> None:
        """Do an action of the registry, now."""
        ...

    def later(self, action: str) -> None:
        """Do it once what is under way has ended."""
        ...

    def offered(self, action: Action) -> bool:
        """Whether an action makes sense now."""
        ...

    def keys_of(self, action: str) -> tuple[str, ...]: ...

    def open_sheet(self, sheet: Panel) -> None: ...

    def close_sheet(self, sheet: Panel) -> None: ...

    def run_engine(self, verb: str, *words: str) -> None:
        """Start an engine command; how it ends is said on the last line."""
        ...

    def ask_engine(self, verb: str, *words: str, done: Callable[[dict[str, Any], str], None]) -> None:
        """Ask the engine without changing anything; `done(answer, problem)` is called when it has spoken."""
        ...

    def last_command(self) -> str:
        """The name of the last command that was started here, "" where there is none."""
        ...

    def clip(self, found: str) -> Path:
        """Copy to the terminal's clipboard and into a file, whose path is returned.

        Raises:
            OSError: the file cannot be written; the terminal has been given it all the same.
        """
        ...

    def picture(self) -> str:
        """What is on the screen, as SVG."""
        ...

    def leave(self) -> None:
        """End the console."""
        ...
