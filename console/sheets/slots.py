"""The sheets that change a slot: promote, roll back, undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from console import text
from console.panes.compare import gate_of
from console.sheets.base import Field, Sheet
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Backup, Slots

if TYPE_CHECKING:
    from console.app import ConsoleApp


def current_slots(view: View) -> Slots | None:
    """Both slots, only while their figures are live: nothing is changed by what may be old."""
    return view.store.slots if view.fresh("slots").state == "live" else None


class Promote(Sheet):
    """TO-BE becomes AS-IS. With the gate closed: the release's first eight digits and a reason."""

    confirm = "Promote"
    confirm_role = "good"

    def __init__(self, console: ConsoleApp) -> None:
        view = console.view()
        slots = view.store.slots
        gate = gate_of(view)
        self.release = slots.tobe.release if slots else None
        self.forced = gate is None or not gate.open
        super().__init__(console)
        self.heading = _("Promote") + " TO-BE → AS-IS"

    def needed_fields(self) -> list[Field]:
        if not self.forced:
            return []
        return [
            Field("digits", f"{_('type')} {text.short(self.release)}"),
            Field("reason", _("reason")),
        ]

    def body(self, view: View, width: int) -> list[Row]:
        slots = view.store.slots
        if slots is None:
            return [Row(_("no figures yet"), "danger")]
        before, after = slots.asis, slots.tobe
        second, third = 13, 13 + max(18, (width - 13) // 2)
        arrow = view.glyphs.arrow
        head = Row().to(second).put("AS-IS " + _("now"), "bold asis").to(third - 3).put(arrow, "dim")
        rows = [head.to(third).put("AS-IS " + _("after"), "bold tobe")]

        def line(label: str, left: str, right: str, role: str = "") -> None:
            rows.append(Row(label, "dim").to(second).put(left).to(third).put(right, role))

        line(_("release"), _named(before.release, before.cycle), _named(after.release, after.cycle))
        found = view.store.ab.comparison if view.store.ab else None
        fits = found is not None and found.current is not False
        line(_("accuracy"), _accuracy(before.checked_accuracy, before.accuracy),
             _accuracy(after.checked_accuracy, after.accuracy))  # fmt: skip
        if found and fits:
            pair = found.difference_ci95
            interval = f" [{text.points(pair[0])}, {text.points(pair[1])}]" if pair and len(pair) == 2 else ""
            role = "good" if pair and pair[0] > 0 else "danger" if pair and pair[-1] < 0 else "warning"
            gap = Row(_("difference"), "dim").to(second).put(text.points(found.difference), role)
            rows.append(gap.put(interval).put(" " + _("points"), "dim"))
            evidence = f"{text.number(found.n)} {_('paired images')}, p {text.small(found.p_value)}"
            rows.append(Row(_("evidence"), "dim").to(second).put(evidence))
        else:
            rows.append(
                Row(_("evidence"), "dim").to(second).put(_("no comparison of these two releases"), "warning")
            )
        asked = found if fits else None
        line("p99", text.milliseconds(before.p99_ms or (asked.asis.p99_ms if asked else None)),
             text.milliseconds(after.p99_ms or (asked.tobe.p99_ms if asked else None)))  # fmt: skip
        stamp = _stamp(view.now)
        if before.release:
            name = f"model_{before.port}_backup_{stamp}.bin"
            rows.append(
                Row(_("backup"), "dim")
                .to(second)
                .put(name[:-6] + "….bin", "")
                .put("  " + _("checked first"), "dim")
            )
        else:
            rows.append(Row(_("backup"), "dim").to(second).put(_("none: AS-IS is empty")))
        rows.append(
            Row(_("undo"), "dim")
            .to(second)
            .put("u", "accent")
            .put(" " + _("puts the old release back, in about a second"))
        )
        rows.append(Row())
        rows += _verdict(view, width)
        if self.forced:
            rows.append(Row())
            rows.append(Row(_("Against the evidence: type the release's first eight digits, and why."), "warning"))
        return rows

    def starts_typing(self) -> bool:
        return False

    def confirmed(self) -> bool:
        """Start `promote`, if what is on the sheet still holds."""
        view = self.console.view()
        slots = current_slots(view)
        if slots is None:
            self.say(_("the figures are not live: wait until they are"))
            return False
        if slots.tobe.release != self.release:
            self.say(_("TO-BE has changed since this sheet was opened: close it and look again"))
            return False
        if not self.forced:
            gate = gate_of(view)
            if gate is None or not gate.open:
                self.say(_("the gate has closed since this sheet was opened: close it and look again"))
                return False
            self.console.run_engine("promote")
            return True
        if self.value("digits").lower() != (self.release or "")[:8].lower():
            self.say(_("those are not the release's first eight digits"))
            return False
        if not self.value("reason"):
            self.say(_("a reason is needed: it goes into the log"))
            return False
        self.console.run_engine("promote", "--force", "--reason", self.value("reason"))
        return True


class Rollback(Sheet):
    """Choose a backup; it goes back to AS-IS, and what it replaces is backed up first."""

    confirm = "Roll back"
    confirm_role = "warning"
    wide = 84

    def __init__(self, console: ConsoleApp, undo: bool = False) -> None:
        self.cursor = 0
        self.undo = undo
        super().__init__(console)
        self.heading = _("Undo: put the last release back on AS-IS") if undo else _("Roll back AS-IS")
        self.chosen = self._at_cursor(console.view())

    def _backups(self, view: View) -> list[Backup]:
        slots = view.store.slots
        backups = list(slots.backups) if slots else []
        return backups[:1] if self.undo else backups

    def _at_cursor(self, view: View) -> str | None:
        backups = self._backups(view)
        return backups[self.cursor].name if 0 <= self.cursor < len(backups) else None

    def body(self, view: View, width: int) -> list[Row]:
        backups = self._backups(view)
        slots = view.store.slots
        rows = []
        if slots and slots.asis.release:
            now = Row("AS-IS " + _("now") + "  ", "dim").put(
                _named(slots.asis.release, slots.asis.cycle), "bold asis"
            )
            rows += [now.put("   " + _accuracy(slots.asis.checked_accuracy, slots.asis.accuracy), "dim"), Row()]
        if not backups:
            return [*rows, Row(_("there is no backup yet: promoting makes one"), "warning")]
        if self.chosen in [one.name for one in backups]:
            self.cursor = [one.name for one in backups].index(self.chosen)
        head = Row("  ").cell(_("backup"), 40, "dim").put(" ").cell(_("release"), 9, "dim")
        head.cell(_("cycle"), 6, "dim", right=True).cell(_("accuracy"), 9, "dim", right=True)
        rows.append(head.cell(_("made"), 8, "dim", right=True).cut(width))
        self._first = len(rows)
        window = max(3, self.console.size.height - 14)
        top = max(0, self.cursor - window + 1)
        for index, one in enumerate(backups[top : top + window], top):
            row = Row(ground="selection" if index == self.cursor else "background")
            row.put((view.glyphs.cursor if index == self.cursor else " ") + " ", "accent")
            row.cell(one.name, 40).put(" ").cell(text.short(one.release), 9)
            row.cell(text.number(one.cycle), 6, right=True).cell(text.percent(one.accuracy), 9, right=True)
            row.cell(text.ago(view.now, one.at), 8, right=True)
            if one.verified is False:
                row.put(" " + _("damaged"), "danger")
            rows.append(row.cut(width))
        rows.append(Row())
        rows.append(Row(_("Its hash is checked, and AS-IS is backed up, before anything changes."), "dim"))
        return rows

    def key(self, key: str) -> bool:
        backups = self._backups(self.console.view())
        steps = {"up": -1, "k": -1, "down": 1, "j": 1}.get(key)
        if steps is None or not backups:
            return False
        self.cursor = max(0, min(len(backups) - 1, self.cursor + steps))
        self.chosen = backups[self.cursor].name
        self.draw(self.console.view())
        return True

    def confirmed(self) -> bool:
        view = self.console.view()
        if current_slots(view) is None:
            self.say(_("the figures are not live: wait until they are"))
            return False
        known = {one.name: one for one in self._backups(view)}
        if self.chosen not in known:
            self.say(_("the backups have changed since this sheet was opened: close it and look again"))
            return False
        if known[self.chosen].verified is False:
            self.say(_("that backup is damaged: its hash is not what it should be"))
            return False
        self.console.run_engine("rollback", self.chosen)
        return True


def _named(release: str | None, cycle: int | None) -> str:
    if release is None:
        return _("empty")
    return f"{text.short(release)} ({_('cycle')} {cycle})" if cycle is not None else text.short(release)


def _accuracy(checked: float | None, claimed: float | None) -> str:
    if checked is not None:
        return f"{text.percent(checked)} {_('checked')}"
    return f"{text.percent(claimed)} {_('claimed')}" if claimed is not None else text.NONE


def _verdict(view: View, width: int) -> list[Row]:
    gate = gate_of(view)
    if gate is None:
        return [Row(_("The gate has not spoken yet."), "warning")]
    word, role = (_("Gate open"), "good") if gate.open else (_("Gate closed"), "warning")
    sign = view.glyphs.done if gate.open else view.glyphs.todo
    said = text.wrap(f"{sign} {word}: {text.advice(gate.reason)}", width)
    return [Row(line, role) for line in said]


def _stamp(now: float) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(now).strftime("%Y%m%d_%H%M%S")
