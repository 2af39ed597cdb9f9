"""What each action of the registry does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from console import sorting, text
from console.actions import BY_ID
from console.desk import Desk
from console.layout import PANES
from console.orders import Refused
from console.panes import checkpoints, events, log, training
from console.replay import Replay
from console.words import _

PAGE = 10
FILTERED = ("devices", "training", "checkpoints", "events", "log")
Deed = Callable[[Desk], None]


# panes and moving ------------------------------------------------------------------------------------


def go(name: str) -> Deed:
    """To a pane."""

    def act(desk: Desk) -> None:
        desk.ui.focus = name
        desk.arrange()

    return act


def step(steps: int) -> Deed:
    def act(desk: Desk) -> None:
        desk.ui.focus = PANES[(PANES.index(desk.ui.focus) + steps) % len(PANES)]
        desk.arrange()

    return act


def zoom(desk: Desk) -> None:
    desk.ui.zoomed = not desk.ui.zoomed
    desk.arrange()


def move(desk: Desk, steps: int) -> None:
    place = desk.ui.place(desk.ui.focus)
    place.cursor = max(0, place.cursor + steps)
    desk.redraw()


def jump(end: bool) -> Deed:
    def act(desk: Desk) -> None:
        desk.ui.place(desk.ui.focus).cursor = 10**9 if end else 0
        desk.redraw()

    return act


def click(desk: Desk, name: str, row: int) -> None:
    """The mouse on a pane: it gets the focus, and a list's row the cursor; a slot's box stands for both slots."""
    desk.ui.focus = name = name if name in PANES else "slots"
    place = desk.ui.place(name)
    if place.first is not None and row >= place.first:
        place.cursor = place.top + row - place.first
    desk.arrange()


# looking ---------------------------------------------------------------------------------------------


def start_filter(desk: Desk) -> None:
    if desk.ui.focus not in FILTERED:
        raise Refused(_("there is no list to filter here"), "dim")
    desk.focus_filter(desk.ui.filters.get(desk.ui.focus, ""))


def filtered(desk: Desk, wanted: str) -> None:
    desk.ui.filters[desk.ui.focus] = wanted.strip()
    desk.ui.place(desk.ui.focus).cursor = 0
    desk.redraw()


def end_filter(desk: Desk) -> None:
    desk.leave_filter()
    desk.redraw()


def sort(desk: Desk) -> None:
    """By the next column, and then by the first again; a pane without an order of its own sorts the checkpoints."""
    column = sorting.next_column(desk.ui)
    desk.say(f"{_('sorted by')} {_(column)}", "dim")
    desk.redraw()


def reverse(desk: Desk) -> None:
    order = sorting.order_of(desk.ui)
    order.descending = not order.descending
    desk.redraw()


def mark(desk: Desk) -> None:
    """Mark the selected checkpoint; the second mark opens the two side by side."""
    one = checkpoints.selected(desk.view())
    if one is None:
        return
    if one.path in desk.ui.marks:
        desk.ui.marks.remove(one.path)
    else:
        desk.ui.marks = [*desk.ui.marks[-1:], one.path]
    desk.redraw()
    if len(desk.ui.marks) == 2:
        from console.sheets.details import compare_checkpoints

        compare_checkpoints(desk)


def details(desk: Desk) -> None:
    from console.sheets.details import details as show

    show(desk)


def subject(desk: Desk) -> None:
    """From the selected event to the row, the run or the comparison that it is about."""
    from console import subjects

    event = events.selected(desk.view()) if desk.ui.focus == "events" else None
    if event is None:
        raise Refused(_("choose an event first"), "dim")
    pane, row = subjects.find(desk.view(), event)
    desk.ui.filters[pane] = ""
    desk.ui.focus = pane
    desk.ui.place(pane).cursor = row
    desk.arrange()


def read(name: str) -> Deed:
    """A sheet of `console.sheets.findings`."""

    def act(desk: Desk) -> None:
        from console.sheets import findings

        desk.open_sheet(getattr(findings, name)(desk))

    return act


def images(desk: Desk) -> None:
    from console.sheets.images import Images

    desk.open_sheet(Images(desk))


def board(desk: Desk) -> None:
    from console.sheets.board import Board

    desk.open_sheet(Board(desk))


def choose_log(desk: Desk) -> None:
    from console.sheets.choosing import logs

    desk.open_sheet(logs(desk))


def copied(desk: Desk) -> str:
    """What `copy` takes from the pane that has the focus: a hash, a path, a name or a line; "" for nothing."""
    view = desk.view()
    if desk.ui.focus == "events":
        event = events.selected(view)
        return event.subject if event else ""
    if desk.ui.focus == "training":
        run = training.selected(view)
        return run.name if run else ""
    if desk.ui.focus == "log":
        lines = log.items(view)
        return lines[max(0, min(view.ui.place("log").cursor, len(lines) - 1))] if lines else ""
    if desk.ui.focus == "checkpoints":
        one = checkpoints.selected(view)
        return (one.sha256 or one.path) if one else ""
    slots = view.store.slots
    return (slots.tobe.release or slots.asis.release or "") if slots else ""


def copy(desk: Desk) -> None:
    """To the terminal's clipboard (OSC 52), and into a file for a terminal that does not take it."""
    found = copied(desk)
    if not found:
        raise Refused(_("nothing to copy here"), "dim")
    try:
        kept = desk.clip(found)
    except OSError as error:
        desk.say(f"{_('copied')} {text.clip(found, 20)} ({error.strerror})", "warning")
        return
    desk.say(f"{_('copied')} {text.clip(found, 20)} ({_('also in')} {kept})", "dim")


