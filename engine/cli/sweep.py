"""`train --multirun`: a grid of runs, checked whole before anything starts, ranked at the end."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine.cli.sweep_table import sweep_table
from engine.cli.verb import Session
from engine.config import Settings, load_settings
from engine.config.load import GROUPS, known_models, portable_overrides
from engine.devices.nvml import Nvml
from engine.errors import Failed, Interrupted, UsageError, nearest
from engine.store.files import read_json
from engine.store.locks import hold, holder
from engine.training import sweep as runner
from engine.training.alerts import tell_of_sweep
from engine.training.grid import check, expand
from engine.training.plan import SECTIONS, kept_settings, resumed_settings
from engine.training.runs import RunFolder
from engine.training.signals import stop_requests
from engine.training.sweeps import SweepFolder, find_sweep, make_sweep, read_sweep

_PROBE_S = 120.0
_STOP_S = 180.0


def run_sweep(
    session: Session, *, resume: str | None, jobs: int | None, again: bool, detach: bool, strict: bool
) -> None:
    """Start a sweep, or go on with one.

    Args:
        resume: a sweep's name, or `latest`.
        jobs: runs at once; None: one a CUDA device, else `training.parallel`, else one.
        again: also the runs that have failed.
    """
    folder, settings, arguments = _resumed(session, resume) if resume else _new(session)
    jobs = jobs or session.settings.training.parallel
    if detach:
        _detach(session, folder, jobs, again=again, strict=strict)
        return
    with hold(folder.lock, f"sweep {folder.sweep}"), stop_requests() as stop:
        session.log_to(folder.log, max_bytes=0)
        began = time.monotonic()

        def words(child: RunFolder) -> list[str]:
            train = ["train", "--resume", child.run, "--tied", *(["--strict"] if strict else [])]
            return [*_options(session), *train, *arguments]

        with _hands(session, settings, jobs, words) as (spots, start):
            todo = f"{len(settings)} runs to do, {_pace(spots)}" if settings else "every run is completed"
            session.say(f"sweep {folder.sweep}: {todo}; in {folder.root}")
            runner.Sweep(folder, spots, start, session.say, stop, again=again).run()
        result = _result(folder, time.monotonic() - began)
    _finish(session, result, str(stop.asked) if stop else None)


@contextlib.contextmanager
def _hands(
    session: Session, settings: Sequence[Settings], jobs: int | None, words: Callable[[RunFolder], list[str]]
) -> Iterator[tuple[Sequence[runner.Place], Callable[[RunFolder, runner.Place], runner.Process]]]:
    """The places for the runs, and what starts one in a place: a child of ours, or a task of the cluster."""
    wanted = session.settings.cluster
    if wanted.address:
        from engine.cluster import joining, runs

        with joining.join(wanted.address, session.say) as cluster:
            share, spots = runs.places(cluster, settings, wanted.cpus, jobs)
            yield spots, runs.starter(cluster, share, wanted.retries, words)
        return
    yield (
        runner.places(settings, count_gpus, jobs),
        lambda child, place: runner.start_child([sys.executable, "-m", "engine", *words(child)], child, place),
    )


def stop_sweep(session: Session, name: str) -> None:
    """Have a sweep that goes on stop its runs between two steps, and wait for that."""
    folder = find_sweep(session.workspace, name)
    record = read_json(folder.record) or {}
    who = holder(folder.lock)
    if who is None and record.get("state") == "running" and record.get("host") != socket.gethostname():
        raise UsageError(f"sweep {folder.sweep} goes on on {record.get('host')}", "stop it there")
    if who:
        os.kill(int(str(who["pid"])), signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        while holder(folder.lock):
            if time.monotonic() > deadline:
                raise Failed(
                    f"sweep {folder.sweep} was asked to stop and still goes on", "it stops between two steps"
                )
            time.sleep(0.1)
    found = read_sweep(folder)
    said = str(found["state"]) if who else f"{found['state']}: nothing to stop"
    session.emit({"sweep": folder.sweep, "state": found["state"]}, f"sweep {folder.sweep}: {said}")


def count_gpus() -> int:
    """How many CUDA devices torch sees, asked in a child: torch stays out of this process."""
    nvml = Nvml()
    try:
        if not nvml.sample():
            return 0
    finally:
        nvml.close()
    code = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=_PROBE_S, check=True)
        return int(done.stdout)
    except (subprocess.SubprocessError, ValueError):
        return 0  # each run says for itself why it does not take the GPU


def _new(session: Session) -> tuple[SweepFolder, list[Settings], list[str]]:
    """A new sweep's folder, made only after every run of the grid has been checked."""
    cells = expand(session.overrides)
    loaded = check(cells, lambda words: load_settings(session.config, None, words, session.environment))
    session.overrides = list(cells[0].words)
    settings = [one.settings for one in loaded]
    _look_at_data(settings)
    _look_at_models(settings)
    runs = [
        (
            cell.swept,
            {
                "task": one.settings.task,
                "settings": kept_settings(one.settings),
                "model": one.settings.model.name,
                "data": one.settings.defaults.data,
            },
        )
        for cell, one in zip(cells, loaded, strict=True)
    ]
    arguments = [word for word in portable_overrides(loaded[0]) if not _of_the_run(word)]
    return make_sweep(session.workspace, runs, arguments), settings, arguments


