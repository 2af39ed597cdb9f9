"""`--plain`: the same facts as lines of text, the same actions as prompts; for screen readers and dumb terminals."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator

from console import text
from console.commands import Commands, Outcome
from console.feed import Feed
from console.glyphs import ASCII
from console.options import Options
from console.panes import checkpoints, compare, devices, events, road, slots, training
from console.replay import Replay
from console.store import Store
from console.view import Ui, View
from console.words import _

WIDTH = 78
HELP = (
    "road, slots, compare, training, devices, checkpoints, events, sync, ab, promote, rollback, train, help, quit"
)
_PANES = {
    "compare": compare.draw,
    "training": training.draw,
    "devices": devices.draw,
    "checkpoints": checkpoints.draw,
    "events": events.draw,
}


class Plain:
    """Says what changes in what matters; answers words from standard input."""

    def __init__(self, options: Options, feed: Feed) -> None:
        self.options, self.feed = options, feed
        self.store = Store()
        self.said: dict[str, str] = {}
        self.outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.commands = Commands(self.outcomes.put)

    def view(self) -> View:
        now = self.feed.now if isinstance(self.feed, Replay) else time.time()
        return View(self.store, now, ASCII, Ui())

    def take(self) -> list[str]:
        """What the feed brought, as the lines that are new since the last time."""
        if isinstance(self.feed, Replay) and self.feed.jumped():
            self.store.clear()
        view = self.view()
        for message in self.feed.drain():
            self.store.apply(message, view.now)
        self.store.feed = "offline" if self.feed.problem else "live"
        self.store.feed_why = self.feed.problem
        fresh = []
        for key, line in self._facts(view):
            if self.said.get(key) != line:
                self.said[key] = line
                fresh.append(line)
        while not self.outcomes.empty():
            fresh.append(self.outcomes.get().sentence)
        return fresh

    def _facts(self, view: View) -> Iterator[tuple[str, str]]:
        if self.store.feed != "live":
            yield "feed", f"offline: {self.store.feed_why}"
            return
        yield "feed", _("live")
        found = self.store.slots
        for name in ("asis", "tobe") if found else ():
            slot = getattr(found, name)
            facts = f"{slots.TITLES[name]} {slot.state}, {_('release')} {text.short(slot.release)}"
            yield name, facts + (f", {slot.problem}" if slot.problem else "")
        for _host, run in self.store.progress():
            facts = f"{_('training')} {run.run} {run.status}, {_('epoch')} {run.epoch}/{run.epochs}"
            yield f"run {run.run}", facts + f", {_('accuracy')} {text.percent(run.accuracy)}"
        if self.store.ab and (one := self.store.ab.comparison) and not one.running:
            yield "ab", f"{_('compare')} #{one.id}: {compare.verdict(one)[0]}, {text.number(one.n)} {_('images')}"
        log = self.store.events
        if log and log.events:
            last = log.events[-1]
            yield "event", f"{text.clock(last.at)} {last.kind.replace('_', ' ')} {events.describe(last)}"
        yield "next", f"{_('next')}: {road.next_step(view)}"

    def answer(self, line: str) -> list[str]:
        """What is said to a line from the person; "quit" is not for here."""
        words = line.split()
        view = self.view()
        if words[0] in _PANES:
            return [row.plain.rstrip() for row in _PANES[words[0]](view, WIDTH, 40)]
        if words[0] == "slots":
            shown = []
            for name in ("asis", "tobe"):
                shown += [
                    slots.title(view, name).plain,
                    *(f"  {row.plain}" for row in slots.draw(view, name, WIDTH, 5)),
                ]
            return shown
        if words[0] == "road":
            return [
                *(f"{stop.name}: {stop.state}, {stop.fact}" for stop in road.stations(view)),
                road.next_step(view),
            ]
        if words[0] in ("sync", "ab", "train", "promote", "rollback"):
            return self._act(view, words)
        return [HELP]

    def _act(self, view: View, words: list[str]) -> list[str]:
        verb = words[0]
        if self.options.readonly or isinstance(self.feed, Replay):
            return [_("read only: nothing is changed from here")]
        if verb in ("promote", "rollback") and view.fresh("slots").state != "live":
            return [_("refused: the figures are not live")]
        found = self.store.slots
        more = ["--detach", *words[1:]] if verb == "train" else words[1:]
        if verb == "rollback" and found and len(words) == 1:
            return [f"rollback {one.name}  ({text.short(one.release)})" for one in found.backups] or [HELP]
        if verb == "promote":
            release = text.short(found.tobe.release if found else None)
            gate = compare.gate_of(view)
            said = f"{_('gate open') if gate and gate.open else _('gate closed')}: {gate.reason if gate else ''}"
            if len(words) == 1 or words[1] != release:
                force = "" if gate and gate.open else " REASON"
                return [said, f"{_('to go on, write')}: promote {release}{force}"]
            reason = " ".join(words[2:])
            if not (gate and gate.open) and not reason:
                return [said, _("a reason is needed: it goes into the log")]
            more = [] if gate and gate.open else ["--force", "--reason", reason]
        self.commands.start(self.options.engine(verb, *more, "--json"), verb)
        return [f"{verb} {_('started')}"]


def run(options: Options, feed: Feed) -> int:
    """Lines until "quit" or the end of standard input (a recording: until its end)."""
    plain = Plain(options, feed)
    woken: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    feed.start(lambda: woken.put(""))

    def read() -> None:
        for line in sys.stdin:
            woken.put(line.strip() or "help")
        woken.put(None)

    threading.Thread(target=read, daemon=True).start()
    listening = True
    while True:
        try:
            line = woken.get(timeout=1.0)
        except queue.Empty:
            line = ""
        if line is None:
            listening = False
        if line in ("quit", "q"):
            return 0
        shown = plain.take()
        if line:
            shown += plain.answer(line)
        if shown:
            sys.stdout.write("\n".join(shown) + "\n")
            sys.stdout.flush()
        ended = isinstance(feed, Replay) and feed.now >= feed.end
        if not listening and (ended or not isinstance(feed, Replay)) and not plain.commands.running:
            return 0
