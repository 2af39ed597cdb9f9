"""A picture in the terminal: two pixels a cell, the upper one the half-block's colour, the lower one its ground.

Where colours cannot carry it (mono, the terminal's own sixteen, ASCII) its brightness does, in characters of
growing weight: `Row.strip` asks the theme, `half_blocks` the glyphs.
"""

from __future__ import annotations

from console.glyphs import UNICODE, Glyphs
from console.widgets.rows import HALF_BLOCK, Row, luminance, pixels

_RAMP = " .:-=+*#%@"


def half_blocks(rgb: bytes, width: int, height: int, glyphs: Glyphs = UNICODE) -> list[Row]:
    """Rows of `width` cells for `width` × `height` pixels of three bytes each, left to right, top to bottom.

    The last row of a picture of odd height has the ground below its pixels.

    Raises:
        ValueError: `rgb` does not hold width × height pixels.
    """
    if width < 0 or height < 0 or len(rgb) != width * height * 3:
        raise ValueError(f"{len(rgb)} bytes are not {width} × {height} pixels of three bytes")
    rows = []
    for y in range(0, height, 2):
        row = Row()
        for x in range(width):
            upper = _pixel(rgb, width, x, y)
            lower = _pixel(rgb, width, x, y + 1) if y + 1 < height else None
            if glyphs.braille:
                row.put(HALF_BLOCK, pixels(upper, lower))
            else:
                light = luminance(upper, lower if lower is not None else upper)
                row.put(_RAMP[min(len(_RAMP) - 1, int(light * len(_RAMP)))])
        rows.append(row)
    return rows


def _pixel(rgb: bytes, width: int, x: int, y: int) -> tuple[int, int, int]:
    start = (y * width + x) * 3
    return rgb[start], rgb[start + 1], rgb[start + 2]
