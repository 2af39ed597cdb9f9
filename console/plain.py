"""`--plain`: the same facts as lines of text, the same actions as questions; for screen readers and dumb terminals."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from console import sorting, text
from console.actions import ACTIONS, Action
from console.board import DRAW
from console.commands import Commands, Outcome
from console.dialogue import TALKS, WIDTH, Question, Talk
from console.feed import Feed
from console.glyphs import ASCII
from console.options import Options
from console.orders import Refused
from console.panes import compare, events, road, slots
from console.replay import Replay
from console.store import Store
from console.view import Ui, View
from console.words import _

HEIGHT = 40
# actions that only move something on a screen
SCREEN_ONLY = {
    "pane_next", "pane_previous", "zoom", "up", "down", "page_up", "page_down", "top", "bottom", "picture", "theme",
    "palette", "close",
}  # fmt: skip
NUMBERED = {"checkpoints": 1, "events": 0}  # panes whose rows are named by number, and the rows above the first
REPLAY: dict[str, Callable[[Replay], None]] = {
    "replay_pause": Replay.pause,
    "replay_back": lambda replay: replay.seek(-10),
    "replay_on": lambda replay: replay.seek(10),
    "replay_slower": lambda replay: replay.faster(-1),
    "replay_faster": lambda replay: replay.faster(1),
}


def word(action: Action) -> str:
    """What a person writes for an action: `promote`, `checkpoints`, `back`."""
    if action.id in REPLAY:
        return action.label
    return {"open": "details"}.get(action.id, action.id.removeprefix("pane_"))


class Plain:
    """Says what changes in what matters; answers lines from standard input."""

    def __init__(self, options: Options, feed: Feed, commands: Commands | None = None) -> None:
        self.options, self.feed = options, feed
        self.store = Store()
        self.ui = Ui()
        self.said: dict[str, str] = {}
        self.talk: Talk | None = None
        self.optional = False
        self.ended: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.commands = commands or Commands(self._ended)
        self.asked = 0
        shown = [action for action in ACTIONS if action.id not in SCREEN_ONLY and self._offered(action)]
        self.actions = {word(action): action for action in shown if action.id != "pane_log"}

    def _offered(self, action: Action) -> bool:
        return action.when != ("live" if isinstance(self.feed, Replay) else "replay")

    def _ended(self, outcome: Outcome) -> None:
        self.ended.put([outcome.sentence])

    def view(self) -> View:
        now = self.feed.now if isinstance(self.feed, Replay) else time.time()
        return View(self.store, now, ASCII, self.ui)

    def take(self) -> list[str]:
        """What the feed brought, as the lines that are new since the last time."""
        if isinstance(self.feed, Replay) and self.feed.jumped():
            self.store.clear()
        view = self.view()
        for message in self.feed.drain():
            self.store.apply(message, view.now)
        self.store.feed = self.feed.state
        self.store.feed_why = self.feed.problem
        fresh = []
        for key, line in self._facts(view):
            if self.said.get(key) != line:
                self.said[key] = line
                fresh.append(line)
        while not self.ended.empty():
            fresh += self.ended.get()
        return fresh

    def _facts(self, view: View) -> Iterator[tuple[str, str]]:
        if self.store.feed != "live":
            yield "feed", f"{_('offline')}: {self.store.feed_why}"
            return
        yield "feed", _("live")
        found = self.store.slots
        for name in ("asis", "tobe") if found else ():
            slot = getattr(found, name)
            facts = f"{slots.TITLES[name]} {_(slot.state)}, {_('release')} {text.short(slot.release)}"
            yield name, facts + (f", {slot.problem}" if slot.problem else "")
        for _host, run in self.store.progress():
            facts = f"{_('training')} {run.run} {_(run.status)}, {_('epoch')} {run.epoch}/{run.epochs}"
            yield f"run {run.run}", facts + f", {_('accuracy')} {text.percent(run.accuracy)}"
        if self.store.ab and (one := self.store.ab.comparison) and not one.running:
            yield "ab", f"{_('compare')} #{one.id}: {compare.verdict(one)[0]}, {text.number(one.n)} {_('images')}"
        log = self.store.events
        if log and log.events:
            last = log.events[-1]
            kind = _(last.kind.replace("_", " "))
            yield "event", f"{text.clock(last.at)} {kind} {events.describe(last)}"
        yield "next", f"{_('next')}: {road.next_step(view)}"

    # what a person writes ------------------------------------------------------------------------------

    def answer(self, line: str) -> list[str]:
        """What is said to a line from the person; "quit" is not for here."""
        if self.talk is not None:
            return self._go_on(line)
        name, _blank, rest = line.partition(" ")
        action = self.actions.get(name)
        if action is None:
            known = name in ("help", "?", "")
            return self.help() if known else [f"{_('unknown')}: {name} ({_('`help` lists every word')})"]
        if action.changes and (self.options.readonly or isinstance(self.feed, Replay)):
            readonly = _("read only: nothing is changed from here")
            return [readonly if self.options.readonly else _("this is a recording")]
        if action.id in TALKS:
            return self._begin(action.id, rest.strip())
        if action.id in REPLAY and isinstance(self.feed, Replay):
            REPLAY[action.id](self.feed)
            return [_("PAUSED") if self.feed.paused else f"{_('REPLAY')} {self.feed.speed:g}×"]
        if action.id in ("sort", "reverse"):
            return self._sort(action.id)
        return self._shown(name) if action.id.startswith("pane_") else self.help()

    def _begin(self, action: str, first: str) -> list[str]:
        """Start a dialogue; what stands behind its word answers the first question."""
        try:
            talk = TALKS[action](self)
        except Refused as refused:
            return [str(refused)]
        if isinstance(talk, list):
            return talk
        self.talk = talk
        lines = self._step(lambda: next(talk))
        return self._go_on(first) if first and self.talk is not None else lines

    def _go_on(self, line: str) -> list[str]:
        talk = self.talk
        assert talk is not None
        if line.strip() in ("cancel", _("cancel")) or (not line.strip() and not self.optional):
            self.talk = None
            return [_("nothing was changed")]
        return self._step(lambda: talk.send(line.strip()))

    def _step(self, go: Callable[[], Question]) -> list[str]:
        try:
            question = go()
        except StopIteration as end:
            self.talk = None
            return list(end.value)
        except Refused as refused:
            self.talk = None
            return [str(refused)]
        self.optional = question.optional
        way_out = _("`cancel` ends this") if question.optional else _("an empty line ends this")
        return [*question.lines[:-1], f"{question.lines[-1]} ({way_out})"]

    def _sort(self, action: str) -> list[str]:
        order = sorting.order_of(self.ui)
        if action == "sort":
            sorting.next_column(self.ui)
        else:
            order.descending = not order.descending
        pane = "training" if self.ui.focus == "training" else "checkpoints"
        return [f"{_('sorted by')} {_(order.column)}", *self._shown(pane)]

    def _shown(self, name: str) -> list[str]:
        """A pane as lines; lists with the numbers by which their rows are named."""
        view = self.view()
        stops: list[str] = []
        if name == "slots":
            stops = [f"{stop.name}: {stop.state}, {stop.fact}" for stop in road.stations(view)]
        view.ui.focus = name
        view.ui.place(name).cursor = 0
        rows = [row.plain.rstrip() for row in DRAW[name](view, WIDTH - 4, HEIGHT)]
        if name in NUMBERED:
            head = NUMBERED[name]
            rows = [f"{'' if y < head else y - head + 1:>3} {row}" for y, row in enumerate(rows)]
        return [*stops, *rows]

    def help(self) -> list[str]:
        """Every word that is understood here, from the registry."""
        return [f"{name:<14} {_(action.help)}" for name, action in self.actions.items()]

    # what dialogues ask for ----------------------------------------------------------------------------

    def run_engine(self, verb: str, *words: str) -> list[str]:
        if verb in self.commands.running:
            raise Refused(f"{verb} {_('is still running')}")
        try:
            self.commands.start(self.options.engine(verb, *words, "--json"), verb)
        except OSError as error:
            raise Refused(f"{verb} {_('cannot start')}: {error}") from None
        return [f"{verb} {_('started')}"]

    def ask_engine(self, verb: str, *words: str, tell: Callable[[dict[str, Any]], list[str]]) -> list[str]:
        def told(answer: dict[str, Any], problem: str) -> None:
            self.ended.put([problem] if problem else tell(answer))
            self.asked -= 1

        self.asked += 1
        self.commands.ask(self.options.engine(verb, *words, "--json"), told)
        return []

    @property
    def busy(self) -> bool:
        """Whether something was started that has not answered yet."""
        return bool(self.commands.under_way() or self.asked)


def run(options: Options, feed: Feed) -> int:
    """Lines until "quit" or the end of standard input (a recording: until its end)."""
    plain = Plain(options, feed)
    woken: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    feed.start(lambda: woken.put(("feed", "")))

    def read() -> None:
        for line in sys.stdin:
            woken.put(("line", line.strip()))
        woken.put(("end", ""))

    threading.Thread(target=read, daemon=True).start()
    listening = True
    while True:
        try:
            kind, line = woken.get(timeout=1.0)
        except queue.Empty:
            kind, line = "feed", ""
        listening = listening and kind != "end"
        if kind == "line" and plain.talk is None and line in ("quit", "q"):
            return 0
        shown = plain.take()
        if kind == "line":
            shown += plain.answer(line)
        if shown:
            sys.stdout.write("\n".join(shown) + "\n")
            sys.stdout.flush()
        ended = isinstance(feed, Replay) and feed.now >= feed.end
        if not listening and (ended or not isinstance(feed, Replay)) and not plain.busy and plain.ended.empty():
            return 0
