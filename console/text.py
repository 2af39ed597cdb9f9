"""Figures as the console writes them: always a unit, always the same width of digits, never a guess."""

from __future__ import annotations

import re
from datetime import datetime

from rich.cells import cell_len, set_cell_size

from console.words import _, said

NONE = "–"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as percent: 0.871 → `87.1%`."""
    return NONE if value is None else f"{value * 100:.{digits}f}%"


def points(value: float | None, digits: int = 1) -> str:
    """A difference of fractions in percentage points, signed: 0.02 → `+2.0`."""
    if value is None:
        return NONE
    shown = f"{value * 100:+.{digits}f}"
    return shown.replace("-", "−")


def number(value: float | None, digits: int = 0) -> str:
    """With thousands separators: 1240 → `1,240`."""
    return NONE if value is None else f"{value:,.{digits}f}"


def count(value: float | None) -> str:
    """A large count in three figures: 842, 6,896, 125 k, 1.25 M."""
    if value is None or value < 100_000:
        return number(value)
    unit, scale = ("k", 1e3) if value < 999_500 else ("M", 1e6) if value < 999.5e6 else ("G", 1e9)
    shown = value / scale
    return f"{shown:,.0f} {unit}" if shown >= 100 else f"{shown:.3g} {unit}"


def rate(value: float | None) -> str:
    """A rate with three figures that count: 4.52, 38.1, 412, 1,204."""
    if value is None:
        return NONE
    return number(value, 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2)


def small(value: float | None) -> str:
    """A p-value: three decimals, and `< 0.001` below that."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def size(value: float | None) -> str:
    """Bytes with a binary unit: `8.2 MiB`."""
    if value is None:
        return NONE
    unit = 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {_UNITS[unit]}"


def share(used: float | None, total: float | None) -> str:
    """`61.2/141 GiB`: both in the unit of the total."""
    if not total:
        return NONE if used is None else size(used)
    unit = 0
    scale = 1.0
    while total / scale >= 1000 and unit < len(_UNITS) - 1:
        scale *= 1024
        unit += 1
    whole = total / scale
    shown = NONE if used is None else f"{used / scale:.{0 if used / scale >= 100 else 1}f}"
    digits = 0 if whole >= 100 or whole == round(whole) else 1
    return f"{shown}/{whole:.{digits}f} {_UNITS[unit]}"


def times(ratio: float | None, digits: int = 2) -> str:
    """How many times: 3.884 → `3.88×`."""
    return NONE if ratio is None else f"{ratio:,.{digits}f}×"


def milliseconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def duration(seconds: float | None) -> str:
    """The two largest units: `18 min`, `3 d 4 h`, `45 s`."""
    if seconds is None:
        return NONE
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes:02d} min" if hours < 10 and minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days < 10 and hours else f"{days} d"


def coarse(seconds: float | None) -> str:
    """An age in coarse steps, so that it seldom changes: `now`, `12 min`, `3 h`, `9 d`."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return _("now")
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    if seconds < 86400:
        return f"{int(seconds // 3600)} h"
    return f"{int(seconds // 86400)} d"


def stale_age(seconds: float) -> str:
    """How old stale figures are, in steps of 10 s, then minutes, then hours."""
    if seconds < 60:
        return f"{int(seconds // 10) * 10} s"
    return coarse(seconds)


def moment(text: str | None) -> float | None:
    """Seconds since the epoch of an ISO 8601 time; None where it is missing or unreadable."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def clock(text: str | None) -> str:
    """The time of day as the sender wrote it: `17:46`."""
    return text[11:16] if text and len(text) >= 16 else "--:--"


def ago(now: float, text: str | None) -> str:
    """The coarse age of a moment, or – where there is none."""
    then = moment(text)
    return NONE if then is None else coarse(now - then)


def short(release: str | None) -> str:
    """The first eight digits of a hash or release id."""
    return release[:8] if release else NONE


def clip(text: str, width: int, ellipsis: str = "…") -> str:
    """At most `width` cells; what is cut shows as an ellipsis."""
    if width <= 0:
        return ""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - cell_len(ellipsis))).rstrip() + ellipsis


def clip_left(text: str, width: int, ellipsis: str = "…") -> str:
    """As `clip`, keeping the end: for paths and file names."""
    if cell_len(text) <= width:
        return text
    while text and cell_len(text) > width - 1:
        text = text[1:]
    return ellipsis + text if width > 0 else ""


_RUN = re.compile(r"[;,:]?\s*(?:run|with): .*$|, see: .*$")


def advice(sentence: str) -> str:
    """A sentence of the engine without the command line it recommends, in the person's language: here a key does it."""
    return said(_RUN.sub("", sentence))


def wrap(text: str, width: int) -> list[str]:
    """Words on lines of at most `width` cells."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        if line and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, clip(line, width)] if line else lines
