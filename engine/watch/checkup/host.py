"""This host: what is installed, the workspace and its disk, devices, clock, secrets, the schedule."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine.config import Loaded, Settings, reference, secret, whence
from engine.config.references import file_of, readable_by_all
from engine.config.secrets import NAMES, PLAIN
from engine.devices.sample import Sampler
from engine.errors import Failed, UnderstudyError
from engine.notify.channels import configured
from engine.release.child import layers
from engine.store.clock import now, parse
from engine.store.events import read_events
from engine.store.workspace import Workspace
from engine.training.alerts import check_runs
from engine.watch.advice import MISSED
from engine.watch.checkup.check import Check, size
from engine.watch.remote import RemoteHost, sample_all
from engine.watch.snapshots import missed_looks, read_last_sync, read_locks

_NEEDED = ("torch", "onnxruntime", "onnx", "numpy", "pillow", "httpx", "asyncssh", "uvicorn")
_LOW_BYTES = 1_000_000_000
_BUILT = datetime(2025, 1, 1, tzinfo=UTC)  # no clock that is right says an earlier time
_HOST_S = 5.0


def installed() -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", f"Python {python}")
    found, missing = [], []
    for name in _NEEDED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Check("packages", f"not installed: {', '.join(missing)}", "fail", "run: make install")
    else:
        yield Check("packages", ", ".join(found))


def config(loaded: Loaded) -> Iterator[Check]:
    where = str(loaded.path) if loaded.path else "built-in defaults"
    yield Check("config", f"{where} is valid")
    servers = loaded.settings.servers
    if servers.asis.port == servers.tobe.port:
        fix = "set servers.asis.port or servers.tobe.port"
        yield Check("ports differ", f"both slots have port {servers.asis.port}", "fail", fix)
    if servers.host not in ("127.0.0.1", "localhost", "::1"):
        yield Check("address", f"the slots listen on {servers.host}, not on loopback alone", "warn")


def workspace_folder(workspace: Workspace) -> Iterator[Check]:
    root = workspace.root
    there = root
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield Check("workspace", f"{there} is not a folder", "fail", "choose another with --workspace")
        return
    try:
        if there == root:
            with tempfile.TemporaryFile(dir=root):
                pass
        elif not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError
    except OSError:
        yield Check(
            "workspace", f"{there} cannot be written", "fail", f"mend its rights, e.g. chmod u+rwx {there}"
        )
    else:
        yield Check("workspace", f"{root} is writable" if there == root else f"{root} will be made")
    free = shutil.disk_usage(there).free
    if free < _LOW_BYTES:
        fix = "free space; without a verified backup nothing is promoted"
        yield Check("disk", f"only {size(free)} free at {there}", "fail", fix)
    else:
        yield Check("disk", f"{size(free)} free")


def devices(workspace: Workspace) -> Iterator[Check]:
    sampler = Sampler(workspace.root)
    try:
        host = sampler.sample()
    finally:
        sampler.close()
    shown = ", ".join(
        device.name + (f" ({size(device.total_bytes)})" if device.total_bytes else "") for device in host.devices
    )
    broken = host.problem or next((device.problem for device in host.devices if device.problem), None)
    if broken:
        yield Check("devices", f"{shown}: {broken}", "fail", "see: nvidia-smi; a reboot may be needed")
    elif len(host.devices) == 1:
        yield Check("devices", f"no GPU is visible; {shown}", "note")
    else:
        yield Check("devices", shown)


def runs(workspace: Workspace, settings: Settings) -> Iterator[Check]:
    """Trainings that died without a word or stand still; finding one also tells of it."""
    for trouble in check_runs(workspace, settings):
        yield Check("training", trouble, "warn", "see: python -m engine runs")


def sandbox() -> Iterator[Check]:
    """How far a checkpoint is shut in when it is opened; the less, the more a flaw in torch would cost."""
    with tempfile.TemporaryDirectory() as folder:
        found = layers(Path(folder))
    if found.isolated and found.files:
        yield Check("sandbox", f"checkpoints are opened with {found}")
    else:
        fix = "allow user namespaces, or a kernel with seccomp and Landlock (Linux 5.13 or newer)"
        yield Check("sandbox", f"checkpoints are opened with no more than {found}", "warn", fix)


def hosts(settings: Settings) -> Iterator[Check]:
    if not settings.hosts:
        return
    remote = [RemoteHost(name, host, _HOST_S, 2 * _HOST_S) for name, host in settings.hosts.items()]

    async def look() -> list[Check]:
        try:
            found = await sample_all(remote)
        finally:
            await asyncio.gather(*(host.close() for host in remote))
        return [
            Check(
                f"host {host.name}",
                host.problem or ", ".join(device.name for device in host.devices),
                "warn" if host.problem else "ok",
            )
            for host in found
        ]

    yield from asyncio.run(look())


def clock(workspace: Workspace) -> Iterator[Check]:
    moment = now()
    if moment < _BUILT:
        yield Check("clock", f"it says {moment:%Y-%m-%d}, which is past", "fail", "set it, e.g. by NTP")
        return
    try:
        newest = read_events(workspace, 1)
    except Failed:
        newest = []  # the audit log's own check says so
    if newest and parse(newest[-1]["at"]) > moment + timedelta(minutes=1):
        text = f"the last event is of {newest[-1]['at'][:16]}, later than now"
        yield Check("clock", text, "fail", "set the clock, e.g. by NTP")
    else:
        yield Check("clock", f"{moment:%Y-%m-%d %H:%M %z}")


def secrets(settings: Settings, loaded: Loaded) -> Iterator[Check]:
    places = {Path.cwd() / ".env", *([loaded.path.absolute().parent / ".env"] if loaded.path else [])}
    for place in sorted(places):
        try:
            mode = stat.S_IMODE(place.stat().st_mode)
        except OSError:
            continue
        if mode & stat.S_IROTH:
            yield Check(".env", f"{place} can be read by everybody ({mode:o})", "fail", f"chmod 600 {place}")
        elif mode & stat.S_IRGRP:
            yield Check(".env", f"{place} can be read by its group ({mode:o})", "warn", f"chmod 600 {place}")
        else:
            yield Check(".env", f"{place} is private")
    for name in (*NAMES, *PLAIN):
        if pointer := reference(name):
            yield _referred(name, pointer)
    channels = configured(settings)
    for channel in channels:
        if channel.problem:
            yield Check(channel.name, channel.problem, "fail", "set it in the environment or .env")
    ready = [channel.name for channel in channels if not channel.problem]
    if ready:
        yield Check("messages", f"go to {', '.join(ready)}; try: python -m engine notify hello")
    elif not channels:
        yield Check("messages", "no channel is configured (DISCORD_WEBHOOK_URL, TELEGRAM_BOT_TOKEN)", "note")


def _referred(name: str, pointer: str) -> Check:
    """Whether a secret is where its reference says, and nobody else's to read."""
    try:
        secret(name)
    except UnderstudyError as error:
        return Check(name, error.message, "fail", error.hint)
    if pointer.startswith("file:") and readable_by_all(path := file_of(pointer)):
        return Check(name, f"{path} can be read by everybody", "fail", f"chmod 600 {path}")
    return Check(name, f"found in: {whence(name)}")


