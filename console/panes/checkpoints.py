"""The history of checkpoints: what was saved when, how good it is, and where it stands now."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from rich.cells import cell_len

from console import text
from console.panes import confusion, exports
from console.view import View
from console.widgets.rows import Row
from console.words import _, said
from engine.protocol import Checkpoint, Checkpoints

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
_LISTED = 7  # rows of the pane that stay with the list, if it is long enough


def items(view: View) -> list[Checkpoint]:
    """The rows after filter and sort: worked out once for a snapshot, however often it is drawn."""
    found = view.store.checkpoints
    if found is None:
        return []
    wanted = view.ui.filters.get("checkpoints", "").lower()
    order = view.ui.orders["checkpoints"]
    return _ordered(_Same(found), wanted, order.column, order.descending)


class _Same:
    """A snapshot as the key of a cache: the very same object, not an equal one."""

    __slots__ = ("found",)

    def __init__(self, found: Checkpoints) -> None:
        self.found = found

    def __hash__(self) -> int:
        return id(self.found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.found is other.found


@lru_cache(maxsize=4)
def _ordered(same: _Same, wanted: str, sort: str, descending: bool) -> list[Checkpoint]:
    rows = (
        [row for row in same.found.checkpoints if wanted in _searched(row)] if wanted else same.found.checkpoints
    )
    return sorted(rows, key=SORTS[sort], reverse=descending)


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
        if marks := len(view.ui.marks):
            row.put(f" {view.glyphs.mark} {marks} " + _("marked"), "accent")
    fresh = view.fresh("checkpoints")
    if fresh.state != "live":
        row.put(" ").put(*view.state(fresh))
    return row


def draw(view: View, width: int, height: int) -> list[Row]:
    rows = items(view)
    if not rows:
        return [row.cut(width) for row in _nothing(view, width)[:height]]
    columns = _columns(width)
    place = view.ui.place("checkpoints")
    found = _findings(view, rows, width, height)
    shown = height - 1 - len(found)
    place.fit(len(rows), shown)
    place.first = 1
    lines = [_header(view, columns, width)]
    focused = view.ui.focus == "checkpoints"
    for index in range(place.top, min(len(rows), place.top + shown)):
        lines.append(_line(view, rows[index], columns, width, focused and index == place.cursor))
    lines += [Row() for _line_ in range(height - len(found) - len(lines) if found else 0)]
    return [*lines, *found][:height]


def _findings(view: View, rows: list[Checkpoint], width: int, height: int) -> list[Row]:
    """Below the list, where there is room: an export's proof (the selected one's, else the newest), the analysis."""
    cursor = max(0, min(view.ui.place("checkpoints").cursor, len(rows) - 1))
    proofs = exports.known(view, rows[cursor])
    analysis = view.store.checkpoints.analysis if view.store.checkpoints else None
    found = [exports.brief(view, proofs[0], width)] if proofs else []
    if analysis:
        found.append(confusion.brief(view, analysis, width))
    return found[: max(height - 1 - len(rows), height - _LISTED, 0)]


def file_name(one: Checkpoint) -> str:
    """The file's name; with its folder where many files have that name."""
    path = PurePath(one.path)
    if "cycle" in path.name or "epoch" in path.name:
        return path.name
    return f"{path.parent.name.removeprefix('checkpoints_')}/{path.name}"


def _nothing(view: View, width: int) -> list[Row]:
    """Why there is no row; on a fresh workspace, the way to the first release in production."""
    if view.store.checkpoints is None:
        return [Row(_("no figures yet"), "dim")]
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
        rows.append(Row(f" {number}  ", "dim").cell(view.key(action), 4, "bold accent").put(sentence))
    return [*rows, Row(), Row("    ?   ", "bold accent").put(_("all keys"), "dim")]


