"""The sheets that change AS-IS: promote, roll back, undo."""

from __future__ import annotations

from datetime import datetime

from console import orders, text
from console.desk import Desk
from console.orders import Promotion
from console.panes.compare import e_value, gate_of
from console.sheets.base import Field, Sheet, steps
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Backup, Comparison, Slots

SECOND = 13  # the column where the figures begin


class Promote(Sheet):
    """TO-BE becomes AS-IS. With the gate closed: the release's first eight digits and a reason."""

    confirm = "Promote"
    confirm_role = "good"

    def __init__(self, desk: Desk, promotion: Promotion) -> None:
        self.promotion = promotion
        super().__init__(desk)
        self.heading = _("Promote") + " TO-BE → AS-IS"

    def needed_fields(self) -> list[Field]:
        if not self.promotion.forced:
            return []
        return [Field("digits", f"{_('type')} {self.promotion.digits}"), Field("reason", _("reason"))]

    def body(self, view: View, width: int) -> list[Row]:
        return [*promotion_rows(view, width), *self._against()]

    def _against(self) -> list[Row]:
        if not self.promotion.forced:
            return []
        return [
            Row(),
            Row(_("Against the evidence: type the release's first eight digits, and why."), "warning"),
        ]

    def confirmed(self) -> bool:
        digits, reason = (self.value("digits"), self.value("reason")) if self.promotion.forced else ("", "")
        self.desk.run_engine(*self.promotion.words(self.desk.view(), digits, reason))
        return True


