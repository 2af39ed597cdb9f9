"""The signs the console draws with: one set for UTF-8 terminals, one in ASCII."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Glyphs:
    """One character a sign, each one cell wide."""

    live: str = "●"
    stale: str = "◐"
    offline: str = "○"
    bad: str = "✕"
    warn: str = "▲"
    done: str = "●"
    doing: str = "◐"
    todo: str = "○"
    rail: str = "─"
    rail_todo: str = "╌"
    cursor: str = "▸"
    mark: str = "◆"
    up: str = "▴"
    down: str = "▾"
    left_of: str = "◂"
    arrow: str = "→"
    dot: str = "·"
    whisker_left: str = "├"
    whisker_right: str = "┤"
    whisker: str = "─"
    point: str = "●"
    zero: str = "┊"
    full: str = "━"
    half: str = "╸"
    track: str = "─"
    horizontal: str = "─"
    vertical: str = "│"
    corners: tuple[str, str, str, str] = ("╭", "╮", "╰", "╯")  # down-right, down-left, up-right, up-left
    tees: tuple[str, str, str, str, str] = ("┬", "┴", "├", "┤", "┼")  # down, up, right, left, all
    ellipsis: str = "…"
    braille: bool = True


UNICODE = Glyphs()
ASCII = Glyphs(
    live="*", stale="~", offline="o", bad="x", warn="!", done="*", doing="~", todo="o", rail="-", rail_todo=".",
    cursor=">", mark="+", up="^", down="v", left_of="<", arrow=">", dot="-", whisker_left="|", whisker_right="|",
    whisker="-", point="#", zero=":", full="#", half="", track=".", horizontal="-", vertical="|",
    corners=("+", "+", "+", "+"), tees=("+", "+", "+", "+", "+"), ellipsis="~", braille=False,
)  # fmt: skip
