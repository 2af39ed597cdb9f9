"""Devices of every host: memory, utilisation with its history, temperature, power; each figure named.

How much is said depends on the room: a row a device where many have to fit, curves and processes where they can.
"""

from __future__ import annotations

from itertools import zip_longest

from console import text
from console.panes import cloud
from console.store import History
from console.view import View
from console.widgets.charts import areas, bar
from console.widgets.rows import Row
from console.words import _
from engine.protocol import Device, DeviceProcess, Devices

MEMORY_NAMES = {"driver_bytes": "driver", "allocated_bytes": "allocated", "system_bytes": "system"}
LABEL = 11  # cells before a meter
FIGURE = 13  # cells behind it: `61.2/141 GiB`
HOT_C = 85
BESIDE, GAP = 45, 4  # accelerators stand beside each other where each has this many cells
DENSE, BRIEF, CURVES, LARGE = range(4)
_CURVE_ROWS = {BRIEF: 1, CURVES: 2, LARGE: 4}
_MOST_PROCESSES = {DENSE: 0, BRIEF: 0, CURVES: 2, LARGE: 6}


def items(view: View) -> list[tuple[str, Devices]]:
    """The hosts whose name, or a device or process of which, holds the filter's text."""
    wanted = view.ui.filters.get("devices", "").lower()
    return [(host, data) for host, data in view.store.devices() if not wanted or wanted in _searched(host, data)]


def _searched(host: str, data: Devices) -> str:
    words = [host, *(f"{one.name} {one.kind}" for one in data.devices)]
    return " ".join([*words, *(one.name or "" for device in data.devices for one in device.processes)]).lower()


def title(view: View) -> Row:
    row = Row(_("Devices"), "title")
    hosts = items(view)
    if wanted := view.ui.filters.get("devices"):
        row.put(f" /{wanted}", "accent")
    if len(hosts) > 1:
        row.put(f" {len(hosts)} " + _("hosts"), "dim")
    fresh = view.fresh("devices")
    return row.put(" ").put(*view.state(fresh)) if fresh.state != "live" or len(hosts) < 2 else row


def rows_needed(view: View, room: int = 24) -> int:
    """How many rows all hosts take, in the greatest detail up to short curves that fits into `room` rows."""
    return _height(view, next((one for one in (CURVES, BRIEF) if _height(view, one) <= room), DENSE))