def schedule(workspace: Workspace, settings: Settings) -> Iterator[Check]:
    mark = f"# understudy sync {workspace.root}"
    installed = any(line.endswith(mark) and not line.lstrip().startswith("#") for line in _crontab())
    last = read_last_sync(workspace)
    missed = missed_looks(last, settings)
    if installed and missed >= MISSED and last:
        text = f"{missed} looks did not come since {last.at[:16].replace('T', ' ')}, though cron has the line"
        yield Check("looks", text, "fail", "see whether cron runs, and logs/ in the workspace")
    elif last and last.error:
        yield Check("looks", f"the last one failed: {last.error}", "fail", "see the source's checks")
    elif missed >= MISSED and last:
        yield Check("looks", f"the last was at {last.at[:16].replace('T', ' ')}", "warn", "python -m engine sync")
    else:
        yield Check("looks", f"the last was at {last.at[:16].replace('T', ' ')}" if last else "none yet", "ok")
    if installed:
        yield Check("cron", f"sync runs every {settings.source.poll_minutes:g} minutes")
    else:
        yield Check("cron", "sync is not scheduled; install it with: python -m engine cron install", "note")


def locks(workspace: Workspace) -> Iterator[Check]:
    held = read_locks(workspace)
    words = [f"{lock.name} by {lock.purpose} (pid {lock.pid}) since {(lock.since or '')[:19]}" for lock in held]
    yield Check("locks", "; ".join(words) if words else "nobody holds one", "note" if words else "ok")


def _crontab() -> list[str]:
    if shutil.which("crontab") is None:
        return []
    try:
        done = subprocess.run(["crontab", "-l"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
