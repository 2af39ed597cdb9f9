"""A picture of the screen as SVG, set right where characters are two cells wide.

Rich 15 gives every text the length of its characters, not of its cells, so that Korean is squeezed to half.
"""

from __future__ import annotations

import re
from html import unescape

from rich.cells import cell_len

_TEXT = re.compile(r'(<text\b[^>]*\btextLength=")([\d.]+)("[^>]*>)([^<]*)(</text>)')


def widen(picture: str) -> str:
    """The same picture with every text as long as its cells."""
    return _TEXT.sub(_widened, picture)


def _widened(found: re.Match[str]) -> str:
    before, length, between, shown, after = found.groups()
    text = unescape(shown)
    if text.isascii() or cell_len(text) == len(text):
        return found.group(0)
    return f"{before}{float(length) * cell_len(text) / len(text):g}{between}{shown}{after}"
