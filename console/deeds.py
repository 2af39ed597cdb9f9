"""What each action of the registry does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from console import text
from console.layout import PANES
from console.panes import checkpoints, events, training
from console.replay import Replay
from console.widgets.rows import Row
from console.words import _

if TYPE_CHECKING:
    from console.app import ConsoleApp

PAGE = 10
FILTERED = ("checkpoints", "events")


# panes and moving ------------------------------------------------------------------------------------


def go(name: str) -> Callable[[ConsoleApp], None]:
    """To a pane; once more, and it is zoomed."""

    def act(app: ConsoleApp) -> None:
        app.ui.focus = name
        app.arrange()

    return act


def step(steps: int) -> Callable[[ConsoleApp], None]:
    def act(app: ConsoleApp) -> None:
        app.ui.focus = PANES[(PANES.index(app.ui.focus) + steps) % len(PANES)]
        app.arrange()

    return act


def zoom(app: ConsoleApp) -> None:
    app.ui.zoomed = not app.ui.zoomed
    app.arrange()


def move(app: ConsoleApp, steps: int) -> None:
    place = app.ui.place(app.ui.focus)
    place.cursor = max(0, place.cursor + steps)
    app.redraw()


def jump(end: bool) -> Callable[[ConsoleApp], None]:
    def act(app: ConsoleApp) -> None:
        app.ui.place(app.ui.focus).cursor = 10**9 if end else 0
        app.redraw()

    return act


def click(app: ConsoleApp, name: str, row: int) -> None:
    """The mouse on a pane: it gets the focus, and a list's row the cursor."""
    app.ui.focus = name
    place = app.ui.place(name)
    if name == "checkpoints" and row > 0:
        place.cursor = place.top + row - 1
    elif name == "events":
        place.cursor = place.top + row
    app.arrange()


# looking ---------------------------------------------------------------------------------------------


def start_filter(app: ConsoleApp) -> None:
    if app.ui.focus not in FILTERED:
        go("checkpoints")(app)
    app.filter.set(app.ui.filters.get(app.ui.focus, ""))
    app.filter.styles.display = "block"
    app.filter.focus()


def filtered(app: ConsoleApp, wanted: str) -> None:
    app.ui.filters[app.ui.focus] = wanted.strip()
    app.ui.place(app.ui.focus).cursor = 0
    app.redraw()


def end_filter(app: ConsoleApp) -> None:
    filtered(app, app.filter.value)
    app.filter.styles.display = "none"
    app.screen.set_focus(None)


def sort(app: ConsoleApp) -> None:
    names = list(checkpoints.SORTS)
    app.ui.sort = names[(names.index(app.ui.sort) + 1) % len(names)]
    app.say(f"{_('sorted by')} {_(app.ui.sort)}", "dim")
    app.redraw()


def reverse(app: ConsoleApp) -> None:
    app.ui.descending = not app.ui.descending
    app.redraw()


def mark(app: ConsoleApp) -> None:
    """Mark the selected checkpoint; the second mark opens the two side by side."""
    one = checkpoints.selected(app.view())
    if one is None:
        return
    if one.path in app.ui.marks:
        app.ui.marks.remove(one.path)
    else:
        app.ui.marks = [*app.ui.marks[-1:], one.path]
    app.redraw()
    if len(app.ui.marks) == 2:
        from console.sheets.details import compare_checkpoints

        compare_checkpoints(app)


def details(app: ConsoleApp) -> None:
    from console.sheets.details import details as show

    show(app)


def log(app: ConsoleApp) -> None:
    from console.sheets.asking import Read

    path = app.commands.last
    if path is None:
        app.say(_("no command has been started here yet"), "dim")
        return

    def lines(_view: object, width: int) -> list[Row]:
        rows: list[Row] = []
        for file in (path, path.with_suffix(".json")):
            try:
                said = file.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
            except OSError as error:
                said = [str(error)]
            for line in said:
                rows += [Row(part) for part in text.wrap(line, width)] or [Row()]
        return rows or [Row(_("nothing was said yet"), "dim")]

    app.open_sheet(Read(app, f"{_('Log')} {path.name}", lines))


