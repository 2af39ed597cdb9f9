"""Who is told of a run while it goes: trackers in processes of their own, and the people through the notifier.

A run calls its observer between two steps; whatever an observer does, the run neither waits for it nor ends by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from engine.config import Settings
from engine.store.workspace import Workspace
from engine.training.alerts import RunAlerts
from engine.training.runs import RunFolder
from engine.training.trackers.choose import trackers

Say = Callable[[str], None]


class Observer(Protocol):
    """What is told of one call of `train`, in this order; `ended` comes for every `started`."""

    def started(self, manifest: dict[str, Any]) -> None:
        """The first step is about to be done."""

    def epoch(self, row: dict[str, Any]) -> None:
        """An epoch is over: its line of `metrics.jsonl`."""

    def step(self, progress: dict[str, Any]) -> None:
        """Steps were done: what `progress.json` says, about once a second."""

    def ended(self, manifest: dict[str, Any]) -> None:
        """The run is completed, interrupted or failed; all its files are written."""

    def settle(self) -> None:
        """Everybody has heard of the end: wait for what comes of it, within a bound of one's own."""


class Observers:
    """Several observers as one that never raises: one that fails is left out from then on, and that is said."""

    def __init__(self, members: Sequence[tuple[str, Observer]], say: Say) -> None:
        self._members, self._say = list(members), say

    def started(self, manifest: dict[str, Any]) -> None:
        self._each("started", manifest)

    def epoch(self, row: dict[str, Any]) -> None:
        self._each("epoch", row)

    def step(self, progress: dict[str, Any]) -> None:
        self._each("step", progress)

    def ended(self, manifest: dict[str, Any]) -> None:
        self._each("ended", manifest)
        self._each("settle")

    def settle(self) -> None:
        """Nothing more: `ended` has waited."""

    def _each(self, what: str, *data: dict[str, Any]) -> None:
        for member in list(self._members):
            name, observer = member
            try:
                getattr(observer, what)(*data)
            except Exception as error:  # noqa: BLE001 - whoever looks on must not end what is looked at
                self._members.remove(member)
                self._say(f"note: {name} failed ({type(error).__name__}: {error}); the run goes on without it")


def observers(
    workspace: Workspace, settings: Settings, folder: RunFolder, say: Say, *, alone: bool = True
) -> Observers:
    """Everybody who is to be told of the run in `folder`.

    Args:
        say: takes lines for people, from any thread.
        alone: not a sweep's child, whose end the sweep itself tells of.
    """
    return Observers(
        [
            *trackers(workspace, settings, folder, say),
            ("the notifier", RunAlerts(workspace, settings, folder, alone)),
        ],
        say,
    )
