"""Lays the screen's widgets over each other so that a sheet hides what lies below it, edges and all.

Textual 8.2 cuts every row at the edges of all widgets on it, those below an opaque one too; a double-width character
that lies on such an edge is lost. Edges below an open panel are left out here, so that Korean stays whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from textual._compositor import Compositor
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip

from console.desk import Panel


class OpaqueCompositor(Compositor):
    """As Textual's, except that a `Panel` is opaque."""

    @property
    def cuts(self) -> list[list[int]]:
        """The columns of every row at which a widget begins or ends, without those that a panel covers."""
        if self._cuts is None:
            width, height = self.size
            cuts = [{0, width} for _row in range(height)]
            covers: list[Region] = []
            for widget, (region, clip) in self.visible_widgets.items():  # the topmost first
                shown = region.intersection(clip)
                if not (shown.width and shown.height):
                    continue
                for y in range(max(0, shown.y), min(height, shown.bottom)):
                    hidden = [cover for cover in covers if cover.y <= y < cover.bottom]
                    for x in (shown.x, shown.right):
                        if not any(cover.x < x < cover.right for cover in hidden):
                            cuts[y].add(x)
                if isinstance(widget, Panel):
                    covers.append(shown)
            self._cuts = [sorted(row) for row in cuts]
        return self._cuts

    def _render_chops(
        self, crop: Region, is_rendered_line: Callable[[int], bool]
    ) -> Sequence[Mapping[int, Strip]]:
        """The pieces of every row by their first column, the topmost widget's where several have one."""
        cuts = self.cuts
        rows: list[dict[int, Strip | None]] = [dict.fromkeys(row[:-1]) for row in cuts]
        for region, clip, strips in self._get_renders(crop):
            shown = region.intersection(clip)
            first, last = shown.column_span
            for y, strip in zip(shown.line_range, strips, strict=False):
                if not is_rendered_line(y):
                    continue
                edges = [cut for cut in cuts[y] if first <= cut <= last]
                pieces = strip.divide([cut - shown.x for cut in edges])[1:]
                row = rows[y]
                for cut, piece in zip(edges, pieces, strict=False):
                    if row.get(cut) is None:
                        row[cut] = piece
        return cast("Sequence[Mapping[int, Strip]]", rows)


class ConsoleScreen(Screen[None]):
    """The console's one screen."""

    def __init__(self) -> None:
        super().__init__(id="_default")
        self._compositor = OpaqueCompositor()
