"""Sweeps: a line each below the runs, and the table of their runs, the best first."""

from __future__ import annotations

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Sweep, SweepRun

STATUS = {
    "waiting": "dim",
    "running": "good",
    "completed": "good",
    "interrupted": "warning",
    "failed": "danger",
    "lost": "danger",
    "damaged": "danger",
}
_ONE_FROM, _THREE_FROM, _TABLE_FROM = 16, 24, 32  # rows of the pane from which on there is room for so much


def known(view: View) -> list[Sweep]:
    """Newest first."""
    return view.store.runs.sweeps if view.store.runs else []


def below(view: View, width: int, height: int) -> list[Row]:
    """What stands below the runs of a pane of `height` rows: the newest sweep's table, or a line each."""
    found = known(view)
    if not found:
        return []
    if height >= _TABLE_FROM:
        return table(view, found[0], width)[: height // 4]
    count = 3 if height >= _THREE_FROM else 1 if height >= _ONE_FROM else 0
    return [head(view, sweep).cut(width) for sweep in found[:count]]


def newest(view: View, width: int, height: int) -> list[Row]:
    """The newest sweep's table; [] where there is none."""
    found = known(view)
    return table(view, found[0], width)[:height] if found else []


def every(view: View, width: int) -> list[Row]:
    """The tables of all sweeps that are known, newest first."""
    rows: list[Row] = []
    for sweep in known(view):
        rows += [*table(view, sweep, width), Row()]
    return rows[:-1]


def table(view: View, sweep: Sweep, width: int) -> list[Row]:
    """A sweep with its runs, the best first and marked; what failed says why."""
    wide = width >= 90
    title = Row("  ").cell("#", 3, "dim", right=True).cell(_("run"), 5, "dim", right=True)
    title.cell("F1", 8, "dim", right=True).cell(_("accuracy"), 9, "dim", right=True)
    if wide:
        title.cell(_("epochs"), 8, "dim", right=True).cell(_("took"), 12, "dim", right=True)
    rows = [head(view, sweep), title.put("  ").cell(_("state"), 14, "dim").put(_("settings"), "dim")]
    for run in sweep.runs:
        first = run.rank == 1
        row = Row(f"{view.glyphs.mark} " if first else "  ", "accuracy")
        row.cell(text.number(run.rank), 3, right=True).cell(str(run.n), 5, "dim", right=True)
        row.cell(text.number(run.f1_macro, 4), 8, "bold accuracy" if first else "", right=True)
        row.cell(text.percent(run.accuracy), 9, "bold accuracy" if first else "", right=True)
        if wide:
            row.cell(f"{text.number(run.epoch)}/{text.number(run.epochs)}", 8, "dim", right=True)
            row.cell(text.duration(run.seconds_s), 12, "dim", right=True)
        row.put("  ").cell(*_state(view, run.status, 14)).put(" ".join(run.overrides) or text.NONE)
        rows.append(row)
        if run.error:
            rows.append(Row().to(12).put(run.error, "danger"))
    if sweep.total > len(sweep.runs):
        rows.append(Row("  " + _("{n} more runs").format(n=sweep.total - len(sweep.runs)), "dim"))
    return [row.cut(width) for row in rows]


def head(view: View, sweep: Sweep) -> Row:
    """One line: how far, how many failed, the best and what it is made of."""
    row = Row(_("sweep") + " ", "dim").put(sweep.sweep).put("  ")
    word, _cells, role = _state(view, sweep.state, 0)
    row.put(word, role).put(f"  {sweep.done}/{sweep.total}")
    if sweep.failed:
        row.put("  " + _("{n} failed").format(n=sweep.failed), "danger")
    if sweep.best:
        row.put("  " + _("best") + " ", "dim").put(_figure(sweep, sweep.best), "accuracy")
        row.put("  " + " ".join(sweep.best.overrides), "dim")
    return row


def _figure(sweep: Sweep, best: SweepRun) -> str:
    if sweep.metric == "f1_macro" and best.f1_macro is not None:
        return f"F1 {best.f1_macro:.4f}"
    return text.percent(best.accuracy)


def _state(view: View, status: str, cells: int) -> tuple[str, int, str]:
    """`◐ running`, the cells it takes, and its role."""
    glyphs = view.glyphs
    signs = {"running": glyphs.doing, "completed": glyphs.done, "interrupted": glyphs.todo, "waiting": glyphs.todo}
    return f"{signs.get(status, glyphs.bad)} {_(status)}", cells, STATUS.get(status, "warning")
