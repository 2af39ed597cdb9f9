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
_LABEL, _METER = 11, 24


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
    """A line for each machine that costs money, as far as there is room for it."""
    return [line(view, machine).cut(width) for machine in paid_for(view)[: max(0, height)]]


def line(view: View, machine: CloudMachine) -> Row:
    """Name, GPU, what it does, its cost and when it ends."""
    row = Row("$ ", "accent").put(machine.name).put(f"  {machine.gpu or text.NONE}", "dim")
    row.put("  ").put(*_state(view, machine))
    if machine.gpu_use is not None:
        row.put("  " + text.percent(machine.gpu_use, 0))
    row.put("  ").put(_money(view, machine), _role(view, machine))
    if (left := left_s(view, machine)) is not None:
        row.put("  " + _("ends in {time}").format(time=text.duration(left)), "dim")
    return row


def every(view: View, width: int) -> list[Row]:
    """All machines, one below the other."""
    rows: list[Row] = []
    for machine in known(view):
        rows += [*_whole(view, machine, width), Row()]
    return rows[:-1]


def _whole(view: View, machine: CloudMachine, width: int) -> list[Row]:
    spot = " " + _("spot") if machine.spot else ""
    head = Row(machine.name, "bold").put(f"  {machine.provider}  {machine.gpu or text.NONE}{spot}", "dim")
    rows = [head.put("  ").put(*_state(view, machine))]
    if machine.state == "gone":
        took = f"{text.clock(machine.started_at)} {view.glyphs.arrow} {text.clock(machine.closed_at)}"
        rows.append(_fact(_("cost"), _money(view, machine)).put(f"  {took}", "dim"))
        return [row.cut(width) for row in [*rows, *_words(machine)]]
    rows.append(_cost(view, machine))
    if machine.gpu_use is not None:
        row = _fact(_("GPU")).add(_meter(view, machine.gpu_use)).put(f" {text.percent(machine.gpu_use, 0)}")
        rows.append(
            row.put(f"  {text.share(machine.gpu_memory_used_bytes, machine.gpu_memory_total_bytes)}", "dim")
        )
    job = _fact(_("training")).put(_(machine.job), JOB.get(machine.job, "dim"))
    if machine.epoch is not None:
        job.put(f"  {_('epoch')} {text.number(machine.epoch)}/{text.number(machine.epochs)}")
    if machine.eta_s is not None:
        job.put("  " + _("{time} to go").format(time=text.duration(machine.eta_s)), "dim")
    rows.append(job)
    if (left := left_s(view, machine)) is not None:
        rows.append(_fact(_("ends")).put(_("in {time} at the latest").format(time=text.duration(left))))
    if (idle := idle_s(view, machine)) is not None:
        said = _("nothing has worked there for {time}, and it costs money").format(time=text.duration(idle))
        rows.append(Row(f"{view.glyphs.bad} {said}", "danger"))
    if machine.guarded is False:
        rows.append(Row(f"{view.glyphs.bad} " + _("no guard: `cloud status` starts it again"), "danger"))
    return [row.cut(width) for row in [*rows, *_words(machine)]]


def _words(machine: CloudMachine) -> list[Row]:
    return [Row(machine.why, "dim")] if machine.why else []


def _cost(view: View, machine: CloudMachine) -> Row:
    row = _fact(_("cost")).put(_money(view, machine), _role(view, machine))
    row.put("  " + _("${price} an hour").format(price=f"{machine.hourly_usd:.2f}"), "dim")
    if machine.budget_usd:
        share = min(1.0, cost(view, machine) / machine.budget_usd)
        row.put("  ").add(_meter(view, share, _role(view, machine))).put(
            f" {text.percent(share, 0)}", _role(view, machine)
        )
    return row


def _money(view: View, machine: CloudMachine) -> str:
    budget = " " + _("of ${budget}").format(budget=f"{machine.budget_usd:.2f}") if machine.budget_usd else ""
    return f"${cost(view, machine):.4f}{budget}"


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


def _meter(view: View, share: float, role: str = "accent") -> Row:
    filled, track = bar(share, _METER, view.glyphs)
    return Row().put(filled, role).put(track, "rule")
