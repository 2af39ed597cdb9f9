"""Rented machines: a line each below the devices, and all that is known of them as a sheet; costs to the second."""

from __future__ import annotations

from console import text
from console.view import View
from console.widgets.charts import bar
from console.widgets.rows import Row
from console.words import _
from engine.protocol import CloudMachine

STATE = {
    "launching": "warning",
    "starting": "warning",
    "running": "good",
    "preempted": "warning",
    "stopped": "dim",
    "ending": "warning",
    "gone": "dim",
    "unknown": "danger",
}
JOB = {"waiting": "dim", "running": "good", "done": "good", "failed": "danger", "none": "dim", "unknown": "dim"}
MARKS = ((0.8, "danger"), (0.5, "warning"))
_LABEL = 11
_METER, _SHORT, _WIDE = 24, 16, 90  # cells of a meter; of one in a narrow sheet; and up to where it is narrow
_NAME = 16  # in a line; the sheet has all of it


def known(view: View) -> list[CloudMachine]:
    """Those that may cost money first."""
    return view.store.cloud.machines if view.store.cloud else []


def paid_for(view: View) -> list[CloudMachine]:
    return [machine for machine in known(view) if machine.state != "gone"]


def cost(view: View, machine: CloudMachine) -> float:
    """What it has cost by now, US dollars."""
    since = text.moment(machine.since)
    return machine.cost_usd + (max(0.0, view.now - since) / 3600 * machine.hourly_usd if since else 0.0)


def left_s(view: View, machine: CloudMachine) -> float | None:
    """Until its budget ends it."""
    end = text.moment(machine.stop_at)
    return max(0.0, end - view.now) if end is not None and machine.state != "gone" else None


def idle_s(view: View, machine: CloudMachine) -> float | None:
    """How long nothing has worked on it, where that is too long and costs money."""
    since, limit = text.moment(machine.active_at), machine.idle_limit_s
    if since is None or limit is None or machine.state != "running" or view.now - since <= limit:
        return None
    return view.now - since


def below(view: View, width: int, height: int) -> list[Row]:
    """A line for each machine that costs money, what needs a person first; the last says how many more there are."""
    found = sorted(paid_for(view), key=lambda machine: not _urgent(view, machine))
    shown = found if len(found) <= height else found[: max(0, height - 1)]
    rows = [line(view, machine).cut(width) for machine in shown]
    if height > 0 and len(shown) < len(found):
        rows.append(
            Row("$ ", "accent").put(_("and {count} more").format(count=len(found) - len(shown)), "dim").cut(width)
        )
    return rows


def _urgent(view: View, machine: CloudMachine) -> bool:
    spent = cost(view, machine) / machine.budget_usd if machine.budget_usd else 0.0
    return (
        machine.state == "unknown"
        or machine.guarded is False
        or idle_s(view, machine) is not None
        or spent >= MARKS[0][0]
    )


def line(view: View, machine: CloudMachine) -> Row:
    """Name, its cost, what it does and when it ends: a narrow pane cuts off what matters least."""
    row = Row("$ ", "accent").put(text.clip(machine.name, _NAME))
    row.put("  ").put(_money(view, machine, 2), _role(view, machine))
    row.put("  ").put(*_state(view, machine))
    if machine.gpu_use is not None:
        row.put("  " + text.percent(machine.gpu_use, 0))
    if (left := left_s(view, machine)) is not None:
        row.put("  " + _("ends in {time}").format(time=text.duration(left)), "dim")
    return row.put(f"  {machine.gpu or text.NONE}", "dim")


def every(view: View, width: int) -> list[Row]:
    """All machines, one below the other, and what those that cost money cost together."""
    rows: list[Row] = []
    for machine in known(view):
        rows += [*_whole(view, machine, width), Row()]
    if len(paid := paid_for(view)) > 1:
        money = f"${sum(cost(view, machine) for machine in paid):.4f}"
        hourly = _("${price} an hour").format(price=f"{sum(machine.hourly_usd for machine in paid):.2f}")
        rows = [_fact(_("together"), money).put(f"  {hourly}", "dim").cut(width), Row(), *rows]
    return rows[:-1]


