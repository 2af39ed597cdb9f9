"""Sweeps in the training pane: a line each below the runs; before any other run, the newest one's table."""

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
_ONE_FROM, _THREE_FROM = 16, 24  # rows of the pane from which on one and three lines are shown


def lines(view: View, width: int, height: int) -> list[Row]:
    """The newest sweeps, a line each: how far, how many failed, the best and what it is made of."""
    runs = view.store.runs
    known = runs.sweeps if runs else []
    count = 3 if height >= _THREE_FROM else 1 if height >= _ONE_FROM else 0
    return [_line(view, sweep).cut(width) for sweep in known[:count]]


def table(view: View, width: int, height: int) -> list[Row]:
    """The newest sweep with its runs, the best first; [] where there is none."""
    runs = view.store.runs
    if not runs or not runs.sweeps:
        return []
    sweep = runs.sweeps[0]
    head = Row().cell("#", 4, "dim", right=True).cell(_("run"), 5, "dim", right=True)
    head.cell("F1", 9, "dim", right=True).cell(_("accuracy"), 10, "dim", right=True).put("  ")
    head.cell(_("state"), 14, "dim").put(_("settings"), "dim")
    rows = [_line(view, sweep), head]
    for run in sweep.runs:
        row = Row().cell(text.number(run.rank), 4, right=True).cell(str(run.n), 5, "dim", right=True)
        row.cell(text.number(run.f1_macro, 4), 9, right=True).cell(text.percent(run.accuracy), 10, right=True)
        word, role = _state(view, run.status)
        row.put("  ").cell(word, 14, role).put(" ".join(run.overrides) or text.NONE, "dim")
        rows.append(row)
    return [row.cut(width) for row in rows[:height]]


def _line(view: View, sweep: Sweep) -> Row:
    row = Row(_("sweep") + " ", "dim").put(sweep.sweep).put("  ").put(*_state(view, sweep.state))
    row.put(f"  {sweep.done}/{sweep.total}")
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


def _state(view: View, status: str) -> tuple[str, str]:
    """`◐ running` and its role."""
    glyphs = view.glyphs
    signs = {"running": glyphs.doing, "completed": glyphs.done, "interrupted": glyphs.todo, "waiting": glyphs.todo}
    return f"{signs.get(status, glyphs.bad)} {_(status)}", STATUS.get(status, "warning")