def stands(one: Checkpoint) -> tuple[str, str]:
    """Where a checkpoint stands, in a word, with its role; a refused one with the reason."""
    word, role = STANDS.get(one.state or "", (one.state or text.NONE, "dim"))
    if one.reason and one.state in ("rejected", "refused"):
        return f"{_(word)}: {said(one.reason)}", role
    return (_(word) if word.islower() else word), role


def _signed(view: View, one: Checkpoint, size: int) -> tuple[str, str]:
    """As `stands`, with a sign; where it is narrow a refusal's sign and reason say it."""
    glyphs = view.glyphs
    signs = {
        "asis": glyphs.live, "both": glyphs.live, "tobe": glyphs.doing, "new": glyphs.todo, "rejected": glyphs.bad,
        "refused": glyphs.bad, "backup": glyphs.left_of,
    }  # fmt: skip
    shown, role = stands(one)
    if one.reason and one.state in ("rejected", "refused") and size < 26:
        shown = said(one.reason)
    return f"{signs.get(one.state or '', ' ')} {shown}", role


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
        *([("cycle", max(5, cell_len(_("cycle"))), True)] if width >= 48 else []),
        ("file", 0, False),
        ("accuracy", 8 if width >= 100 else 6, True),
    ]
    if width >= 110:
        columns.append(("gain", 6, True))
    if width >= 60:
        columns.append(("epoch", 5, True))
    if width >= 84:
        columns.append(("size", 8, True))
    if width >= 48:
        columns.append(("saved", 6, True))
    if width >= 100:
        columns.append(("hash", 8, False))
    if width >= 150:
        columns.append(("release", 8, False))
    rest = width - 2 - sum(size + 2 for _name, size, _right in columns)
    file = max(10, min(rest - 15, 21) if width < 100 else min(44, max(21, rest * 2 // 5)))
    columns.append(("stands", max(8, rest - file), False))
    return [(name, size or file, right) for name, size, right in columns]


def _header(view: View, columns: list[tuple[str, int, bool]], width: int) -> Row:
    row = Row("  ")
    for name, size, right in columns:
        label = _("acc" if name == "accuracy" and size < 8 else name)
        order = view.ui.orders["checkpoints"]
        sorted_by = name == order.column
        if sorted_by:
            label += view.glyphs.down if order.descending else view.glyphs.up
        row.cell(label, size, "accent" if sorted_by else "dim", right=right).put("  ")
    return row.cut(width)


def _line(view: View, one: Checkpoint, columns: list[tuple[str, int, bool]], width: int, cursor: bool) -> Row:
    row = Row(ground="selection" if cursor else "background")
    marked = one.path in view.ui.marks
    row.put((view.glyphs.mark if marked else view.glyphs.cursor if cursor else " ") + " ", "accent")
    for name, size, right in columns:
        value, role = _value(view, one, name, size)
        row.cell(value, size, role, right=right).put("  ")
    return row.cut(width)


def _value(view: View, one: Checkpoint, name: str, size: int) -> tuple[str, str]:
    """What stands in a column, with its role."""
    match name:
        case "cycle":
            return text.number(one.cycle), ""
        case "file":
            return text.clip_left(file_name(one), size, view.glyphs.ellipsis), ""
        case "accuracy":
            return text.percent(one.accuracy), ""
        case "gain":
            return _gain(view, one)
        case "epoch":
            return text.number(one.epoch), ""
        case "size":
            return text.size(one.bytes), "dim"
        case "saved":
            return text.ago(view.now, one.saved_at), ""
        case "hash":
            return text.short(one.sha256), "dim"
        case "release":
            return text.short(one.release), "dim"
    return _signed(view, one, size)


def _gain(view: View, one: Checkpoint) -> tuple[str, str]:
    """How much more than AS-IS's checkpoint a file claims, in points."""
    slots = view.store.slots
    asis = slots.asis.accuracy if slots and slots.asis.release else None
    if asis is None or one.accuracy is None or one.state in ("asis", "both"):
        return "", ""
    gain = one.accuracy - asis
    return text.points(gain), "good" if gain > 0 else "dim"
