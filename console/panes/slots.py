"""AS-IS and TO-BE: which release serves, since when, how well and how busy."""

from __future__ import annotations

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Slot

TITLES = {"asis": "AS-IS", "tobe": "TO-BE"}
STATES = {"live": "good", "loading": "warning", "empty": "dim", "down": "danger"}


def slot_of(view: View, name: str) -> Slot | None:
    slots = view.store.slots
    return getattr(slots, name) if slots else None


def is_new(view: View, name: str) -> bool:
    """TO-BE holds a release that AS-IS does not."""
    slots = view.store.slots
    return bool(name == "tobe" and slots and slots.tobe.release and slots.tobe.release != slots.asis.release)


def title(view: View, name: str) -> Row:
    """`AS-IS :8891 ● live`: the worse of the slot's own state and of its figures' age."""
    slot = slot_of(view, name)
    fresh = view.fresh("slots")
    row = Row(TITLES[name], f"bold {name}")
    if slot:
        row.put(f" :{slot.port}", "dim")
    row.put(" ")
    if fresh.state != "live" or slot is None:
        return row.put(*view.state(fresh))
    return row.put(*_state(view, slot))


def draw(view: View, name: str, width: int, height: int) -> list[Row]:
    """The slot on `height` rows; on one or two rows with its name in front."""
    slot = slot_of(view, name)
    if height <= 2:
        return _short(view, name, slot, width, height)
    if slot is None:
        return [Row(_("no figures yet"), "dim")]
    if slot.release is None:
        return [_empty(slot, name)]
    head = Row(text.short(slot.release), f"bold {name}")
    head.put("  ").put(_origin(slot))
    health = view.store.health
    if name == "tobe" and health and health.held:
        head.right(_("HELD"), width, "bold warning")
    elif is_new(view, name):
        head.right(_("NEW"), width, f"bold {name}")
    accuracy = Row(_("accuracy") + " ", "dim")
    if slot.checked_accuracy is not None:
        accuracy.put(text.percent(slot.checked_accuracy)).put(" " + _("checked"), "dim")
    if slot.accuracy is not None:
        accuracy.put("  " if slot.checked_accuracy is not None else "")
        accuracy.put(text.percent(slot.accuracy)).put(" " + _("claimed"), "dim")
    if slot.state != "live" and slot.problem:
        return [head, accuracy, *(Row(line, "danger") for line in text.wrap(slot.problem, width))][:height]
    third = Row(f"{text.rate(slot.requests_per_s)}").put(" req/s", "dim")
    third.put("   p50 ", "dim").put(text.milliseconds(slot.p50_ms))
    third.put("   p99 ", "dim").put(text.milliseconds(slot.p99_ms))
    since = Row(_("since") + " ", "dim").put(_age(view, slot))
    if slot.requests is not None:
        since.put("  ").put(text.count(slot.requests)).put(" req", "dim")
    errors = slot.errors or 0
    if slot.errors is not None:
        since.put("  ").put(text.count(errors), "danger" if errors else "").put(" " + _("errors"), "dim")
    rows = [head, accuracy, third, since]
    if height > 4:
        more = Row((slot.architecture or "") + " ", "dim").put(slot.precision or "", "dim")
        rows.append(
            more.put(f"   {text.number(slot.swaps)} " + _("swaps"), "dim") if slot.swaps is not None else more
        )
    return rows[:height]


def _age(view: View, slot: Slot) -> str:
    then = text.moment(slot.since)
    return text.NONE if then is None else text.duration(view.now - then) if view.now - then >= 60 else _("now")


def _origin(slot: Slot) -> str:
    parts = []
    if slot.cycle is not None:
        parts.append(f"{_('cycle')} {slot.cycle}")
    if slot.epoch is not None:
        parts.append(f"{_('epoch')} {slot.epoch}")
    return " · ".join(parts)


def _empty(slot: Slot, name: str) -> Row:
    hint = (
        _("nothing yet: sync brings a release") if name == "tobe" else _("nothing yet: promote the first release")
    )
    return Row(slot.problem or hint, "danger" if slot.problem else "dim")


def _state(view: View, slot: Slot) -> tuple[str, str]:
    signs = {"live": view.glyphs.live, "loading": view.glyphs.stale, "empty": view.glyphs.offline}
    return f"{signs.get(slot.state, view.glyphs.bad)} {_(slot.state)}", STATES.get(slot.state, "danger")


def _short(view: View, name: str, slot: Slot | None, width: int, height: int) -> list[Row]:
    first = title(view, name)
    if slot is None or slot.release is None:
        return [first.put("  ").put("" if slot else _("no figures yet"), "dim")]
    wide = width >= 76
    if height == 1:
        first.to(27 if wide else 24)
    else:
        first.put("  ")
    first.put(text.short(slot.release), f"bold {name}")
    accuracy = slot.checked_accuracy if slot.checked_accuracy is not None else slot.accuracy
    facts = Row()
    facts.put(f"{_('cycle')} {text.number(slot.cycle)}  ")
    facts.put(text.percent(accuracy).rjust(6)).put("  ")
    facts.put(text.rate(slot.requests_per_s).rjust(5)).put(" req/s", "dim")
    facts.put("  p99 ", "dim").put(text.milliseconds(slot.p99_ms))
    if height == 1:
        return [first.put("  ").add(facts).cut(width)]
    if slot.problem and slot.state != "live":
        facts = Row(slot.problem, "danger")
    return [first, Row("  ").add(facts).cut(width)]
