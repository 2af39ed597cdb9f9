"""What a slot's box says where there is room: its traffic as a curve, the watch over a promotion, the shadow."""

from __future__ import annotations

from rich.cells import cell_len

from console import text
from console.store import Rates
from console.view import View
from console.widgets.charts import bar, curve
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Bake, Shadow, Slot

LABEL = 10


def facts(view: View, name: str, slot: Slot | None, width: int, curve_rows: int) -> list[Row]:
    """Everything the stream says of one slot, a fact a row; its traffic on `curve_rows` rows."""
    if slot is None:
        return [Row(_("no figures yet"), "dim")]
    problem = [Row(line, "danger") for line in text.wrap(slot.problem or "", width)]
    if slot.release is None:
        return problem or [Row(_("empty"), "dim")]
    origin = [
        f"{_(word)} {value}" for word, value in (("cycle", slot.cycle), ("epoch", slot.epoch)) if value is not None
    ]
    rows = [
        *problem,
        _fact(_("release"), width).put(text.short(slot.release), f"bold {name}").put("  " + " · ".join(origin)),
    ]
    if slot.serving and slot.serving != slot.release:
        rows.append(
            _fact(_("answers"), width).put(text.short(slot.serving), "bold warning").put(" " + _("still"), "dim")
        )
    accuracy = _fact(_("accuracy"), width).put(text.percent(slot.checked_accuracy)).put(" " + _("checked"), "dim")
    rows.append(accuracy.put("  " + text.percent(slot.accuracy)).put(" " + _("claimed"), "dim"))
    rows.append(
        _fact(_("model"), width).put(" ".join(word for word in (slot.architecture, slot.precision) if word))
    )
    then = text.moment(slot.since)
    rows.append(_fact(_("since"), width).put(text.duration(view.now - then) if then is not None else text.NONE))
    answered = _fact(_("requests"), width).put(text.count(slot.requests))
    rows.append(answered.put("  " + text.rate(slot.requests_per_s)).put(" req/s", "dim"))
    rows += traffic(view, name, width, curve_rows)
    latency = _fact(_("latency"), width).put("p50 ", "dim").put(text.milliseconds(slot.p50_ms))
    rows.append(latency.put("  p99 ", "dim").put(text.milliseconds(slot.p99_ms)))
    errors = _fact(_("errors"), width).put(text.count(slot.errors), "danger" if slot.errors else "")
    errors.put("  " + text.number(slot.swaps)).put(" " + _("swaps"), "dim")
    if slot.pid is not None and errors.at + 14 <= width:
        errors.put("  pid ", "dim").put(str(slot.pid))
    rows.append(errors)
    more = trials(view, name, width)
    return [row.cut(width) for row in [*rows, *([Row()] if more and curve_rows > 1 else []), *more]]


def traffic(view: View, name: str, width: int, height: int) -> list[Row]:
    """Requests per second as they went, up to the highest seen, which is written behind."""
    rates = view.store.rates.get(name, Rates())
    known = [rate for rate in rates.per_s if rate is not None]
    if not known or max(known) <= 0:
        return []
    high = max(known)
    figure = f" {text.rate(high)} {_('at most')}"
    room = width - LABEL - cell_len(figure)
    if room < 8:
        return []
    columns = room * (2 if view.glyphs.braille else 1)
    lines = curve(list(rates.per_s)[-columns:], room, height, view.glyphs, low=0.0, high=high, span=columns)
    rows = [Row().to(LABEL).put(line, name) for line in lines]
    rows[0] = rows[0].put(figure, "dim")
    return rows


def trials(view: View, name: str, width: int) -> list[Row]:
    """What watches the slot: AS-IS's bake, TO-BE's shadow; nothing where there is none."""
    slots = view.store.slots
    if slots is None:
        return []
    if name == "asis":
        return _bake(view, slots.bake, width) if slots.bake else []
    return _shadow(view, slots.shadow, width) if slots.shadow else []


