"""What goes to the terminal: only the cells between a change's first and last column.

Textual 8.2 cuts an update at its end but begins it at the widget's left edge
(its compositor does not crop that side); over SSH that is most of the bytes. `tighten` cuts both sides.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate


class TightUpdate(ChopsUpdate):
    """As Textual's, cut at both sides."""

    def render_segments(self, console: Console) -> str:
        written: list[str] = []
        for y, start, stop in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                if strip is None or x >= stop or end <= start:
                    continue
                left, right = max(start, x), min(stop, end)
                shown = strip if left == x and right == end else strip.crop(left - x, right - x)
                written.append(Control.move_to(left, y).segment.text)
                written.append(shown.render(console))
        return "".join(written)


def tighten(update: Any) -> Any:
    """The same update with fewer bytes; anything that is not a partial update as it is."""
    if type(update) is ChopsUpdate and update.spans:
        return TightUpdate(update.chops, update.spans, update.chop_ends)
    return update
