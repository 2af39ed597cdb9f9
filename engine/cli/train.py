"""`train` and `runs`: a training, and what has been trained."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click

from engine.cli.sweep_table import sweep_table
from engine.cli.together import RESULT, train_together
from engine.cli.verb import Session, Verb, table
from engine.errors import Busy, Interrupted, UsageError
from engine.store import logjson
from engine.store.clock import timestamp
from engine.store.locks import holder
from engine.training.launch import launched, process_count, rank, started_here
from engine.training.plan import without_overruled
from engine.training.runs import (
    FIELDS,
    RunFolder,
    claim_run,
    describe_run,
    find_run,
    list_runs,
    newest_running,
    note_interrupted,
    process_identity,
    read_metrics,
    second_metric,
    stop_run,
)
from engine.training.signals import stop_requests, stop_with
from engine.training.sweeps import find_sweep, list_sweeps, read_sweep, sweep_entries, sweep_names


@click.command(cls=Verb)
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run (or: latest).")
@click.option("--from", "source", metavar="RUN", help="Repeat a run: its settings, seed and threads (or: latest).")
@click.option("--detach", is_flag=True, help="Start it in the background and return at once.")
@click.option("--strict", is_flag=True, help="Stop at bad data instead of leaving it out.")
@click.option("--overwrite", is_flag=True, help="Replace a better best of the same cycle.")
@click.option("--stop", metavar="RUN", help="Have a run that goes on stop between two steps (or: latest).")
@click.option("--multirun", is_flag=True, help="Train every combination of comma lists, range() and choice().")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Runs of a sweep at once.")
@click.option("--again", is_flag=True, help="With --multirun --resume: also the runs that failed.")
@click.option("--claimed", hidden=True, metavar="RUN", help="Train in a run folder that is claimed already.")
@click.option("--tied", hidden=True, is_flag=True, help="Stop when standard input ends.")
def train(
    session: Session,
    resume: str | None,
    source: str | None,
    detach: bool,
    strict: bool,
    overwrite: bool,
    stop: str | None,
    multirun: bool,
    jobs: int | None,
    again: bool,
    claimed: str | None,
    tied: bool,
) -> None:
    """Train a model; the best goes to checkpoints_cycleN at once, and TO-BE gets it by the next sync."""
    if tied:
        stop_with(sys.stdin.fileno())
    if multirun:
        from engine.cli.sweep import run_sweep, stop_sweep

        if stop:
            given = {"--resume": resume, "--from": source, "--detach": detach, "--strict": strict,
                     "--overwrite": overwrite, "--jobs": jobs, "--again": again}  # fmt: skip
            if beside := [name for name, value in given.items() if value]:
                raise UsageError(f"'{beside[0]}' says nothing to --stop", "leave it out")
            stop_sweep(session, stop)
        else:
            if source or overwrite:
                raise UsageError(
                    f"'{'--from' if source else '--overwrite'}' is for one run",
                    "leave it out: a sweep starts from the settings, and no run of it writes to checkpoints_cycleN",
                )
            run_sweep(session, resume=resume, jobs=jobs, again=again, detach=detach, strict=strict)
        return
    if jobs or again:
        raise UsageError(
            f"'{'--jobs' if jobs else '--again'}' is for --multirun", "add --multirun, or leave it out"
        )
    if stop:
        _stop(session, stop)
        return
    run_training(
        session,
        session.settings.task,
        resume=resume,
        source=source,
        detach=detach,
        strict=strict,
        overwrite=overwrite,
        claimed=claimed,
    )


def run_training(
    session: Session,
    task: str,
    *,
    resume: str | None = None,
    source: str | None = None,
    follow: bool = False,
    detach: bool = False,
    strict: bool = False,
    overwrite: bool = False,
    claimed: str | None = None,
) -> None:
    """Train, here or in the background; what `train` and `go train` share.

    Args:
        task: which kind of work a new run does; a resumed one does what it began with.
        source: the run that a new one repeats.
        follow: without `resume`, go on with the newest run of this task: where it was interrupted, or from the
            weights that it ended with.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin make a run beside a busy server crawl
    if rank():
        from engine.training.train import follow as take_part

        take_part()
        return
    settings, folder, start_from = session.settings, None, None
    if source and resume:
        raise UsageError("--from begins a new run, --resume goes on with one", "give one of them")
    if claimed:
        source = find_run(session.workspace, claimed).read_manifest().get("repeats")
    if follow and not resume and not claimed:
        resume, start_from = _newest(session, task)
    if resume:
        from engine.training.plan import resumed_settings

        folder = find_run(session.workspace, resume)
        manifest = folder.read_manifest()
        task = manifest.get("task", task)
        if manifest.get("settings"):
            settings = resumed_settings(session.loaded, manifest["settings"])
        if holder(folder.lock):
            raise Busy(f"run {folder.run} is going on (pid {manifest.get('pid')})", "see: python -m engine runs")
        if manifest.get("status") == "completed":
            session.say(f"run {folder.run} is completed: nothing to do")
            session.emit({name: manifest.get(name) for name in RESULT}, _text)
            return
    elif source:
        from engine.training.plan import repeated_settings

        manifest = find_run(session.workspace, source).read_manifest()
        if not manifest.get("settings"):
            raise UsageError(
                f"run {source} has not begun: it has no settings to repeat", "see: python -m engine runs"
            )
        source, task, start_from = manifest["run"], manifest["task"], manifest.get("started_from")
        settings = repeated_settings(session.loaded, manifest["settings"])
    elif task == "go":
        from engine.training.plan import go_settings

        settings = go_settings(session.loaded)
    elif task == "images" and settings.data.kind == "folder":
        from engine.tasks.images.listing import list_images

        list_images(settings.data.root)  # what is plainly wrong is said before torch is loaded
    if detach:
        _detach(session, folder, task, strict=strict, overwrite=overwrite, start_from=start_from,
                repeats=source)  # fmt: skip
        return
    if folder is None:
        folder = find_run(session.workspace, claimed) if claimed else claim_run(session.workspace)
        start_from = start_from or folder.read_manifest().get("started_from")
    logjson.about(run=folder.run)
    settings = without_overruled(settings, session.loaded)
    # a signal in the middle of an import could leave half a module behind: it waits until torch is there
    with stop_requests() as asked:
        if settings.cluster.address and not launched():  # only as many as are asked for go there
            processes = settings.training.processes or 1
        else:
            processes = 1 if launched() else process_count(settings)
        if processes == 1:
            session.log_to(folder.log, max_bytes=0)
            from engine.training.train import train as train_run
    if asked:
        note_interrupted(folder)
        raise Interrupted(f"run {folder.run} was interrupted before it began", "start it again")
    if processes > 1:
        flags = [*(["--strict"] if strict else []), *(["--overwrite"] if overwrite else [])]
        session.emit(train_together(session, folder, task, processes, flags, settings), _text)
        return
    result = train_run(
        session.workspace,
        settings,
        folder,
        task=task,
        start_from=start_from,
        say=session.say,
        strict=strict,
        overwrite=overwrite,
        publish=not folder.swept,
        keep_folder=claimed is not None,
        repeats=source,
    )
    if not started_here():
        session.emit(result, _text)


