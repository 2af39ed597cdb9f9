"""AS-IS and TO-BE: which release serves, since when, how well and how busy."""

from __future__ import annotations

from rich.cells import cell_len

from console import text
from console.panes import slot_detail
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


def pane_title(view: View) -> Row:
    """The title of the pane that shows both slots with all that is known of them."""
    row = Row(_("Slots"), "title")
    fresh = view.fresh("slots")
    return row.put(" ").put(*view.state(fresh)) if fresh.state != "live" else row


def draw_both(view: View, width: int, height: int) -> list[Row]:
    """Both slots side by side (below each other where it is narrow), then the backups; scrolled by the cursor."""
    across = width >= 68
    half = (width - 3) // 2 if across else width
    curve = max(1, min(8, (height - 22) // 2))
    sides = [
        [title(view, name), *slot_detail.facts(view, name, slot_of(view, name), half, curve)] for name in TITLES
    ]
    if across:
        longest = max(len(side) for side in sides)
        left, right = ([*side, *([Row()] * (longest - len(side)))] for side in sides)
        rows = [Row().add(one).to(half + 3).add(two) for one, two in zip(left, right, strict=True)]
    else:
        rows = [*sides[0], Row(), *sides[1]]
    rows += slot_detail.backups(view, width)
    place = view.ui.place("slots")
    place.cursor = place.top = max(0, min(place.cursor, len(rows) - height))
    return [row.cut(width) for row in rows[place.top : place.top + height]]


def title(view: View, name: str, *, port: bool = True) -> Row:
    """`AS-IS :8891 ● live`: the worse of the slot's own state and of its figures' age."""
    slot = slot_of(view, name)
    fresh = view.fresh("slots")
    row = Row(TITLES[name], f"bold {name}")
    if slot and port:
        row.put(f" :{slot.port}", "dim")
    row.put(" ")
    if fresh.state != "live" or slot is None:
        return row.put(*view.state(fresh))
    return row.put(*_state(view, slot))


def draw(view: View, name: str, width: int, height: int) -> list[Row]:
    """The slot on `height` rows; on one row with its name in front."""
    slot = slot_of(view, name)
    if height == 1:
        return _short(view, name, slot, width)
    if slot is None:
        return [Row(_("no figures yet"), "dim")]
    if slot.release is None:
        hint = _empty(slot, name)
        return [Row(line, hint.spans[0][1]) for line in text.wrap(hint.plain, width)][:height]
    head = Row(text.short(slot.release), f"bold {name}")
    said = tag(view, name)
    head.put("  ").put(text.clip(origin(slot), width - head.at - 2 - (cell_len(said[0]) + 1 if said else 0)))
    if said:
        head.right(said[0], width, f"bold {said[1]}")
    accuracy = Row(_("accuracy") + " ", "dim")
    if slot.checked_accuracy is not None:
        accuracy.put(text.percent(slot.checked_accuracy)).put(" " + _("checked"), "dim")
    if slot.accuracy is not None and (slot.checked_accuracy is None or width >= 37):
        accuracy.put("  " if slot.checked_accuracy is not None else "")
        accuracy.put(text.percent(slot.accuracy)).put(" " + _("claimed"), "dim")
    if slot.state != "live" and slot.problem:
        told = [Row(line, "danger") for line in text.wrap(slot.problem, width)]
        return [row.cut(width) for row in [head, accuracy, *told][:height]]
    third = Row(f"{text.rate(slot.requests_per_s)}").put(" req/s", "dim")
    if width >= 33:
        third.put("   p50 ", "dim").put(text.milliseconds(slot.p50_ms))
    third.put("   p99 ", "dim").put(text.milliseconds(slot.p99_ms))
    since = Row(_("since") + " ", "dim").put(_age(view, slot))
    if slot.requests is not None and width >= 33:
        since.put("  ").put(text.count(slot.requests)).put(" req", "dim")
    errors = slot.errors or 0
    if slot.errors is not None:
        since.put("  ").put(text.count(errors), "danger" if errors else "").put(" " + _("errors"), "dim")
    rows = [head, accuracy, third, since]
    if height > 4:
        more = Row(" ".join(word for word in (slot.architecture, slot.precision) if word), "dim")
        rows.append(
            more.put(f"   {text.number(slot.swaps)} " + _("swaps"), "dim") if slot.swaps is not None else more
        )
    trials = slot_detail.trials(view, name, width)
    if (room := height - len(rows) - len(trials)) > 0 and len(trials) < 3:
        rows += slot_detail.traffic(view, name, width, min(2, room))
    shown = [row.cut(width) for row in [*rows, *trials][:height]]
    return [row.fade() for row in shown] if view.fresh("slots").state == "offline" else shown


def tag(view: View, name: str) -> tuple[str, str] | None:
    """What is special about the slot's release in a word, with its role: watched, held or new."""
    slots, health = view.store.slots, view.store.health
    bake = slots.bake if slots and name == "asis" else None
    if bake and bake.state != "passed":
        return slot_detail.bake_word(view, bake)
    if name == "tobe" and health and health.held:
        return _("HELD"), "warning"
    return (_("NEW"), name) if is_new(view, name) else None


def _age(view: View, slot: Slot) -> str:
    then = text.moment(slot.since)
    return text.NONE if then is None else text.duration(view.now - then) if view.now - then >= 60 else _("now")


def origin(slot: Slot) -> str:
    """`cycle 7 · epoch 48`."""
    facts = ((_("cycle"), slot.cycle), (_("epoch"), slot.epoch))
    return " · ".join(f"{word} {value}" for word, value in facts if value is not None)


def _empty(slot: Slot, name: str) -> Row:
    hint = (
        _("nothing yet: sync brings a release") if name == "tobe" else _("nothing yet: promote the first release")
    )
    return Row(slot.problem or hint, "danger" if slot.problem else "dim")


def _state(view: View, slot: Slot) -> tuple[str, str]:
    signs = {"live": view.glyphs.live, "loading": view.glyphs.stale, "empty": view.glyphs.offline}
    return f"{signs.get(slot.state, view.glyphs.bad)} {_(slot.state)}", STATES.get(slot.state, "danger")


def _short(view: View, name: str, slot: Slot | None, width: int) -> list[Row]:
    """One line: what a glance needs, the rest as far as the width goes."""
    narrow = width < 70
    first = title(view, name, port=not narrow)
    if slot is None or slot.release is None:
        return [first.put("  ").put("" if slot else _("no figures yet"), "dim").cut(width)]
    first.to(15 if narrow and first.at < 15 else 27 if not narrow else first.at + 1)
    first.put(text.short(slot.release), f"bold {name}")
    said = tag(view, name)
    if said and said[1] in ("warning", "danger"):
        first.put(f" {said[0]}", f"bold {said[1]}")
    if slot.problem and slot.state != "live":
        return [first.put("  ").put(slot.problem, "danger").cut(width)]
    accuracy = slot.checked_accuracy if slot.checked_accuracy is not None else slot.accuracy
    if not narrow:
        first.put(f"  {_('cycle')} {text.number(slot.cycle)} ")
    first.put(" " + text.percent(accuracy).rjust(6)).put(" ")
    first.put(text.rate(slot.requests_per_s).rjust(5)).put(" req/s", "dim")
    first.put("  p99 ", "dim").put(text.milliseconds(slot.p99_ms))
    if slot.errors:
        first.put(f"  {text.count(slot.errors)} {_('errors')}", "danger")
    return [first.cut(width)]
