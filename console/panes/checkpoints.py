"""The history of checkpoints: what was saved when, how good it is, and where it stands now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from rich.cells import cell_len

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Checkpoint

SORTS: dict[str, Callable[[Checkpoint], Any]] = {
    "saved": lambda one: text.moment(one.saved_at) or 0.0,
    "cycle": lambda one: -1 if one.cycle is None else one.cycle,
    "accuracy": lambda one: -1.0 if one.accuracy is None else one.accuracy,
    "epoch": lambda one: -1 if one.epoch is None else one.epoch,
    "size": lambda one: one.bytes or 0,
    "stands": lambda one: (one.state or "", text.moment(one.saved_at) or 0.0),
    "file": lambda one: one.path,
}
STANDS = {
    "asis": ("AS-IS", "asis"),
    "tobe": ("TO-BE", "tobe"),
    "both": ("AS-IS, TO-BE", "asis"),
    "backup": ("backup", ""),
    "released": ("released", "dim"),
    "rejected": ("refused", "danger"),
    "refused": ("refused", "danger"),
    "new": ("new", "accent"),
    "resume": ("run state", "dim"),
}


def items(view: View) -> list[Checkpoint]:
    """The rows after filter and sort."""
    found = view.store.checkpoints
    rows = list(found.checkpoints) if found else []
    wanted = view.ui.filters.get("checkpoints", "").lower()
    if wanted:
        rows = [row for row in rows if wanted in _searched(row)]
    return sorted(rows, key=SORTS[view.ui.sort], reverse=view.ui.descending)


def selected(view: View) -> Checkpoint | None:
    rows = items(view)
    cursor = view.ui.place("checkpoints").cursor
    return rows[cursor] if 0 <= cursor < len(rows) else None


def title(view: View) -> Row:
    row = Row(_("Checkpoints"), "title")
    found = view.store.checkpoints
    if found:
        wanted = view.ui.filters.get("checkpoints")
        count = f"{len(items(view))}/{found.total or len(found.checkpoints)}" if wanted else str(found.total)
        row.put(f" {count}", "dim")
        if wanted:
            row.put(f" /{wanted}", "accent")
    fresh = view.fresh("checkpoints")
    if fresh.state != "live":
        row.put(" ").put(*view.state(fresh))
    return row


def draw(view: View, width: int, height: int) -> list[Row]:
    rows = items(view)
    if not rows:
        return _nothing(view, width)
    columns = _columns(width)
    place = view.ui.place("checkpoints")
    place.fit(len(rows), height - 1)
    lines = [_header(view, columns)]
    focused = view.ui.focus == "checkpoints"
    for index in range(place.top, min(len(rows), place.top + height - 1)):
        lines.append(_line(view, rows[index], columns, width, focused and index == place.cursor))
    return lines


def file_name(one: Checkpoint) -> str:
    """The file's name; with its folder where many files have that name."""
    path = PurePath(one.path)
    return path.name if "cycle" in path.name or "epoch" in path.name else f"{path.parent.name}/{path.name}"


def _nothing(view: View, width: int) -> list[Row]:
    """Why there is no row; on a fresh workspace, the way to the first release in production."""
    if view.ui.filters.get("checkpoints"):
        return [Row(_("nothing matches the filter"), "dim")]
    slots = view.store.slots
    if slots is None or slots.asis.release or slots.tobe.release:
        return [Row(_("no checkpoint yet: a training saves one"), "dim")]
    steps = (
        ("train", _("train a first model: its best checkpoint is saved as it gets better")),
        ("sync", _("take the newest checkpoint in, check it, and give it to TO-BE")),
        ("serve", _("serve both slots in the background")),
        ("promote", _("TO-BE becomes AS-IS: the first time with a reason, it has no rival")),
        ("ab", _("from the second release on: ask both the same images first")),
    )
    rows = [Row(_("This workspace is empty. The road to a first model in production:"), "title"), Row()]
    for number, (action, sentence) in enumerate(steps, 1):
        rows.append(Row(f" {number}  ", "dim").cell(view.key(action), 4, "bold accent").put(sentence).cut(width))
    return [*rows, Row(), Row("    ?   ", "bold accent").put(_("all keys"), "dim")]


def stands(one: Checkpoint) -> tuple[str, str]:
    """Where a checkpoint stands, in a word, with its role; a refused one with the reason."""
    word, role = STANDS.get(one.state or "", (one.state or text.NONE, "dim"))
    if one.reason and one.state in ("rejected", "refused"):
        return f"{_(word)}: {one.reason}", role
    return (_(word) if word.islower() else word), role


def _searched(one: Checkpoint) -> str:
    parts = (
        one.path,
        one.state or "",
        one.reason or "",
        one.sha256 or "",
        one.release or "",
        f"cycle {one.cycle}",
    )
    return " ".join(parts).lower()


def _columns(width: int) -> list[tuple[str, int, bool]]:
    """(name, width, right-aligned) of the columns that fit."""
    columns = [
        ("cycle", max(5, cell_len(_("cycle"))), True),
        ("file", 0, False),
        ("accuracy", 8 if width >= 100 else 6, True),
    ]
    if width >= 60:
        columns.append(("epoch", 5, True))
    if width >= 76:
        columns.append(("size", 8, True))
    columns.append(("saved", 6, True))
    if width >= 110:
        columns.append(("hash", 8, False))
    rest = width - 2 - sum(size + 2 for _name, size, _right in columns)
    file = max(10, min(rest - 15, 21 if width < 100 else max(21, rest // 2)))
    columns.append(("stands", max(8, rest - file), False))
    return [(name, size or file, right) for name, size, right in columns]


def _header(view: View, columns: list[tuple[str, int, bool]]) -> Row:
    row = Row("  ")
    for name, size, right in columns:
        label = _("acc" if name == "accuracy" and size < 8 else name)
        sorted_by = name == view.ui.sort
        if sorted_by:
            label += view.glyphs.down if view.ui.descending else view.glyphs.up
        row.cell(label, size, "accent" if sorted_by else "dim", right=right).put("  ")
    return row


def _line(view: View, one: Checkpoint, columns: list[tuple[str, int, bool]], width: int, cursor: bool) -> Row:
    row = Row(ground="selection" if cursor else "background")
    sign = view.glyphs.cursor if cursor else view.glyphs.mark if one.path in view.ui.marks else " "
    row.put(sign + " ", "accent")
    word, role = stands(one)
    values = {
        "cycle": (text.number(one.cycle), ""),
        "accuracy": (text.percent(one.accuracy), ""),
        "epoch": (text.number(one.epoch), ""),
        "size": (text.size(one.bytes), "dim"),
        "saved": (text.ago(view.now, one.saved_at), ""),
        "hash": (text.short(one.sha256), "dim"),
        "stands": (word, role),
    }
    for name, size, right in columns:
        if name == "file":
            row.cell(text.clip_left(file_name(one), size), size).put("  ")
            continue
        value, kind = values[name]
        row.cell(value, size, kind, right=right).put("  ")
    if row.at > width:
        row.cut(width)
    return row
