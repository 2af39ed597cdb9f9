"""The console on a recording, with its clock stopped at the recording's end."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from console.app import ConsoleApp
from console.commands import Commands
from console.feed import Feed
from console.keymap import default_keys
from console.options import Options
from console.replay import read_all
from console.store import Store
from console.text import moment
from console.theme import SHIPPED, load_themes
from engine.protocol import Message

RECORDINGS = Path(__file__).parent / "recordings"
SIZE = (120, 40)


class Started(Commands):
    """Notes what would be started instead of starting it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(lambda outcome: None, folder)
        self.lines: list[list[str]] = []
        self.questions: list[list[str]] = []
        self.answers: dict[str, dict[str, Any]] = {}

    def start(self, command: list[str], verb: str) -> Path:
        self.lines.append(command[command.index("engine") + 1 :])
        return self.folder / "none.log"

    def ask(self, command: list[str], done: Callable[[dict[str, Any], str], None]) -> None:
        words = command[command.index("engine") + 1 :]
        self.questions.append(words)
        if words[0] in self.answers:
            done(self.answers[words[0]], "")
        else:
            done({}, f"{words[0]} was asked")


@lru_cache(maxsize=4)
def heard(recording: str) -> tuple[Message, ...]:
    """The messages of a recording, read once; for who changes none of their lists."""
    return tuple(read_all(RECORDINGS / f"{recording}.jsonl"))


def filled(recording: str) -> tuple[Store, float]:
    """A store that has heard a whole recording, and the recording's last moment."""
    store, last = Store(), 0.0
    for message in read_all(RECORDINGS / f"{recording}.jsonl"):
        last = moment(message.at) or last
        store.apply(message, last)
    return store, last


MakeApp = Callable[..., ConsoleApp]


@pytest.fixture
def make_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeApp:
    """`make_app("evening", theme="mono", later=60, **options)`: an app without a feed."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)
    themes, faults = load_themes([SHIPPED])
    assert not faults

    def make(
        recording: str = "evening",
        *,
        theme: str = "understudy",
        language: str = "en",
        later: float = 0.0,
        feed: Feed | None = None,
        **options: Any,
    ) -> ConsoleApp:
        store, last = filled(recording)
        return ConsoleApp(
            Options(settings={"theme": theme, "language": language}, **options),
            themes,
            default_keys(),
            feed,
            store=store,
            now=lambda: last + later,
            commands=Started(tmp_path),
        )

    return make


def screen_text(app: ConsoleApp) -> str:
    """What stands on the screen, as lines of text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def started(app: ConsoleApp) -> list[list[str]]:
    """The engine commands that the app would have started."""
    assert isinstance(app.commands, Started)
    return app.commands.lines
