"""A widget that draws rows and sends only the cells that changed."""

from __future__ import annotations

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from console.theme import ConsoleTheme
from console.widgets.rows import Row, changed_columns


class Canvas(Widget, can_focus=False):
    """Rows on the screen. Over SSH a cell costs bytes, so `show` marks only changed stretches as dirty."""

    DEFAULT_CSS = "Canvas { background: transparent; }"

    def __init__(self, theme: ConsoleTheme, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.look = theme
        self.rows: list[Row] = []

    def show(self, rows: list[Row]) -> None:
        """Draw these rows from now on."""
        before, self.rows = self.rows, rows
        width, height = self.size
        regions: list[Region] = []
        empty = Row()
        for y in range(min(height, max(len(before), len(rows)))):
            old = before[y] if y < len(before) else empty
            new = rows[y] if y < len(rows) else empty
            if old is new or (old.ground == new.ground and old.spans == new.spans):
                continue
            regions += [Region(start, y, end - start, 1) for start, end in changed_columns(old, new, width)]
        if regions:
            self.refresh(*regions)

    def restyle(self, theme: ConsoleTheme) -> None:
        """Take another theme."""
        self.look = theme
        self.refresh()

    def render_line(self, y: int) -> Strip:
        row = self.rows[y] if y < len(self.rows) else Row()
        return row.strip(self.size.width, self.look)
