"""`cloud launch|status|cost|logs|stop|down`, and the guard that looks after a machine."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

import click

from engine.cli.verb import FiniteRange, Session, Verb, table
from engine.errors import Failed, UsageError

_TICK_S = 0.5
_USUAL_S = 1800.0  # for a machine to come up; its guard goes on after that
_DOWN_S = 600.0


@click.command(cls=Verb)
@click.option("--name", metavar="NAME", help="The machine's name (default: train-1, train-2, ...).")
@click.option("--gpu", metavar="GPU", help='As in cloud plan: "RTX 4090", A100-80GB, T4, "A100-40GB:8".')
@click.option(
    "--spot", is_flag=True, help="A cheaper machine that may be taken away; the run goes on on another one."
)
@click.option(
    "--max-hourly", type=FiniteRange(min=0, min_open=True), metavar="USD", help="Never a dearer machine."
)
@click.option(
    "--budget",
    type=FiniteRange(min=0, min_open=True),
    metavar="USD",
    help="It ends before it has cost so much.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check everything that a launch checks, and show it; write and rent nothing."
)
@click.option("--detach", is_flag=True, help="Do not wait until it trains.")
def cloud_launch(
    session: Session, name: str | None, gpu: str | None, spot: bool, max_hourly: float | None, budget: float | None,
    dry_run: bool, detach: bool,
) -> None:  # fmt: skip
    """Rent a machine, train there with these settings, bring everything home, and end it with its budget."""
    from engine.cloud.job import training_job
    from engine.cloud.ledger import Ledger, check_name
    from engine.cloud.machines import order, start_guard, want

    cloud, ledger = session.settings.cloud, Ledger(session.workspace)
    name = name or _free_name(ledger.names())
    check_name(name)
    if name in ledger.names() and (stopped := ledger.read(name)).open and stopped.wanted == "stopped":
        if dry_run:
            going = f"'{name}': its training would go on where it was stopped, with the settings it began with"
            session.emit({"name": name, "ok": True, "goes_on": True}, going)
            return
        want(session.workspace, name, "up", "")
        session.say(f"'{name}': the training goes on where it was stopped, with the settings it began with")
        start_guard(session.workspace, name, session.engine_command)
        session.emit(_one(session, name), _status_line)
        return
    job = training_job(
        session.loaded,
        name,
        gpu=gpu,
        spot=spot,
        max_hourly_usd=max_hourly or cloud.max_hourly_usd,
        budget_usd=budget or cloud.budget_usd,
        idle_minutes=cloud.idle_minutes,
    )
    if dry_run:
        _rehearse(session, job)
        return
    entry = order(session.workspace, session.settings, job)
    start_guard(session.workspace, name, session.engine_command)
    most = f" of at most ${entry.hourly_usd:.2f} an hour" if entry.hourly_usd else ""
    session.say(f"'{name}': a machine{most} is asked for; it ends with python -m engine cloud down {name}")
    if not detach:
        _wait_for_training(session, name)
    session.emit(_one(session, name), _status_line)


def _rehearse(session: Session, job: Any) -> None:
    """Show what a launch would check, upload and ask for; an error where a check fails."""
    from engine.cloud.rehearsal import rehearse

    done = rehearse(session.workspace, session.settings, job)
    if (problem := done.problem()) is None:
        session.emit(done.as_json(), _rehearsed_text)
        return
    if not session.json:
        session.emit(done.as_json(), _rehearsed_text)
    raise problem


def _rehearsed_text(value: dict[str, Any]) -> str:
    kind = f"{value['gpu'] or value['provider']}{' spot' if value['spot'] else ''}"
    head = f"{value['name']}: {kind}" + (
        f", at most ${value['hourly_usd']:.2f} an hour" if value["hourly_usd"] else ""
    )
    if value["stop_at"]:
        head += f"; begun now it would end by {value['stop_at'][:16].replace('T', ' ')}"
    marks = {True: "ok", False: "no", None: "?"}
    rows = [(marks[check["ok"]], check["name"], check["detail"]) for check in value["checks"]]
    rows += [("", "upload", f"{item['place']}: {item['files']:,} files, {item['bytes'] / 1e6:,.2f} MB of {item['source']}")
             for item in value["uploads"]]  # fmt: skip
    said = [f"  {line}" for check in value["checks"] for line in check["said"]]
    task = value["task"] or f"there: {value['words']}"
    parts = [head, table(rows), *(["\n".join(said)] if said else []), task.rstrip(), "nothing was rented, uploaded or written"]  # fmt: skip
    return "\n\n".join(parts)


def _free_name(taken: list[str]) -> str:
    number = 1
    while f"train-{number}" in taken:
        number += 1
    return f"train-{number}"


def _wait_for_training(session: Session, name: str) -> None:
    """Show what the launch says until the training runs there; Ctrl-C leaves everything to the guard."""
    from engine.cloud.ledger import Ledger

    log, read = Ledger(session.workspace).files(name) / "launch.log", 0
    deadline = time.monotonic() + _USUAL_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError), log.open(encoding="utf-8", errors="replace") as stream:
            stream.seek(read)
            for line in stream:
                session.say(f"  {line.rstrip()}")
            read = stream.tell()
        seen = _one(session, name)
        if seen["state"] == "gone" or (seen["state"] == "ending" and seen["job"] not in ("done", "failed")):
            raise Failed(
                f"'{name}' was not launched: {seen['why']}", f"its cost: ${seen['cost_usd']:.2f}", payload=None
            )
        if seen["job"] in ("running", "done", "failed"):
            return
        time.sleep(_TICK_S)
    session.say("it is not up yet; its guard goes on. See: python -m engine cloud status")


@click.command(cls=Verb, words=("NAME", 0, 1))
@click.option("--watch", is_flag=True, help="Again every --interval seconds, until stopped.")
@click.option("--interval", type=FiniteRange(min=0.2), default=5.0, show_default=True, metavar="S")
def cloud_status(session: Session, words: list[str], watch: bool, interval: float) -> None:
    """The machines as their guards saw them last; a guard that is missing is started again."""
    from engine.cloud.machines import start_missing_guards
    from engine.cloud.view import list_machines

    while True:
        started = start_missing_guards(session.workspace, session.engine_command)
        found = [_one(session, words[0])] if words else list_machines(session.workspace)
        for name in started:
            session.say(f"the guard of '{name}' was not there any more: started again")
        session.emit({"machines": found}, _status_table)
        if not watch:
            return
        time.sleep(interval)


@click.command(cls=Verb)
def cloud_cost(session: Session) -> None:
    """What every machine has cost so far, and all of them together."""
    from engine.cloud.view import list_machines

    found = list_machines(session.workspace, everything=True)
    keys = ("name", "provider", "gpu", "spot", "state", "started_at", "closed_at", "paid_s", "hourly_usd", "cost_usd",
            "budget_usd", "launches")  # fmt: skip
    rows = [{key: item[key] for key in keys} for item in found]
    total = round(sum(item["cost_usd"] for item in found), 4)
    session.emit({"machines": rows, "total_usd": total}, _cost_table)


@click.command(cls=Verb, words=("NAME", 1, 1))
@click.option("--follow", is_flag=True, help="Until the training ends.")
def cloud_logs(session: Session, words: list[str], follow: bool) -> None:
    """The training's words on a machine; of one that is gone, what came home."""
    from engine.cloud.ledger import Ledger
    from engine.cloud.machines import open_provider

    ledger = Ledger(session.workspace)
    entry = ledger.read(words[0])
    if entry.open and entry.machine is not None:
        lines = open_provider(session.settings, session.workspace, entry.provider).logs(entry.machine, follow)
        for line in lines:
            session.emit({"line": line}, line)
        return
    for name in ("launch.log", "job.log"):
        with contextlib.suppress(FileNotFoundError):
            for line in (
                (ledger.files(entry.name) / name).read_text(encoding="utf-8", errors="replace").splitlines()
            ):
                session.emit({"line": line}, line)


