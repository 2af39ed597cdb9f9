"""The actions as questions and answers, for `--plain`: the same rules as the sheets, asked line by line.

A dialogue is a generator: it yields a `Question`, is sent the answer, and returns the lines that end it. `Refused`
ends it too. An action that asks nothing gives its lines at once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol

from console import orders, subjects, text
from console.orders import Promotion, Refused
from console.panes import checkpoints, events, training
from console.sheets import findings
from console.sheets.board import asking, drawn
from console.sheets.details import compare_rows, fact_rows, facts_of
from console.sheets.slots import promotion_rows
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Checkpoint, Run

WIDTH = 78
ROWS = ("checkpoints", "events", "training")


@dataclass(frozen=True)
class Question:
    """What is asked; the last line is the question. An empty answer ends the dialogue, unless it is `optional`."""

    lines: list[str]
    optional: bool = False


Talk = Generator[Question, str, list[str]]


class Table(Protocol):
    """What a dialogue may ask of the program that leads it."""

    def view(self) -> View: ...

    def run_engine(self, verb: str, *words: str) -> list[str]:
        """Start an engine command; what is said at once."""
        ...

    def ask_engine(self, verb: str, *words: str, tell: Callable[[dict[str, Any]], list[str]]) -> list[str]:
        """Ask the engine; `tell` puts its answer into lines once it has come."""
        ...


def _yes(lines: list[str]) -> Generator[Question, str, None]:
    """Goes on only after a clear yes."""
    answer = yield Question([*lines, _("to go on, write: yes")])
    if answer.strip().lower() not in ("yes", "y", _("yes").lower()):
        raise Refused(_("nothing was changed"), "dim")


def _number(answer: str, count: int) -> int:
    """The index that a person's number names.

    Raises:
        Refused: it names no row.
    """
    if not (answer.isascii() and answer.isdigit() and 1 <= int(answer) <= count):
        raise Refused(f"{_('there is no row')} {answer}")
    return int(answer) - 1


# what changes something ------------------------------------------------------------------------------


def promote(table: Table) -> Talk:
    view = table.view()
    promotion = Promotion.of(view)
    shown = [row.plain.rstrip() for row in promotion_rows(view, WIDTH)]
    if not promotion.forced:
        yield from _yes(shown)
        return table.run_engine(*promotion.words(table.view()))
    against = _("Against the evidence: type the release's first eight digits, and why.")
    digits = yield Question([*shown, against, f"{_('type')} {promotion.digits}"])
    if digits.strip().lower() != promotion.digits.lower():
        raise Refused(_("those are not the release's first eight digits"))
    reason = yield Question([_("reason")])
    return table.run_engine(*promotion.words(table.view(), digits, reason))


def rollback(table: Table) -> Talk:
    view = table.view()
    slots = orders.live_slots(view)
    if not slots.backups:
        raise Refused(_("there is no backup yet: promoting makes one"))
    lines = []
    for number, one in enumerate(slots.backups, 1):
        state = {True: _("verified"), False: _("damaged"), None: ""}[one.verified]
        facts = f"{text.short(one.release)}, {_('accuracy')} {text.percent(one.accuracy)}"
        lines.append(f"{number}  {one.name}  {facts}, {text.ago(view.now, one.at)} {state}".rstrip())
    answer = yield Question([*lines, _("which backup? its number or name")])
    known = [one.name for one in slots.backups]
    name = answer if answer in known else known[_number(answer, len(known))]
    yield from _yes([f"{name} → AS-IS"])
    return table.run_engine(*orders.restore(table.view(), name, slots.asis.release))


def undo(table: Table) -> Talk:
    view = table.view()
    backup = orders.undo(view)
    replaces = orders.live_slots(view).asis.release
    yield from _yes([f"{text.short(backup.release)} → AS-IS, {_('from')} {backup.name}"])
    return table.run_engine(*orders.restore(table.view(), backup.name, replaces))


def sync(table: Table) -> list[str]:
    return table.run_engine("sync")


def ab(table: Table) -> Talk:
    orders.comparable(table.view())
    images = yield Question([_("images (empty: as configured)")], optional=True)
    return table.run_engine(*orders.compare(images))


def train(table: Table) -> Talk:
    said = _("Settings as for the engine, e.g. training.epochs=10 model=litecnn_pro")
    settings = yield Question([said, _("settings (empty: as configured)")], optional=True)
    return table.run_engine(*orders.train(settings))


def _which(runs: list[Run]) -> Generator[Question, str, str]:
    """The only run, else the one that the person names."""
    if len(runs) == 1:
        return runs[0].run
    lines = [f"{number}  {run.run}  {_(run.status)}  {run.model or ''}" for number, run in enumerate(runs, 1)]
    answer = yield Question([*lines, _("which run? its number or name")])
    names = [run.run for run in runs]
    return answer if answer in names else names[_number(answer, len(names))]


def stop(table: Table) -> Talk:
    run = yield from _which(orders.running_runs(table.view()))
    yield from _yes([f"{_('Stops run')} {run}"])
    return table.run_engine(*orders.stop(run))


def resume(table: Table) -> Talk:
    run = yield from _which(orders.stopped_runs(table.view()))
    yield from _yes([f"{_('Goes on with run')} {run}"])
    return table.run_engine(*orders.resume(run))


def _checkpoint(table: Table) -> Generator[Question, str, Checkpoint]:
    rows = checkpoints.items(table.view())
    answer = yield Question([_("which checkpoint? its number in `checkpoints`, or its path")])
    return next((row for row in rows if row.path == answer), None) or rows[_number(answer, len(rows))]


def export(table: Table) -> Talk:
    one = orders.whole(table.view(), (yield from _checkpoint(table)))
    formats = yield Question(
        [f"{_('formats')}: {' '.join(orders.FORMATS)}", _("formats (empty: as configured)")], optional=True
    )
    data = yield Question([_("data (empty: as configured)")], optional=True)
    return table.run_engine(*orders.export(table.view(), one, formats, data))


def analyze(table: Table) -> Talk:
    one = orders.whole(table.view(), (yield from _checkpoint(table)))
    data = yield Question([_("data (empty: as configured)")], optional=True)
    return table.run_engine(*orders.analyze(table.view(), one, data))


def deploy(table: Table) -> Talk:
    orders.live(table.view())
    one = yield from _checkpoint(table)
    yield from _yes([_("To TO-BE, through the same checks as sync:"), one.path])
    return table.run_engine("deploy", one.path)


def label(table: Table) -> Talk:
    """`ID CLASS`; `ID skip` and `ID neither` pass it over; nothing lists those that wait."""
    orders.rivals(table.view())
    answer = yield Question(
        [_("which request, and its class? e.g. 3f2a cat, 3f2a skip, 3f2a neither (empty: list those that wait)")],
        optional=True,
    )
    request, _blank, name = answer.partition(" ")
    if not request:
        return table.ask_engine("label", "--limit", "24", tell=_waiting)
    if name in ("skip", "neither"):
        return table.run_engine("label", f"--{name}", request)
    if not name:
        raise Refused(_("a class is missing"))
    return table.run_engine("label", request, name)


def _waiting(answer: dict[str, Any]) -> list[str]:
    items = answer.get("items") or []
    lines = [
        f"{one.get('id')}  {_('or').join(' ' + str(said.get('label')) + ' ' for said in one.get('answers') or [])}"
        for one in items
    ]
    return [line.rstrip() for line in lines] or [_("no request waits for a label")]


def serve(table: Table) -> Talk:
    down = orders.down_slots(table.view())
    yield from _yes([f"{_('Serves')} {' '.join('AS-IS' if name == 'asis' else 'TO-BE' for name in down)}"])
    return table.run_engine(*orders.serve(down))


def hold(table: Table) -> Talk:
    held = orders.held(table.view())
    if held is not None:
        yield from _yes([f"{_('TO-BE is kept as it is')} {held.by or ''} {held.reason or ''}".rstrip()])
        return table.run_engine("unhold")
    said = _("Keeps TO-BE as it is: sync goes on looking, but deploys nothing.")
    reason = yield Question([said, _("reason (may be empty)")], optional=True)
    return table.run_engine(*orders.hold(reason))


def reject(table: Table) -> Talk:
    release = orders.candidate(table.view())
    reason = yield Question(
        [f"{_('Never deploys this release again:')} {text.short(release)}", _("reason (may be empty)")],
        optional=True,
    )
    yield from _yes([])
    return table.run_engine(*orders.reject(table.view(), release, reason))


# what only looks -------------------------------------------------------------------------------------


def _row(table: Table) -> Generator[Question, str, View]:
    """A view whose cursor stands on the row that the person names."""
    answer = yield Question([_("which row? e.g. checkpoints 2, events 1, training 1")])
    pane, _blank, number = answer.partition(" ")
    if pane not in ROWS:
        raise Refused(f"{_('there is no row')} {answer}")
    view = table.view()
    view.ui.focus = pane
    view.ui.place(pane).cursor = _number(number.strip(), _count(view, pane))
    return view


def _count(view: View, pane: str) -> int:
    if pane == "checkpoints":
        return len(checkpoints.items(view))
    return len(events.items(view) if pane == "events" else training.items(view))


def details(table: Table) -> Talk:
    view = yield from _row(table)
    heading, facts = facts_of(view)
    return [heading, *(row.plain.rstrip() for row in fact_rows(facts, WIDTH))]


def subject(table: Table) -> Talk:
    number = yield Question([_("which event? its number in `events`")])
    rows = events.items(table.view())
    view = table.view()
    view.ui.focus, row = subjects.find(view, rows[_number(number, len(rows))])
    view.ui.filters[view.ui.focus] = ""
    view.ui.place(view.ui.focus).cursor = row
    heading, facts = facts_of(view)
    return [heading, *(one.plain.rstrip() for one in fact_rows(facts, WIDTH))]


def copy(table: Table) -> Talk:
    view = yield from _row(table)
    if view.ui.focus == "checkpoints":
        one = checkpoints.selected(view)
        return [one.sha256 or one.path] if one else []
    if view.ui.focus == "events":
        event = events.selected(view)
        return [event.subject] if event else []
    run = training.selected(view)
    return [run.name] if run else []


def mark(table: Table) -> Talk:
    answer = yield Question([_("which two checkpoints? their numbers in `checkpoints`, e.g. 1 2")])
    rows = checkpoints.items(table.view())
    numbers = answer.split()
    if len(numbers) != 2:
        raise Refused(f"{_('there is no row')} {answer}")
    pair = [rows[_number(number, len(rows))] for number in numbers]
    return [row.plain.rstrip() for row in compare_rows(pair, table.view(), WIDTH)]


def choose_filter(table: Table) -> Talk:
    answer = yield Question(
        [_("which pane, and which text? e.g. checkpoints nan; the pane alone shows all again")]
    )
    pane, _blank, wanted = answer.partition(" ")
    if pane not in ROWS:
        raise Refused(f"{_('there is no pane')} {pane}")
    table.view().ui.filters[pane] = wanted.strip()
    return [f"{_('filter')} {pane}: {wanted.strip() or text.NONE}"]


def images(table: Table) -> list[str]:
    return table.ask_engine("differing", "--limit", "24", "--width", "8", tell=_images)


def _images(answer: dict[str, Any]) -> list[str]:
    found = answer.get("images") or []
    lines = [f"{_('Images on which the slots differ')}: {text.number(answer.get('total') or len(found))}"]
    for one in found:
        said = f"AS-IS {one.get('asis') or text.NONE}, TO-BE {one.get('tobe') or text.NONE}"
        lines.append(f"{one.get('label')}: {said}  {one.get('path') or text.short(one.get('sha256'))}")
    return lines


def board(table: Table) -> list[str]:
    return table.ask_engine("go", *asking(1), tell=lambda answer: _board_lines(table, answer))


def _board_lines(table: Table, answer: dict[str, Any]) -> list[str]:
    return [row.plain.rstrip() for row in drawn(table.view(), answer, WIDTH)]


def _read(rows: Callable[[View, int], list[Row]]) -> Callable[[Table], list[str]]:
    """A sheet of `console.sheets.findings` as lines."""
    return lambda table: [row.plain.rstrip() for row in rows(table.view(), WIDTH)]


def log(table: Table) -> Talk:
    answer = yield Question([_("which log? asis, tobe, sync, or a run")])
    return table.ask_engine("logs", answer.strip(), "--lines", "30", tell=_log)


def _log(answer: dict[str, Any]) -> list[str]:
    return [f"{_('Log')} {answer.get('name')}", *(str(line) for line in answer.get("lines") or [])]


TALKS: dict[str, Callable[[Table], Talk | list[str]]] = {
    "sync": sync, "ab": ab, "promote": promote, "rollback": rollback, "undo": undo, "train": train, "stop": stop,
    "resume": resume, "deploy": deploy, "serve": serve, "hold": hold, "reject": reject, "label": label, "open": details,
    "export": export, "analyze": analyze, "confusion": _read(findings.confusion_rows), "sweeps": _read(findings.sweep_rows),
    "cloud": _read(findings.cloud_rows),
    "proof": _read(findings.proof_rows), "subject": subject, "images": images, "board": board, "log": log, "filter": choose_filter, "mark": mark, "copy": copy,
}  # fmt: skip
