"""One snapshot of this very host, what `ioreg` says on a Mac, and the verb."""

from __future__ import annotations

import plistlib
from collections.abc import Callable
from pathlib import Path

import psutil

from engine.devices.apple import parse_ioreg
from engine.devices.sample import Sampler
from engine.protocol import Device
from tests.conftest import Result

GIB = 1024**3


def test_this_host(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path / "not" / "there" / "yet", "here")
    try:
        host = sampler.sample(gpus=[])
        host = sampler.sample(gpus=[])
    finally:
        sampler.close()
    cpu = host.devices[-1]
    assert (host.name, cpu.kind, cpu.total_bytes) == ("here", "cpu", psutil.virtual_memory().total)
    assert cpu.name
    assert cpu.utilization is not None
    assert 0 <= cpu.utilization <= 1
    assert host.memory_available_bytes is not None
    assert 0 < host.memory_available_bytes < (host.memory_total_bytes or 0)
    assert (host.process_rss_bytes or 0) > 1_000_000
    assert 0 <= (host.disk_free_bytes or -1) <= (host.disk_total_bytes or 0)


def test_apples_gpu_with_each_memory_named() -> None:
    bare = Device(kind="mps", name="Apple M1", total_bytes=16 * GIB, memory={"system_bytes": 9 * GIB})
    figures = {
        "Device Utilization %": 31,
        "In use system memory": 2 * GIB,
        "In use system memory (driver)": 5000,
        "Alloc system memory": 3 * GIB,
    }
    answer = plistlib.dumps([{"model": "Apple M1", "PerformanceStatistics": figures}])
    device = parse_ioreg(answer, bare)
    assert (device.used_bytes, device.utilization) == (2 * GIB, 0.31)
    assert device.memory == {
        "driver_bytes": 5000,
        "allocated_bytes": 3 * GIB,
        "in_use_bytes": 2 * GIB,
        "system_bytes": 9 * GIB,
    }
    assert parse_ioreg(b"nothing of the kind", bare) == bare
    assert parse_ioreg(plistlib.dumps([{"model": "x"}]), bare) == bare


def test_the_verb_has_the_contracts_fields(engine: Callable[..., Result]) -> None:
    done = engine("devices", "--json")
    assert done.code == 0, done.err
    (host,) = done.json["hosts"]
    for name in ("name", "devices", "process_rss_bytes", "memory_total_bytes", "memory_available_bytes"):
        assert host[name]
    for device in host["devices"]:
        wanted = {"kind", "name", "total_bytes", "used_bytes", "utilization", "temperature_c"}
        assert wanted <= device.keys()
    text = engine("devices")
    assert "cpu 0" in text.out


def test_an_unknown_host_is_named(engine: Callable[..., Result]) -> None:
    done = engine("devices", "--json", "--host", "gpu-bux", "hosts.gpu-box.address=127.0.0.1")
    assert done.code == 2
    assert "gpu-box" in done.json["error"]["hint"]
