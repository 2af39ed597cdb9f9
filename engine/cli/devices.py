"""`devices`: accelerators and memory of this host and of `hosts.*`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import click

from engine.cli.verb import FiniteRange, Session, Verb, table
from engine.config.schema import Host
from engine.devices.sample import Sampler
from engine.errors import UsageError, nearest
from engine.protocol import Device, Devices, to_json

_GIB = 1024**3


@click.command(cls=Verb)
@click.option("--watch", is_flag=True, help="Go on, one object a line, until stopped.")
@click.option("--interval", type=FiniteRange(min=0.2), default=2.0, show_default=True, help="Seconds between.")
@click.option("--host", "names", multiple=True, metavar="NAME", help="Only this one of hosts.*, and this host.")
def devices(session: Session, watch: bool, interval: float, names: tuple[str, ...]) -> None:
    """Show accelerators, processor, memory and disk of every host; a host that is out of reach says why."""
    chosen = choose_hosts(session.settings.hosts, names)
    sampler = Sampler(session.workspace.root)
    try:
        if not chosen:
            _local(session, sampler, watch, interval)
        else:
            asyncio.run(_all(session, sampler, chosen, watch, interval))
    except KeyboardInterrupt:
        if not watch:
            raise
    finally:
        sampler.close()


def choose_hosts(hosts: dict[str, Host], names: tuple[str, ...]) -> dict[str, Host]:
    """The hosts of the config, or only those named.

    Raises:
        UsageError: a name that `hosts.*` does not have.
    """
    for name in names:
        if name not in hosts:
            hint = nearest(name, hosts) or f"add [hosts.{name}] with its address to the config"
            raise UsageError(f"unknown host '{name}'", hint, kind="unknown_host")
    return {name: host for name, host in hosts.items() if not names or name in names}


def _local(session: Session, sampler: Sampler, watch: bool, interval: float) -> None:
    while True:
        _emit(session, [sampler.sample()], watch)
        if not watch:
            return
        time.sleep(interval)


async def _all(session: Session, sampler: Sampler, hosts: dict[str, Host], watch: bool, interval: float) -> None:
    from engine.watch.remote import RemoteHost, sample_all

    remote = [RemoteHost(name, host) for name, host in hosts.items()]
    try:
        while True:
            here, others = await asyncio.gather(asyncio.to_thread(sampler.sample), sample_all(remote))
            _emit(session, [here, *others], watch)
            if not watch:
                return
            await asyncio.sleep(interval)
    finally:
        await asyncio.gather(*(host.close() for host in remote))


def _emit(session: Session, hosts: list[Devices], more: bool) -> None:
    session.emit({"hosts": to_json(hosts)}, "\n\n".join(map(_text, hosts)) + ("\n" if more else ""))


def _text(host: Devices) -> str:
    lines = [host.name + (f"  {host.state}: {host.problem}" if host.problem else "")]
    rows = [_row(device) for device in host.devices]
    if rows:
        lines.append(table(rows, ("device", "name", "use", "memory", "temperature", "power")))
    for device in host.devices:
        lines += [
            f"  {device.kind} {device.index} {key.removesuffix('_bytes')} {value / _GIB:.1f} GiB"
            for key, value in device.memory.items()
        ]
        lines += [
            f"  {device.kind} {device.index} process {process.pid} {process.name or ''} "
            f"{_gib(process.used_bytes)}".rstrip()
            for process in device.processes
        ]
    if host.disk_total_bytes and host.disk_free_bytes is not None:
        lines.append(f"disk {_gib(host.disk_free_bytes)} free of {_gib(host.disk_total_bytes)}")
    return "\n".join(lines)


def _row(device: Device) -> list[str]:
    power: list[Any] = [f"{watt:.0f}" for watt in (device.power_w, device.power_limit_w) if watt is not None]
    memory = "–" if device.total_bytes is None else f"{_gib(device.used_bytes)} of {_gib(device.total_bytes)}"
    return [
        f"{device.kind} {device.index}",
        device.name + (" (stale)" if device.stale else ""),
        "–" if device.utilization is None else f"{device.utilization:.0%}",
        memory,
        "–" if device.temperature_c is None else f"{device.temperature_c:.0f} °C",
        " of ".join(power) + " W" if power else "–",
    ]


def _gib(value: int | None) -> str:
    return "–" if value is None else f"{value / _GIB:.1f} GiB"
