"""NVIDIA GPUs by NVML, asked in a child process: a driver that hangs takes only the child along.

`Nvml.sample` sends the child one line and waits for its answer until a deadline. After that the last
good figures come back marked stale, the child is killed, and no second one is started while the first
cannot die (a process stuck in the driver ignores SIGKILL).
"""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.protocol import Device, DeviceProcess, ProtocolError, from_json, to_json
from engine.store.clock import timestamp

ABSENT_S = 300.0  # a host without a driver is asked again this seldom
RETRY_S = 10.0


class Nvml:
    """Keeps the child, the last good figures, and since when they are old.

    Args:
        deadline_s: how long one answer may take; a first one has to load the driver and gets `first_s`.
    """

    def __init__(self, deadline_s: float = 3.0, first_s: float = 10.0) -> None:
        self._deadline_s, self._first_s = deadline_s, first_s
        self._child: subprocess.Popen[bytes] | None = None
        self._asked_before = False
        self._last: list[Device] = []
        self._not_before = 0.0
        self.problem: str | None = None

    def sample(self) -> list[Device]:
        """The GPUs now; [] on a host without an NVIDIA driver; the last good ones, stale, when it is silent."""
        if time.monotonic() < self._not_before:
            return self._stale()
        answer = self._ask()
        if answer is None:
            self._not_before = time.monotonic() + RETRY_S
            return self._stale()
        if absent := answer.get("absent"):
            self.close()
            self._not_before = time.monotonic() + ABSENT_S
            self._last, self.problem = [], None if absent == "no driver" else str(absent)
            return []
        try:
            self._last = [from_json(Device, item, "device") for item in answer["devices"]]
        except (KeyError, TypeError, ProtocolError) as error:
            self.problem = f"the driver gave no usable answer ({error})"
            return self._stale()
        self.problem = None
        return self._last

    def close(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(OSError):
            child.stdin.close()
        child.kill()
        child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.2)

    def _stale(self) -> list[Device]:
        if self.problem is None:
            return self._last
        return [replace(device, stale=True, problem=self.problem) for device in self._last]

    def _ask(self) -> dict[str, Any] | None:
        child = self._running()
        if child is None:
            return None
        assert child.stdin is not None
        assert child.stdout is not None
        limit_s = self._deadline_s if self._asked_before else self._first_s
        try:
            child.stdin.write(b"\n")
            child.stdin.flush()
            line = _read_line(child, limit_s)
        except OSError:
            line = b""
        self._asked_before = True
        if line is None:
            self.problem = f"the NVIDIA driver has not answered for {limit_s:g} s"
            child.kill()
            return None
        try:
            return dict(json.loads(line))
        except ValueError:
            self.problem = "the process that asks the NVIDIA driver died"
            self.close()
            return None

    def _running(self) -> subprocess.Popen[bytes] | None:
        if self._child is not None and self._child.poll() is None:
            if self.problem is not None:  # killed, and it cannot die: stuck in the driver
                self._child.kill()
                return None
            return self._child
        self.close()
        self._asked_before = False
        self._child = subprocess.Popen(
            [sys.executable, "-m", "engine.devices.nvml"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C ends the parent, and the parent's end closes the child's stdin
        )
        return self._child


def _read_line(child: subprocess.Popen[bytes], limit_s: float) -> bytes | None:
    """One line of the child's output; b"" when it ended, None at the deadline."""
    assert child.stdout is not None
    ends, found = time.monotonic() + limit_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            if not selector.select(max(0.0, ends - time.monotonic())):
                return None
            block = child.stdout.read1(65536)  # type: ignore[attr-defined]
            if not block:
                return b""
            found += block
    return found


def read_devices(nvml: Any) -> list[Device]:
    """Every GPU that the initialised module `pynvml` shows; what one does not support is None."""
    return [_read_device(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]


def _read_device(nvml: Any, index: int) -> Device:
    def ask(question: Callable[[], Any]) -> Any:
        try:
            return question()
        except nvml.NVMLError:
            return None

    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = nvml.nvmlDeviceGetName(handle)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:  # one that fell off the bus must not hide the others
        return Device(kind="cuda", name=f"GPU {index}", index=index, stale=True, problem=str(error))
    use = ask(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    celsius = ask(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    power = ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    limit = ask(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    processes = ask(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
    return Device(
        kind="cuda",
        name=name.decode() if isinstance(name, bytes) else str(name),
        index=index,
        total_bytes=int(memory.total),
        used_bytes=int(memory.used),
        utilization=None if use is None else use.gpu / 100,
        temperature_c=None if celsius is None else float(celsius),
        power_w=None if power is None else power / 1000,
        power_limit_w=None if limit is None else limit / 1000,
        processes=[
            DeviceProcess(pid=process.pid, name=_process_name(process.pid), used_bytes=process.usedGpuMemory)
            for process in processes
        ],
        sampled_at=timestamp(),
    )


def _process_name(pid: int) -> str | None:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return None


def _child() -> None:
    """Answer one line of JSON for each line of standard input, until it closes."""
    import pynvml

    ready = False
    for _ in sys.stdin:
        try:
            if not ready:
                pynvml.nvmlInit()
                ready = True
            answer: dict[str, Any] = {"devices": to_json(read_devices(pynvml))}
        except pynvml.NVMLError as error:
            missing = {
                getattr(pynvml, "NVML_ERROR_LIBRARY_NOT_FOUND", 12),
                getattr(pynvml, "NVML_ERROR_DRIVER_NOT_LOADED", 9),
            }
            answer = {"absent": "no driver" if getattr(error, "value", None) in missing else f"NVML: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        _child()
