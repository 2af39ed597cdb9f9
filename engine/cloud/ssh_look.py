"""One look at a server before anything goes there: its Python, room, data and GPU. It is left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.cloud.provider import Check, Upload
from engine.cloud.ssh_line import Line
from engine.config.schema import CloudSsh

_LEAST = (3, 11)  # of the engine's own `requires-python`
_LOOK_S = 30.0
_ROOM = 2e9  # bytes beside the uploads: an environment with torch, a run's states
_LOOK = """\
place=$1
while [ ! -d "$place" ]; do place=$(dirname "$place"); done
echo "disk $(df -Pk "$place" | tail -n 1)"
echo "python $("$2" -c 'import sys; print(*sys.version_info[:3])' 2>/dev/null)"
if [ -n "$3" ] && [ -e "$3" ]; then echo data there; fi
nvidia-smi --query-gpu=memory.total,name --format=csv,noheader,nounits 2>/dev/null | sed 's/^/gpu /'
exit 0
"""


@dataclass(frozen=True)
class Seen:
    """What a host has: free bytes where the root is or would be, the version of its Python, its GPUs with their
    bytes, and whether `cloud.ssh.data` is there."""

    name: str
    free_bytes: int | None
    python: tuple[int, ...]
    data: bool
    gpus: tuple[tuple[str, int], ...]

    @property
    def gpu_bytes(self) -> int | None:
        """Of the smallest GPU: a run takes all of them."""
        return min((size for _, size in self.gpus), default=None)


def look(line: Line, settings: CloudSsh) -> Seen:
    """Ask the host once.

    Raises:
        UnderstudyError: it is not reached, not let in, or its key is not known.
    """
    python, data = settings.python or "python3", settings.data or ""
    words = [line.root, python.removeprefix("~/"), data.removeprefix("~/")]
    said = line.run(["sh", "-c", _LOOK, "sh", *words], _LOOK_S).out
    rows = [row.partition(" ")[::2] for row in said.splitlines()]
    found = dict(rows)
    disk = found.get("disk", "").split()
    free = disk[3] if len(disk) > 3 else ""
    gpus = [text.partition(", ")[::2] for word, text in rows if word == "gpu"]
    return Seen(
        line.name,
        int(free) * 1024 if free.isdigit() else None,
        tuple(int(part) for part in found.get("python", "").split() if part.isdigit()),
        "data" in found,
        tuple((name, int(size) << 20) for size, name in gpus if size.isdigit()),
    )


def judge(seen: Seen, settings: CloudSsh, uploads: Sequence[Upload]) -> tuple[Check, ...]:
    """What of the host is in the way of a launch."""
    gpus = ", ".join(f"{name} {size / 2**30:.0f} GiB" for name, size in seen.gpus)
    checks = [Check("host", True, f"{seen.name} answers, with {gpus or 'no GPU of NVIDIA that can be seen'}")]
    python = settings.python or "python3"
    if not seen.python:
        fix = "install Python 3 there, or set cloud.ssh.python"
        checks.append(Check("python", False, f"no '{python}' on {seen.name}", fix, usage=True))
    else:
        version, least = (".".join(map(str, parts)) for parts in (seen.python, _LEAST))
        # an environment that `cloud.ssh.setup` makes may have another
        ok = seen.python >= _LEAST or (None if settings.setup else False)
        fix = (
            "" if ok else f"set cloud.ssh.python to one of {least} or newer, or cloud.ssh.setup to what makes one"
        )
        checks.append(
            Check("python", ok, f"{python} there is {version}; the engine needs {least}", fix, usage=True)
        )
    if settings.data is not None:
        fix = "" if seen.data else "put the data there, or unset cloud.ssh.data: then data.root is uploaded"
        there = "is there" if seen.data else "is not there"
        checks.append(Check("data", seen.data, f"{settings.data} {there}", fix, usage=True))
    wanted = sum(upload.bytes for upload in uploads)
    if seen.free_bytes is not None:
        room = f"{seen.free_bytes / 1e9:,.1f} GB free, {wanted / 1e9:,.1f} GB to upload at most"
        enough = True if seen.free_bytes >= wanted + _ROOM else None if seen.free_bytes >= wanted else False
        checks.append(Check("room", enough, room, "" if enough else "make room there, or set cloud.ssh.root"))
    return tuple(checks)
