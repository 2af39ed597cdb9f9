"""The comparison: both accuracies with their intervals, the four cells, how sure we are, and the gate."""

from __future__ import annotations

import math

from rich.cells import cell_len

from console import text
from console.view import View
from console.widgets.charts import bar, lean, whisker
from console.widgets.rows import Row
from console.words import _
from engine.protocol import ClassResult, Comparison, Gate


def gate_of(view: View) -> Gate | None:
    """The newest word on the gate: the health's, else the comparison's own."""
    health, ab = view.store.health, view.store.ab
    return (health.gate if health else None) or (ab.gate if ab else None)


def title(view: View) -> Row:
    fresh = view.fresh("ab")
    row = Row(_("Compare"), "title")
    ab = view.store.ab
    found = ab.comparison if ab else None
    if found:
        row.put(f" #{found.id}", "dim").put(f" {view.glyphs.dot} ", "rule")
        if found.running and found.planned:
            row.put(f"{text.number(found.n)}/{text.number(found.planned)} " + _("images"), "warning")
        else:
            row.put(f"{text.number(found.n)} " + _("images") + " ", "dim").put(*verdict(found))
    if fresh.state != "live" or found is None:
        row.put(" ").put(*view.state(fresh)) if fresh.state != "live" else None
    return row


def verdict(found: Comparison) -> tuple[str, str]:
    """The verdict as a word and a role."""
    if found.current is False:
        return _("out of date"), "warning"
    words = {"tobe": (_("TO-BE is better"), "good"), "asis": (_("AS-IS is better"), "danger")}
    return words.get(found.verdict or "", (_("undecided"), "warning"))


def draw(view: View, width: int, height: int) -> list[Row]:
    ab = view.store.ab
    found = ab.comparison if ab else None
    if ab is None:
        return [Row(_("no figures yet"), "dim").cut(width)]
    if found is None:
        hint = _("no comparison yet: {key} asks both slots the same images").format(key=view.key("ab"))
        said = text.wrap(hint, width)
        return [row.cut(width) for row in [*(Row(line, "dim") for line in said), *_gate(view, width)][:height]]
    rows = [*_bars(view, found, width), _gap(view, found, width)]
    if found.current is False or view.fresh("ab").state == "offline":
        rows = [row.fade() for row in rows]
    large = view.ui.zoomed or height >= 26
    if found.running:
        rows.append(_asked(view, found, width))
    if large:
        rows += [*_evidence(view, found, width), *_gate(view, width), Row(), *_tables(found, width)]
    else:
        rows.append(_cells(view, found, width))
        rows += _gate(view, width)[: max(1, height - len(rows))]
    if found.per_class and (large or height - len(rows) >= 3):
        rows += [Row()] if large or height - len(rows) > len(found.per_class) + 1 else []
        rows += _classes(view, found, width)
    if found.differing_total and (large or height - len(rows) >= 3):
        rows += _differing(found, width)
    place = view.ui.place("compare")
    place.cursor = place.top = max(0, min(place.cursor, len(rows) - height)) if large else 0
    return [row.cut(width) for row in rows[place.top : place.top + height]]


def _bars(view: View, found: Comparison, width: int) -> list[Row]:
    sides = [("asis", "AS-IS", found.asis), ("tobe", "TO-BE", found.tobe)]
    known = [side.ci95 for _name, _title, side in sides if side.ci95 and len(side.ci95) == 2]
    releases = width >= 100
    start, room = 16, max(10, width - 16 - (21 if releases else 10))
    low = min((pair[0] for pair in known), default=0.0)
    high = max((pair[1] for pair in known), default=1.0)
    margin = max(0.005, (high - low) * 0.08)
    low, high = max(0.0, low - margin), min(1.0, high + margin)
    rows = []
    for name, title, side in sides:
        row = Row(title, f"bold {name}").put("  ").put(text.percent(side.accuracy).rjust(6)).to(start)
        if side.ci95 and len(side.ci95) == 2 and side.accuracy is not None:
            blank, before, point, after = whisker(
                side.ci95[0], side.accuracy, side.ci95[1], room, low, high, view.glyphs
            )
            row.put(blank).put(before, f"dim {name}" if view.glyphs.braille else name).put(point, f"bold {name}")
            row.put(after, f"dim {name}")
        if releases:
            row.right(text.short(side.release), width - 10, "dim")
        row.right(text.milliseconds(side.p99_ms), width, "")
        rows.append(row)
    axis = Row("", "").to(start).put(text.percent(low, 0 if high - low > 0.05 else 1), "dim")
    axis.right(text.percent(high, 0 if high - low > 0.05 else 1), start + room, "dim")
    axis.right("p99", width, "dim")
    return [*rows, axis]


