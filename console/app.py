"""The console's app: the feed's messages in, keys and clicks to actions, sheets over the board."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual import events
from textual.app import App, ComposeResult
from textual.message import Message
from textual.screen import Screen

from console import deeds, layout
from console.actions import ACTIONS, BY_ID, Action
from console.board import Board, brand, place, under_way
from console.commands import Commands
from console.compositor import ConsoleScreen
from console.desk import Panel
from console.feed import Feed, LiveFeed
from console.follower import Follower
from console.glyphs import ASCII, UNICODE
from console.news import Answered, Arrived, Ended
from console.options import Options
from console.orders import Refused
from console.panes import frame
from console.replay import Replay
from console.store import Store
from console.text import moment
from console.theme import ConsoleTheme, fitting, load_themes, stamp
from console.view import Ui, View
from console.widgets.entry import Entry
from console.wire import tighten
from console.words import _

TICK_S = 5.0
SETTLED_S = 1.5  # by then the first picture stands


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
        self.themes = fitting(themes, options.ascii)
        self.look = self.themes[options.theme]
        super().__init__(ansi_color=self.look.terminal)
        self._disable_tooltips = self._disable_notifications = True
        self.animation_level = "none"
        self.feed = feed
        self.store = store or Store()
        self._clock = now
        self.ui = Ui()
        self.glyphs = ASCII if options.ascii else UNICODE
        self.keys = keys
        self.by_key = {key: action for action, names in keys.items() for key in names}
        self.commands = commands or Commands(lambda outcome: self._post(Ended(outcome)))
        self.log_lines = Follower(options, self.commands, self._wake)
        self.notice: tuple[str, str] = ("", "")
        self.sheet: Panel | None = None
        self.board = Board(self.look)
        self._spots: list[tuple[int, int, str]] = []
        self.theme_folders: list[Path] | None = None
        self._themes_stamp = stamp()

    @property
    def replaying(self) -> bool:
        return isinstance(self.feed, Replay)

    # building ------------------------------------------------------------------------------------------

    def get_default_screen(self) -> Screen[Any]:
        return ConsoleScreen()

    def compose(self) -> ComposeResult:
        yield from self.board
        self.filter = Entry(self.look, id="filter", prompt="/ ", ground="background")
        yield self.filter

    def on_mount(self) -> None:
        self.arrange()
        self.set_interval(TICK_S, self.tick)
        if not gc.isenabled():
            self.set_timer(SETTLED_S, _collect_from_now)
        if self.feed is not None:
            self.store.feed_since = self._now()
            self.feed.start(self._wake)

    def _post(self, message: Message) -> None:
        """From any thread; what comes after the end is dropped."""
        if self.is_running:
            self.post_message(message)

    def _wake(self) -> None:
        self._post(Arrived())

    def _now(self) -> float:
        """The present time; a recording has its own."""
        return self.feed.now if isinstance(self.feed, Replay) else self._clock()

    def on_unmount(self) -> None:
        self.log_lines.stop()
        if self.feed is not None:
            self.feed.stop()

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self.arrange)

    def arrange(self) -> None:
        """Lay out anew for the size, the focus and the zoom."""
        width, height = self.size
        self.board.arrange(self.size, self.ui)
        place(self.filter, 1, height - 1, max(1, width - 2), 1)
        self._look_at_log()
        self.redraw()

    def _look_at_log(self) -> None:
        """A log is followed while its pane is on the screen; a recording holds none."""
        if isinstance(self.feed, LiveFeed) and self.store.runs is not None:
            self.log_lines.look(self.view(), self.board.shows("log"))

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        super()._display(screen, tighten(renderable))

    # drawing -------------------------------------------------------------------------------------------

    def view(self) -> View:
        return View(self.store, self._now(), self.glyphs, self.ui, self.keys, self.log_lines.shown)

    def redraw(self) -> None:
        """Every canvas draws its rows anew; only cells that changed go out."""
        view = self.view()
        self.board.draw(view, self.size, brand(self.feed, self.options.readonly))
        self.draw_footer()
        if self.sheet is not None and self.sheet.is_mounted:
            self.sheet.draw(view)

    def draw_footer(self) -> None:
        offered = [action for action in ACTIONS if self.offered(action)]
        row, self._spots = frame.footer(
            self.board.plan.width, offered, self.keys, self.notice, under_way(self.feed, self.commands)
        )
        self.board.footer(row)

    def tick(self) -> None:
        """Ages go on by themselves; theme files that were changed are read again."""
        now = stamp(self.theme_folders)
        if now != self._themes_stamp:
            self._themes_stamp = now
            self.reload_themes()
        if self.feed is not None:
            self.take()
        else:
            self._look_at_log()
            self.redraw()

    def reload_themes(self) -> None:
        """Read every theme again; a faulty one keeps its last good state."""
        themes, faults = load_themes(self.theme_folders)
        self.themes = {**self.themes, **fitting(themes, self.options.ascii)}
        if self.themes[self.look.name] != self.look:
            self.wear(self.look.name)
        if faults:
            self.say("  ".join(str(fault) for fault in faults), "danger")

    def wear(self, name: str) -> None:
        """Draw with another theme from now on."""
        self.look = self.themes[name]
        self.ansi_color = self.look.terminal
        self.board.restyle(self.look)
        self.filter.restyle(self.look)
        if self.sheet is not None:
            self.sheet.restyle(self.look)

    def say(self, sentence: str, role: str = "") -> None:
        """One sentence on the last line, until the next key."""
        self.notice = (sentence, role)
        self.draw_footer()

    # what comes in -------------------------------------------------------------------------------------

    def on_arrived(self, _event: Arrived) -> None:
        self.take()

    def take(self) -> None:
        """Whatever lies with the feed goes into the store, then everything is drawn."""
        feed, now = self.feed, self._now()
        if feed is None:
            return
        if isinstance(feed, Replay) and feed.jumped():
            self.store.clear()
        for message in feed.drain():
            self.store.apply(message, (moment(message.at) if isinstance(feed, Replay) else None) or now)
        if feed.state != self.store.feed:
            self.store.feed_since = now
        self.store.feed, self.store.feed_why = feed.state, feed.problem
        self._look_at_log()
        self.redraw()

    def on_ended(self, event: Ended) -> None:
        outcome = event.outcome
        self.say(outcome.sentence, outcome.role)
        if outcome.role == "danger":
            self.bell()

    def on_answered(self, event: Answered) -> None:
        event.done()

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

    async def _sheet_key(self, sheet: Panel, event: events.Key) -> None:
        event.prevent_default()
        event.stop()
        typing = isinstance(self.focused, Entry)
        if event.key == "escape" or (event.key == "q" and not typing):
            self.close_sheet(sheet)
        elif event.key in ("tab", "shift+tab"):
            sheet.move_focus(1 if event.key == "tab" else -1)
        elif not sheet.key(event.key) and event.key in ("left", "right", "up", "down", "h", "j", "k", "l"):
            sheet.move_focus(1 if event.key in ("right", "down", "l", "j") else -1)

    def do(self, action: str) -> None:
        """Do an action of the registry; one that is refused here says why."""
        wanted = BY_ID[action]
        if wanted.changes and (self.options.readonly or self.replaying):
            said = (
                _("read only: nothing is changed from here") if self.options.readonly else _("this is a recording")
            )
            self.say(said, "warning")
            return
        if not self.offered(wanted):
            return
        try:
            deeds.DEEDS[action](self)
        except Refused as refused:
            self.say(str(refused), refused.role)

    def later(self, action: str) -> None:
        self.call_later(self.do, action)

    def on_click(self, event: events.Click) -> None:
        name = event.widget.id if event.widget is not None else None
        if self.sheet is not None:
            return
        if name == "footer":
            for start, end, action in self._spots:
                if start <= event.x < end:
                    self.notice = ("", "")
                    self.do(action)
        elif name in layout.BOXES:
            deeds.click(self, str(name), event.y)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._scrolled(1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._scrolled(-1)

    def _scrolled(self, steps: int) -> None:
        if self.sheet is not None:
            self.sheet.key("down" if steps > 0 else "up")
        else:
            deeds.move(self, 3 * steps)

    def on_entry_changed(self, event: Entry.Changed) -> None:
        deeds.filtered(self, event.entry.value)

    def on_entry_submitted(self, _event: Entry.Submitted) -> None:
        deeds.end_filter(self)

    def focus_filter(self, wanted: str) -> None:
        self.filter.set(wanted)
        self.filter.styles.display = "block"
        self.filter.focus()

    def leave_filter(self) -> None:
        self.filter.styles.display = "none"
        self.screen.set_focus(None)

    # sheets and commands -------------------------------------------------------------------------------

    def open_sheet(self, sheet: Panel) -> None:
        if self.sheet is None:
            self.sheet = sheet
            self.screen.mount(sheet)

    def close_sheet(self, sheet: Panel) -> None:
        if self.sheet is sheet:
            self.sheet = None
            self.screen.set_focus(None)
            sheet.remove()
            sheet.closed()

    def run_engine(self, verb: str, *words: str) -> None:
        if verb in self.commands.running:
            self.say(f"{verb} {_('is still running')}", "warning")
            return
        try:
            self.commands.start(self.options.engine(verb, *words, "--json"), verb)
        except OSError as error:
            self.say(f"{verb} {_('cannot start')}: {error}", "danger")
            return
        self.say(f"{verb} {_('started')}", "dim")

    def ask_engine(self, verb: str, *words: str, done: Callable[[dict[str, Any], str], None]) -> None:
        def told(answer: dict[str, Any], problem: str) -> None:
            self._post(Answered(lambda: done(answer, problem)))

        self.commands.ask(self.options.engine(verb, *words, "--json"), told)

    def follow(self, log: str) -> None:
        self.log_lines.choose(log)
        self.ui.focus = "log"
        self.ui.places.pop("log", None)
        self.arrange()

    def last_command(self) -> str:
        return self.commands.last.stem if self.commands.last else ""

    def clip(self, found: str) -> Path:
        self.copy_to_clipboard(found)
        kept = self.commands.folder.parent / "clipboard.txt"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(found + "\n", encoding="utf-8")
        return kept

    def picture(self) -> str:
        from console.svg import widen

        return widen(self.export_screenshot(title="Understudy"))

    def leave(self) -> None:
        self.exit()


def _collect_from_now() -> None:
    """What was loaded stays as long as the program: it is not looked through again."""
    gc.freeze()
    gc.enable()
