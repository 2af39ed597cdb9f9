"""A sheet of paper to draw documents on: text, tables, portraits, barcodes, handwriting.

Two streams of chance: the style's decides the layout (what stands where, sizes, colours), `words` the text.
Two pages with the same style are two forms of one house; another style is another house's layout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Rng = np.random.Generator
Ink = tuple[int, int, int]
_SYLLABLES = [
    "ba",
    "be",
    "bo",
    "da",
    "del",
    "di",
    "do",
    "en",
    "er",
    "fa",
    "fi",
    "ga",
    "gre",
    "ha",
    "il",
    "in",
    "ka",
    "kel",
    "la",
    "lo",
    "ma",
    "mi",
    "na",
    "no",
    "or",
    "pa",
    "pe",
    "ra",
    "ri",
    "ro",
    "sa",
    "se",
    "ta",
    "te",
    "ti",
    "to",
    "un",
    "va",
    "ve",
    "wi",
    "zo",
]


@dataclass(frozen=True)
class Style:
    """What every page of one layout shares: fonts (paths), inks and the margin as a share of the width."""

    rng: Rng
    regular: str
    bold: str
    mono: str
    ink: Ink
    accent: Ink
    paper: Ink
    margin: float


class Page:
    """A sheet of paper with a pen: everything is placed in fractions of the width (x) and the height (y)."""

    def __init__(self, width: int, height: int, style: Style, words: Rng) -> None:
        self.image = Image.new("RGB", (width, height), style.paper)
        self.pen = ImageDraw.Draw(self.image)
        self.width, self.height, self.style, self.words = width, height, style, words

    def x(self, share: float) -> float:
        return share * self.width

    def y(self, share: float) -> float:
        return share * self.height

    def word(self) -> str:
        return "".join(self.words.choice(_SYLLABLES, self.words.integers(1, 4)))

    def phrase(self, count: int) -> str:
        return " ".join(self.word() for _ in range(count)).capitalize()

    def amount(self) -> str:
        return f"{self.words.uniform(1, 2000):,.2f}"

    def number(self, digits: int) -> str:
        return "".join(map(str, self.words.integers(0, 10, digits)))

    def date(self) -> str:
        return f"{self.words.integers(1, 29):02d}.{self.words.integers(1, 13):02d}.20{self.words.integers(10, 27)}"

    def text(
        self, x: float, y: float, said: str, size: float, *, bold: bool = False, mono: bool = False,
        ink: Ink | None = None, anchor: str = "la",
    ) -> None:  # fmt: skip
        """One line; `size` in pixels, `anchor` as Pillow has it."""
        path = self.style.mono if mono else self.style.bold if bold else self.style.regular
        font = ImageFont.truetype(path, max(6, round(size)))
        self.pen.text((self.x(x), self.y(y)), said, ink or self.style.ink, font, anchor)

    def paragraph(self, x: float, y: float, width: float, lines: int, size: float, step: float = 1.35) -> float:
        """Lines filled with words from `x` on; the y below the last."""
        font = ImageFont.truetype(self.style.regular, max(6, round(size)))
        room = self.x(width)
        for line in range(lines):
            said = self.phrase(1)
            goal = room * (self.words.uniform(0.3, 0.8) if line == lines - 1 else 0.94)
            while font.getlength(said) < goal:
                said += " " + self.word()
            while font.getlength(said) > room and " " in said:
                said = said.rpartition(" ")[0]
            self.pen.text((self.x(x), self.y(y)), said, self.style.ink, font)
            y += size * step / self.height
        return y

    def rule(self, x0: float, y: float, x1: float, ink: Ink | None = None, width: int = 1) -> None:
        self.pen.line((self.x(x0), self.y(y), self.x(x1), self.y(y)), ink or self.style.ink, width)

    def box(
        self, x0: float, y0: float, x1: float, y1: float, *, fill: Ink | None = None, ink: Ink | None = None,
        width: int = 1, radius: float = 0,
    ) -> None:  # fmt: skip
        corners = (self.x(x0), self.y(y0), self.x(x1), self.y(y1))
        self.pen.rounded_rectangle(corners, radius, fill, ink, width)

    def table(
        self, x: float, y: float, width: float, shares: list[float], rows: int, row: float,
        cells: Callable[[int, int], str], *, ruled: int,
    ) -> float:  # fmt: skip
        """A head and `rows` rows of height `row` pixels; `ruled` 0: lines, 1: a grid, 2: stripes."""
        height = row / self.height
        edges = np.concatenate([[0], np.cumsum(shares)]) / sum(shares) * width + x
        self.box(x, y, x + width, y + height, fill=self.style.accent)
        for number in range(rows + 1):
            top = y + number * height
            if ruled == 2 and number % 2 == 0 and number:
                self.box(x, top, x + width, top + height, fill=blend(self.style.paper, self.style.accent, 0.15))
            if ruled < 2:
                self.rule(x, top + height, x + width)
            for column in range(len(shares)):
                said = self.word().capitalize() if number == 0 else cells(number, column)
                ink = self.style.paper if number == 0 else None
                last = column == len(shares) - 1
                place = edges[column + 1] - 0.01 if last else edges[column] + 0.01
                anchor = "ra" if last else "la"
                self.text(place, top + 0.22 * height, said, row * 0.55, bold=number == 0, ink=ink, anchor=anchor)
        if ruled == 1:
            for edge in edges:
                bottom = self.y(y + (rows + 1) * height)
                self.pen.line((self.x(edge), self.y(y), self.x(edge), bottom), self.style.ink)
        return y + (rows + 1) * height

    def logo(self, x: float, y: float, size: float) -> None:
        """A simple mark, `size` pixels wide; its shape belongs to the house."""
        kind, box = (
            int(self.style.rng.integers(0, 4)),
            (self.x(x), self.y(y), self.x(x) + size, self.y(y) + size),
        )
        if kind == 0:
            self.pen.ellipse(box, self.style.accent)
        elif kind == 1:
            self.pen.polygon(
                [(box[0], box[3]), ((box[0] + box[2]) / 2, box[1]), (box[2], box[3])], self.style.accent
            )
        elif kind == 2:
            self.pen.rectangle(box, self.style.accent)
            self.pen.ellipse((box[0] + size / 4, box[1] + size / 4, box[2] - size / 4, box[3] - size / 4), self.style.paper)  # fmt: skip
        else:
            self.pen.pieslice(box, 40, 320, self.style.accent)

    def portrait(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """A passport photograph: a head and shoulders before a plain wall."""
        left, top, right, bottom = self.x(x0), self.y(y0), self.x(x1), self.y(y1)
        wall = _random_ink(self.words, 150, 235)
        skin = blend((245, 215, 190), (85, 55, 40), float(self.words.random()))
        hair, coat = _random_ink(self.words, 15, 110), _random_ink(self.words, 20, 180)
        width, height = right - left, bottom - top
        whole = Image.new("RGB", (max(2, round(width)), max(2, round(height))), wall)
        pen = ImageDraw.Draw(whole)
        middle = width / 2
        pen.ellipse((middle - 0.26 * width, 0.12 * height, middle + 0.26 * width, 0.62 * height), hair)
        pen.ellipse((0.05 * width, 0.68 * height, 0.95 * width, 1.6 * height), coat)
        pen.rectangle((middle - 0.09 * width, 0.55 * height, middle + 0.09 * width, 0.75 * height), skin)
        pen.ellipse((middle - 0.2 * width, 0.2 * height, middle + 0.2 * width, 0.66 * height), skin)
        self.image.paste(whole, (round(left), round(top)))

    def barcode(self, x0: float, y0: float, x1: float, y1: float, *, upright: bool = True) -> None:
        """Bars across the box, or lines down it."""
        along, end = map(round, (self.x(x0), self.x(x1)) if upright else (self.y(y0), self.y(y1)))
        while along < end:
            thick = int(self.words.integers(1, 4))
            if upright:
                self.pen.rectangle((along, self.y(y0), along + thick - 1, self.y(y1)), (15, 15, 15))
            else:
                self.pen.rectangle((self.x(x0), along, self.x(x1), along + thick - 1), (15, 15, 15))
            along += thick + int(self.words.integers(1, 4))

    def scribble(self, x: float, y: float, width: float, height: float, ink: Ink = (25, 35, 110)) -> None:
        """A signature or a line of handwriting."""
        count = max(8, int(self.x(width) / 5))
        xs = np.linspace(self.x(x), self.x(x + width), count) + self.words.normal(0, 2, count)
        ys = self.y(y) + self.words.normal(0, 1, count).clip(-1.5, 1.5) * self.y(height) / 2
        self.pen.line([(float(a), float(b)) for a, b in zip(xs, ys, strict=True)], ink, 2, joint="curve")

    def waves(self, strength: float) -> None:
        """The fine lines of security paper."""
        ink = blend(self.style.paper, self.style.accent, strength)
        xs = np.arange(0, self.width + 8, 8)
        turn = self.style.rng.uniform(0, 6)
        for level in range(0, self.height, 7):
            ys = level + 6 * np.sin(xs / self.style.rng.uniform(20, 60) + turn + level / 15)
            self.pen.line([(float(a), float(b)) for a, b in zip(xs, ys, strict=True)], ink)


def blend(a: Ink, b: Ink, share: float) -> Ink:
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def _random_ink(rng: Rng, low: int, high: int) -> Ink:
    return tuple(int(v) for v in rng.integers(low, high, 3))  # type: ignore[return-value]
