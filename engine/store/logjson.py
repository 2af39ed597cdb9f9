"""Logs as JSON, one record a line on standard error, for services that collect logs; secrets are masked.

A record has `time`, `level`, `logger`, `message`, `run`, `release` and `request_id` (null where there is none), and
what else is known of it: `method`, `path`, `status` and `client` of a request, `kind` and `hint` of an error,
`exception`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from engine.config.secrets import mask

VARIABLE = "UNDERSTUDY_LOG_FORMAT"
ACCESS = "uvicorn.access"
REQUEST: ContextVar[str | None] = ContextVar("request_id", default=None)
_MORE = ("method", "path", "status", "client", "kind", "hint")

_process: dict[str, str | None] = {"run": None, "release": None}
_handler: logging.Handler | None = None
_log = logging.getLogger("understudy")


def begin(log_format: str) -> None:
    """Have all that is logged go to standard error as JSON; with "text" no longer."""
    global _handler
    root = logging.getLogger()
    if log_format == "json" and _handler is None:
        _handler = logging.StreamHandler(sys.stderr)
        _handler.setFormatter(JsonFormatter())
        root.addHandler(_handler)
        _log.setLevel(logging.INFO)
    elif log_format != "json" and _handler is not None:
        root.removeHandler(_handler)
        _handler = None
    logging.captureWarnings(_handler is not None)


def begun() -> bool:
    return _handler is not None


def about(*, run: str | None = None, release: str | None = None) -> None:
    """What this process is about from now on: its records say it; "" for nothing any more."""
    found = {"run": run, "release": release}
    _process.update({name: value or None for name, value in found.items() if value is not None})


def say(words: str) -> None:
    """Words for people as a record; an empty line is none."""
    if words.strip():
        _log.info("%s", words)


def happened(event: Mapping[str, Any]) -> None:
    """An event of the audit log as a record, about the release or the run that it names."""
    if _handler is None:
        return
    detail, subject = event["detail"], event["subject"]
    about = {"kind": event["kind"], "release": detail.get("to") or detail.get("release")}
    about["run"] = detail.get("run") or (subject.removeprefix("run ") if subject.startswith("run ") else None)
    words = ": ".join(str(part) for part in (f"{event['kind']} {subject}", detail.get("reason")) if part)
    level = logging.WARNING if event["kind"] in ("alert", "refused") else logging.INFO
    logging.getLogger("understudy.events").log(level, "%s", words, extra=about)


def request_of(record: logging.LogRecord) -> str | None:
    """The id of the request that a record is about."""
    found: str | None = getattr(record, "request_id", None) or REQUEST.get()
    return found


class TextFormatter(logging.Formatter):
    """A line for people, with the request's id at its end."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        request = request_of(record)
        return super().formatMessage(record) + (f" {request}" if request else "")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        value = {
            "time": datetime.fromtimestamp(record.created).astimezone().isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: getattr(record, name, None) or value for name, value in _process.items()},
            "request_id": request_of(record),
        }
        if record.name == ACCESS and isinstance(record.args, tuple) and len(record.args) == 5:
            value |= dict(zip(("client", "method", "path", "http", "status"), record.args, strict=True))
        value |= {name: getattr(record, name) for name in _MORE if hasattr(record, name)}
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return mask(json.dumps(value, ensure_ascii=False, default=str))


def error(sentence: str, *, kind: str, hint: str, cause: BaseException | None = None) -> bool:
    """The error that a command ends with, as its last record; False where JSON logs were not asked for.

    The variable counts where the command failed before it had read its settings.
    """
    if not begun() and os.environ.get(VARIABLE) != "json":
        return False
    begin("json")
    _log.error("%s", sentence, extra={"kind": kind, "hint": hint}, exc_info=cause)
    return True


def is_last(line: bytes) -> bool:
    """Whether a line is such a last record: whoever started the command may tell the error instead."""
    return line.startswith(b'{"time": "') and b', "level": "ERROR", ' in line and b', "kind": "' in line


def as_text(line: str) -> str:
    """A line of a log for people: a JSON record as its time, level and message, any other as it is."""
    if not line.startswith('{"time": "'):
        return line
    try:
        value = json.loads(line)
        level = "" if value["level"] == "INFO" else f"{value['level']} "
        return f"{value['time'][:19].replace('T', ' ')} {level}{' '.join(value['message'].splitlines())}"
    except (ValueError, KeyError, TypeError):
        return line
