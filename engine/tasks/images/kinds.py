"""Seventeen kinds of documents, each drawn on a `Page` as a photograph of one would show it, with invented text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.tasks.images.cards import (
    boarding_pass,
    business_card,
    cheque,
    driving_licence,
    identity_card,
    passport,
)
from engine.tasks.images.pages import Page, blend


def invoice(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    side = s.random() < 0.5
    page.logo(m if side else 1 - m - 0.1, m, s.uniform(36, 60))
    page.text(1 - m if side else m, m, s.choice(["INVOICE", "Invoice", "TAX INVOICE"]), s.uniform(24, 38), bold=True,
              anchor="ra" if side else "la", ink=page.style.accent)  # fmt: skip
    top = s.uniform(0.15, 0.2)
    page.paragraph(m, top, 0.3, 4, 9)
    page.paragraph(s.uniform(0.52, 0.6), top, 0.3, int(s.integers(3, 5)), 9)
    rows, shares = int(page.words.integers(4, 9)), [1.0, s.uniform(3, 5), 1.2, 1.5]
    y = page.table(m, s.uniform(0.3, 0.36), 1 - 2 * m, shares, rows, s.uniform(20, 26),
                   lambda r, c: (str(r), page.phrase(3), page.number(1), page.amount())[c], ruled=int(s.integers(0, 3)))  # fmt: skip
    for line, label in enumerate(("Subtotal", "Tax", "TOTAL")):
        page.text(0.62, y + 0.02 + 0.025 * line, label, 11, bold=line == 2)
        page.text(1 - m, y + 0.02 + 0.025 * line, page.amount(), 11, bold=line == 2, anchor="ra")
    page.box(0.6, y + 0.065, 1 - m + 0.005, y + 0.096, ink=page.style.accent, width=2)
    page.rule(m, 0.92, 1 - m, page.style.accent)
    page.paragraph(m, 0.93, 1 - 2 * m, 2, 8)


def receipt(page: Page) -> None:
    s = page.style.rng
    size = s.uniform(11, 13)
    y = 0.03
    for line in range(int(s.integers(2, 5))):
        page.text(
            0.5, y, page.phrase(2).upper(), size * (1.5 if line == 0 else 1), mono=True, bold=False, anchor="ma"
        )
        y += 0.035
    dash = s.choice(["- ", "= ", "* "])
    for part in range(2):
        page.text(0.5, y, dash * 16, size, mono=True, anchor="ma")
        y += 0.03
        for _ in range(int(page.words.integers(5, 11)) if part == 0 else int(s.integers(2, 4))):
            page.text(0.06, y, page.phrase(2)[:14], size, mono=True)
            page.text(0.94, y, page.amount(), size, mono=True, anchor="ra")
            y += 0.03
    page.text(0.06, y + 0.01, "TOTAL", size * 1.6, mono=True)
    page.text(0.94, y + 0.01, page.amount(), size * 1.6, mono=True, anchor="ra")
    if s.random() < 0.6:
        page.barcode(0.15, min(y + 0.08, 0.88), 0.85, min(y + 0.15, 0.95))


def cv(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    side, wide = s.random() < 0.5, s.uniform(0.28, 0.34)
    x = 0.0 if side else 1 - wide
    page.box(x, 0, x + wide, 1, fill=blend(page.style.paper, page.style.accent, s.uniform(0.25, 0.9)))
    page.portrait(x + wide * 0.22, 0.05, x + wide * 0.78, s.uniform(0.18, 0.21))
    y = 0.26
    for _ in range(3):
        page.text(x + 0.03, y, page.word().upper(), 12, bold=True)
        for _ in range(int(s.integers(3, 5))):
            y += 0.028
            page.text(x + 0.03, y, page.phrase(1), 9)
            page.box(x + wide * 0.5, y + 0.003, x + wide * 0.9, y + 0.011, ink=page.style.ink)
            page.box(
                x + wide * 0.5, y + 0.003, x + wide * page.words.uniform(0.6, 0.9), y + 0.011, fill=page.style.ink
            )
        y += 0.06
    left, room = (wide + m * 0.7 if side else m), 1 - wide - m * 1.7
    page.text(left, 0.06, page.phrase(2).title(), s.uniform(24, 32), bold=True, ink=page.style.accent)
    page.text(left, 0.11, page.phrase(3), 12)
    y = 0.17
    while y < 0.88:
        page.text(left, y, page.word().upper(), 13, bold=True, ink=page.style.accent)
        page.rule(left, y + 0.022, left + room)
        y += 0.035
        for _ in range(int(page.words.integers(2, 4))):
            page.text(left, y, f"20{page.number(2)} - {page.phrase(2)}", 9.5, bold=True)
            y = page.paragraph(left + 0.02, y + 0.017, room - 0.02, 2, 8.5) + 0.012
        y += 0.015


def letter(page: Page) -> None:
    s, m = page.style.rng, page.style.margin + 0.03
    page.paragraph(m if s.random() < 0.5 else 0.64, m * 0.7, 0.28, 3, 9.5)
    page.paragraph(m, s.uniform(0.16, 0.2), 0.28, 4, 10)
    page.text(1 - m, s.uniform(0.26, 0.29), page.date(), 10, anchor="ra")
    y = page.paragraph(m, s.uniform(0.32, 0.36), 0.4, 1, 11) + 0.02
    for _ in range(int(page.words.integers(2, 5))):
        y = page.paragraph(m, y, 1 - 2 * m, int(page.words.integers(3, 6)), 10.5, 1.5) + 0.02
    page.text(m, y, page.phrase(2), 10.5)
    page.scribble(m, y + 0.045, 0.22, 0.04)
    page.text(m, y + 0.075, page.phrase(2).title(), 10.5)


def bank_statement(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.logo(m, m * 0.6, s.uniform(28, 40))
    page.text(m + 0.1, m * 0.65, page.phrase(2).title(), 17, bold=True, ink=page.style.accent)
    page.box(0.58, 0.05, 1 - m, 0.14, ink=page.style.ink)
    for line in range(3):
        page.text(0.6, 0.057 + 0.026 * line, page.word(), 9)
        page.text(1 - m - 0.02, 0.057 + 0.026 * line, page.number(10), 9, anchor="ra")
    row = s.uniform(14, 17)
    rows = int((page.height * s.uniform(0.68, 0.74)) / row)
    shares = [1.2, s.uniform(3, 4), 1.3, 1.3, 1.4]
    page.table(m, 0.18, 1 - 2 * m, shares, rows, row,
               lambda r, c: (page.date(), page.phrase(3)[:22], page.amount(), page.amount(), page.amount())[c],
               ruled=int(s.integers(0, 3)))  # fmt: skip
    page.text(1 - m, 0.96, page.amount(), 11, bold=True, anchor="ra")


def prescription(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.text(
        0.5,
        0.05,
        f"Dr. {page.phrase(2).title()}",
        s.uniform(20, 26),
        bold=True,
        anchor="ma",
        ink=page.style.accent,
    )
    page.text(0.5, 0.11, page.phrase(4), 11, anchor="ma")
    page.rule(m, 0.16, 1 - m, page.style.accent, 3)
    page.text(m, 0.18, f"Name: {page.phrase(2)}", 12)
    page.text(1 - m, 0.18, page.date(), 12, anchor="ra")
    page.text(m, 0.24, "Rx", s.uniform(60, 84), bold=True)
    y = 0.4
    for _ in range(int(page.words.integers(3, 6))):
        page.scribble(m + 0.1, y, page.words.uniform(0.4, 0.7), 0.025)
        y += s.uniform(0.07, 0.085)
    page.rule(0.55, 0.92, 1 - m)
    page.scribble(0.6, 0.89, 0.28, 0.05)
    if s.random() < 0.6:
        page.pen.ellipse((page.x(m), page.y(0.8), page.x(m) + 90, page.y(0.8) + 90), None, (150, 40, 60), 3)


def medical_report(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.box(m, 0.04, 1 - m, 0.09, fill=page.style.accent)
    page.text(0.5, 0.05, s.choice(["MEDICAL REPORT", "RADIOLOGY REPORT", "Clinical report"]), 19, bold=True,
              ink=page.style.paper, anchor="ma")  # fmt: skip
    for row in range(3):
        for column in range(2):
            x = m + column * (0.5 - m)
            page.box(x, 0.11 + row * 0.035, x + 0.5 - m, 0.145 + row * 0.035, ink=page.style.ink)
            page.text(x + 0.01, 0.117 + row * 0.035, f"{page.word()}: {page.phrase(2)}", 9.5)
    side = s.random() < 0.5
    x0 = m if side else 0.53
    page.box(x0, 0.25, x0 + 0.47 - m, s.uniform(0.5, 0.56), fill=(18, 20, 24))
    for _ in range(9):
        cx, cy = page.words.uniform(x0 + 0.06, x0 + 0.4 - m), page.words.uniform(0.29, 0.46)
        r, grey = page.words.uniform(10, 34), int(page.words.integers(60, 190))
        page.pen.ellipse((page.x(cx) - r, page.y(cy) - r * 0.6, page.x(cx) + r, page.y(cy) + r * 0.6), (grey,) * 3)
    y = 0.25
    for _ in range(3):
        page.text(0.53 if side else m, y, page.word().upper(), 11, bold=True, ink=page.style.accent)
        y = page.paragraph(0.53 if side else m, y + 0.02, 0.47 - m, 4, 9) + 0.012
    y = 0.6
    for _ in range(3):
        page.text(m, y, page.word().upper(), 11, bold=True, ink=page.style.accent)
        y = page.paragraph(m, y + 0.02, 1 - 2 * m, int(s.integers(3, 5)), 9) + 0.015


def contract(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.text(
        0.5,
        0.05,
        s.choice(["AGREEMENT", "CONTRACT", "LEASE AGREEMENT"]),
        s.uniform(18, 24),
        bold=True,
        anchor="ma",
    )
    y = page.paragraph(m, 0.11, 1 - 2 * m, 3, 9.5) + 0.012
    number = 1
    while y < 0.76:
        page.text(m, y, f"{number}.", 10, bold=True)
        page.text(m + 0.05, y, page.phrase(2), 10, bold=True)
        y = page.paragraph(m + 0.05, y + 0.018, 0.95 - 2 * m, int(page.words.integers(3, 5)), 9, 1.3) + 0.01
        number += 1
    for x in (m, 0.58):
        page.rule(x, 0.9, x + 0.42 - m)
        page.scribble(x + 0.03, 0.88, 0.25, 0.035)
        page.text(x, 0.91, page.phrase(2), 9)


def certificate(page: Page) -> None:
    s = page.style.rng
    for inset, width in ((0.025, int(s.integers(4, 9))), (0.05, 2)):
        page.box(inset, inset * 1.4, 1 - inset, 1 - inset * 1.4, ink=page.style.accent, width=width)
    page.text(0.5, 0.16, s.choice(["CERTIFICATE", "Certificate", "DIPLOMA"]), s.uniform(46, 58), bold=True, anchor="ma",
              ink=page.style.accent)  # fmt: skip
    page.text(0.5, 0.34, page.phrase(5), 14, anchor="ma")
    page.text(0.5, 0.43, page.phrase(2).title(), s.uniform(34, 44), anchor="ma")
    page.rule(0.22, 0.56, 0.78)
    for line in range(2):
        page.text(0.5, 0.6 + 0.055 * line, page.phrase(7), 13, anchor="ma")
    x, r = page.x(s.choice([0.2, 0.5, 0.8])), s.uniform(34, 46)
    page.pen.ellipse(
        (x - r, page.y(0.82) - r, x + r, page.y(0.82) + r), blend(page.style.accent, (220, 170, 40), 0.6)
    )
    page.pen.ellipse(
        (x - r * 0.7, page.y(0.82) - r * 0.7, x + r * 0.7, page.y(0.82) + r * 0.7), None, page.style.paper, 2
    )
    page.scribble(0.62 if x < page.x(0.6) else 0.2, 0.8, 0.2, 0.06)


def questionnaire(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.text(m, 0.05, page.phrase(3), s.uniform(17, 22), bold=True)
    y = page.paragraph(m, 0.1, 1 - 2 * m, 2, 9) + 0.02
    count, round_ = int(s.integers(4, 7)), s.random() < 0.5
    places = np.linspace(s.uniform(0.56, 0.62), 1 - m - 0.02, count)
    step, size = s.uniform(0.036, 0.046), s.uniform(11, 14)
    for place in places:
        page.text(place, y, page.word()[:5], 8, anchor="ma")
    y += 0.025
    while y < 0.92:
        page.text(m, y, page.phrase(4)[:36] + "?", 9.5)
        ticked = int(page.words.integers(0, count))
        for number, place in enumerate(places):
            corners = (page.x(place) - size / 2, page.y(y), page.x(place) + size / 2, page.y(y) + size)
            fill = page.style.ink if number == ticked else None
            (page.pen.ellipse if round_ else page.pen.rectangle)(corners, fill, page.style.ink, 1)
        y += step


def article(page: Page) -> None:
    s, m = page.style.rng, page.style.margin
    page.text(0.5, 0.05, page.phrase(5), s.uniform(16, 20), bold=True, anchor="ma")
    page.text(0.5, 0.085, page.phrase(6).title(), 10, anchor="ma")
    page.paragraph(m + 0.07, 0.115, 0.86 - 2 * m, 5, 8)
    wide = 0.485 - m
    figure = int(s.integers(0, 2)), s.uniform(0.25, 0.7)
    for column in range(2):
        x, y = (m if column == 0 else 0.515), 0.2
        while y < 0.93:
            if column == figure[0] and figure[1] <= y < figure[1] + 0.1:
                bottom = y + 0.16
                page.box(x, y, x + wide, bottom, ink=page.style.ink)
                xs = np.linspace(x + 0.02, x + wide - 0.02, 24)
                ys = bottom - 0.02 - 0.11 * np.abs(np.cumsum(page.words.normal(0, 1, 24))) / 12
                page.pen.line(
                    [(page.x(a), page.y(max(b, y))) for a, b in zip(xs, ys, strict=True)], page.style.accent, 2
                )
                y = page.paragraph(x, bottom + 0.008, wide, 2, 7) + 0.01
                continue
            if page.words.random() < 0.25:
                page.text(x, y, page.phrase(2), 9.5, bold=True)
                y += 0.02
            y = (
                page.paragraph(
                    x, y, wide, min(int(page.words.integers(4, 9)), max(1, int((0.95 - y) * 70))), 8, 1.25
                )
                + 0.004
            )


@dataclass(frozen=True)
class Kind:
    """A class: how it is drawn, its longer side in pixels, and the range of width over height."""

    draw: Callable[[Page], None]
    side: int
    aspect: tuple[float, float]


A4 = (0.69, 0.79)
CARD = (1.5, 1.66)
KINDS: dict[str, Kind] = {
    "article": Kind(article, 780, A4),
    "bank_statement": Kind(bank_statement, 780, A4),
    "boarding_pass": Kind(boarding_pass, 760, (2.3, 2.8)),
    "business_card": Kind(business_card, 560, CARD),
    "certificate": Kind(certificate, 780, (1.3, 1.45)),
    "cheque": Kind(cheque, 760, (2.0, 2.4)),
    "contract": Kind(contract, 780, A4),
    "cv": Kind(cv, 780, A4),
    "driving_licence": Kind(driving_licence, 640, CARD),
    "identity_card": Kind(identity_card, 640, CARD),
    "invoice": Kind(invoice, 780, A4),
    "letter": Kind(letter, 780, A4),
    "medical_report": Kind(medical_report, 780, A4),
    "passport": Kind(passport, 700, (1.38, 1.48)),
    "prescription": Kind(prescription, 680, (0.66, 0.75)),
    "questionnaire": Kind(questionnaire, 780, A4),
    "receipt": Kind(receipt, 760, (0.36, 0.5)),
}
