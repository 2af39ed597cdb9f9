"""NVML through its child process, with a stand-in for the `pynvml` module alone."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.devices.nvml import Nvml
from tests.conftest import PATIENCE_S, until

PYNVML = textwrap.dedent(
    """
    import os, pathlib, time
    from types import SimpleNamespace as Box

    FOLDER = pathlib.Path(__file__).parent
    NVML_TEMPERATURE_GPU = 0
    NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED = 12, 9

    class NVMLError(Exception):
        def __init__(self, value):
            self.value = value
        def __str__(self):
            return {15: "GPU is lost", 3: "Not Supported"}.get(self.value, "error")

    def mode(name):
        return (FOLDER / name).exists()

    def nvmlInit():
        if mode("no_driver"):
            raise NVMLError(12)

    def nvmlDeviceGetCount():
        if mode("die"):
            os._exit(9)
        if mode("hang"):
            time.sleep(60)
        return 2

    def nvmlDeviceGetHandleByIndex(index):
        if index == 1 and mode("lost"):
            raise NVMLError(15)
        return index

    def nvmlDeviceGetName(handle):
        return "NVIDIA H200"

    def nvmlDeviceGetMemoryInfo(handle):
        return Box(total=150_754_820_096, used=1000 + handle)

    def nvmlDeviceGetUtilizationRates(handle):
        return Box(gpu=87, memory=10)

    def nvmlDeviceGetTemperature(handle, kind):
        return 61

    def nvmlDeviceGetPowerUsage(handle):
        raise NVMLError(3)

    def nvmlDeviceGetEnforcedPowerLimit(handle):
        return 700_000

    def nvmlDeviceGetComputeRunningProcesses(handle):
        return [Box(pid=os.getpid(), usedGpuMemory=77)]
    """
)


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the stand-in's modes: `driver("hang")`; `driver()` makes it well again."""
    (tmp_path / "pynvml.py").write_text(PYNVML)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    def become(*modes: str) -> None:
        for name in ("hang", "die", "lost", "no_driver"):
            (tmp_path / name).unlink(missing_ok=True)
        for name in modes:
            (tmp_path / name).touch()

    return become


@pytest.fixture
def nvml() -> Iterator[Nvml]:
    probe = Nvml(deadline_s=PATIENCE_S, first_s=PATIENCE_S)
    yield probe
    probe.close()


def test_each_gpu_with_what_it_supports(driver: Callable[..., None], nvml: Nvml) -> None:
    first, second = nvml.sample()
    assert (first.kind, first.name, first.index, second.index) == ("cuda", "NVIDIA H200", 0, 1)
    assert (first.total_bytes, first.used_bytes) == (150_754_820_096, 1000)
    assert (first.utilization, first.temperature_c) == (0.87, 61.0)
    assert (first.power_w, first.power_limit_w) == (None, 700.0)
    assert first.processes[0].used_bytes == 77
    assert first.processes[0].name
    assert not first.stale


@pytest.mark.fault(49)
def test_a_driver_that_hangs_leaves_the_last_good_figures_marked_stale(
    driver: Callable[..., None], nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = nvml.sample()
    driver("hang")
    nvml._deadline_s = 0.3
    stale = nvml.sample()
    assert [device.stale for device in stale] == [True, True]
    assert "has not answered" in (stale[0].problem or "")
    assert stale[0].used_bytes == good[0].used_bytes
    monkeypatch.setattr(nvml, "_ask", lambda: pytest.fail("asked again without a pause"))
    assert nvml.sample()[0].stale


@pytest.mark.fault(49)
def test_it_revives_by_itself(driver: Callable[..., None], nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.devices.nvml.RETRY_S", 0.0)
    nvml.sample()
    driver("die")
    assert nvml.sample()[0].stale
    driver()
    until(lambda: [device.stale for device in nvml.sample()] == [False, False], "fresh figures")
    assert nvml.problem is None


@pytest.mark.fault(49)
def test_a_gpu_that_fell_off_the_bus_does_not_hide_the_others(driver: Callable[..., None], nvml: Nvml) -> None:
    driver("lost")
    first, second = nvml.sample()
    assert not first.stale
    assert second.stale
    assert second.problem == "GPU is lost"


def test_a_host_without_a_driver_has_no_gpu_and_no_problem(driver: Callable[..., None], nvml: Nvml) -> None:
    driver("no_driver")
    assert nvml.sample() == []
    assert nvml.problem is None