def _whole(view: View, machine: CloudMachine, width: int) -> list[Row]:
    spot = " " + _("spot") if machine.spot else ""
    head = Row(machine.name, "bold").put(f"  {machine.provider}  {machine.gpu or text.NONE}{spot}", "dim")
    rows = [head.put("  ").put(*_state(view, machine))]
    if machine.state == "gone":
        took = f"{text.clock(machine.started_at)} {view.glyphs.arrow} {text.clock(machine.closed_at)}"
        rows.append(_fact(_("cost"), _money(view, machine)).put(f"  {took}", "dim"))
        return [row.cut(width) for row in [*rows, *_words(machine, width)]]
    rows.append(_cost(view, machine, width))
    if machine.gpu_use is not None:
        row = (
            _fact(_("GPU"))
            .add(_meter(view, machine.gpu_use, width))
            .put(f" {text.percent(machine.gpu_use, 0):>4}")
        )
        rows.append(
            row.put(f"  {text.share(machine.gpu_memory_used_bytes, machine.gpu_memory_total_bytes)}", "dim")
        )
    if machine.job != "unknown":
        job = _fact(_("training")).put(_(machine.job), JOB.get(machine.job, "dim"))
        if machine.epoch is not None:
            job.put(f"  {_('epoch')} {text.number(machine.epoch)}/{text.number(machine.epochs)}")
        if machine.eta_s is not None:
            job.put("  " + _("{time} to go").format(time=text.duration(machine.eta_s)), "dim")
        rows.append(job)
    if (left := left_s(view, machine)) is not None:
        rows.append(_fact(_("ends")).put(_("in {time} at the latest").format(time=text.duration(left))))
    if machine.state == "unknown":
        said = _("nobody can ask it: it is counted as running")
        rows.append(Row(f"{view.glyphs.bad} {said}", "danger"))
    if (idle := idle_s(view, machine)) is not None:
        said = _("nothing has worked there for {time}, and it costs money").format(time=text.duration(idle))
        rows.append(Row(f"{view.glyphs.bad} {said}", "danger"))
    if machine.guarded is False:
        rows.append(Row(f"{view.glyphs.bad} " + _("no guard: `cloud status` starts it again"), "danger"))
    return [row.cut(width) for row in [*rows, *_words(machine, width)]]


def _words(machine: CloudMachine, width: int) -> list[Row]:
    return [Row(part, "dim") for part in text.wrap(machine.why, width)]


def _cost(view: View, machine: CloudMachine, width: int) -> Row:
    row = _fact(_("cost"))
    if machine.budget_usd:
        share = min(1.0, cost(view, machine) / machine.budget_usd)
        role = _role(view, machine)
        row.add(_meter(view, share, width, role)).put(f" {text.percent(share, 0):>4}  ", role)
    row.put(_money(view, machine), _role(view, machine))
    return row.put("  " + _("${price} an hour").format(price=f"{machine.hourly_usd:.2f}"), "dim")


def _money(view: View, machine: CloudMachine, digits: int = 4) -> str:
    budget = " " + _("of ${budget}").format(budget=f"{machine.budget_usd:.2f}") if machine.budget_usd else ""
    return f"${cost(view, machine):.{digits}f}{budget}"


def _role(view: View, machine: CloudMachine) -> str:
    share = cost(view, machine) / machine.budget_usd if machine.budget_usd else 0.0
    return next((role for mark, role in MARKS if share >= mark), "good")


def _fact(name: str, value: str = "") -> Row:
    return Row().cell(name, _LABEL, "dim").put(value)


def _state(view: View, machine: CloudMachine) -> tuple[str, str]:
    """`◐ running` and its role."""
    glyphs = view.glyphs
    signs = {"running": glyphs.doing, "gone": glyphs.done, "unknown": glyphs.bad}
    return f"{signs.get(machine.state, glyphs.todo)} {_(machine.state)}", STATE.get(machine.state, "warning")


def _meter(view: View, share: float, width: int, role: str = "accent") -> Row:
    filled, track = bar(share, _METER if width >= _WIDE else _SHORT, view.glyphs)
    return Row().put(filled, role).put(track, "rule")
