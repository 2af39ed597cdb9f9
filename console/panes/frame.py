"""The lines between the panes with their titles, and the last line with the keys."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len

from console.actions import Action, sign
from console.layout import PANES, Plan, lines
from console.panes import checkpoints, compare, devices, events, log, slots, training
from console.view import View
from console.widgets.rows import Row
from console.words import _

TITLES = {
    "devices": devices.title,
    "training": training.title,
    "checkpoints": checkpoints.title,
    "compare": compare.title,
    "events": events.title,
    "log": log.title,
    "slots": slots.pane_title,
}


def draw(view: View, plan: Plan) -> list[Row]:
    """Every row of the screen with its border characters and the titles in them."""
    borders = lines(plan, view.glyphs)
    titles: dict[int, list[tuple[int, int, Row, str]]] = {}
    for name, box in plan.boxes.items():
        room = box.x1 - box.x0 - 3
        row = tabs(view, room) if plan.mode != "full" else _title(view, name)
        titles.setdefault(box.y0, []).append((max(0, box.x0 + 1), room, row.cut(room), name))
    rows = []
    for y in range(plan.height):
        border = borders.get(y)
        if border is None:
            rows.append(Row())
            continue
        row = Row()
        for x, room, title, name in sorted(titles.get(y, []), key=lambda one: one[0]):
            row.put("".join(border[row.at : x]), "rule").put(" ").add(title).put(" ")
            if plan.mode == "full" and name == view.ui.focus:
                row.put("".join(border[row.at : x + room + 2]), "accent")
        rows.append(row.put("".join(border[row.at :]), "rule"))
    return rows


def _title(view: View, name: str) -> Row:
    if name in slots.TITLES:
        chosen = Row(f"{view.glyphs.cursor} ", "accent") if view.ui.focus == "slots" else Row()
        return chosen.add(slots.title(view, name))
    focused = view.ui.focus == name
    row = Row(view.glyphs.cursor if focused else str(PANES.index(name) + 1), "accent" if focused else "dim")
    title = TITLES[name](view)
    if focused:
        title.spans[0] = (title.spans[0][0], "bold accent")
    return row.put(" ").add(title)


def tabs(view: View, width: int) -> Row:
    """All panes' names, the one that is shown with its whole title; the others by their numbers where it is narrow."""
    full = _title(view, view.ui.focus)
    names = [f"{index} {_(name)}" for index, name in enumerate(PANES, 1) if name != view.ui.focus]
    named = sum(cell_len(name) for name in names) + full.at
    between = f" {view.glyphs.horizontal} " if named + 3 * len(names) <= width else " "
    brief = named + len(names) > width
    if brief and full.at + 4 * len(names) <= width:
        between = f" {view.glyphs.horizontal} "
    row = Row()
    for index, name in enumerate(PANES, 1):
        if row.at:
            row.put(between, "rule")
        if name == view.ui.focus:
            row.add(full)
        else:
            row.put(f"{index}" if brief else f"{index} {_(name)}", "dim")
    return row


def footer(
    width: int,
    offered: Iterable[Action],
    keys: dict[str, tuple[str, ...]],
    notice: tuple[str, str],
    tail: str,
) -> tuple[Row, list[tuple[int, int, str]]]:
    """The last line, and which action lies under which columns: (start, end, action)."""
    row = Row(" ")
    spots: list[tuple[int, int, str]] = []
    if notice[0]:
        row.put(notice[0], notice[1]).cut(width - len(tail) - 2)
    else:
        for action, shown, label in _fitting(offered, keys, width - row.at - cell_len(tail) - 2):
            start = row.at
            row.put(shown, "bold accent").put(f" {label}", "dim")
            spots.append((start, row.at, action.id))
            row.put("  ")
    if tail:
        row.right(tail, width - 1, "warning")
    return row, spots


def _fitting(
    offered: Iterable[Action], keys: dict[str, tuple[str, ...]], room: int
) -> list[tuple[Action, str, str]]:
    """(action, key, label) of the footer's actions that fit; help and quit are the last to go."""
    found = [
        (action, sign(keys[action.id][0]), _(action.label))
        for action in offered
        if action.footer and keys.get(action.id)
    ]

    def cells(entries: list[tuple[Action, str, str]]) -> int:
        return sum(cell_len(shown) + cell_len(label) + 3 for _action, shown, label in entries)

    while found and cells(found) > room:
        spare = [index for index, entry in enumerate(found) if entry[0].id not in ("help", "quit")]
        found.pop(spare[-1] if spare else -1)
    return found