@click.command(cls=Verb, words=("NAME", 1, 1))
def cloud_stop(session: Session, words: list[str]) -> None:
    """Stop the training there, its state saved; a rented machine then ends by itself for having nothing to do."""
    from engine.cloud.ledger import Ledger, seconds
    from engine.cloud.machines import open_provider, want

    entry = Ledger(session.workspace).read(words[0])
    if not entry.open or entry.machine is None:
        raise UsageError(f"nothing trains on '{entry.name}'", "see: cloud status")
    want(session.workspace, entry.name, "stopped", "its training was stopped")
    provider = open_provider(session.settings, session.workspace, entry.provider)
    provider.stop(entry.machine)
    state = provider.status(entry.machine)
    with Ledger(session.workspace).change(entry.name) as box:
        box[0] = box[0].seen(state, seconds())  # not only with the guard's next look
    session.emit(
        _one(session, entry.name),
        f"the training on '{entry.name}' has stopped; the machine: cloud down {entry.name}",
    )


@click.command(cls=Verb, words=("NAME", 1, 1))
@click.option("--yes", is_flag=True, help="Do not ask.")
def cloud_down(session: Session, words: list[str], yes: bool) -> None:
    """Bring everything home, give the machine back, and wait until its provider says that it is gone."""
    from engine.cloud.ledger import Ledger
    from engine.cloud.machines import start_guard, want
    from engine.cloud.provider import StillRunning

    name = words[0]
    entry = Ledger(session.workspace).read(name)
    asks = entry.open and not yes and sys.stdin.isatty() and not session.json
    if asks and not click.confirm(f"Take '{name}' down? What it has trained comes home first", err=True):
        raise UsageError("not confirmed", f"'{name}' goes on, and so does its cost", kind="unconfirmed")
    if entry.open:
        want(session.workspace, name, "down", "taken down by hand")
        start_guard(session.workspace, name, session.engine_command)
    deadline = time.monotonic() + _DOWN_S
    while (seen := _one(session, name))["state"] != "gone":
        if time.monotonic() > deadline:
            raise StillRunning(name, seen["why"] or "its provider does not say that it is gone",
                               "its guard goes on trying; look into the provider's own console too")  # fmt: skip
        if not seen["guarded"]:
            start_guard(session.workspace, name, session.engine_command)
        time.sleep(_TICK_S)
    session.emit(seen, f"'{name}' is gone; it has cost ${seen['cost_usd']:.2f}")


