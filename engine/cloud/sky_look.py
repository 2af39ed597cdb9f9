"""One look at a running machine: GPUs, and the newest run's progress, in one SSH command."""

from __future__ import annotations

import json
from typing import Any

from engine.cloud.provider import JobState, MachineState, Outcome
from engine.store.clock import parse

_MIB = 2**20
_MARK = "--understudy--"
_WORKING = 0.05  # of a GPU: below that nothing works there
LOOK = (
    "nvidia-smi --query-gpu=utilization.gpu,memory.used,memory.total --format=csv,noheader,nounits; "
    f"echo {_MARK}; date +%s; cd ROOT/workspace/runs && run=$(ls | tail -n 1) && echo $run && cat $run/progress.json"
)


def read_look(job: tuple[JobState, float | None], seen: Outcome, hourly_usd: float | None) -> MachineState:
    """The machine's state from its job (state, end in seconds since the epoch) and what `LOOK` said.

    The times are the machine's own: its clock decides how long it has been idle.
    """
    state, ended = job
    gpus, _, rest = seen.out.partition(_MARK)
    use, used, total = _gpus(gpus)
    lines = rest.strip().splitlines()
    clock = float(lines[0]) if lines and lines[0].isdigit() else None
    run = lines[1] if len(lines) > 1 else None
    progress = _progress("\n".join(lines[2:]))
    active = ended if state in ("done", "failed") else None
    if state in ("running", "waiting") and clock is not None and use is not None and use >= _WORKING:
        active = clock
    if updated := progress.get("updated_at"):
        active = max(active or 0.0, parse(str(updated)).timestamp())
    reason = "" if seen.code == 0 or lines else f"its SSH did not answer: {seen.err.strip()[-200:]}"
    return MachineState(
        "running", state, reason, use, used, total, active, run, progress, hourly_usd
    )  # fmt: skip


def _gpus(text: str) -> tuple[float | None, int | None, int | None]:
    """The busiest GPU's use, and the bytes of all of them."""
    rows = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and all(part.isdigit() for part in parts):
            rows.append([int(part) for part in parts])
    if not rows:
        return None, None, None
    use = max(row[0] for row in rows) / 100
    return use, sum(row[1] for row in rows) * _MIB, sum(row[2] for row in rows) * _MIB


def _progress(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
