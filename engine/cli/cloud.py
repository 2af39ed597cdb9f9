"""`cloud`: rented GPUs and one's own server. What a run costs where, launching it, its cost, its end."""

from __future__ import annotations

from typing import Any

import click

from engine.cli.group import VerbGroup
from engine.cli.verb import STRIKE, FiniteRange, Session, Verb, table
from engine.errors import UsageError

_SHOWN = 24  # options; a whole catalogue has hundreds

cloud = VerbGroup(
    {
        "plan": ("cloud", "What this training would cost where, the cheapest that fits first."),
        "launch": ("cloud_machines", "Rent a machine, train there, and end it with its budget."),
        "status": ("cloud_machines", "The machines: state, GPU use, cost, time and budget left."),
        "cost": ("cloud_machines", "What every machine has cost, to the second."),
        "logs": ("cloud_machines", "The training's words on a machine."),
        "stop": ("cloud_machines", "Stop the training there, so that it can go on; the machine stays."),
        "down": ("cloud_machines", "Give a machine back, and make sure that it is gone."),
        "guard": ("cloud_machines", "Look after a machine until it is gone (launch starts it)."),
    },
    prefix="cloud_",
    name="cloud",
    help="Rented GPUs and your own GPU server.",
)


@click.command(cls=Verb)
@click.option(
    "--trace", is_flag=True, help="Have fit trace the net first, so that its memory is known (some seconds)."
)
@click.option("--refresh", is_flag=True, help="Fetch today's prices from SkyPilot's catalogue first.")
@click.option("--samples-per-s", type=FiniteRange(min=0, min_open=True), metavar="N",
              help="This machine's training rate, where no run has measured it (see: bench devices).")  # fmt: skip
def cloud_plan(session: Session, trace: bool, refresh: bool, samples_per_s: float | None) -> None:
    """What the training of these settings costs where: hours, dollars, memory. Nothing is rented."""
    from engine.cloud.plan import make_plan
    from engine.cloud.rates import Rate

    if refresh:
        from engine.cloud.sky import refresh_prices

        count = refresh_prices(session.settings, session.workspace)
        session.say(f"{count} prices of today from SkyPilot's catalogue")
    if trace:
        _trace(session)
    rates = [Rate(samples_per_s, "cpu", "the command line")] if samples_per_s else None
    session.emit(make_plan(session.settings, session.workspace, rates).as_json(), _plan_text)


def _trace(session: Session) -> None:
    from engine.cloud.plan import trace

    if session.settings.task != "images":
        raise UsageError(f"fit forecasts images, not the task {session.settings.task}", "leave --trace out")
    trace(session.settings, session.workspace)


def _plan_text(value: dict[str, Any]) -> str:
    need, options = value["need_bytes"], value["options"]
    head = f"{value['samples']:,} samples, {value['epochs']} epochs"
    head += f"; {need / 1e9:.1f} GB of a GPU's memory" if need else ""
    header = ("", "provider", "GPU", "GB", "$/h", "spot", "hours", "total $", "spot total", "")
    shown = options[:_SHOWN]
    lines = [head, *map(_rate_text, value["rates"]), "", table([_row(option) for option in shown], header)]
    if len(options) > _SHOWN:
        lines.append(f"and {len(options) - _SHOWN} more, dearer or of a speed that nobody has measured: --json")
    lines += ["", *([f"advice: {value['advice']}"] if value["advice"] else []), _prices_text(options)]
    images = value["task"] == "images"
    if not value["rates"]:
        bench = f"python -m engine bench devices -- --model {value['model']} --img-size {value['img_size']}"
        lines.append("hours are unknown: train a little here first" + (f", or: {bench}" if images else ""))
    if need is None and images:
        lines.append("memory is unknown: --trace has fit look (some seconds)")
    if old := sum(option["price_old"] for option in options):
        lines.append(f"{old} prices are old; today's: cloud plan --refresh")
    return "\n".join(lines)


def _rate_text(rate: dict[str, Any]) -> str:
    """`100 samples/s on cpu, 32 at once, fp32 (bench devices, 2026-11-21)`."""
    how = f", {rate['batch_size']} at once" if rate["batch_size"] else ""
    how += f", {rate['precision']}" if rate["precision"] else ""
    origin = f"{rate['source']}, {rate['at'][:10]}" if rate["at"] else rate["source"]
    return f"{rate['per_s']:,.0f} samples/s on {rate['gpu'] or rate['device']}{how} ({origin})"


def _prices_text(options: list[dict[str, Any]]) -> str:
    """`prices: documents of 2025-09-09, SkyPilot's catalogue of 2026-07-09`."""
    return "prices: " + ", ".join(sorted({option["price_from"] for option in options if option["price_at"]}))


def _row(option: dict[str, Any]) -> tuple[str, ...]:
    hours, total = option["hours_range"], option["total_range"]
    cells: tuple[str, ...] = (
        "no"
        if option["fits"] is False
        else "yes"
        if option["fits"]
        else "?"
        if option["provider"] != "here"
        else "",
        option["provider"],
        option["gpu"],
        f"{option['memory_gb']:.0f}" if option["memory_gb"] else "–",
        f"{option['hourly_usd']:.2f}",
        f"{option['spot_usd']:.2f}" if option["spot_usd"] is not None else "–",
        _span(hours, 1),
        _span(total, 2),
        _rounded(option["spot_total_usd"], 2) if option["spot_total_usd"] is not None else "–",
    )
    if option["fits"] is False:  # crossed out, also for a terminal that draws no strikes
        cells = (cells[0], *("".join(letter + STRIKE for letter in cell) for cell in cells[1:]))
    return (*cells, option["reason"] or "")


def _rounded(value: float, digits: int) -> str:
    """Never a cost of nothing: `<0.01` where it would round to that."""
    least = 10**-digits
    return f"{value:.{digits}f}" if value >= least else f"<{least:.{digits}f}"


def _span(ends: tuple[float, float] | None, digits: int) -> str:
    if ends is None:
        return "–"
    least, greatest = (_rounded(end, digits) for end in ends)
    return least if least == greatest else f"{least}–{greatest}"