def promotion_rows(view: View, width: int) -> list[Row]:
    """Both releases, their difference, what speaks for it, and what will happen."""
    slots = view.store.slots
    if slots is None:
        return [Row(_("no figures yet"), "danger")]
    before, after = slots.asis, slots.tobe
    third = SECOND + max(18, (width - SECOND) // 2)
    found = view.store.ab.comparison if view.store.ab else None
    asked = found if found is not None and found.current is not False else None
    head = Row().to(SECOND).put("AS-IS " + _("now"), "bold asis").to(third - 3).put(view.glyphs.arrow, "dim")
    rows = [head.to(third).put("AS-IS " + _("after"), "bold tobe")]

    def line(label: str, left: str, right: str) -> None:
        rows.append(Row(label, "dim").to(SECOND).put(left).to(third).put(right))

    line(_("release"), named(before.release, before.cycle), named(after.release, after.cycle))
    line(_("accuracy"), accuracy(before.checked_accuracy, before.accuracy),
         accuracy(after.checked_accuracy, after.accuracy))  # fmt: skip
    rows += _evidence(asked)
    line("p99", text.milliseconds(before.p99_ms or (asked.asis.p99_ms if asked else None)),
         text.milliseconds(after.p99_ms or (asked.tobe.p99_ms if asked else None)))  # fmt: skip
    return [*rows, *_consequences(view, slots), Row(), *gate_rows(view, width)]


def _evidence(asked: Comparison | None) -> list[Row]:
    if asked is None:
        said = Row(_("evidence"), "dim").to(SECOND)
        return [said.put(_("no comparison of these two releases"), "warning")]
    pair = asked.difference_ci95
    whole = pair is not None and len(pair) == 2
    role = "good" if pair and whole and pair[0] > 0 else "danger" if pair and whole and pair[1] < 0 else "warning"
    gap = Row(_("difference"), "dim").to(SECOND).put(text.points(asked.difference), role)
    if pair and whole:
        gap.put(f" [{text.points(pair[0])}, {text.points(pair[1])}]")
    evidence = Row(_("evidence"), "dim").to(SECOND)
    evidence.put(f"{text.number(asked.n)} {_('paired images')}, p {text.small(asked.p_value)}")
    if asked.e_value is not None and asked.e_needed:
        evidence.put(f", e {e_value(asked.e_value)} {_('of')} {asked.e_needed:.0f}")
    return [gap.put(" " + _("points"), "dim"), evidence]


def _consequences(view: View, slots: Slots) -> list[Row]:
    """The backup's name as it will be, and the way back."""
    backup = Row(_("backup"), "dim").to(SECOND)
    if slots.asis.release:
        backup.put(f"model_{slots.asis.port}_backup_{datetime.fromtimestamp(view.now):%Y%m%d_%H%M}…")
        backup.put("  " + _("checked first"), "dim")
    else:
        backup.put(_("none: AS-IS is empty"))
    undo = Row(_("undo"), "dim").to(SECOND).put(view.key("undo"), "accent")
    return [backup, undo.put(" " + _("puts the old release back, in about a second"))]


class Rollback(Sheet):
    """Choose a backup; it goes back to AS-IS, and what it replaces is backed up first.

    With `only`, it is about that one backup: an undo.
    """

    confirm = "Roll back"
    confirm_role = "warning"
    wide = 92

    def __init__(self, desk: Desk, only: str | None = None) -> None:
        self.only = only
        self.confirm = "Undo" if only else "Roll back"
        slots = desk.store.slots
        self.replaces = slots.asis.release if slots else None
        self._first, self._top = 0, 0
        super().__init__(desk)
        self.heading = _("Undo: put the last release back on AS-IS") if only else _("Roll back AS-IS")
        names = [one.name for one in self._backups(desk.view())]
        self.chosen = names[0] if names else None
        if not names:
            self._buttons.pop()  # there is nothing to confirm

    def _backups(self, view: View) -> list[Backup]:
        slots = view.store.slots
        backups = list(slots.backups) if slots else []
        return [one for one in backups if one.name == self.only] if self.only else backups

    def body(self, view: View, width: int) -> list[Row]:
        backups = self._backups(view)
        slots = view.store.slots
        rows = []
        if slots and slots.asis.release:
            now = Row("AS-IS " + _("now") + "  ", "dim")
            now.put(named(slots.asis.release, slots.asis.cycle), "bold asis")
            rows += [now.put("   " + accuracy(slots.asis.checked_accuracy, slots.asis.accuracy), "dim"), Row()]
        if not backups:
            return [*rows, Row(_("there is no backup yet: promoting makes one"), "warning")]
        head = Row("  ").cell(_("backup"), 40, "dim").put(" ").cell(_("release"), 9, "dim")
        head.cell(_("cycle"), 6, "dim", right=True).cell(_("accuracy"), 9, "dim", right=True)
        rows.append(head.cell(_("made"), 8, "dim", right=True).cut(width))
        self._first = len(rows)
        window = max(3, self.desk.size.height - 14)
        cursor = self._cursor(backups)
        self._top = max(0, cursor - window + 1)
        for index, one in enumerate(backups[self._top : self._top + window], self._top):
            rows.append(_backup_row(view, one, index == cursor).cut(width))
        rows.append(Row())
        rows.append(Row(_("Its hash is checked, and AS-IS is backed up, before anything changes."), "dim"))
        return rows

    def _cursor(self, backups: list[Backup]) -> int:
        names = [one.name for one in backups]
        return names.index(self.chosen) if self.chosen in names else 0

    def key(self, key: str) -> bool:
        moved = steps(key)
        if moved is None or not self._backups(self.desk.view()):
            return False
        self._to(self._cursor(self._backups(self.desk.view())) + moved)
        return True

    def click(self, row: int) -> None:
        if row >= self._first:
            self._to(self._top + row - self._first)

    def _to(self, row: int) -> None:
        backups = self._backups(self.desk.view())
        if backups:
            self.chosen = backups[max(0, min(len(backups) - 1, row))].name
            self.draw(self.desk.view())

    def confirmed(self) -> bool:
        self.desk.run_engine(*orders.restore(self.desk.view(), self.chosen, self.replaces))
        return True


def _backup_row(view: View, one: Backup, chosen: bool) -> Row:
    row = Row(ground="selection" if chosen else "background")
    row.put((view.glyphs.cursor if chosen else " ") + " ", "accent")
    row.cell(one.name, 40).put(" ").cell(text.short(one.release), 9)
    row.cell(text.number(one.cycle), 6, right=True).cell(text.percent(one.accuracy), 9, right=True)
    row.cell(text.ago(view.now, one.at), 8, right=True)
    if one.verified is None:
        return row
    sign = view.glyphs.done if one.verified else view.glyphs.bad
    word = _("verified") if one.verified else _("damaged")
    return row.put(f" {sign} {word}", "good" if one.verified else "danger")


def named(release: str | None, cycle: int | None) -> str:
    if release is None:
        return _("empty")
    return f"{text.short(release)} ({_('cycle')} {cycle})" if cycle is not None else text.short(release)


def accuracy(checked: float | None, claimed: float | None) -> str:
    if checked is not None:
        return f"{text.percent(checked)} {_('checked')}"
    return f"{text.percent(claimed)} {_('claimed')}" if claimed is not None else text.NONE


def gate_rows(view: View, width: int) -> list[Row]:
    """The gate's word, and why."""
    gate = gate_of(view)
    if gate is None:
        return [Row(_("The gate has not spoken yet."), "warning")]
    word, role = (_("Gate open"), "good") if gate.open else (_("Gate closed"), "warning")
    sign = view.glyphs.done if gate.open else view.glyphs.todo
    said = text.wrap(f"{sign} {word}: {text.advice(gate.reason)}", width)
    return [Row(line, role) for line in said]
