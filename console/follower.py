"""Which log the log pane shows; it is followed only while somebody looks at it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from console.commands import CommandLog, Commands
from console.options import Options
from console.view import LogLines, View

LINES = 500


class Follower:
    """Starts and ends the child that reads a log."""

    def __init__(self, options: Options, commands: Commands, wake: Callable[[], None]) -> None:
        self.options = options
        self.commands = commands
        self.wake = wake
        self.chosen: str | None = None
        self.shown: LogLines | None = None
        self._end: Callable[[], None] = _nothing

    def choose(self, name: str) -> None:
        """A slot, `sync`, a run; "" for the last command that was started here."""
        self._leave()
        self.chosen = name

    def look(self, view: View, visible: bool) -> None:
        """The pane has come into sight, or has left it; with nothing chosen, what `default` says is followed."""
        if not visible:
            self._leave()
        elif self.shown is None:
            if self.chosen is None:
                self.chosen = default(view)
            self._start(self.chosen)
        elif isinstance(self.shown, CommandLog):
            self.shown.refresh()

    def _start(self, name: str) -> None:
        if not name:
            if self.commands.last is not None:
                self.shown = CommandLog(self.commands.last)
            return
        from console.tail import Tail

        command = self.options.engine("logs", name, "--lines", str(LINES), "--follow", "--json")
        tail = Tail(command, self.wake)
        self.shown, self._end = tail, tail.stop
        tail.start()

    def _leave(self) -> None:
        """Nobody looks any more. Ending the child may take a second, which no key waits for."""
        end, self._end, self.shown = self._end, _nothing, None
        if end is not _nothing:
            threading.Thread(target=end, daemon=True).start()

    def stop(self) -> None:
        """The console ends: so does the child, before this returns."""
        end, self._end, self.shown = self._end, _nothing, None
        end()


def _nothing() -> None:
    """No child is to be ended."""


def default(view: View) -> str:
    """The newest run that is under way on this host, else AS-IS."""
    runs = view.store.runs
    running = next((run.run for run in runs.runs if run.status == "running"), None) if runs else None
    return running or "asis"
