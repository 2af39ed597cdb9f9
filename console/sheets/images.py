"""The images on which the slots disagree, drawn in the terminal: the truth below each, and what both said."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from console import text
from console.desk import Desk
from console.sheets.base import Sheet
from console.view import View
from console.widgets.image import half_blocks
from console.widgets.rows import Row
from console.words import _

LIMIT = 24
WIDTH = 24  # columns of a picture
GAP = 2
CAPTION = 4  # rows below a picture: the truth, two answers, a blank


class Images(Sheet):
    """Asks the engine for the images once, and turns their pages."""

    cancel = "Close"
    wide = 400

    def __init__(self, desk: Desk) -> None:
        self.pictures: list[tuple[list[Row], dict[str, Any]]] = []
        self.total = 0
        self.first = 0
        self.state = _("the engine reads the images")
        self._here = 1
        super().__init__(desk)
        self.heading = _("Images on which the slots differ")
        desk.ask_engine("differing", "--limit", str(LIMIT), "--width", str(WIDTH), done=self._came)

    def _came(self, answer: dict[str, Any], problem: str) -> None:
        self.state = problem
        self.total = int(answer.get("total") or 0)
        for one in answer.get("images") or []:
            self.pictures.append((picture(one, self.desk.view()), one))
        if not problem and not self.pictures:
            self.state = _("the slots agree on every image, or nothing was compared")
        if self.is_mounted:
            self._placed = ()
            self.draw(self.desk.view())

    def body(self, view: View, width: int) -> list[Row]:
        if not self.pictures:
            return [Row(line, "dim") for line in text.wrap(self.state, width)]
        across = max(1, (width + GAP) // (WIDTH + GAP))
        tall = max(len(rows) for rows, _one in self.pictures) + CAPTION
        down = max(1, (self.desk.size.height - 6) // tall)
        self._here = across * down
        self.first = max(0, min(self.first, (len(self.pictures) - 1) // self._here * self._here))
        page = self.pictures[self.first : self.first + self._here]
        last = self.first + len(page)
        rows = [
            Row(f"{self.first + 1}–{last} {_('of')} {text.number(self.total or len(self.pictures))}", "dim").put(
                f"   {view.glyphs.left_of} {view.glyphs.cursor} {_('page')}" if self.total > self._here else "",
                "accent",
            )
        ]
        for start in range(0, len(page), across):
            rows += _beside([_cell(view, *one) for one in page[start : start + across]])
        return rows[:-1]

    def key(self, key: str) -> bool:
        steps = {"right": 1, "l": 1, "down": 1, "j": 1, "pagedown": 1, "space": 1, "left": -1, "h": -1, "up": -1,
                 "k": -1, "pageup": -1, "home": -LIMIT, "g": -LIMIT, "end": LIMIT, "G": LIMIT}.get(key)  # fmt: skip
        if steps is None or not self.pictures:
            return False
        self.first = max(0, min(self.first + steps * self._here, len(self.pictures) - 1))
        self.draw(self.desk.view())
        return True

    def click(self, row: int) -> None:
        self.key("right" if self.first + self._here < len(self.pictures) else "home")


def picture(one: dict[str, Any], view: View) -> list[Row]:
    """The half-blocks of an image, or why there are none."""
    try:
        rgb = base64.b64decode(str(one["rgb"]), validate=True)
        return half_blocks(rgb, int(one["width"]), int(one["height"]), view.glyphs)
    except (KeyError, TypeError, ValueError, binascii.Error):
        return [Row(_("no picture"), "dim")]


def _cell(view: View, picture: list[Row], one: dict[str, Any]) -> list[Row]:
    truth = str(one.get("label"))
    rows = [*picture, Row(text.clip(truth, WIDTH), "bold")]
    for slot, title in (("asis", "AS-IS"), ("tobe", "TO-BE")):
        said = str(one.get(slot) or text.NONE)
        right = said == truth
        row = Row(f"{title} ", slot).put(text.clip(said, WIDTH - 8), "good" if right else "danger")
        rows.append(row.put(f" {view.glyphs.done if right else view.glyphs.bad}", "good" if right else "danger"))
    return [*rows, Row()]


def _beside(cells: list[list[Row]]) -> list[Row]:
    """Cells side by side, their captions on one line."""
    tall = max(len(cell) for cell in cells)
    rows = []
    for y in range(tall):
        row = Row()
        for index, cell in enumerate(cells):
            blank = tall - len(cell)  # a flatter picture stands lower, so that its caption is on the others' line
            if row.at < index * (WIDTH + GAP):
                row.to(index * (WIDTH + GAP))
            if y >= blank:
                row.add(cell[y - blank])
        rows.append(row)
    return rows