def _gap(view: View, found: Comparison, width: int) -> Row:
    row = Row(_("gap") + "  ", "dim").put(text.points(found.difference), _sense(found))
    if found.difference_ci95 and len(found.difference_ci95) == 2:
        low, high = (text.points(value) for value in found.difference_ci95)
        row.put(f" [{low}, {high}]")
    row.put(" " + _("points"), "dim")
    row.put("   p ", "dim").put(text.small(found.p_value))
    if found.e_value is not None:
        row.put("   e ", "dim").put(e_value(found.e_value))
        if found.e_needed:
            row.put(f" {_('of')} {found.e_needed:.0f}", "dim")
    if found.images_needed and found.verdict == "undecided":
        said = f"   {_('about')} {text.number(found.images_needed)} {_('more images')}"
        row.put(said if row.at + cell_len(said) <= width else "", "accent")
    return row.cut(width)


def _sense(found: Comparison) -> str:
    pair = found.difference_ci95 or [0.0, 0.0]
    return "good" if pair[0] > 0 else "danger" if pair[-1] < 0 else "warning"


def _cells(view: View, found: Comparison, width: int) -> Row:
    row = Row()
    cells = (
        (_("both right"), found.both_right, ""),
        (_("only AS-IS"), found.asis_only, "asis"),
        (_("only TO-BE"), found.tobe_only, "tobe"),
        (_("both wrong"), found.both_wrong, ""),
    )
    for index, (label, count, role) in enumerate(cells):
        row.put(f" {view.glyphs.dot} " if index else "", "rule").put(label + " ", "dim").put(
            text.number(count), role
        )
    errors = (found.asis.errors or 0) + (found.tobe.errors or 0)
    if errors:
        row.put(f" {view.glyphs.dot} ", "rule").put(f"{errors} {_('errors')}", "danger")
    return row.cut(width)


def _gate(view: View, width: int) -> list[Row]:
    gate = gate_of(view)
    if gate is None:
        return []
    word, role = (_("gate open"), "good") if gate.open else (_("gate closed"), "warning")
    sign = view.glyphs.done if gate.open else view.glyphs.todo
    label = f"{sign} {word}  "
    said = text.wrap(text.advice(gate.reason), max(10, width - cell_len(label)))
    rows = [Row(label, role).put(said[0] if said else "", "")]
    return [*rows, *(Row(" " * cell_len(label)).put(line) for line in said[1:])]


def _asked(view: View, found: Comparison, width: int) -> Row:
    """How far a comparison under way has come."""
    figures = f" {text.number(found.n)}/{text.number(found.planned)} {_('images')}"
    row = Row(f"{view.glyphs.doing} {_('asking')} ", "warning")
    part = found.n / found.planned if found.planned else None
    room = width - row.at - cell_len(figures)
    if room >= 4 and part is not None:
        filled, track = bar(part, room, view.glyphs)
        row.put(filled, "accent").put(track, "rule")
    return row.right(figures, width)


def _evidence(view: View, found: Comparison, width: int) -> list[Row]:
    """How far the e-process has come on its way to a decision, on its own (logarithmic) scale."""
    if found.e_value is None or not found.e_needed or found.e_needed <= 1:
        return []
    row = Row(_("evidence") + " ", "dim")
    figures = f"  e {e_value(found.e_value)} {_('of')} {found.e_needed:.0f}"
    part = math.log(max(1.0, found.e_value)) / math.log(found.e_needed)
    filled, track = bar(part, max(4, min(48, width - row.at - cell_len(figures))), view.glyphs)
    return [row.put(filled, "good" if part >= 1 else "warning").put(track, "rule").put(figures)]


def e_value(value: float) -> str:
    return f"{value:.1f}" if value < 1000 else "> 1,000"


