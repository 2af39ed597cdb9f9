"""All that is known of one row, and two checkpoints side by side."""

from __future__ import annotations

from typing import Any

from console import text
from console.desk import Desk
from console.orders import Refused
from console.panes import checkpoints, events, training
from console.sheets.asking import Read
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Checkpoint, to_json


def details(desk: Desk) -> None:
    """Opens the sheet of the selected row; a pane without rows is zoomed."""
    if desk.ui.focus not in ROWS:
        desk.ui.zoomed = not desk.ui.zoomed
        desk.arrange()
        return
    heading, facts = facts_of(desk.view())
    desk.open_sheet(Read(desk, heading, lambda _view, width: fact_rows(facts, width)))


ROWS = ("events", "training", "compare", "checkpoints")


def facts_of(view: View) -> tuple[str, dict[str, Any]]:
    """What is known of the selected row of the pane that has the focus, with its heading.

    Raises:
        Refused: no row is selected there.
    """
    if view.ui.focus == "events" and (event := events.selected(view)):
        return f"{_('Event')} {event.id}", to_json(event)
    if view.ui.focus == "training" and (run := training.selected(view)):
        facts = (to_json(run.progress) if run.progress else {}) | (to_json(run.run) if run.run else {})
        return f"{_('Run')} {run.name}", {key: value for key, value in facts.items() if key != "points"}
    if view.ui.focus == "compare" and view.store.ab and (found := view.store.ab.comparison):
        hidden = ("per_class", "differing")
        return _("Comparison"), {key: value for key, value in to_json(found).items() if key not in hidden}
    if view.ui.focus == "checkpoints" and (one := checkpoints.selected(view)):
        return _("Checkpoint"), to_json(one)
    raise Refused(_("no row is selected"), "dim")


def compare_checkpoints(desk: Desk) -> None:
    """The two marked checkpoints side by side."""
    found = {one.path: one for one in checkpoints.items(desk.view())}
    pair = [found[path] for path in desk.ui.marks if path in found]
    if len(pair) == 2:
        sheet = Read(desk, _("Two checkpoints"), lambda view, width: compare_rows(pair, view, width))
        desk.open_sheet(sheet)


def compare_rows(pair: list[Checkpoint], view: View, width: int) -> list[Row]:
    """Two checkpoints fact by fact, what differs in another colour."""
    column = max(20, (width - 12) // 2)
    rows = []
    for label, show in FACTS:
        left, right = show(pair[0], view.now), show(pair[1], view.now)
        row = Row(_(label), "dim").to(12).put(text.clip_left(left, column - 2)).to(12 + column)
        rows.append(row.put(text.clip_left(right, column - 2), "" if left == right else "accent").cut(width))
    if pair[0].accuracy is not None and pair[1].accuracy is not None:
        gap = pair[1].accuracy - pair[0].accuracy
        rows += [Row(), Row(_("difference") + "  ", "dim").put(f"{text.points(gap)} " + _("points"))]
        rows.append(Row(_("As the files claim; only A/B asks both the same images."), "dim"))
    return rows


FACTS = (
    ("file", lambda one, now: one.path),
    ("cycle", lambda one, now: text.number(one.cycle)),
    ("epoch", lambda one, now: text.number(one.epoch)),
    ("accuracy", lambda one, now: text.percent(one.accuracy, 2)),
    ("loss", lambda one, now: text.number(one.loss, 4)),
    ("size", lambda one, now: text.size(one.bytes)),
    ("saved", lambda one, now: text.ago(now, one.saved_at)),
    ("sha256", lambda one, now: text.short(one.sha256)),
    ("stands", lambda one, now: checkpoints.stands(one)[0]),
)


def fact_rows(facts: dict[str, Any], width: int) -> list[Row]:
    """Names and values, long values on several rows."""
    rows = []
    for key, value in _flat(facts):
        said = text.wrap(value, max(8, width - 22)) or [text.NONE]
        rows.append(Row(key, "dim").to(22).put(said[0]))
        rows += [Row().to(22).put(line) for line in said[1:]]
    return rows


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, dict):
            rows += _flat(value, f"{name}.")
        elif value is not None and value != []:
            rows.append((name, _shown(key, value)))
    return rows


def _shown(key: str, value: object) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, int | float):
        if key.endswith("bytes"):
            return f"{text.size(value)} ({value:,})"
        if key.startswith(("accuracy", "difference")) or key.endswith("accuracy"):
            return text.percent(value, 2)
        if key.endswith("_s") and not key.endswith("per_s"):
            return text.duration(value)
        return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"
    if isinstance(value, list):
        return ", ".join(f"{item:.4f}" if isinstance(item, float) else str(item) for item in value)
    return str(value)
