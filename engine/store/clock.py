"""Time as the contract writes it: ISO 8601 with offset."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> datetime:
    """The present time with the host's own offset."""
    return datetime.now(UTC).astimezone()


def timestamp(moment: datetime | float | None = None) -> str:
    """ISO 8601 with offset, to the millisecond, of a moment or of seconds since the epoch."""
    if moment is None:
        moment = now()
    elif not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC).astimezone()
    return moment.isoformat(timespec="milliseconds")


def parse(text: str) -> datetime:
    return datetime.fromisoformat(text)
