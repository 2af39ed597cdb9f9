"""The data report: what every task says of its data before the first epoch, and what `--strict` makes of it.

A report has `checked`, `ok`, a list of {path, reason} for each of `KINDS` (`checked` is the sum of them all), and
`warnings`; where a class is at fault, `class_problems` ({class, problem, reason}). An item with `used` true is
trained on all the same. Torch-free.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import UsageError

KINDS = ("corrupt", "empty", "mislabelled", "duplicates")


def counted(report: dict[str, Any]) -> str:
    """The faults in a few words, "2 corrupt, 1 empty"; empty where there is none."""
    return ", ".join(f"{len(report[kind]):,} {kind}" for kind in KINDS if report[kind])


def sentences(report: dict[str, Any], where: Path) -> list[str]:
    """What people are told before the first epoch; `where` holds the report."""
    said = []
    if bad := counted(report):
        used = sum(bool(item.get("used")) for kind in KINDS for item in report[kind])
        fault = report["checked"] - report["ok"]
        said.append(
            f"{fault:,} of {report['checked']:,} files are at fault ({bad}), each named in {where};"
            f" {fault - used:,} of them are left out"
        )
    said += [f"note: {problem['reason']}" for problem in report.get("class_problems", [])]
    return said + [f"note: {warning}" for warning in report["warnings"]]


def refuse(report: dict[str, Any]) -> None:
    """What `--strict` does.

    Raises:
        UsageError: a file or a class is at fault.
    """
    problems = report.get("class_problems", [])
    first = next((item for kind in KINDS for item in report[kind]), None)
    see = "python -m engine data names them all; mend them, or leave out --strict"
    if first:
        raise UsageError(
            f"{report['checked'] - report['ok']:,} of {report['checked']:,} files are at fault ({counted(report)});"
            f" the first is {first['path']}: {first['reason']}",
            see,
            kind="bad_data",
        )
    if problems:
        raise UsageError(
            f"{len(problems)} classes are at fault; the first: {problems[0]['reason']}", see, kind="bad_data"
        )
