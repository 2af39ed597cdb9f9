"""A host with nothing of ours on it: one small shell script over SSH, and what its answer means."""

from __future__ import annotations

from engine.protocol import Device, DeviceProcess, Devices

GPU_LIMIT_S = 5

# Each question has a section of its own, so that one that fails or hangs costs only its own figures.
SCRIPT = f"""
T=""; command -v timeout >/dev/null 2>&1 && T="timeout -k 1 {GPU_LIMIT_S}"
if command -v nvidia-smi >/dev/null 2>&1; then
echo @gpu
$T nvidia-smi --query-gpu=index,name,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw,enforced.power.limit,uuid --format=csv,noheader,nounits 2>&1 || {{ HUNG=$?; echo "@failed $HUNG"; }}
echo @processes
[ -n "$HUNG" ] || $T nvidia-smi --query-compute-apps=gpu_uuid,pid,used_memory,process_name --format=csv,noheader,nounits 2>/dev/null
fi
echo @system; uname -sm
echo @memory; cat /proc/meminfo 2>/dev/null
echo @chip; grep -m1 -E '^(model name|Model)' /proc/cpuinfo 2>/dev/null || sysctl -n machdep.cpu.brand_string 2>/dev/null
echo @darwin; sysctl -n hw.memsize 2>/dev/null
echo @stat; head -1 /proc/stat 2>/dev/null; sleep 0.2; head -1 /proc/stat 2>/dev/null
echo @disk; df -Pk . 2>/dev/null
echo @end
"""
_MIB = 1024 * 1024


def read_answer(name: str, text: str) -> Devices:
    """The host `name` from the script's output; what it did not say is None."""
    sections = _sections(text)
    memory = _meminfo(sections.get("memory", []))
    darwin = sections.get("darwin", [])
    total = memory.get("MemTotal") or (int(darwin[0]) if darwin and darwin[0].isdigit() else None)
    available = memory.get("MemAvailable")
    gpus, problem = _gpus(sections.get("gpu", []), sections.get("processes", []))
    cpu = Device(
        kind="cpu",
        name=_chip(sections),
        total_bytes=total,
        used_bytes=total - available if total and available is not None else None,
        utilization=_busy(sections.get("stat", [])),
    )
    disk = _disk(sections.get("disk", []))
    return Devices(
        name=name,
        devices=[*gpus, cpu],
        memory_total_bytes=total,
        memory_available_bytes=available,
        disk_total_bytes=disk[0],
        disk_free_bytes=disk[1],
        problem=problem if "end" in sections else problem or "its answer was cut off",
    )


def _sections(text: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if line.startswith("@") and not line.startswith("@failed"):
            current = sections.setdefault(line[1:].strip(), [])
        elif line.strip():
            current.append(line.strip())
    return sections


def _gpus(lines: list[str], process_lines: list[str]) -> tuple[list[Device], str | None]:
    processes = _processes(process_lines)
    devices, problem = [], None
    for line in lines:
        if line.startswith("@failed"):
            code = line.split()[-1]
            hung = code in ("124", "137")
            problem = (
                f"nvidia-smi there has not answered for {GPU_LIMIT_S} s"
                if hung
                else f"nvidia-smi there failed with exit code {code}"
            )
            continue
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 9 or not cells[0].isdigit():
            problem = problem or line[:120]  # nvidia-smi says in a sentence what it misses
            continue
        percent = _number(cells[4])
        devices.append(
            Device(
                kind="cuda",
                name=cells[1],
                index=int(cells[0]),
                total_bytes=_mib(cells[2]),
                used_bytes=_mib(cells[3]),
                utilization=None if percent is None else percent / 100,
                temperature_c=_number(cells[5]),
                power_w=_number(cells[6]),
                power_limit_w=_number(cells[7]),
                processes=processes.get(cells[8], []),
            )
        )
    return devices, problem


def _processes(lines: list[str]) -> dict[str, list[DeviceProcess]]:
    found: dict[str, list[DeviceProcess]] = {}
    for line in lines:
        cells = [cell.strip() for cell in line.split(",", 3)]
        if len(cells) == 4 and cells[1].isdigit():
            name = cells[3].rsplit("/", 1)[-1]
            entry = DeviceProcess(pid=int(cells[1]), name=name, used_bytes=_mib(cells[2]))
            found.setdefault(cells[0], []).append(entry)
    return found


def _meminfo(lines: list[str]) -> dict[str, int]:
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * 1024
    return found


def _chip(sections: dict[str, list[str]]) -> str:
    said = sections.get("chip", [])
    if said:
        return said[0].partition(":")[2].strip() or said[0]
    system = sections.get("system", [])
    return system[0].split()[-1] if system else "CPU"


def _busy(lines: list[str]) -> float | None:
    """The share of all cores between two `cpu` lines of /proc/stat (idle and iowait are not work)."""
    ticks = [
        [int(word) for word in line.split()[1:9] if word.isdigit()] for line in lines if line.startswith("cpu")
    ]
    if len(ticks) != 2 or len(ticks[0]) < 5 or len(ticks[1]) < 5:
        return None
    total = sum(ticks[1]) - sum(ticks[0])
    idle = sum(ticks[1][3:5]) - sum(ticks[0][3:5])
    return round(1 - idle / total, 3) if total > 0 else None


def _disk(lines: list[str]) -> tuple[int | None, int | None]:
    words = lines[-1].split() if lines else []
    numbers = [int(word) * 1024 for word in words if word.isdigit()]
    return (numbers[0], numbers[2]) if len(numbers) >= 3 else (None, None)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:  # [N/A], [Not Supported], [Unknown Error]
        return None


def _mib(cell: str) -> int | None:
    number = _number(cell)
    return None if number is None else int(number * _MIB)
