"""The engine's errors, each with the exit code of the command line's contract.

Every error that a person can meet is an `UnderstudyError`: one sentence that says what is wrong and
a hint that says what to do. Anything else that escapes is a defect of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UnderstudyError(Exception):
    """Base of all expected failures.

    Args:
        message: what is wrong, one sentence, without a full stop at the end.
        hint: what the person can do about it, or "".
        kind: a stable word for programs (`not_found`, `bad_config`, ...).
        payload: the verb's own JSON object, printed instead of the error's where the contract wants that.
    """

    exit_code = 1
    default_kind = "failed"

    def __init__(
        self, message: str, hint: str = "", *, kind: str | None = None, payload: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.kind = kind or self.default_kind
        self.payload = payload or {}

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message

    def as_json(self) -> dict[str, Any]:
        return self.payload or {"error": {"kind": self.kind, "message": self.message, "hint": self.hint}}


class Failed(UnderstudyError):
    """Exit 1: the work was tried and did not succeed."""


class UsageError(UnderstudyError):
    """Exit 2: wrong usage, config or argument; nothing was changed."""

    exit_code = 2
    default_kind = "usage"


class Refused(UnderstudyError):
    """Exit 3: refused by the gate; nothing was changed."""

    exit_code = 3
    default_kind = "refused"


class Busy(UnderstudyError):
    """Exit 4: another process holds what this needs; nothing was changed."""

    exit_code = 4
    default_kind = "busy"


class Interrupted(UnderstudyError):
    """Exit 130: stopped by a signal; what was done is kept."""

    exit_code = 130
    default_kind = "interrupted"

    def __init__(
        self,
        message: str = "interrupted",
        hint: str = "what was done is kept",
        *,
        payload: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint, payload=payload)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to `word`: "did you mean 'x'?", or what there is."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(choices[:12]) + (" ..." if len(choices) > 12 else "")
    return f"known: {shown}" if choices else ""
