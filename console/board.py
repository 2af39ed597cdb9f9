"""The board: every canvas of the screen, where the plan puts it and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from textual.geometry import Size
from textual.widget import Widget

from console import layout
from console.commands import Commands
from console.feed import Feed
from console.panes import checkpoints, compare, devices, frame, log, road, slots, training
from console.panes import events as event_log
from console.replay import Replay
from console.theme import ConsoleTheme
from console.view import Ui, View
from console.widgets.canvas import Canvas
from console.widgets.rows import Row
from console.words import _

BRAND = "UNDERSTUDY"
DRAW: dict[str, Callable[[View, int, int], list[Row]]] = {
    "devices": devices.draw,
    "training": training.draw,
    "checkpoints": checkpoints.draw,
    "compare": compare.draw,
    "events": event_log.draw,
    "log": log.draw,
    "slots": slots.draw_both,
}


class Board:
    """The canvases: frame, road, both slots, the panes and the last line."""

    def __init__(self, look: ConsoleTheme) -> None:
        names = ("frame", "road", "asis", "tobe", *layout.PANES, "footer")
        self.canvases = {name: Canvas(look, id=name) for name in names}
        self.plan = layout.plan(80, 24, "checkpoints")
        self._devices_rows = 0

    def __iter__(self) -> Iterator[Canvas]:
        return iter(self.canvases.values())

    def arrange(self, size: Size, ui: Ui) -> None:
        """Put every canvas where the plan for this size wants it."""
        width, height = size
        self.plan = plan = layout.plan(width, height, ui.focus, ui.zoomed, self._devices_rows)
        placed = {"road": (0, 0, width, plan.road), "footer": (0, height - 1, width, 1)}
        for name, canvas in self.canvases.items():
            if name == "frame":
                continue
            region = placed.get(name) or plan.region(name)
            canvas.display = bool(region and region[2] > 0 and region[3] > 0)
            if region and canvas.display:
                place(canvas, *region)

    def draw(self, view: View, size: Size, brand: str) -> None:
        """Every canvas but the last line draws its rows anew; only cells that changed go out."""
        if (needed := devices.rows_needed(view, (size.height - 4) * 2 // 3 - 1)) != self._devices_rows:
            self._devices_rows = needed
            self.arrange(size, view.ui)
        plan, show = self.plan, self.canvases
        show["frame"].show(frame.draw(view, plan))
        show["road"].show(road.draw(view, plan.width, plan.road, brand))
        for name in ("asis", "tobe"):
            if region := plan.region(name):
                show[name].show(slots.draw(view, name, region[2], region[3]))
        for name, draw in DRAW.items():
            if region := plan.region(name):
                show[name].show(draw(view, region[2], region[3]))

    def shows(self, name: str) -> bool:
        """Whether a pane is on the screen."""
        return self.plan.region(name) is not None

    def footer(self, row: Row) -> None:
        self.canvases["footer"].show([row])

    def restyle(self, look: ConsoleTheme) -> None:
        for canvas in self:
            canvas.restyle(look)


def place(widget: Widget, x: int, y: int, width: int, height: int) -> None:
    """Put a widget at a place on its parent."""
    widget.styles.offset = (x, y)
    widget.styles.width = width
    widget.styles.height = height


def brand(feed: Feed | None, readonly: bool) -> str:
    """What stands at the upper left: the program's name, unless there is something the person must not forget."""
    if isinstance(feed, Replay):
        return _("PAUSED") if feed.paused else f"{_('REPLAY')} {feed.speed:g}×"
    return _("READ ONLY") if readonly else BRAND


def under_way(feed: Feed | None, commands: Commands) -> str:
    """What the last line says at its end: what runs, and lines of the feed that could not be read."""
    said = []
    if feed is not None and feed.damaged:
        said.append(f"{_('damaged lines')}: {feed.damaged}")
    if running := commands.under_way():
        said.append(f"{_('running')}: {', '.join(running)}")
    return "  ".join(said)