def draw(view: View, width: int, height: int) -> list[Row]:
    hosts = items(view)
    if not hosts:
        said = _("nothing matches the filter") if view.store.devices() else _("no figures yet")
        return [Row(said, "dim").cut(width)]
    rented = cloud.below(view, width, height // 4)
    height -= len(rented)
    most = LARGE if view.ui.zoomed or width >= 90 else CURVES
    detail = next((one for one in range(most, DENSE, -1) if _height(view, one, width) <= height), DENSE)
    curve = _CURVE_ROWS.get(detail, 0)
    if detail == LARGE:  # what room is left makes the curves taller
        count = sum(
            one.utilization is not None and one.kind != "cpu" for _host, data in hosts for one in data.devices
        )
        curve += min(8, (height - _height(view, detail, width)) // max(1, count))
    rows: list[Row] = []
    for host, data in hosts:
        if rows and detail > DENSE:
            rows.append(Row())
        rows += _host(view, host, data, width, detail, curve)
    place = view.ui.place("devices")
    place.cursor = place.top = max(0, min(place.cursor, len(rows) - height))
    return [row.cut(width) for row in [*rows[place.top : place.top + height], *rented]]


def processes(device: Device, detail: int) -> list[DeviceProcess]:
    """The largest processes of a device that this detail has room for."""
    ordered = sorted(device.processes, key=lambda one: -(one.used_bytes or 0))
    return ordered[: _MOST_PROCESSES[detail]]


def _height(view: View, detail: int, width: int = 0) -> int:
    hosts = items(view)
    rows = (len(hosts) - 1) * (detail > DENSE)
    for host, data in hosts:
        fresh = view.fresh("devices", host)
        rows += 1 + bool(fresh.state != "live" and fresh.why)
        rows += sum(device.kind == "cpu" and device.utilization is not None for device in data.devices)
        for line in _lines(data, width if detail > DENSE else 0):
            rows += max(_device_height(device, detail) for device in line)
        rows += data.disk_total_bytes is not None and data.disk_free_bytes is not None
        rows += _own_ram(data)
    return rows


def _lines(data: Devices, width: int) -> list[list[Device]]:
    """The accelerators of a host in lines of as many as stand beside each other."""
    gpus = [device for device in data.devices if device.kind != "cpu"]
    across = max(1, min(len(gpus), (width + GAP) // (BESIDE + GAP)))
    return [gpus[start : start + across] for start in range(0, len(gpus), across)]


def _device_height(device: Device, detail: int) -> int:
    if detail == DENSE:
        return 1 + bool(device.problem)
    rows = 1 + bool(device.problem) + len(set(device.memory) & set(MEMORY_NAMES)) + len(processes(device, detail))
    if detail == LARGE and device.utilization is not None:
        return rows + 1 + _CURVE_ROWS[detail]
    rows += _has_total(device)
    return rows + (_CURVE_ROWS[detail] if device.utilization is not None else 0)


def _has_total(device: Device) -> bool:
    return device.kind != "mps" or device.used_bytes is not None


def _own_ram(data: Devices) -> bool:
    """Whether the host's memory has a row of its own: on MPS the device's `system` is the same figure."""
    return bool(data.memory_total_bytes) and not any("system_bytes" in one.memory for one in data.devices)


def _host(view: View, host: str, data: Devices, width: int, detail: int, curve: int) -> list[Row]:
    fresh = view.fresh("devices", host)
    head = Row(data.name or host, "bold")
    if host == view.store.home:
        head.put(" " + _("here"), "dim")
    gpus = [device for device in data.devices if device.kind != "cpu"]
    if detail == DENSE and gpus:
        head.put(f" {len(gpus)} × " if len(gpus) > 1 else " ", "dim").put(_short_name(gpus[0].name), "dim")
    head.right(view.state(fresh)[0], width, view.state(fresh)[1])
    rows = [head]
    if fresh.state != "live" and fresh.why:
        rows.append(Row("  ").put(text.clip(fresh.why, width - 2), "danger"))
    said = len(rows)
    lines = _lines(data, width if detail > DENSE else 0)
    across = (width + GAP) // len(lines[0]) - GAP if lines else width
    for line in lines:
        blocks = []
        for device in line:
            history = view.store.history.get((host, device.kind, device.index), History())
            if detail == DENSE:
                blocks.append(_dense(view, device, history, across))
            else:
                blocks.append(_gpu(view, device, history, across, detail, curve))
        for parts in zip_longest(*blocks):
            row = Row()
            for index, part in enumerate(parts):
                row.to(index * (across + GAP)).add(part or Row())
            rows.append(row)
    for device in data.devices:
        if device.kind == "cpu" and device.utilization is not None:
            history = view.store.history.get((host, device.kind, device.index), History())
            rows += _load(view, history, device.utilization, width, 1, "cpu")
    if _own_ram(data):
        free = data.memory_available_bytes
        used = next((one.used_bytes for one in data.devices if one.kind == "cpu"), None)
        used = data.memory_total_bytes - free if data.memory_total_bytes and free is not None else used
        rows.append(_meter(view, "ram", used, data.memory_total_bytes, width))
    if data.disk_total_bytes is not None and data.disk_free_bytes is not None:
        rows.append(
            _meter(view, _("disk"), data.disk_total_bytes - data.disk_free_bytes, data.disk_total_bytes, width)
        )
    return rows if fresh.state == "live" else [*rows[:said], *(row.fade() for row in rows[said:])]


def _dense(view: View, device: Device, history: History, width: int) -> list[Row]:
    """`0 ━━━━╸──── 61.2/141 GiB ⣀⣤⣶  87%  61°C` on one row."""
    used = device.used_bytes if device.used_bytes is not None else device.memory.get("system_bytes")
    tail = Row(text.share(used, device.total_bytes).rjust(FIGURE))
    room = width - 3 - tail.at - 5 - (6 if device.temperature_c is not None else 0)
    curve = room // 3 if device.utilization is not None and room >= 12 else 0
    if curve:
        shown = areas(list(history.load), curve - 1, 1, view.glyphs, count=history.count)
        tail.put(" ").put(shown[0], "load")
    tail.put(text.percent(device.utilization, 0).rjust(5))
    if device.temperature_c is not None:
        hot = device.temperature_c >= HOT_C
        sign = view.glyphs.warn if hot else ""
        tail.put(f"{sign}{device.temperature_c:.0f}°C".rjust(6), "warning" if hot else "dim")
    row = Row(f" {device.index} ", "dim")
    _bar(view, row, used, device.total_bytes, width - row.at - tail.at)
    rows = [row.right("", width - tail.at).add(tail)]
    return rows + _problem(view, device, width)


def _gpu(view: View, device: Device, history: History, width: int, detail: int, curve: int) -> list[Row]:
    head = Row(" ").put(text.clip(_short_name(device.name), width - 22))
    head.put(f" {device.index}" if device.kind != "mps" else "", "dim").put(f" {device.kind}", "dim")
    tail = Row()
    if device.temperature_c is not None:
        hot = device.temperature_c >= HOT_C
        tail.put(f"{view.glyphs.warn} " if hot else "", "warning")
        tail.put(f"{device.temperature_c:.0f} °C", "warning" if hot else "dim")
    if device.power_w is not None:
        limit = f"/{device.power_limit_w:.0f}" if device.power_limit_w and width >= 44 else ""
        tail.put(f"  {device.power_w:.0f}{limit} W", "dim")
    head.right("", width - tail.at).add(tail)
    rows = [head, *_problem(view, device, width)]
    large = detail == LARGE and device.utilization is not None
    if large:
        rows += _two_curves(view, device, history, width, curve)
    elif _has_total(device):
        rows.append(_meter(view, _("memory"), device.used_bytes, device.total_bytes, width))
    for key, label in MEMORY_NAMES.items():
        if key in device.memory:
            rows.append(_meter(view, _(label), device.memory[key], device.total_bytes, width))
    if device.utilization is not None and not large:
        rows += _load(view, history, device.utilization, width, curve, _("use"))
    for process in processes(device, detail):
        row = Row(f"{process.pid}".rjust(LABEL - 1), "dim").put(" ")
        row.put(text.clip(process.name or text.NONE, width - LABEL - 10), "dim")
        rows.append(row.right(text.size(process.used_bytes), width, "dim"))
    return rows


def _problem(view: View, device: Device, width: int) -> list[Row]:
    if not device.problem:
        return []
    return [Row("  ").put(text.clip(f"{view.glyphs.warn} {device.problem}", width - 2), "warning")]


def _two_curves(view: View, device: Device, history: History, width: int, height: int) -> list[Row]:
    """Memory and utilisation side by side, each with its figure above its curve."""
    half = (width - 4) // 2
    right = half + 4
    part = device.used_bytes / device.total_bytes if device.total_bytes and device.used_bytes is not None else None
    figures = Row("  ").put(_("memory") + " ", "dim").put(text.share(device.used_bytes, device.total_bytes))
    if part is not None and figures.at + 6 <= half:
        figures.put(f"  {text.percent(part, 0)}", "danger" if part >= 0.95 else "dim")
    figures.to(right).put(_("use") + " ", "dim").put(text.percent(device.utilization, 0))
    used = areas(list(history.used), half - 2, height, view.glyphs, count=history.count)
    load = areas(list(history.load), width - right, height, view.glyphs, count=history.count)
    curves = [Row("  ").put(one, "memory").to(right).put(two, "load") for one, two in zip(used, load, strict=True)]
    return [figures, *curves]


def _meter(view: View, label: str, used: float | None, total: float | None, width: int) -> Row:
    row = Row(" ").cell(label, LABEL - 2, "dim").put(" ")
    _bar(view, row, used, total, width - row.at - FIGURE)
    return row.right(text.share(used, total), width)


def _bar(view: View, row: Row, used: float | None, total: float | None, room: int) -> None:
    if total and used is not None and room >= 4:
        part = used / total
        filled, track = bar(part, room, view.glyphs)
        row.put(filled, "danger" if part >= 0.95 else "memory").put(track, "rule")


def _load(view: View, history: History, value: float, width: int, height: int, label: str) -> list[Row]:
    room = width - LABEL - FIGURE
    figure = text.percent(value, 0)
    if room < 4:
        return [Row(" ").put(label, "dim").right(figure, width)]
    curves = areas(list(history.load), room, height, view.glyphs, count=history.count)
    rows = [Row(" ").put(" " * (LABEL - 1)).put(line, "load") for line in curves]
    rows[-1] = Row(" ").cell(label, LABEL - 2, "dim").put(" ").put(curves[-1], "load").right(figure, width)
    return rows


def _short_name(name: str) -> str:
    for word in ("NVIDIA ", "GeForce ", "Apple "):
        name = name.removeprefix(word)
    return name