def copy(app: ConsoleApp) -> None:
    """The selected row's hash, else its path, to the terminal's clipboard (OSC 52) and into a file."""
    found = ""
    if app.ui.focus == "events":
        event = events.selected(app.view())
        found = event.subject if event else ""
    elif app.ui.focus == "training":
        chosen = training.shown(app.view())
        found = chosen[1].run if chosen else ""
    else:
        one = checkpoints.selected(app.view())
        found = (one.sha256 or one.path) if one else ""
    if not found:
        app.say(_("nothing to copy here"), "dim")
        return
    app.copy_to_clipboard(found)
    kept = app.commands.folder.parent / "clipboard.txt"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(found + "\n", encoding="utf-8")
    except OSError as error:
        app.say(f"{_('copied')} {text.clip(found, 20)} ({error.strerror})", "warning")
        return
    app.say(f"{_('copied')} {text.clip(found, 20)} ({_('also in')} {kept})", "dim")


def picture(app: ConsoleApp) -> None:
    name = Path(f"understudy-{datetime.now():%Y%m%d-%H%M%S}.svg").absolute()
    try:
        name.write_text(app.export_screenshot(title="Understudy"), encoding="utf-8")
    except OSError as error:
        app.say(f"{_('no picture')}: {error}", "danger")
        return
    app.say(f"{_('picture')}: {name}", "good")


def next_theme(app: ConsoleApp) -> None:
    names = sorted(app.themes)
    app.choose_theme(names[(names.index(app.look.name) + 1) % len(names)])


def close(app: ConsoleApp) -> None:
    if app.ui.filters.get(app.ui.focus):
        filtered(app, "")
    elif app.ui.zoomed:
        zoom(app)
    elif app.ui.marks:
        app.ui.marks = []
        app.redraw()


def palette(app: ConsoleApp) -> None:
    from console.sheets.asking import Palette

    app.open_sheet(Palette(app))


def help_(app: ConsoleApp) -> None:
    from console.sheets.asking import Read, help_lines

    app.open_sheet(Read(app, _("Keys"), help_lines(app)))


# replay ----------------------------------------------------------------------------------------------


def replaying(act: Callable[[Replay], None]) -> Callable[[ConsoleApp], None]:
    def do(app: ConsoleApp) -> None:
        if isinstance(app.feed, Replay):
            act(app.feed)
            app.take()

    return do


def _doing(name: str) -> Callable[[ConsoleApp], None]:
    """An action of `console.changes`, which is read when it is first needed."""

    def act(app: ConsoleApp) -> None:
        from console import changes

        getattr(changes, name)(app)

    return act


DEEDS: dict[str, Callable[[ConsoleApp], None]] = {
    **{
        name: _doing(name)
        for name in (
            "sync", "ab", "promote", "rollback", "undo", "train", "deploy", "resume", "serve",
            "hold", "reject",
        )
    },
    **{f"pane_{name}": go(name) for name in PANES},
    "pane_next": step(1),
    "pane_previous": step(-1),
    "zoom": zoom,
    "up": lambda app: move(app, -1),
    "down": lambda app: move(app, 1),
    "page_up": lambda app: move(app, -PAGE),
    "page_down": lambda app: move(app, PAGE),
    "top": jump(False),
    "bottom": jump(True),
    "open": details,
    "filter": start_filter,
    "sort": sort,
    "reverse": reverse,
    "mark": mark,
    "log": log,
    "copy": copy,
    "picture": picture,
    "theme": next_theme,
    "replay_pause": replaying(Replay.pause),
    "replay_back": replaying(lambda replay: replay.seek(-10)),
    "replay_on": replaying(lambda replay: replay.seek(10)),
    "replay_slower": replaying(lambda replay: replay.faster(-1)),
    "replay_faster": replaying(lambda replay: replay.faster(1)),
    "palette": palette,
    "help": help_,
    "close": close,
    "quit": lambda app: app.exit(),
}  # fmt: skip