def _tables(found: Comparison, width: int) -> list[Row]:
    """The four cells as a table, and what the slots took and failed."""
    column = max(14, cell_len(_("TO-BE right")) + 2)
    head = (
        Row()
        .to(14)
        .cell(_("TO-BE right"), column, "dim", right=True)
        .cell(_("TO-BE wrong"), column, "dim", right=True)
    )
    right = Row().cell(_("AS-IS right"), 14, "dim").cell(text.number(found.both_right), column, right=True)
    right.cell(text.number(found.asis_only), column, "bold asis", right=True)
    wrong = (
        Row().cell(_("AS-IS wrong"), 14, "dim").cell(text.number(found.tobe_only), column, "bold tobe", right=True)
    )
    wrong.cell(text.number(found.both_wrong), column, right=True)
    cells = [head, right, wrong]
    sides = [Row().to(8)]
    for label in ("p50", "p99", _("errors")):
        sides[0].cell(label, 10, "dim", right=True)
    for name, title, side in (("asis", "AS-IS", found.asis), ("tobe", "TO-BE", found.tobe)):
        row = Row().cell(title, 8, f"bold {name}").cell(text.milliseconds(side.p50_ms), 10, right=True)
        row.cell(text.milliseconds(side.p99_ms), 10, right=True)
        sides.append(row.cell(text.number(side.errors), 10, "danger" if side.errors else "", right=True))
    start = max(row.at for row in cells) + 6
    if start + sides[0].at > width:
        return [*(row.cut(width) for row in cells), Row(), *(row.cut(width) for row in sides)]
    return [one.to(start).add(two) for one, two in zip(cells, sides, strict=True)]


def gap(one: ClassResult) -> float | None:
    """How much more of a class TO-BE gets right, as a fraction; None where it was not asked."""
    if not one.n or one.asis_correct is None or one.tobe_correct is None:
        return None
    return (one.tobe_correct - one.asis_correct) / one.n


def _classes(view: View, found: Comparison, width: int) -> list[Row]:
    """Per class: how many of it each slot got right, sorted by the gap, the greatest first."""
    ordered = sorted(found.per_class, key=lambda one: -abs(gap(one) or 0.0))
    widest = max((abs(gap(one) or 0.0) for one in ordered), default=0.0)
    across = 2 if width >= 116 else 1
    column = (width - 3 * (across - 1)) // across
    lines = (len(ordered) + across - 1) // across
    name = max(10, min(28, max(cell_len(one.label) for one in ordered) + 1))
    name = min(name, max(8, column - 32))
    half = min(24, (column - name - 33) // 2)
    rows = []
    for line in range(-1, lines):
        row = Row()
        for index in range(across):
            row.to(index * (column + 3))
            if line < 0:
                row.cell(_("class"), name, "dim")
                for label, size in (("n", 6), ("AS-IS", 8), ("TO-BE", 8), (_("gap"), 7)):
                    row.cell(label, size, "dim", right=True)
            elif line + index * lines < len(ordered):
                _class(view, row, ordered[line + index * lines], name, half, widest)
        rows.append(row.cut(width))
    return rows


def _class(view: View, row: Row, one: ClassResult, name: int, half: int, widest: float) -> None:
    more = gap(one)
    role = "good" if (more or 0) > 0 else "danger" if (more or 0) < 0 else "dim"
    row.cell(one.label, name).cell(text.number(one.n), 6, "dim", right=True)
    row.cell(_share(one.asis_correct, one.n), 8, right=True).cell(_share(one.tobe_correct, one.n), 8, right=True)
    row.cell(text.points(more), 7, role, right=True)
    if half >= 3 and more is not None:
        worse, middle, better = lean(more, half, view.glyphs, high=widest)
        row.put("  ").put(" " * (len(worse) - len(worse.strip()))).put(worse.strip(), role)
        row.put(middle, "rule").put(better.strip(), role)


def _share(correct: int | None, count: int) -> str:
    return text.percent(correct / count) if correct is not None and count else text.NONE


def _differing(found: Comparison, width: int) -> list[Row]:
    """The images on which the slots disagree: the truth, what each said, and where the image lies."""
    said = f"{_('they differ on')} {text.number(found.differing_total)} {_('images')}"
    rows = [Row(), Row(text.clip(said, width), "dim")]
    if not found.differing:
        return rows
    name = max(10, min(20, (width - 12) // 4))
    head = Row("").cell(_("truth"), name, "dim").cell("AS-IS", name, "dim").cell("TO-BE", name, "dim")
    rows.append(head.put(_("image"), "dim").cut(width))
    for one in found.differing:
        row = Row().cell(one.label, name - 1).put(" ")
        for answer in (one.asis, one.tobe):
            row.cell(answer or text.NONE, name - 1, "good" if answer == one.label else "warning").put(" ")
        rows.append(row.put(text.clip_left(one.path or text.short(one.sha256), max(0, width - row.at)), "dim"))
    return rows
