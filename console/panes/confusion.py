"""Where a checkpoint is wrong: the confusion matrix of the last analysis, shaded, and the worst confusions."""

from __future__ import annotations

from pathlib import PurePath

from rich.cells import cell_len

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Analysis

_RIGHT, _WRONG = (
    (0.0, 0.25, 0.5, 0.75),
    (0.0, 0.05, 0.15, 0.3),
)  # shares of a row from which on each shade is taken
_NARROW, _SPARE, _WIDEST = 3, 4, 10  # cells of a column: the least, from where a blank ends it, the most


def rows(view: View, found: Analysis, width: int, pairs: int = 20) -> list[Row]:
    """All of it: what was judged, the matrix, and at most `pairs` confusions."""
    drawn = [row.cut(width) for row in _head(view, found, width)]
    drawn += _matrix(found, width)
    worst = [_pair(view, found, index, width) for index in range(min(pairs, len(found.confusions)))]
    if worst:
        drawn += [Row(), Row(_("most confused"), "title"), *worst]
    return drawn


def brief(view: View, found: Analysis, width: int) -> Row:
    """One line for the checkpoints: how right, and what it confuses most."""
    row = Row(f"[{view.key('confusion')}] ", "accent").put(_name(found))
    row.put("  " + _("accuracy") + " ", "dim").put(text.percent(found.accuracy), "accuracy")
    if found.confusions:
        worst = found.confusions[0]
        said = f"{worst.label} {view.glyphs.arrow} {worst.taken_for} {text.percent(worst.share, 0)}"
        row.put("  " + _("worst") + " ", "dim").put(said, "warning")
    return row.cut(width)


def _name(found: Analysis) -> str:
    path = PurePath(found.checkpoint)
    if len(path.parts) == 1:
        return text.short(found.checkpoint)
    return path.name if "cycle" in path.name else "/".join(path.parts[-2:])


def _head(view: View, found: Analysis, width: int) -> list[Row]:
    first = Row(_name(found), "bold").put(f"  {text.number(found.n)} " + _("images"))
    if found.data:
        room = width - first.at - 12
        first.put("  " + _("of") + " ", "dim").put(
            text.clip_left(found.data, max(8, room), view.glyphs.ellipsis), "dim"
        )
    second = Row(_("accuracy") + " ", "dim").put(text.percent(found.accuracy), "bold accuracy")
    if found.ci95:
        second.put(f" [{', '.join(f'{value * 100:.1f}' for value in found.ci95)}]", "dim")
    second.put("  F1 ", "dim").put(text.number(found.f1_macro, 3))
    if found.ece is not None:
        second.put("  " + _("calibration error") + " ", "dim").put(text.number(found.ece, 3))
    return [first.right(text.ago(view.now, found.at), width, "dim") if found.at else first, second]


def _matrix(found: Analysis, width: int) -> list[Row]:
    """Rows are the truth, columns the answers; counts where they fit, else whole percents of the row."""
    more = found.classes_total > len(found.classes)
    columns = len(found.classes) + int(more)
    index, label, cell = _sizes(found.classes, columns, width)
    if cell < _NARROW:
        return [Row(line, "dim") for line in text.wrap(_("too narrow for the matrix"), width)]
    gap = int(cell > _SPARE)
    most = max((max(row) for row in found.matrix), default=0)
    counts = len(str(most)) < cell - gap
    rest = [total - sum(row) for total, row in zip(found.support, found.matrix, strict=True)]
    head = Row(" " * (index + label))
    titles = [str(number) if index else name for number, name in enumerate(found.classes, 1)]
    for title in [*titles, *(["+" if index else _("rest")] if more else [])]:
        head.put(" ").cell(title, cell - 1 - gap, "dim", right=True).put(" " * gap)
    drawn = [*_legend(found, counts, width), head]
    for i, row in enumerate(found.matrix):
        line = Row(f"{i + 1:>3} " if index else "", "dim").cell(found.classes[i], label)
        for j, value in enumerate([*row, *rest[i : i + 1]][:columns]):
            share = value / found.support[i] if found.support[i] else 0.0
            line.add(_cell(value, share, cell, right=i == j, counts=counts))
        drawn.append(line)
    return drawn


def _sizes(classes: list[str], columns: int, width: int) -> tuple[int, int, int]:
    """Cells of a row's number, of its name and of a column; no number where every column has room for its name."""
    longest = max((cell_len(label) for label in classes), default=0)
    for index in (0, 4):
        label = min(longest + 1, 24, max(6, width - index - columns * _NARROW))
        cell = min(_WIDEST, (width - index - label) // max(1, columns))
        if cell == _WIDEST or longest < cell - int(cell > _SPARE):
            break
    return index, label, cell


def _legend(found: Analysis, counts: bool, width: int) -> list[Row]:
    said = _("a row is the truth, a column the answer; counts")
    if not counts:
        said = _("a row is the truth, a column the answer; percents of the row")
    if found.classes_total > len(found.classes):
        most = _("the {n} of {total} classes that are confused most")
        said += "; " + most.format(n=len(found.classes), total=text.number(found.classes_total))
    return [Row(line, "dim") for line in text.wrap(said, width)]


def _cell(value: int, share: float, width: int, *, right: bool, counts: bool) -> Row:
    """A figure on its shade: the more of the row it is, the nearer to the role's own colour."""
    gap = int(width > _SPARE)
    if not value:
        return Row().cell("·", width - gap, "dim", right=True).put(" " * gap)
    level = sum(share >= least for least in (_RIGHT if right else _WRONG))
    shown = str(value) if counts else f"{share * 100:.0f}"
    return Row().put(shown.rjust(width - gap) + " " * gap, f"{'good' if right else 'danger'}/{level}")


def _pair(view: View, found: Analysis, index: int, width: int) -> Row:
    one = found.confusions[index]
    row = Row("  ").cell(f"{one.label} {view.glyphs.arrow} {one.taken_for}", max(8, min(44, width - 18)))
    return (
        row.cell(text.number(one.count), 6, right=True)
        .cell(text.percent(one.share), 8, "dim", right=True)
        .cut(width)
    )
