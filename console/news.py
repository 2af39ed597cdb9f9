"""What threads tell the app."""

from __future__ import annotations

from collections.abc import Callable

from textual.message import Message

from console.commands import Outcome


class Arrived(Message):
    """Something new lies with the feed, or with the log that is followed."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, type(self))


class Ended(Message):
    """A command that was started here has ended."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Answered(Message):
    """The engine has answered a question; `done` is to be told on the app's thread."""

    def __init__(self, done: Callable[[], None]) -> None:
        super().__init__()
        self.done = done
