"""A job as a SkyPilot task: the YAML that a person can read, keep, and give to `sky launch` himself.

Two things end the machine without us: `autostop` with `down` takes it away once nothing has run for some minutes, and
set-up and training run under coreutils' `timeout`, which ends them in time for that. Neither needs our computer, a
network between, or SkyPilot's own server; what is left to trust is the machine and its provider.
"""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path

from engine.cloud.prices import gpu_count
from engine.cloud.provider import Job
from engine.errors import UsageError

ROOT = "~/understudy"
KILL_AFTER_S = 60  # what a training has to save its state in
AUTODOWN_SLACK_S = (
    KILL_AFTER_S + 120.0
)  # the machine looks once a minute whether it is idle, and takes a while to go
_SETUP_LEAST_S = 300.0  # a machine that has not this much time to train is not worth being set up
_SKY_NAMES = {"A100-40GB": "A100", "V100-16GB": "V100"}


def job_ends_at(job: Job) -> float | None:
    """When set-up and training must have ended, so that the idle machine is gone at `job.stop_at`."""
    return None if job.stop_at is None else job.stop_at - job.idle_minutes * 60 - AUTODOWN_SLACK_S


def accelerator(gpu: str) -> str:
    """A GPU by SkyPilot's name: `RTX 4090` is `RTX4090:1`."""
    name, count = gpu_count(gpu)
    return f"{_SKY_NAMES.get(name, name).replace(' ', '')}:{count}"


def task_yaml(job: Job, runs: Path | None, infra: str | None, now: float) -> str:
    """The task.

    Args:
        runs: runs that came home from a machine before, which the new one goes on with; None: there are none.
        infra: SkyPilot's word for cloud, region, zone; None: the cheapest.

    Raises:
        UsageError: the budget's time is too short, or a place of the data leads out of the machine's folder.
    """
    ends = job_ends_at(job)
    if ends is not None and ends - now < _SETUP_LEAST_S:
        minutes = max(0.0, (ends - now) / 60)
        hint = "raise --budget, choose a cheaper GPU, or lower cloud.idle_minutes and cloud.reserve_minutes"
        raise UsageError(f"the budget leaves {minutes:.0f} minutes to train", hint, kind="budget_too_small")
    resources = [
        *([f"infra: {_quoted(infra)}"] if infra else []),
        *([f"accelerators: {_quoted(accelerator(job.gpu))}"] if job.gpu else []),
        f"use_spot: {'true' if job.spot else 'false'}",
        *([f"max_hourly_cost: {job.max_hourly_usd}"] if job.max_hourly_usd else []),
        "autostop:  # the machine takes itself down, whoever else is dead or cut off",
        f"  idle_minutes: {job.idle_minutes}",
        "  down: true",
        "  wait_for: jobs  # an open SSH session does not keep it",
    ]
    mounts = [(f"{ROOT}/workspace/runs", runs)] if runs else []
    mounts += [(f"{ROOT}/{_inside(there)}", here) for here, there in job.data]
    lines = [
        f"name: {_quoted(job.name)}",  # `on` and `no` are names, too
        "",
        f"workdir: {_quoted(str(job.code))}  # uploaded as far as git does not ignore it",
    ]
    lines += ["", "resources:", *(f"  {line}" for line in resources), "", "num_nodes: 1", "", "envs:"]
    lines += [f'  UNDERSTUDY_ENDS_AT: "{math.floor(ends) if ends else 0}"  # seconds since 1970; 0: no budget']
    if mounts:
        lines += ["", "file_mounts:", *(f"  {_quoted(there)}: {_quoted(str(here))}" for there, here in mounts)]
    lines += ["", "setup: |", *_block(_timed(_setup())), "", "run: |", *_block(_timed(_run(job))), ""]
    return "\n".join(lines)


def _timed(script: str) -> str:
    """The script, ended gently when the budget's time is out, and surely a minute later."""
    return f"""\
left=$(( UNDERSTUDY_ENDS_AT - $(date +%s) ))
if [ "$UNDERSTUDY_ENDS_AT" -eq 0 ]; then left=infinity; elif [ "$left" -le 0 ]; then
  echo "the budget's time is out"; exit 0
fi
timeout --signal=TERM --kill-after={KILL_AFTER_S} "$left" bash -euo pipefail -c {shlex.quote(script)}"""


def _setup() -> str:
    """SkyPilot's images have Python 3.10 in front, which is too old for the engine; the `uv` that SkyPilot itself puts
    on every machine brings a newer one."""
    return f"""\
mkdir -p {ROOT}
if ! test -x {ROOT}/venv/bin/python; then
  if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then python3 -m venv {ROOT}/venv
  else ~/.local/bin/uv venv --seed --python 3.12 {ROOT}/venv; fi
fi
{ROOT}/venv/bin/pip install --quiet --editable ".[zoo,go]"
"""


def _run(job: Job) -> str:
    words = [*job.words, *(["--resume", job.resume] if job.resume else [])]
    engine = f"{ROOT}/venv/bin/python -m engine --workspace {ROOT}/workspace"
    return f"cd {ROOT} && exec {engine} {shlex.join(words)}\n"


def _inside(there: str) -> str:
    if there.startswith("/") or ".." in Path(there).parts:
        raise UsageError(f"'{there}' is no place below the machine's folder", "give a relative path")
    return there


def _block(script: str) -> list[str]:
    return [f"  {line}".rstrip() for line in script.splitlines()]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a YAML string