def _newest(session: Session, task: str) -> tuple[str | None, str | None]:
    """The newest run of a task: (its name, None) to resume it, or (None, its checkpoint) to go on from."""
    for entry in list_runs(session.workspace):
        if entry.get("task") != task:
            continue
        if entry["status"] == "completed":
            return None, entry["checkpoint"]
        if entry["status"] != "failed":
            return entry["run"], None
    return None, None


def _stop(session: Session, name: str) -> None:
    folder = (newest_running(session.workspace) if name == "latest" else None) or find_run(session.workspace, name)
    before = describe_run(folder)["status"]
    status = stop_run(folder)
    said = (
        f"run {folder.run} is {status}: nothing to stop" if before != "running" else f"run {folder.run}: {status}"
    )
    hint = f"; go on with: python -m engine train --resume {folder.run}" if status == "interrupted" else ""
    session.emit({"run": folder.run, "status": status}, said + hint)


def _detach(
    session: Session,
    folder: RunFolder | None,
    task: str,
    *,
    strict: bool,
    overwrite: bool,
    start_from: str | None,
    repeats: str | None,
) -> None:
    """A child with a session of its own outlives the terminal."""
    words = ["--resume", folder.run] if folder else []
    if folder is None:
        folder = claim_run(session.workspace)
        words = ["--claimed", folder.run]
        if start_from or repeats:
            folder.write_manifest(FIELDS | {"run": folder.run, "started_from": start_from, "repeats": repeats})
    words += [*(["--strict"] if strict else []), *(["--overwrite"] if overwrite else [])]
    with folder.log.open("ab") as log:
        child = subprocess.Popen(
            session.engine_command(*(("go", "train") if task == "go" else ("train",)), *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it writes its words there itself, with their times
            stderr=log,
            start_new_session=True,
        )
    manifest = FIELDS | folder.read_manifest()
    if manifest.get("pid") != child.pid:  # else the child was quicker and knows more
        started = manifest["started_at"] or timestamp()
        manifest |= {"run": folder.run, "status": "running", "started_at": started, **process_identity(child.pid)}
        folder.write_manifest(manifest)
    session.emit(
        {name: manifest.get(name) for name in RESULT} | {"pid": child.pid, "log": str(folder.log)},
        f"run {folder.run} goes on in the background (pid {child.pid}); its words: {folder.log}",
    )


@click.command(cls=Verb, words=("RUN", 0, 1))
def runs(session: Session, words: list[str]) -> None:
    """Show the training runs, newest first; with RUN, one of them and its epochs; with a sweep's name, its runs."""
    if not words:
        own, sweeps = list_runs(session.workspace), list_sweeps(session.workspace)
        every = [*own, *(entry for sweep in sweeps for entry in sweep_entries(session.workspace, sweep))]
        every.sort(key=lambda entry: str(entry["started_at"] or ""), reverse=True)
        session.emit({"runs": every, "sweeps": sweeps}, lambda value: _table({"runs": own}, sweeps))
        return
    if words[0] in sweep_names(session.workspace):
        sweep = read_sweep(find_sweep(session.workspace, words[0]))
        found = {"runs": sweep_entries(session.workspace, sweep), "sweeps": [sweep]}
        session.emit(found, lambda value: f"sweep {sweep['sweep']}: {sweep['state']}\n{sweep_table(sweep)}")
        return
    folder = find_run(session.workspace, words[0])
    entry = describe_run(folder)
    entry |= {"metrics": read_metrics(folder), "settings": folder.read_manifest().get("settings")}
    session.emit({"runs": [entry]}, _detail)


def _text(result: dict[str, Any]) -> str:
    best = result["best"]
    if not best:
        return f"run {result['run']}: {result['status']}"
    second = second_metric(best)
    rate = result["samples_per_s"] or 0
    return "\n".join((
        f"run {result['run']} {result['status']}: Acc: {best['accuracy'] * 100:.2f}%{second and f',{second[1:]}'},"
        f" loss {best['loss']:.4f} at epoch {best['epoch']} of {result['epochs']}",
        f"{result['checkpoint']}",
        f"{result['seconds_s']:.1f} s, {rate:,.0f} {result['unit'] or 'images'}/s on {result['device']} ({result['precision']}),"
        f" peak {(result['peak_memory_bytes'] or 0) / 2**20:,.0f} MiB",
    ))  # fmt: skip


def _table(value: dict[str, Any], sweeps: Sequence[dict[str, Any]] = ()) -> str:
    if not value["runs"] and not sweeps:
        return "no runs yet; start one with: python -m engine train"
    rows = []
    for entry in value["runs"]:
        best = entry["best"] or {}
        accuracy = f"{best['accuracy']:.2%}" if best else "–"
        done = f"{entry['epoch'] or 0}/{entry['epochs'] or '?'}"
        began = (entry["started_at"] or "")[:16].replace("T", " ")
        rows.append((entry["run"], entry["status"], _or_dash(entry["cycle"]), entry["model"] or "–", done, accuracy,
                     _or_dash(entry["device"]), began))  # fmt: skip
    for sweep in sweeps:
        best = sweep["best"] or {}
        accuracy = f"{best['accuracy']:.2%}" if best else "–"
        began = (sweep["started_at"] or "")[:16].replace("T", " ")
        done = f"{sweep['done']}/{sweep['total']}"
        rows.append((sweep["sweep"], sweep["state"], "–", "sweep", done, accuracy, "–", began))
    rows.sort(key=lambda row: row[-1], reverse=True)
    return table(rows, ("run", "status", "cycle", "model", "epoch", "best", "device", "started"))


def _detail(value: dict[str, Any]) -> str:
    entry = value["runs"][0]
    lines = [_table(value)]
    if entry["error"]:
        lines.append(f"{entry['status']}: {entry['error']}")
    if entry["checkpoint"]:
        lines.append(str(entry["checkpoint"]))
    rows = [
        (
            row["epoch"],
            f"{row['train_loss']:.4f}",
            f"{row['loss']:.4f}",
            f"{row['accuracy']:.2%}",
            second_metric(row).split()[-1],
        )
        for row in entry["metrics"]
    ]
    if rows:
        lines += [
            "",
            table(
                rows, ("epoch", "loss", "val loss", "accuracy", "top-5" if "top5" in entry["metrics"][0] else "F1")
            ),
        ]
    return "\n".join(lines)


def _or_dash(value: object) -> str:
    return "–" if value is None else str(value)
