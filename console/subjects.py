"""Where the thing that an event is about stands on the screen."""

from __future__ import annotations

from pathlib import PurePath

from console.orders import Refused
from console.panes import training
from console.panes.checkpoints import SORTS
from console.view import View
from console.words import _
from engine.protocol import Checkpoint, Event

KEYS = ("release", "to", "restored", "sha256", "from", "path", "candidate", "checkpoint")


def find(view: View, event: Event) -> tuple[str, int]:
    """The pane and its row, without a filter.

    Raises:
        Refused: what the event is about is on no pane.
    """
    if event.kind == "compared":
        return "compare", 0
    if event.kind == "trained":
        name = event.subject.removeprefix("run ")
        for index, one in enumerate(training.items(view)):
            if one.name == name:
                return "training", index
        raise Refused(f"{_('no longer listed')}: {name}", "dim")
    wanted = [str(one) for one in (event.subject, *(event.detail.get(key) for key in KEYS)) if one]
    found = view.store.checkpoints
    order = view.ui.orders["checkpoints"]
    rows = sorted(found.checkpoints, key=SORTS[order.column], reverse=order.descending) if found else []
    for word in wanted:
        for index, row in enumerate(rows):
            if _is(view, row, word):
                return "checkpoints", index
    raise Refused(f"{_('no longer listed')}: {event.subject}", "dim")


def _is(view: View, one: Checkpoint, word: str) -> bool:
    """Whether a word of an event names this checkpoint: its path, its file, its hash, its release, its slot."""
    if word in (one.path, PurePath(one.path).name):
        return True
    slots = view.store.slots
    releases = {one.release}
    if slots and one.state in ("asis", "both"):
        releases.add(slots.asis.release)
    if slots and one.state in ("tobe", "both"):
        releases.add(slots.tobe.release)
    known = [value for value in (one.sha256, *releases) if value]
    return len(word) >= 8 and any(value.startswith(word) for value in known)
