"""Documents the size of a hand: passports, cards and slips, each drawn on a `Page`, with invented text."""

from __future__ import annotations

import numpy as np

from engine.tasks.images.pages import Page, blend

_CATEGORIES = ("AM", "A1", "A2", "A", "B1", "B", "BE", "C1", "C", "D")


def _fields(
    page: Page, x: float, y: float, width: float, count: int, size: float, step: float, mark: str = ""
) -> None:
    """Small labels with a value below each; `mark` numbers them."""
    for number in range(count):
        label = f"{number + 1}{mark} " if mark else ""
        faint = blend(page.style.ink, page.style.paper, 0.35)
        page.text(x, y, label + page.word().capitalize(), size * 0.7, ink=faint)
        page.text(x, y + size * 0.8 / page.height, page.phrase(2)[: int(width * 60)], size, bold=True)
        y += step


def passport(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.waves(0.25)
    page.text(
        m,
        0.06,
        s.choice(["PASSPORT", "Passport / Passeport"]),
        s.uniform(20, 26),
        bold=True,
        ink=page.style.accent,
    )
    width = s.uniform(0.24, 0.3)
    page.portrait(m, 0.2, m + width, s.uniform(0.66, 0.72))
    x = m + width + 0.05
    for column in range(2):
        _fields(page, x + column * 0.3, 0.2, 0.25, int(s.integers(4, 6)), 12, s.uniform(0.1, 0.115))
    for line in range(2):
        said = "".join(page.words.choice(list("ABCDEFGHKLMNPRST0123456789<<<<<<<"), 44))
        page.text(0.5, 0.82 + 0.075 * line, ("P<" if line == 0 else "") + said[: 42 if line == 0 else 44],
                  page.width / 29, mono=True, anchor="ma")  # fmt: skip


def identity_card(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.waves(0.12)
    page.box(0, 0, 1, s.uniform(0.16, 0.22), fill=page.style.accent)
    page.text(0.5, 0.06, s.choice(["IDENTITY CARD", "NATIONAL ID", "Identity card"]), s.uniform(22, 30), bold=True,
              ink=page.style.paper, anchor="ma")  # fmt: skip
    width, right = s.uniform(0.26, 0.32), s.random() < 0.5
    x = 1 - m - width if right else m
    page.portrait(x, 0.3, x + width, s.uniform(0.82, 0.88))
    _fields(page, m if right else m + width + 0.06, 0.3, 0.5, 4, s.uniform(16, 20), 0.155)


def driving_licence(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.box(0, 0, 1, 1, fill=blend(page.style.paper, page.style.accent, 0.18))
    page.text(1 - m, 0.05, s.choice(["DRIVING LICENCE", "DRIVER LICENSE"]), s.uniform(20, 26), bold=True, anchor="ra",
              ink=page.style.accent)  # fmt: skip
    page.logo(m, 0.05, s.uniform(34, 46))
    width = s.uniform(0.2, 0.25)
    page.portrait(m, 0.24, m + width, 0.66)
    x = m + width + 0.05
    for number in range(6):
        page.text(
            x, 0.2 + 0.085 * number, f"{('1.', '2.', '3.', '4a.', '4b.', '5.')[number]}  {page.phrase(2)}", 15
        )
    count = int(s.integers(6, 10))
    wide = (1 - 2 * m) / count
    for number in range(count):
        left = m + number * wide
        page.box(left, 0.76, left + wide, 0.93, ink=page.style.ink, width=2, fill=page.style.paper)
        page.text(left + wide / 2, 0.79, _CATEGORIES[number], 15, bold=True, anchor="ma")
        page.rule(left, 0.86, left + wide)


def business_card(page: Page) -> None:
    s, m = page.style.rng, page.style.margin + 0.02
    dark = s.random() < 0.3
    if dark:
        page.box(0, 0, 1, 1, fill=blend(page.style.accent, (0, 0, 0), 0.4))
    ink = page.style.paper if dark else None
    right = s.random() < 0.5
    page.logo(1 - m - 0.16 if right else m, 0.12, s.uniform(70, 95))
    x, anchor = (m, "la") if right or s.random() < 0.5 else (1 - m, "ra")
    page.text(
        x, s.uniform(0.44, 0.5), page.phrase(2).title(), s.uniform(28, 36), bold=True, ink=ink, anchor=anchor
    )
    page.text(x, 0.61, page.phrase(2), 15, ink=ink, anchor=anchor)
    for line in range(int(s.integers(2, 4))):
        said = (f"+{page.number(11)}", f"{page.word()}@{page.word()}.com", page.phrase(3))[line]
        page.text(x, 0.73 + 0.07 * line, said, 13, ink=ink, anchor=anchor)


def boarding_pass(page: Page) -> None:
    s = page.style.rng
    page.box(0, 0, 1, s.uniform(0.16, 0.22), fill=page.style.accent)
    page.text(0.03, 0.04, "BOARDING PASS", s.uniform(20, 25), bold=True, ink=page.style.paper)
    stub = s.uniform(0.72, 0.77)
    for level in np.arange(0, 1, 0.04):
        page.pen.line((page.x(stub), page.y(level), page.x(stub), page.y(level + 0.02)), (120, 120, 120), 2)
    codes = ["".join(page.words.choice(list("ABCDEFGHIJKLMNOPRSTVZ"), 3)) for _ in range(2)]
    size = s.uniform(44, 56)
    page.text(0.05, 0.27, codes[0], size, bold=True)
    page.text(0.4, 0.27, codes[1], size, bold=True)
    page.text(0.3, 0.32, ">>", 26, ink=page.style.accent)
    for column in range(4):
        page.text(0.05 + 0.13 * column, 0.6, page.word().upper(), 10)
        page.text(0.05 + 0.13 * column, 0.67, page.number(2) + page.word()[:1].upper(), 20, bold=True)
    page.text(0.05, 0.86, page.phrase(2).upper(), 14)
    page.text(stub + 0.03, 0.3, " ".join(codes), 19, bold=True)
    for line in range(3):
        page.text(stub + 0.03, 0.44 + 0.09 * line, page.word().upper() + " " + page.number(2), 12)
    if s.random() < 0.5:
        page.barcode(0.6, 0.28, 0.69, 0.95, upright=False)
    else:
        page.barcode(stub + 0.03, 0.75, 0.97, 0.94)


def cheque(page: Page) -> None:
    s, m = page.style.rng, 0.04
    page.waves(s.uniform(0.25, 0.4))
    page.text(m, 0.07, page.phrase(3).title(), 18, bold=True)
    page.text(m, 0.17, page.phrase(4), 10)
    page.text(0.7, 0.08, f"Date {page.date()}", 13)
    for line, y in enumerate((0.4, 0.56)):
        page.text(m, y - 0.08, ("Pay to", "The sum of")[line], 11)
        page.rule(m + 0.12, y, 0.72)
        page.scribble(m + 0.14, y - 0.05, page.words.uniform(0.25, 0.5), 0.06)
    page.box(0.76, 0.3, 1 - m, 0.43, ink=page.style.ink, width=2, fill=page.style.paper)
    page.text(0.78, 0.33, f"$ {page.amount()}", 17)
    page.rule(0.62, 0.79, 1 - m)
    page.scribble(0.68, 0.73, 0.24, 0.12)
    page.text(m, 0.72, page.phrase(2), 11)
    page.text(
        m + 0.05,
        0.88,
        f"|:{page.number(9)}|:  {page.number(10)}||'  {page.number(4)}",
        s.uniform(17, 20),
        mono=True,
    )
