"""Whether a training fits: what was forecast before it began, what there was, and what it has taken."""

from __future__ import annotations

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Run, RunProgress


def verdict(view: View, word: str) -> tuple[str, str]:
    """`● fits` and its role."""
    glyphs = view.glyphs
    return {
        "fits": (f"{glyphs.done} {_('fits')}", "good"),
        "edge": (f"{glyphs.doing} {_('at the edge')}", "warning"),
        "cannot": (f"{glyphs.bad} {_('cannot fit')}", "danger"),
    }.get(word, (word, "dim"))


def line(view: View, run: Run | RunProgress, measured: int | None, width: int) -> Row | None:
    """Verdict, forecast against what was free, and what was measured, in percent of the forecast; None where nothing was forecast."""
    if not run.fit_verdict:
        return None
    row = Row(_("memory") + " ", "dim").put(*verdict(view, run.fit_verdict))
    row.put("  " + _("forecast") + " ", "dim").put(text.share(run.predicted_bytes, run.available_bytes))
    row.put(" " + _("free"), "dim")
    if measured:
        row.put("  " + _("measured") + " ", "dim").put(text.size(measured))
        if run.predicted_bytes:
            row.put(f" ({text.percent(measured / run.predicted_bytes, 0)})", "dim")
    return row.cut(width)
