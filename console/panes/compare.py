"""The comparison: both accuracies with their intervals, the four cells, how sure we are, and the gate."""

from __future__ import annotations

from console import text
from console.view import View
from console.widgets.charts import whisker
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Comparison, Gate


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
    if found is None:
        return [Row(_("no comparison yet: `a` asks both slots the same images"), "dim"), *_gate(view, width)]
    rows = _bars(view, found, width)
    rows.append(_gap(view, found, width))
    rows.append(_cells(view, found))
    rows += _gate(view, width)[: max(1, height - len(rows))]
    left = height - len(rows)
    if left > 2 and found.per_class:
        rows += _classes(view, found, width, left)
    left = height - len(rows)
    if left > 2 and found.differing:
        rows += _differing(found, width, left)
    place = view.ui.place("compare")
    place.fit(len(rows), height)
    return rows[:height]


def _bars(view: View, found: Comparison, width: int) -> list[Row]:
    sides = [("asis", "AS-IS", found.asis), ("tobe", "TO-BE", found.tobe)]
    known = [side.ci95 for _name, _title, side in sides if side.ci95 and len(side.ci95) == 2]
    start, room = 16, max(10, width - 16 - 16)
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
        row.right(text.short(side.release) + "  ", width - 6, "dim")
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
        row.put("   e ", "dim").put(f"{found.e_value:.1f}" if found.e_value < 1000 else "> 1,000")
        if found.e_needed:
            row.put(f" {_('of')} {found.e_needed:.0f}", "dim")
    if found.images_needed and found.verdict == "undecided":
        row.put("   ").put(f"{_('about')} {text.number(found.images_needed)} {_('more images')}", "accent")
    return row.cut(width)


def _sense(found: Comparison) -> str:
    pair = found.difference_ci95 or [0.0, 0.0]
    return "good" if pair[0] > 0 else "danger" if pair[-1] < 0 else "warning"


def _cells(view: View, found: Comparison) -> Row:
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
    return row


def _gate(view: View, width: int) -> list[Row]:
    gate = gate_of(view)
    if gate is None:
        return []
    word, role = (_("gate open"), "good") if gate.open else (_("gate closed"), "warning")
    sign = view.glyphs.done if gate.open else view.glyphs.todo
    label = f"{sign} {word}  "
    said = text.wrap(text.advice(gate.reason), max(10, width - len(label)))
    rows = [Row(label, role).put(said[0] if said else "", "")]
    return [*rows, *(Row(" " * len(label)).put(line) for line in said[1:])]


def _classes(view: View, found: Comparison, width: int, height: int) -> list[Row]:
    """Per class: how many of it each slot got right, the greatest change first."""
    ordered = sorted(found.per_class, key=lambda one: -abs((one.tobe_correct or 0) - (one.asis_correct or 0)))
    column = 40
    across = max(1, (width + 2) // column)
    head = Row()
    for _index in range(across):
        head.cell(_("class"), 12, "dim").cell("n", 5, "dim", right=True).cell("AS-IS", 8, "dim", right=True)
        head.cell("TO-BE", 8, "dim", right=True).put(" " * (column - 33))
    rows = [Row(), head.cut(width)]
    lines = min(height - 2, (len(ordered) + across - 1) // across)
    for line in range(lines):
        row = Row()
        for one in ordered[line::lines][:across]:
            row.cell(one.label, 12).cell(text.number(one.n), 5, "dim", right=True)
            row.cell(_share(one.asis_correct, one.n), 8, right=True)
            better = (one.tobe_correct or 0) - (one.asis_correct or 0)
            row.cell(
                _share(one.tobe_correct, one.n),
                8,
                "good" if better > 0 else "danger" if better < 0 else "",
                right=True,
            )
            sign = view.glyphs.up if better > 0 else view.glyphs.down if better < 0 else " "
            row.put(f" {sign}", "dim").put(" " * (column - 35))
        rows.append(row.cut(width))
    return rows


def _share(correct: int | None, count: int) -> str:
    return text.percent(correct / count) if correct is not None and count else text.NONE


def _differing(found: Comparison, width: int, height: int) -> list[Row]:
    """The images on which the slots disagree: the truth, what each said, and where the image lies."""
    rows = [Row(), Row(_("they differ on") + f" {text.number(found.differing_total)} " + _("images"), "dim")]
    for one in found.differing[: height - 2]:
        row = (
            Row()
            .cell(one.label, 10)
            .cell(one.asis or text.NONE, 10, "good" if one.asis == one.label else "danger")
        )
        row.cell(one.tobe or text.NONE, 10, "good" if one.tobe == one.label else "danger")
        rows.append(row.put(text.clip_left(one.path or text.short(one.sha256), max(0, width - 31)), "dim"))
    return rows
