"""A row of text in roles: what every pane draws, before it knows a theme or a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from console.text import clip
from console.theme import ConsoleTheme

Span = tuple[str, str]
Pixel = tuple[int, int, int]
HALF_BLOCK = "▀"
_ASCII = str.maketrans("…–−·×°→←↑↓▀▄▸◂●○◐✕▲░▒▓█", "~---x ><^v#+><*o~x!.:##")
_SHADES = " ░▒▓█"
_EDGE = 0.3  # pixels that differ more than this are told apart instead of averaged


class Row:
    """Spans of (text, roles), built from left to right; `at` is the width so far in cells."""

    __slots__ = ("at", "ground", "spans")

    def __init__(self, text: str = "", roles: str = "", ground: str = "background") -> None:
        self.spans: list[Span] = []
        self.at = 0
        self.ground = ground
        if text:
            self.put(text, roles)

    def put(self, text: str, roles: str = "") -> Row:
        """Append text."""
        if text:
            self.spans.append((text, roles))
            self.at += cell_len(text)
        return self

    def to(self, column: int) -> Row:
        """Fill with blanks up to a column; text that reaches beyond it is cut, with one blank after it."""
        if self.at > column - 1 > 0:
            self.cut(column - 1)
        if self.at < column:
            self.spans.append((" " * (column - self.at), ""))
            self.at = column
        return self

    def right(self, text: str, column: int, roles: str = "") -> Row:
        """Text that ends before `column`; what stands in its way is cut."""
        start = max(0, column - cell_len(text))
        if self.at > start:
            self.cut(start)
        elif self.at < start:
            self.put(" " * (start - self.at))
        return self.put(text, roles)

    def cell(self, text: str, width: int, roles: str = "", *, right: bool = False) -> Row:
        """A cell of a table: exactly `width` cells, cut with an ellipsis."""
        shown = clip(text, width)
        gap = " " * (width - cell_len(shown))
        return self.put(gap).put(shown, roles) if right else self.put(shown, roles).put(gap)

    def add(self, other: Row) -> Row:
        for text, roles in other.spans:
            self.put(text, roles)
        return self

    def cut(self, width: int) -> Row:
        """At most `width` cells, what goes beyond is dropped with an ellipsis."""
        if self.at <= width:
            return self
        spans: list[Span] = []
        left = max(0, width)
        for text, roles in self.spans:
            cells = cell_len(text)
            if cells < left or (cells == left and self.at == width):
                spans.append((text, roles))
                left -= cells
                continue
            if left:
                blank = not text[left - 1 :].strip() if cells == len(text) else False
                spans.append((set_cell_size(text, left) if blank else set_cell_size(text, left - 1) + "…", roles))
            break
        self.spans = spans
        self.at = sum(cell_len(text) for text, _ in spans)
        return self

    def fade(self) -> Row:
        """The same text in the quiet role: figures that are no longer true to the moment."""
        self.spans = [(text, "dim") for text, _roles in self.spans]
        return self

    @property
    def plain(self) -> str:
        return "".join(text for text, _ in self.spans)

    def key(self) -> tuple[str, tuple[Span, ...]]:
        """Equal for rows that look equal."""
        return (self.ground, tuple(self.spans))

    def strip(self, width: int, theme: ConsoleTheme) -> Strip:
        """The row in a theme's styles, exactly `width` cells wide."""
        style = theme.style
        ground = self.ground
        segments: list[Segment] = []
        said, last = "", style("", ground)
        spans = [*self.spans, (" " * (width - self.at), "")] if self.at < width else self.spans
        for text, roles in spans:
            if roles.startswith("#"):  # a picture's pixels: see `pixels`
                if theme.terminal:
                    text = _shade(roles, theme.dark) * len(text)
                    wanted = style("", ground)
                else:
                    wanted = _pixel_style(roles, theme.colors[ground])
            else:
                wanted = style(roles, ground)
            if theme.ascii:
                text = text.translate(_ASCII)
            plain = not (wanted.underline or wanted.reverse or last.underline or last.reverse)
            if wanted == last or (plain and wanted.bgcolor == last.bgcolor and not text.strip(" ")):
                said += text  # blanks look alike in any colour: a change of style less on the wire
                continue
            if said:
                segments.append(Segment(said, last))
            said, last = text, wanted
        segments.append(Segment(said, last))
        strip = Strip(segments, max(self.at, width))
        return strip.crop(0, width) if self.at > width else strip


def pixels(upper: Pixel, lower: Pixel | None) -> str:
    """The roles of a half-block: two colours instead of roles of the theme; no lower one is the row's ground."""
    return "#" + bytes(upper).hex() + (bytes(lower).hex() if lower is not None else "")


def luminance(*seen: Pixel) -> float:
    """The mean brightness of pixels from 0 to 1 (weights of ITU-R BT.601, on the encoded values)."""
    return sum(0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in seen) / (255 * len(seen))


def _read(roles: str) -> tuple[Pixel, Pixel | None]:
    values = bytes.fromhex(roles[1:])
    upper = (values[0], values[1], values[2])
    return upper, (values[3], values[4], values[5]) if len(values) == 6 else None


@lru_cache(maxsize=8192)
def _pixel_style(roles: str, ground: str) -> Style:
    upper, lower = _read(roles)
    below = Color.from_rgb(*lower) if lower is not None else Color.parse(ground)
    return Style(color=Color.from_rgb(*upper), bgcolor=below)


def _shade(roles: str, dark: bool) -> str:
    """A pixel pair without colours: the lighter, the more of the cell is drawn (the darker, on a light ground)."""
    upper, lower = _read(roles)
    above = luminance(upper)
    below = luminance(lower) if lower is not None else above
    if not dark:
        above, below = 1 - above, 1 - below
    if abs(above - below) > _EDGE:
        return "▀" if above > below else "▄"
    return _SHADES[round((above + below) / 2 * (len(_SHADES) - 1))]


def changed_columns(before: Row, after: Row, width: int) -> list[tuple[int, int]]:
    """The stretches [start, end) of cells in which two rows differ, near ones joined.

    A row with double-width characters changes as a whole: half a character cannot be drawn.
    """
    if before.ground != after.ground:
        return [(0, width)]
    old, new = _cells(before.spans, width), _cells(after.spans, width)
    if old is None or new is None:
        return [] if before.spans == after.spans else [(0, width)]
    stretches: list[tuple[int, int]] = []
    for column in range(width):
        if old[column] == new[column]:
            continue
        if stretches and column - stretches[-1][1] < 6:
            stretches[-1] = (stretches[-1][0], column + 1)
        else:
            stretches.append((column, column + 1))
    return stretches


def _cells(spans: Iterable[Span], width: int) -> list[Span] | None:
    cells: list[Span] = []
    for text, roles in spans:
        if not text.isascii() and cell_len(text) != len(text):
            return None
        cells += [(character, roles if character != " " else "") for character in text]
    del cells[width:]
    cells += [(" ", "")] * (width - len(cells))
    return cells
