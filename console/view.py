"""What a pane needs to draw itself: the store, the time, the signs, and where the person is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from console.actions import sign
from console.glyphs import Glyphs
from console.store import Freshness, Store
from console.text import stale_age
from console.words import _


@dataclass
class Place:
    """The cursor of a list and the first row that is shown; `seen` counts the rows of a list that grows at its end.

    `first` is the pane's row on which the list begins, for the mouse; None where no list is drawn.
    """

    cursor: int = 0
    top: int = 0
    seen: int = 0
    first: int | None = None

    def fit(self, count: int, height: int) -> None:
        """Keep the cursor within `count` rows and inside the window of `height` rows."""
        self.cursor = max(0, min(self.cursor, count - 1))
        self.top = max(0, min(self.top, count - height, self.cursor))
        if height > 0 and self.cursor >= self.top + height:
            self.top = self.cursor - height + 1

    def follow(self, count: int, height: int) -> int:
        """Keep the cursor, the last row shown, at the end of a growing list unless it was moved up; rows below it."""
        if self.cursor >= min(self.seen, count) - 1:
            self.cursor = count - 1
        self.cursor = max(min(height, count) - 1, min(self.cursor, count - 1))
        self.seen = count
        return count - 1 - self.cursor


@dataclass
class Order:
    """By which column a list is sorted."""

    column: str
    descending: bool = True


@dataclass
class Ui:
    """What the person chose: pane, filter, order, marks."""

    focus: str = "checkpoints"
    zoomed: bool = False
    places: dict[str, Place] = field(default_factory=dict)
    filters: dict[str, str] = field(default_factory=dict)
    orders: dict[str, Order] = field(
        default_factory=lambda: {"checkpoints": Order("saved"), "training": Order("when")}
    )
    marks: list[str] = field(default_factory=list)

    def place(self, pane: str) -> Place:
        return self.places.setdefault(pane, Place())


class LogLines(Protocol):
    """What the log pane draws: whose log, its newest lines, oldest first, and why none come ("" while they do)."""

    @property
    def name(self) -> str: ...

    @property
    def lines(self) -> Sequence[str]: ...

    @property
    def problem(self) -> str: ...


@dataclass
class View:
    """One moment, to be drawn."""

    store: Store
    now: float
    glyphs: Glyphs
    ui: Ui
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    log: LogLines | None = None

    def key(self, action: str) -> str:
        """The first key of an action as a person reads it, else the action's name."""
        names = self.keys.get(action, ())
        return sign(names[0]) if names else action

    def fresh(self, kind: str, host: str | None = None) -> Freshness:
        return self.store.freshness(kind, self.now, host)

    def state(self, fresh: Freshness) -> tuple[str, str]:
        """(`● live`, role): a sign and a word; the age only where it matters."""
        if fresh.state == "live":
            return f"{self.glyphs.live} {_('live')}", "good"
        if fresh.state == "stale":
            return f"{self.glyphs.stale} {_('stale')} {stale_age(fresh.age_s)}", "warning"
        age = f" {stale_age(fresh.age_s)}" if fresh.age_s >= 10 else ""
        return f"{self.glyphs.offline} {_('offline')}{age}", "danger"
