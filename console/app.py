"""The console's app: panes on a plan, the feed's messages in, keys and clicks to actions."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual import events
from textual.app import App, ComposeResult
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget

from console import deeds, layout
from console.actions import ACTIONS, BY_ID, Action
from console.commands import Commands, Outcome
from console.feed import Feed
from console.glyphs import ASCII, UNICODE
from console.options import Options
from console.panes import checkpoints, compare, devices, frame, road, slots, training
from console.panes import events as event_log
from console.replay import Replay
from console.sheets.base import Sheet
from console.store import Store
from console.theme import ConsoleTheme, load_themes, stamp
from console.view import Ui, View
from console.widgets.canvas import Canvas
from console.widgets.entry import Entry
from console.wire import tighten
from console.words import _

BRAND = "UNDERSTUDY"
TICK_S = 5.0
DRAW = {
    "devices": devices.draw,
    "training": training.draw,
    "checkpoints": checkpoints.draw,
    "compare": compare.draw,
    "events": event_log.draw,
}


class ConsoleApp(App[None], inherit_bindings=False):
    """Draws what the feed says. Everything that takes time happens in threads and child processes."""

    TITLE = "Understudy"
    AUTO_FOCUS = None
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layers: base panes sheet; overflow: hidden; }
    Screen > Canvas { position: absolute; layer: panes; }
    #frame { layer: base; width: 100%; height: 100%; }
    #filter { position: absolute; layer: sheet; height: 1; display: none; }
    """

    class Arrived(Message):
        """Something new lies with the feed."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, type(self))

    class Ended(Message):
        """A command that was started here has ended."""

        def __init__(self, outcome: Outcome) -> None:
            super().__init__()
            self.outcome = outcome

    def __init__(
        self,
        options: Options,
        themes: dict[str, ConsoleTheme],
        keys: dict[str, tuple[str, ...]],
        feed: Feed | None = None,
        *,
        store: Store | None = None,
        now: Callable[[], float] = time.time,
        commands: Commands | None = None,
    ) -> None:
        self.options = options
        self.themes = themes
        self.look = themes[options.theme]
        super().__init__(ansi_color=self.look.terminal)
        self._disable_tooltips = self._disable_notifications = True
        self.animation_level = "none"
        self.feed = feed
        self.replaying = isinstance(feed, Replay)
        self.store = store or Store()
        self._clock = now
        # Textual cuts every row at the edges of the widgets below it too: a double-width character that
        # lies on such an edge is lost, so that in Korean the panes are hidden while a sheet is open
        self._wide = options.language == "ko"
        self.ui = Ui()
        self.glyphs = ASCII if options.ascii else UNICODE
        self.keys = keys
        self.by_key = {key: action for action, names in keys.items() for key in names}
        self.commands = commands or Commands(self._ended)
        self.notice: tuple[str, str] = ("", "")
        self.sheet: Sheet | None = None
        self.plan = layout.plan(80, 24, self.ui.focus)
        self._devices_rows = 0
        self._spots: list[tuple[int, int, str]] = []
        self._canvases: dict[str, Canvas] = {}
        self.theme_folders: list[Path] | None = None
        self._themes_stamp = stamp()

    # building ------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        for name in ("frame", "road", "asis", "tobe", *layout.PANES, "footer"):
            self._canvases[name] = Canvas(self.look, id=name)
            yield self._canvases[name]
        self.filter = Entry(self.look, id="filter", prompt="/ ", ground="background")
        yield self.filter

    def on_mount(self) -> None:
        self.arrange()
        self.set_interval(TICK_S, self.tick)
        if self.feed is not None:
            self.store.feed_since = self._now()
            self.feed.start(self._wake)

    def _wake(self) -> None:
        self.post_message(self.Arrived())

    def _ended(self, outcome: Outcome) -> None:
        self.post_message(self.Ended(outcome))

    def _now(self) -> float:
        """The present time; a recording has its own."""
        return self.feed.now if isinstance(self.feed, Replay) else self._clock()

    def on_unmount(self) -> None:
        if self.feed is not None:
            self.feed.stop()

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self.arrange)

    def arrange(self) -> None:
        """Put every canvas where the plan for this size wants it."""
        width, height = self.size
        self.plan = plan = layout.plan(width, height, self.ui.focus, self.ui.zoomed, self._devices_rows)
        placed = {"road": (0, 0, width, plan.road), "footer": (0, height - 1, width, 1)}
        for name, canvas in self._canvases.items():
            if name == "frame":
                continue
            region = placed.get(name) or plan.region(name)
            hidden = self._wide and self.sheet is not None and name in layout.BOXES
            canvas.display = bool(region and region[2] > 0 and region[3] > 0 and not hidden)
            if region and canvas.display:
                _place(canvas, *region)
        _place(self.filter, 1, height - 1, max(1, width - 2), 1)
        self.redraw()

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        super()._display(screen, tighten(renderable))

    # drawing -------------------------------------------------------------------------------------------

    def view(self) -> View:
        return View(self.store, self._now(), self.glyphs, self.ui, self.keys)

    def redraw(self) -> None:
        """Every canvas draws its rows anew; only cells that changed go out."""
        if not self._canvases:
            return
        view = self.view()
        if (needed := devices.rows_needed(view)) != self._devices_rows:
            self._devices_rows = needed
            self.arrange()
            return
        plan = self.plan
        show = self._canvases
        show["frame"].show(frame.draw(view, plan))
        show["road"].show(road.draw(view, plan.width, plan.road, self.brand()))
        for name in ("asis", "tobe"):
            if region := plan.region(name):
                show[name].show(slots.draw(view, name, region[2], region[3]))
        for name, draw in DRAW.items():
            if region := plan.region(name):
                show[name].show(draw(view, region[2], region[3]))
        self.draw_footer()
        if self.sheet is not None and self.sheet.is_mounted:
            self.sheet.draw(view)

    def draw_footer(self) -> None:
        offered = [action for action in ACTIONS if self.offered(action)]
        row, self._spots = frame.footer(self.plan.width, offered, self.keys, self.notice, self.tail())
        self._canvases["footer"].show([row])

    def tail(self) -> str:
        """What the last line says at its end: what runs, and lines of the feed that could not be read."""
        said = []
        if self.feed is not None and self.feed.damaged:
            said.append(f"{_('damaged lines')}: {self.feed.damaged}")
        if under_way := self.commands.under_way():
            said.append(f"{_('running')}: {', '.join(under_way)}")
        return "  ".join(said)

    def brand(self) -> str:
        words = [BRAND]
        if isinstance(self.feed, Replay):
            words = [_("PAUSED") if self.feed.paused else f"{_('REPLAY')} {self.feed.speed:g}×"]
        elif self.options.readonly:
            words = [_("READ ONLY")]
        return " ".join(words)

    def tick(self) -> None:
        """Ages go on by themselves; theme files that were changed are read again."""
        now = stamp(self.theme_folders)
        if now != self._themes_stamp:
            self._themes_stamp = now
            self.reload_themes()
        self.redraw()

    def reload_themes(self) -> None:
        """Read every theme again; a faulty one keeps its last good state."""
        themes, faults = load_themes(self.theme_folders)
        self.themes = {**self.themes, **themes}
        if self.themes[self.look.name] != self.look:
            self.choose_theme(self.look.name)
        if faults:
            self.say("  ".join(str(fault) for fault in faults), "danger")

    def choose_theme(self, name: str) -> None:
        """Draw with another theme from now on."""
        self.look = self.themes[name]
        self.ansi_color = self.look.terminal
        for canvas in (*self._canvases.values(), self.filter):
            canvas.restyle(self.look)
        if self.sheet is not None:
            self.sheet.restyle(self.look)
        self.say(f"{_('theme')}: {name}", "dim")

    def say(self, sentence: str, role: str = "") -> None:
        """One sentence on the last line, until the next key."""
        self.notice = (sentence, role)
        self.draw_footer()

    # what comes in -------------------------------------------------------------------------------------

    def on_console_app_arrived(self, _event: Arrived) -> None:
        self.take()

    def take(self) -> None:
        """Whatever lies with the feed goes into the store, then everything is drawn."""
        feed, now = self.feed, self._now()
        if feed is None:
            return
        if isinstance(feed, Replay) and feed.jumped():
            self.store.clear()
        for message in feed.drain():
            self.store.apply(message, now)
        state = "offline" if feed.problem else "live"
        if state != self.store.feed:
            self.store.feed_since = now
        self.store.feed, self.store.feed_why = ("offline" if feed.problem else "live"), feed.problem
        self.redraw()

    def on_console_app_ended(self, event: Ended) -> None:
        outcome = event.outcome
        self.say(outcome.sentence, outcome.role)
        if outcome.role == "danger":
            self.bell()

    # what a person does --------------------------------------------------------------------------------

    def keys_of(self, action: str) -> tuple[str, ...]:
        return self.keys.get(action, ())

    def offered(self, action: Action) -> bool:
        """Whether an action makes sense now: replay's only in a replay, changing ones only where allowed."""
        if action.when == "replay":
            return self.replaying
        return not (action.changes and (self.options.readonly or self.replaying))

    async def on_key(self, event: events.Key) -> None:
        if event.key == "ctrl+c":
            event.prevent_default()
            self.exit()
            return
        if self.sheet is not None:
            await self._sheet_key(self.sheet, event)
            return
        if self.filter.has_focus:
            if event.key == "escape":
                event.prevent_default()
                self.filter.set("")
                deeds.end_filter(self)
            return
        action = self.by_key.get(event.key) or self.by_key.get(event.character or "")
        if action is None:
            return
        event.prevent_default()
        event.stop()
        if self.notice[0]:
            self.notice = ("", "")
            self.draw_footer()
        self.do(action)

    async def _sheet_key(self, sheet: Sheet, event: events.Key) -> None:
        event.prevent_default()
        event.stop()
        if event.key == "escape" or (event.key == "q" and not isinstance(self.focused, Entry)):
            self.close_sheet(sheet)
        elif event.key in ("tab", "shift+tab"):
            sheet.move_focus(1 if event.key == "tab" else -1)
        elif not sheet.key(event.key) and event.key in ("left", "right", "up", "down", "h", "l"):
            sheet.move_focus(1 if event.key in ("right", "down", "l") else -1)

    def do(self, action: str) -> None:
        """Do an action of the registry; one that is refused here says why."""
        wanted = BY_ID[action]
        if wanted.changes and (self.options.readonly or self.replaying):
            said = (
                _("read only: nothing is changed from here") if self.options.readonly else _("this is a recording")
            )
            self.say(said, "warning")
            return
        if self.offered(wanted):
            deeds.DEEDS[action](self)

    def on_click(self, event: events.Click) -> None:
        name = event.widget.id if event.widget is not None else None
        if self.sheet is not None:
            return
        if name == "footer":
            for start, end, action in self._spots:
                if start <= event.x < end:
                    self.notice = ("", "")
                    self.do(action)
        elif name in layout.PANES:
            deeds.click(self, str(name), event.y)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        deeds.move(self, 3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        deeds.move(self, -3)

    def on_entry_changed(self, event: Entry.Changed) -> None:
        deeds.filtered(self, event.entry.value)

    def on_entry_submitted(self, _event: Entry.Submitted) -> None:
        deeds.end_filter(self)

    # sheets and commands -------------------------------------------------------------------------------

    def open_sheet(self, sheet: Sheet) -> None:
        if self.sheet is None:
            self.sheet = sheet
            self.screen.mount(sheet)
            if self._wide:
                self.arrange()

    def close_sheet(self, sheet: Sheet) -> None:
        if self.sheet is sheet:
            self.sheet = None
            self.screen.set_focus(None)
            sheet.remove()
            if self._wide:
                self.arrange()

    def run_engine(self, verb: str, *words: str) -> None:
        """Start an engine command; its outcome is said on the last line."""
        try:
            self.commands.start(self.options.engine(verb, *words, "--json"), verb)
        except OSError as error:
            self.say(f"{verb} {_('cannot start')}: {error}", "danger")
            return
        self.say(f"{verb} {_('started')}", "dim")


def _place(widget: Widget, x: int, y: int, width: int, height: int) -> None:
    widget.styles.offset = (x, y)
    widget.styles.width = width
    widget.styles.height = height
