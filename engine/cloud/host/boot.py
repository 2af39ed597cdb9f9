"""A line in the account's crontab that goes on with the host's jobs after a reboot, with nobody at home."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from .job import FINAL, JobFolder, read
from .receive import jobs

_LIMIT_S = 10.0


def wants_to_go_on(job: JobFolder) -> bool:
    return job.wanted == "run" and (read(job.state) or {}).get("status") not in FINAL


def settle_line(root: Path) -> str | None:
    """Have the line there while a job that asked for it is to go on, and else not; why that failed, or None."""
    wanted = any(wants_to_go_on(job) and (read(job.order) or {}).get("boot") for job in jobs(root))
    mark = _escaped(f"# understudy {root}")
    try:
        said = subprocess.run(["crontab", "-l"], capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        # what cannot be read must not be replaced; "no crontab for USER" is none
        if said.returncode and "no crontab" not in said.stderr:
            return f"crontab -l: {said.stderr.strip()}" if wanted else None
        before = said.stdout.splitlines() if not said.returncode else []
        after = [line for line in before if not line.endswith(mark)]
        if wanted:
            command = shlex.join([sys.executable, "-I", str(Path(sys.argv[0]).absolute()), "boot", str(root)])
            after.append(f"@reboot {_escaped(command)} {mark}")
        if after == before:
            return None
        done = subprocess.run(
            ["crontab", "-"], input="".join(f"{line}\n" for line in after),
            capture_output=True, text=True, timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no crontab there ({error})" if wanted else None
    return f"crontab: {done.stderr.strip()}" if done.returncode else None


def _escaped(text: str) -> str:
    return text.replace("%", "\\%")  # else the end of a line for cron
