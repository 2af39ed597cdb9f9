"""Curves in braille, bars and whiskers, as text. Pure functions: figures in, rows of characters out."""

from __future__ import annotations

from collections.abc import Sequence

from console.glyphs import Glyphs

_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_LEVELS = " .:-=+*#"


def curve(
    values: Sequence[float | None],
    width: int,
    height: int,
    glyphs: Glyphs,
    *,
    low: float | None = None,
    high: float | None = None,
    span: int | None = None,
) -> list[str]:
    """A curve through values at even distances, `width` × `height` cells, two by four dots a cell.

    Args:
        values: oldest first; None leaves a gap.
        low: the value of the lowest dot; None takes the least value. `high` likewise.
        span: how many values the whole width stands for (a curve that is still growing); None: all of them.
    """
    known = [value for value in values if value is not None]
    if not known or width <= 0 or height <= 0:
        return [" " * width] * height
    low = min(known) if low is None else low
    high = max(known) if high is None else high
    if not glyphs.braille:
        return _ascii_curve(values, width, height, low, high, span)
    columns, rows = width * 2, height * 4
    grid = [[0] * width for _ in range(height)]
    before: int | None = None
    for x, value in enumerate(_resample(values, columns, span)):
        if value is None:
            before = None
            continue
        y = _level(value, low, high, rows)
        for dot in _between(before, y):
            row = rows - 1 - dot
            grid[row // 4][x // 2] |= _DOTS[x % 2][row % 4]
        before = y
    return ["".join(chr(0x2800 + cell) if cell else " " for cell in line) for line in grid]


def area(values: Sequence[float | None], width: int, glyphs: Glyphs, *, high: float = 1.0, count: int = 0) -> str:
    """`areas` on one row."""
    return areas(values, width, 1, glyphs, high=high, count=count)[0]


def areas(
    values: Sequence[float | None], width: int, height: int, glyphs: Glyphs, *, high: float = 1.0, count: int = 0
) -> list[str]:
    """Filled braille columns, newest at the right: a history of fractions of `high` on `height` rows.

    Args:
        count: how many values there ever were. Columns then stay in the half of a cell in which they were first
            drawn, and the picture moves by whole cells at every other value: half the bytes of a redraw.
    """
    across = 2 if glyphs.braille else 1
    columns = width * across
    newest: list[float | None] = [*values, *([None] * (count % across))][-columns:] if columns > 0 else []
    newest = [*([None] * (columns - len(newest))), *newest]
    if not glyphs.braille:
        return _ascii_areas(newest, height, high)
    rows = [[0] * width for _ in range(height)]
    for x, value in enumerate(newest):
        filled = 0 if value is None else max(1, min(4 * height, round(value / (high or 1.0) * 4 * height)))
        for dot in range(filled):
            rows[height - 1 - dot // 4][x // 2] |= _DOTS[x % 2][3 - dot % 4]
    return ["".join(chr(0x2800 + bits) if bits else " " for bits in row) for row in rows]


def _ascii_areas(values: Sequence[float | None], height: int, high: float) -> list[str]:
    top = len(_LEVELS) - 1
    filled = [
        0 if v is None else max(1, min(top * height, round(v / (high or 1.0) * top * height))) for v in values
    ]
    return [
        "".join(_LEVELS[max(0, min(top, one - (height - 1 - row) * top))] for one in filled)
        for row in range(height)
    ]


def bar(fraction: float | None, width: int, glyphs: Glyphs) -> tuple[str, str]:
    """A bar in halves of a cell: the filled part and the track."""
    if fraction is None:
        return "", glyphs.track * width
    steps = 2 if glyphs.half else 1
    whole, half = divmod(round(max(0.0, min(1.0, fraction)) * width * steps), steps)
    filled = glyphs.full * whole + (glyphs.half if half else "")
    return filled, glyphs.track * (width - len(filled))


def lean(value: float, width: int, glyphs: Glyphs, *, high: float) -> tuple[str, str, str]:
    """A bar to either side of a middle line, `width` cells a side: left part, middle line, right part."""
    length = min(width, max(1 if value else 0, round(abs(value) / (high or 1.0) * width)))
    shown, blank = glyphs.full * length, " " * (width - length)
    if value < 0:
        return blank + shown, glyphs.zero, " " * width
    return " " * width, glyphs.zero, shown + blank


def whisker(
    low: float, value: float, high: float, width: int, left: float, right: float, glyphs: Glyphs
) -> list[str]:
    """An interval with its estimate on the scale from `left` to `right`: blanks, left part, point, right part."""
    scale = (width - 1) / ((right - left) or 1.0)
    start, middle, end = (max(0, min(width - 1, round((x - left) * scale))) for x in (low, value, high))
    before = glyphs.whisker_left + glyphs.whisker * (middle - start - 1) if middle > start else ""
    after = glyphs.whisker * (end - middle - 1) + glyphs.whisker_right if end > middle else ""
    return [" " * start, before, glyphs.point, after]


def _resample(values: Sequence[float | None], columns: int, span: int | None) -> list[float | None]:
    """The values at `columns` even places; between two values a straight line, many values by their mean."""
    count = max(span or len(values), len(values))
    if count == 1:
        return [values[0]] * (1 if span else columns)
    found: list[float | None] = []
    for x in range(columns):
        place = x * (count - 1) / (columns - 1) if columns > 1 else 0.0
        if place > len(values) - 1 + 1e-9:
            break
        if count > columns:
            half = (count - 1) / (columns - 1) / 2
            part = [v for v in values[max(0, round(place - half)) : round(place + half) + 1] if v is not None]
            found.append(sum(part) / len(part) if part else None)
            continue
        index = min(int(place), len(values) - 1)
        first, second = values[index], values[min(index + 1, len(values) - 1)]
        if first is None or second is None:
            found.append(first if place - index < 0.5 else second)
        else:
            found.append(first + (second - first) * (place - index))
    return found


def _level(value: float, low: float, high: float, rows: int) -> int:
    if high <= low:
        return rows // 2
    return max(0, min(rows - 1, round((value - low) / (high - low) * (rows - 1))))


def _between(before: int | None, now: int) -> range:
    if before is None or before == now:
        return range(now, now + 1)
    return range(before + 1, now + 1) if before < now else range(now, before)


def _ascii_curve(
    values: Sequence[float | None], width: int, height: int, low: float, high: float, span: int | None
) -> list[str]:
    grid = [[" "] * width for _ in range(height)]
    for x, value in enumerate(_resample(values, width, span)):
        if value is not None:
            grid[height - 1 - _level(value, low, high, height)][x] = "*"
    return ["".join(line) for line in grid]