@click.command(cls=Verb, words=("NAME", 1, 1), hidden=True)
@click.option("--launch", is_flag=True, help="Ask the provider for the machine, and end.")
def cloud_guard(session: Session, words: list[str], launch: bool) -> None:
    """Look after a machine until it is gone; the command line starts this by itself."""
    from engine.cloud.machines import guard_now, launch_now

    if launch:
        launch_now(session.workspace, session.settings, words[0])
        return
    guard_now(session.workspace, session.settings, words[0], session.engine_command)


def _one(session: Session, name: str) -> dict[str, Any]:
    from engine.cloud.ledger import Ledger, seconds
    from engine.cloud.view import describe

    return describe(session.workspace, Ledger(session.workspace).read(name), seconds())


def _status_line(seen: dict[str, Any]) -> str:
    return _status_table({"machines": [seen]})


def _status_table(value: dict[str, Any]) -> str:
    if not value["machines"]:
        return "no machines; what a training would cost: python -m engine cloud plan"
    rows = []
    for item in value["machines"]:
        kind = f"{item['gpu'] or '–'}{' spot' if item['spot'] else ''}"
        use = f"{item['gpu_use']:.0%}" if item["gpu_use"] is not None else "–"
        epoch = f"{item['epoch']}/{item['epochs']}" if item["epoch"] is not None else "–"
        budget = f"of {item['budget_usd']:.2f}" if item["budget_usd"] is not None else ""
        rows.append((item["name"], item["provider"], kind, item["state"], item["job"], epoch, use,
                     _span(item["eta_s"]), f"{item['hourly_usd']:.2f}", f"{item['cost_usd']:.2f}", budget,
                     _span(item["left_s"]), _note(item)))  # fmt: skip
    head = (
        "name",
        "provider",
        "GPU",
        "state",
        "job",
        "epoch",
        "use",
        "trains",
        "$/h",
        "cost $",
        "budget",
        "ends in",
        "",
    )
    return table(rows, head)


def _note(item: dict[str, Any]) -> str:
    if item["state"] != "gone" and not item["guarded"]:
        return "no guard"
    return item["why"] if item["state"] in ("gone", "ending", "launching", "unknown") else ""


def _cost_table(value: dict[str, Any]) -> str:
    rows = [
        (item["name"], item["gpu"] or "–", item["state"], item["started_at"][:16].replace("T", " "),
         _span(item["paid_s"]), f"{item['hourly_usd']:.2f}", f"{item['cost_usd']:.4f}")
        for item in value["machines"]
    ]  # fmt: skip
    shown = table(rows, ("name", "GPU", "state", "since", "paid", "$/h", "cost $"))
    return f"{shown}\n\ntotal ${value['total_usd']:.4f}" if rows else "nothing was rented yet"


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, left = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{left:02d}"