def bake_word(view: View, bake: Bake) -> tuple[str, str]:
    """`◐ watched`: where the watch over a promotion stands, with its role."""
    glyphs = view.glyphs
    words = {
        "watching": (f"{glyphs.doing} {_('watched')}", "warning"),
        "passed": (f"{glyphs.done} {_('passed')}", "good"),
        "unjudged": (f"{glyphs.warn} {_('not judged')}", "warning"),
        "alarm": (f"{glyphs.bad} {_('ALARM')}", "danger"),
        "rolled_back": (f"{glyphs.warn} {_('went back')}", "danger"),
    }
    return words[bake.state]


def _bake(view: View, bake: Bake, width: int) -> list[Row]:
    word, role = bake_word(view, bake)
    row = _fact(_("bake"), width).put(word, role)
    until = text.moment(bake.until)
    if bake.state == "watching" and until is not None:
        row.put(f"  {text.duration(until - view.now)} {_('left')}")
    rows = [row]
    if bake.requests is not None:
        counts = Row(text.count(bake.requests)).put(f" req  {text.count(bake.errors)} {_('errors')}", "dim")
        if row.at + 2 + counts.at <= width:
            row.put("  ").add(counts)
        else:
            rows.append(Row().to(LABEL).add(counts))
    rows += [Row().to(LABEL).put(line, role) for line in text.wrap(bake.reason or "", width - LABEL)[:2]]
    return [row.cut(width) for row in rows]


def _shadow(view: View, shadow: Shadow, width: int) -> list[Row]:
    row = _fact(_("shadow"), width)
    answered = (shadow.agreed or 0) + (shadow.differed or 0)
    if answered:
        part = (shadow.agreed or 0) / answered
        room = min(20, width - LABEL - 26)
        if room >= 6:
            filled, track = bar(part, room, view.glyphs)
            row.put(filled, "tobe").put(track, "rule").put(" ")
        row.put(text.percent(part)).put(f" {_('agree')} ", "dim").put(text.count(answered)).put(
            f" {_('asked')}", "dim"
        )
    else:
        row.put(_("nothing mirrored yet"), "dim")
    more = Row().to(LABEL)
    for value, label, role in (
        (shadow.differed, _("differ"), ""),
        (shadow.failed, _("failed"), "danger" if shadow.failed else ""),
        (shadow.queued, _("wait for a label"), "accent" if shadow.queued else ""),
        (shadow.labelled, _("labelled"), ""),
    ):
        shown = f"{text.count(value)} {label}"
        if value is not None and more.at + cell_len(shown) <= width:
            more.put(text.count(value), role).put(f" {label}  ", "dim")
    return [row.cut(width), more] if answered else [row.cut(width)]


def backups(view: View, width: int) -> list[Row]:
    """What a rollback can put back, newest first; a row each."""
    slots = view.store.slots
    if slots is None or not slots.backups:
        return []
    total = f" {text.number(slots.total)}"
    rows = [Row(), Row(_("Backups"), "title").put(total, "dim")]
    name = max(12, min(44, width - 44))
    for one in slots.backups:
        row = Row(text.short(one.release), "").put("  ").cell(text.clip_left(one.name, name), name, "dim")
        row.cell(f"{_('cycle')} {text.number(one.cycle)}", 10, "dim", right=True)
        row.cell(text.percent(one.accuracy), 7, right=True).cell(text.ago(view.now, one.at), 7, "dim", right=True)
        if one.verified is not None:
            sign, word = (view.glyphs.done, _("verified")) if one.verified else (view.glyphs.bad, _("damaged"))
            row.put(f"  {sign} {word}", "good" if one.verified else "danger")
        rows.append(row.cut(width))
    return rows


def _fact(label: str, width: int) -> Row:
    return Row().cell(label, min(LABEL, width) - 1, "dim").put(" ")