def picture(desk: Desk) -> None:
    name = Path(f"understudy-{datetime.now():%Y%m%d-%H%M%S}.svg").absolute()
    try:
        name.write_text(desk.picture(), encoding="utf-8")
    except OSError as error:
        desk.say(f"{_('no picture')}: {error}", "danger")
        return
    desk.say(f"{_('picture')}: {name}", "good")


def theme(desk: Desk) -> None:
    from console.sheets.choosing import themes

    desk.open_sheet(themes(desk))


def close(desk: Desk) -> None:
    if desk.ui.filters.get(desk.ui.focus):
        filtered(desk, "")
    elif desk.ui.zoomed:
        zoom(desk)
    elif desk.ui.marks:
        desk.ui.marks = []
        desk.redraw()


def palette(desk: Desk) -> None:
    from console.sheets.choosing import Palette

    desk.open_sheet(Palette(desk))


def help_(desk: Desk) -> None:
    from console.sheets.asking import Read, help_lines

    desk.open_sheet(Read(desk, _("Keys"), help_lines(desk)))


# replay ----------------------------------------------------------------------------------------------


def replaying(act: Callable[[Replay], None]) -> Deed:
    def do(desk: Desk) -> None:
        if isinstance(desk.feed, Replay):
            act(desk.feed)
            desk.take()

    return do


def _changing(name: str) -> Deed:
    """An action of `console.changes`, which is read when it is first needed."""

    def act(desk: Desk) -> None:
        from console import changes

        getattr(changes, name)(desk)

    return act


DEEDS: dict[str, Deed] = {
    **{action.id: _changing(action.id) for action in BY_ID.values() if action.changes},
    **{f"pane_{name}": go(name) for name in PANES},
    "pane_next": step(1),
    "pane_previous": step(-1),
    "zoom": zoom,
    "up": lambda desk: move(desk, -1),
    "down": lambda desk: move(desk, 1),
    "page_up": lambda desk: move(desk, -PAGE),
    "page_down": lambda desk: move(desk, PAGE),
    "top": jump(False),
    "bottom": jump(True),
    "open": details,
    "subject": subject,
    "confusion": read("confusion_sheet"),
    "proof": read("proof_sheet"),
    "sweeps": read("sweeps_sheet"),
    "cloud": read("cloud_sheet"),
    "images": images,
    "board": board,
    "log": choose_log,
    "filter": start_filter,
    "sort": sort,
    "reverse": reverse,
    "mark": mark,
    "copy": copy,
    "picture": picture,
    "theme": theme,
    "replay_pause": replaying(Replay.pause),
    "replay_back": replaying(lambda replay: replay.seek(-10)),
    "replay_on": replaying(lambda replay: replay.seek(10)),
    "replay_slower": replaying(lambda replay: replay.faster(-1)),
    "replay_faster": replaying(lambda replay: replay.faster(1)),
    "palette": palette,
    "help": help_,
    "close": close,
    "quit": lambda desk: desk.leave(),
}