def _resumed(session: Session, name: str) -> tuple[SweepFolder, list[Settings], list[str]]:
    folder = find_sweep(session.workspace, name)
    record = read_json(folder.record) or {}
    settings = []
    for entry in record["runs"]:
        manifest = folder.child(entry["n"]).read_manifest()
        if not manifest.get("settings"):
            missing = folder.child(entry["n"]).manifest
            raise UsageError(f"{missing} is missing or has no settings", "start the sweep again", kind="damaged")
        if manifest.get("status") != "completed":
            settings.append(resumed_settings(session.loaded, manifest["settings"]))
    return folder, settings, [*record["arguments"], *portable_overrides(session.loaded)]


def _of_the_run(word: str) -> bool:
    key = word.partition("=")[0]
    return key in GROUPS or key.partition(".")[0] in (*SECTIONS, "defaults", "checkpoints", "cluster")


def _look_at_data(settings: Sequence[Settings]) -> None:
    from engine.tasks.images.listing import list_images

    for root in {one.data.root for one in settings if one.task == "images" and one.data.kind == "folder"}:
        list_images(root)


def _look_at_models(settings: Sequence[Settings]) -> None:
    """Refuse a name that no library knows; those of the built-in groups are known without loading timm."""
    names = {one.model.name for one in settings if one.task == "images" and ":" not in one.model.name}
    names = {name.partition(".")[0] for name in names - known_models()}
    if names:
        from engine.tasks.images.zoo import load_timm

        timm = load_timm()
        for name in sorted(names):
            if not timm.is_model(name):
                raise UsageError(
                    f"unknown model '{name}'", nearest(name, timm.list_models()), kind="unknown_model"
                )


def _options(session: Session) -> list[str]:
    """What an engine child is told before its verb: this command's options without its overrides."""
    return ["--workspace", str(session.settings.workspace), *session.loaded.options]


def _detach(session: Session, folder: SweepFolder, jobs: int | None, *, again: bool, strict: bool) -> None:
    words = ["train", "--multirun", "--resume", folder.sweep, *(["--jobs", str(jobs)] if jobs else [])]
    words += [*(["--again"] if again else []), *(["--strict"] if strict else [])]
    words += [word for word in session.overrides if word.startswith("cluster.")]
    with folder.log.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "engine", *_options(session), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    found = read_sweep(folder)
    session.emit(
        {
            "sweep": folder.sweep,
            "state": found["state"],
            "runs": found["runs"],
            "pid": child.pid,
            "log": str(folder.log),
        },
        f"sweep {folder.sweep} goes on in the background (pid {child.pid}); its words: {folder.log}",
    )


def _result(folder: SweepFolder, seconds: float) -> dict[str, Any]:
    found = read_sweep(folder)
    best = found["best"]
    command = f"python -m engine deploy {shlex.quote(best['checkpoint'])}" if best and best["checkpoint"] else None
    return found | {"deploy": command, "seconds_s": round(seconds, 3), "folder": str(folder.root)}


def _finish(session: Session, result: dict[str, Any], stopped: str | None) -> None:
    sweep, failed = result["sweep"], result["failed"]
    if result["state"] == "interrupted":
        if not session.json:
            session.emit(result, _text)
        raise Interrupted(
            f"sweep {sweep} was interrupted" + (f" by {stopped}" if stopped else ""),
            f"go on with: python -m engine train --multirun --resume {sweep}",
            payload=result,
        )
    trouble = f"{failed} of {result['total']} runs failed" if failed else None
    tell_of_sweep(session.workspace, session.settings, _message(result), trouble, sweep)
    if trouble is None:
        session.emit(result, _text)
        return
    if not session.json:
        session.emit(result, _text)
    raise Failed(
        trouble,
        f"see train.log in {result['folder']}/N; try them again with: "
        f"python -m engine train --multirun --resume {sweep} --again",
        kind="runs_failed",
        payload=result,
    )


def _text(result: dict[str, Any]) -> str:
    lines = [f"sweep {result['sweep']} {result['state']}: {result['done']} of {result['total']} runs done", ""]
    lines.append(sweep_table(result))
    if result["best"] and result["deploy"]:
        best = result["best"]
        lines += ["", f"best: run {best['n']} ({' '.join(best['overrides']) or 'the settings as they are'})"]
        lines.append(f"give it to TO-BE with: {result['deploy']}")
    return "\n".join(lines)


def _message(result: dict[str, Any]) -> str:
    best = result["best"]
    lines = [f"Sweep {result['sweep']}: {result['done']} of {result['total']} runs done"]
    if best:
        figure = best[result["metric"]]
        name = {"f1_macro": "F1-macro"}.get(result["metric"], result["metric"])
        lines.append(f"best: run {best['n']}, {name} {figure:.4f} ({' '.join(best['overrides'])})")
        lines.append(f"checkpoint: {best['checkpoint']}")
    return "\n".join(lines)


def _pace(spots: Sequence[runner.Place]) -> str:
    named = [spot.name for spot in spots if spot.name]
    if len(spots) == 1:
        return f"one after another{f' on {named[0]}' if named else ''}"
    return f"{len(spots)} at once" + (f" on {', '.join(named)}" if named else "")
