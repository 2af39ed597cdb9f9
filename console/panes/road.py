"""The road: where every model stands on its way, and what may come next."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len

from console import text
from console.view import View
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Bake


@dataclass(frozen=True)
class Station:
    """One stop: `state` is done, doing, todo or bad; `fact` what stands there in a few words."""

    name: str
    state: str
    fact: str


ROLES = {"done": "good", "doing": "warning", "todo": "dim", "bad": "danger"}


def stations(view: View) -> list[Station]:
    return [_train(view), _sync(view), _slot(view, "tobe", "TO-BE"), _compare(view), _slot(view, "asis", "AS-IS")]


NEXT_KEYS = {
    "train": "train",
    "sync": "sync",
    "serve": "serve",
    "compare": "ab",
    "more_images": "ab",
    "promote": "promote",
    "force": "promote",
    "unhold": "hold",
}
SAFE = "undo"  # what takes back a release that does worse live than the one before it


def next_action(view: View) -> str | None:
    """The action of the registry that takes the next step, where there is one."""
    health, slots = view.store.health, view.store.slots
    if view.store.feed == "live" and slots and slots.bake and slots.bake.state == "alarm":
        return SAFE
    return NEXT_KEYS.get(health.next.action) if health and health.next and view.store.feed == "live" else None


def next_step(view: View) -> str:
    """What the operator may do next, in one sentence."""
    if view.store.feed == "offline":
        return view.store.feed_why or _("no figures: the feed is not running")
    health, slots = view.store.health, view.store.slots
    if slots and slots.bake and slots.bake.state == "alarm":
        return _("take the promotion back: {release} returns").format(release=text.short(slots.bake.replaced))
    if health and health.next and health.next.text:
        return text.advice(health.next.text)
    return _("waiting for the first figures") if health is None else _("nothing to do")


def alert(view: View) -> str:
    """The newest sentence that wants a person, and how many more there are; "" where none does."""
    health = view.store.health
    if health is None or not health.alerts:
        return ""
    more = len(health.alerts) - 1
    return health.alerts[0] + (f" (+{more})" if more else "")


def draw(view: View, width: int, height: int, brand: str) -> list[Row]:
    """One row (names and signs) or two (with facts below the names and the next step at the right)."""
    signs = {
        "done": view.glyphs.done, "doing": view.glyphs.doing, "todo": view.glyphs.todo, "bad": view.glyphs.bad,
    }  # fmt: skip
    stops = stations(view)
    action = next_action(view)
    key = view.key(action) if action in view.keys else ""
    urgent = alert(view)
    back = f"[{key}] " if key and urgent and action == SAFE else ""  # before the alarm: it may fill the line
    if height == 1 or width < 100:
        names = Row(" ")
        if width < 48:
            for stop in stops:
                names.put(signs[stop.state], ROLES[stop.state]).put(f"{stop.name} ")
            stops = []
        for index, stop in enumerate(stops):
            names.put(stop.name + " ").put(signs[stop.state], ROLES[stop.state])
            if index < len(stops) - 1:
                names.put(_rail(view, stop, 2), "rule")
        if height == 1:
            return [names.cut(width)]
        names.right(brand, width - 1, "dim") if names.at + len(brand) + 2 < width else None
        step = Row(" ")
        if urgent:
            step.put(back, "bold accent").put(f"{view.glyphs.warn} {urgent}", "bold danger").put("  ")
        step.put(_("next") + " ", "dim").put(f"[{key}] " if key and not back else "", "bold accent")
        return [names.cut(width), step.put(next_step(view), "accent").cut(width - 1)]
    left = len(brand) + 3
    room = min(16, max(13, (width - left - 30) // 5))
    names, facts = Row(" ").put(brand, "bold title").to(left), Row().to(left)
    for index, stop in enumerate(stops):
        column = left + index * room
        names.to(column).put(signs[stop.state], ROLES[stop.state]).put(f" {stop.name} ", "bold")
        if index < len(stops) - 1:
            names.put(_rail(view, stop, column + room - 2 - names.at), "rule").put(" ")
        facts.to(column + 2)
        facts.put(text.clip(stop.fact, room - 3), "dim" if stop.state != "bad" else "danger")
    end = left + 5 * room
    label = _("next") + (f" [{key}] " if key else " ")
    wanted = text.wrap(f"{view.glyphs.warn} {urgent}", width - end - 1 - len(back)) if urgent else []
    said = text.wrap(next_step(view), width - end - cell_len(label) - 1)
    if len(wanted) > 1:  # no room for what comes next: it is not until this is seen to
        names.to(end).put(back, "bold accent").put(wanted[0], "bold danger")
        facts.to(end + 2).put(" ".join(wanted[1:]), "bold danger").cut(width - 1)
        return [names, facts]
    names.to(end).put(_("next") + " ", "dim").put(f"[{key}] " if key else "", "bold accent")
    names.put(text.clip(" ".join(said), width - 1 - names.at) if wanted else "".join(said[:1]), "accent")
    if wanted:
        facts.to(end).put(wanted[0], "bold danger")
    else:
        facts.to(end + cell_len(label)).put(" ".join(said[1:]), "accent").cut(width - 1)
    return [names, facts]


def _rail(view: View, stop: Station, length: int) -> str:
    return (view.glyphs.rail if stop.state == "done" else view.glyphs.rail_todo) * max(0, length)


def _train(view: View) -> Station:
    under_way = [run for _host, run in view.store.progress() if run.status == "running"]
    if under_way:
        left = under_way[0].eta_s
        return Station(_("train"), "doing", f"{text.duration(left)} {_('left')}" if left else _("running"))
    runs = view.store.runs
    last = runs.runs[0] if runs and runs.runs else None
    if last is None:
        return Station(_("train"), "todo", _("no run yet"))
    if last.status in ("failed", "lost"):
        return Station(_("train"), "bad", f"{last.run} {_(last.status)}")
    if last.status == "interrupted":
        return Station(_("train"), "doing", _("interrupted"))
    return Station(_("train"), "done", text.percent(last.best.accuracy) if last.best else _("done"))


def _sync(view: View) -> Station:
    health = view.store.health
    last = health.last_sync if health else None
    if health is None or last is None:
        return Station(_("sync"), "todo", _("not yet"))
    if last.error:
        return Station(_("sync"), "bad", last.error)
    if health.missed_looks:
        return Station(_("sync"), "bad", f"{health.missed_looks} {_('missed')}")
    return Station(_("sync"), "done", text.ago(view.now, last.at))


def _slot(view: View, name: str, title: str) -> Station:
    slots = view.store.slots
    slot = getattr(slots, name) if slots else None
    if slot is None or slot.release is None:
        return Station(title, "todo", _("empty"))
    if name == "asis" and slots and slots.bake and slots.bake.release == slot.release and slot.state == "live":
        return _watched(view, title, slots.bake)
    if slot.state == "live":
        return Station(title, "done", text.short(slot.release))
    return Station(title, "doing" if slot.state == "loading" else "bad", _(slot.state))


def _watched(view: View, title: str, bake: Bake) -> Station:
    """AS-IS while its last promotion is watched: it stands there for good once that has passed."""
    if bake.state == "watching":
        until = text.moment(bake.until)
        left = f" {text.duration(until - view.now)}" if until is not None else ""
        return Station(title, "doing", _("watched") + left)
    if bake.state == "unjudged":
        return Station(title, "doing", _("not judged"))
    if bake.state == "alarm":
        return Station(title, "bad", _("ALARM"))
    return Station(title, "done", text.short(bake.release))


def _compare(view: View) -> Station:
    ab = view.store.ab
    found = ab.comparison if ab else None
    gate = (view.store.health.gate if view.store.health else None) or (ab.gate if ab else None)
    slots = view.store.slots
    if slots and slots.asis.release and slots.asis.release == slots.tobe.release:
        return Station(_("compare"), "done", _("same release"))
    if found is None:
        return Station(_("compare"), "todo", _("not yet"))
    if found.running:
        return Station(_("compare"), "doing", f"{text.number(found.n)} …")
    if found.current is False:
        return Station(_("compare"), "todo", _("out of date"))
    if gate and gate.open:
        return Station(_("compare"), "done", _("gate open"))
    if found.verdict == "asis":
        return Station(_("compare"), "bad", _("AS-IS wins"))
    if found.verdict == "tobe":
        return Station(_("compare"), "doing", _("TO-BE wins"))
    return Station(_("compare"), "doing", _("undecided"))
