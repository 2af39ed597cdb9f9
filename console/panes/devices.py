"""Devices of every host: memory, utilisation with its history, temperature, power; each figure named."""

from __future__ import annotations

from collections.abc import Sequence

from console import text
from console.store import History
from console.view import View
from console.widgets.charts import area, bar
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Device, Devices

MEMORY_NAMES = {"driver_bytes": "driver", "allocated_bytes": "allocated", "system_bytes": "system"}


def title(view: View) -> Row:
    row = Row(_("Devices"), "title")
    hosts = view.store.devices()
    if len(hosts) > 1:
        row.put(f" {len(hosts)} " + _("hosts"), "dim")
    fresh = view.fresh("devices")
    return row.put(" ").put(*view.state(fresh)) if fresh.state != "live" or len(hosts) < 2 else row


def rows_needed(view: View) -> int:
    """How many rows all hosts take, with a blank one between two."""
    count = 0
    for _host_name, data in view.store.devices():
        count += 2 + (data.disk_total_bytes is not None)
        for one in data.devices:
            count += 2 + (0 if one.kind == "cpu" else len(one.memory) + (one.utilization is not None))
            count += bool(one.problem)
    return count


def draw(view: View, width: int, height: int) -> list[Row]:
    rows: list[Row] = []
    hosts = view.store.devices()
    roomy = height >= sum(2 + 4 * len(data.devices) for _host, data in hosts)
    for host, data in hosts:
        if rows:
            rows.append(Row())
        rows += _host(view, host, data, width, roomy)
    if not rows:
        return [Row(_("no figures yet"), "dim")]
    place = view.ui.place("devices")
    place.cursor = max(0, min(place.cursor, len(rows) - height))
    place.top = place.cursor
    return rows[place.top : place.top + height]


def _host(view: View, host: str, data: Devices, width: int, roomy: bool) -> list[Row]:
    fresh = view.fresh("devices", host)
    name = data.name or host
    head = Row(name, "bold")
    if host == view.store.home:
        head.put(" " + _("here"), "dim")
    head.right(view.state(fresh)[0], width, view.state(fresh)[1])
    rows = [head]
    if fresh.state != "live" and fresh.why:
        rows.append(Row("  ").put(text.clip(fresh.why, width - 2), "danger"))
    ordered = sorted(data.devices, key=lambda one: one.kind == "cpu")
    for device in ordered:
        history = view.store.history.get((host, device.kind, device.index), History())
        rows += (
            _cpu(view, device, data, history, width)
            if device.kind == "cpu"
            else _gpu(view, device, history, width, roomy)
        )
    if not any(device.kind == "cpu" for device in data.devices):
        rows += _ram(view, data, width)
    if data.disk_total_bytes and data.disk_free_bytes is not None:
        used = data.disk_total_bytes - data.disk_free_bytes
        rows.append(_meter(view, _("disk"), used, data.disk_total_bytes, width))
    return rows


def _gpu(view: View, device: Device, history: History, width: int, roomy: bool) -> list[Row]:
    count = f" {device.index}" if device.kind != "mps" else ""
    head = Row(" ").put(text.clip(_short_name(device.name), width - 20)).put(count, "dim")
    head.put(f" {device.kind}", "dim")
    tail = []
    if device.temperature_c is not None:
        tail.append(f"{device.temperature_c:.0f} °C")
    if device.power_w is not None:
        limit = f"/{device.power_limit_w:.0f}" if device.power_limit_w and width >= 44 else ""
        tail.append(f"{device.power_w:.0f}{limit} W")
    head.right("  ".join(tail), width, "warning" if (device.temperature_c or 0) >= 85 else "dim")
    rows = [head]
    if device.problem:
        rows.append(Row("  ").put(text.clip(f"{view.glyphs.warn} {device.problem}", width - 2), "warning"))
    if device.kind != "mps" or device.used_bytes is not None:
        rows.append(_meter(view, _("memory"), device.used_bytes, device.total_bytes, width))
    for key, label in MEMORY_NAMES.items():
        if key in device.memory:
            rows.append(_meter(view, _(label), device.memory[key], device.total_bytes, width))
    if device.utilization is not None:
        rows.append(_load(view, history.load, device.utilization, width))
    if roomy or view.ui.zoomed:
        for process in device.processes[:4]:
            row = Row("    ").put(f"{process.pid} ", "dim").put(text.clip(process.name or "", width - 24), "dim")
            rows.append(row.right(text.size(process.used_bytes), width, "dim"))
    return rows


def _cpu(view: View, device: Device, data: Devices, history: History, width: int) -> list[Row]:
    rows = []
    if device.utilization is not None:
        rows.append(_load(view, history.load, device.utilization, width, "cpu"))
    total = device.total_bytes or data.memory_total_bytes
    used = device.used_bytes
    if used is None and data.memory_total_bytes and data.memory_available_bytes is not None:
        used = data.memory_total_bytes - data.memory_available_bytes
    if total:
        rows.append(_meter(view, "ram", used, total, width))
    return rows


def _ram(view: View, data: Devices, width: int) -> list[Row]:
    if not data.memory_total_bytes or data.memory_available_bytes is None:
        return []
    used = data.memory_total_bytes - data.memory_available_bytes
    return [_meter(view, "ram", used, data.memory_total_bytes, width)]


def _meter(view: View, label: str, used: float | None, total: float | None, width: int) -> Row:
    row = Row(" ").cell(label, 9, "dim").put(" ")
    figures = text.share(used, total)
    room = width - row.at - 13
    if total and used is not None and room >= 4:
        part = used / total
        filled, track = bar(part, room, view.glyphs)
        row.put(filled, "danger" if part >= 0.95 else "memory").put(track, "rule")
    return row.right(figures, width)


def _load(view: View, load: Sequence[float | None], value: float, width: int, label: str = "") -> Row:
    row = Row(" ").cell(label or _("use"), 9, "dim").put(" ")
    room = width - row.at - 13
    if room >= 4:
        row.put(area(list(load), room, view.glyphs), "load")
    return row.right(text.percent(value, 0), width)


def _short_name(name: str) -> str:
    for word in ("NVIDIA ", "GeForce ", "Apple "):
        name = name.removeprefix(word)
    return name
