"""One check's outcome."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Check:
    """`level`: `ok`; `note`, worth knowing; `warn`, unusual but no fault; `fail`, to be mended by `fix`."""

    name: str
    detail: str
    level: Literal["ok", "note", "warn", "fail"] = "ok"
    fix: str = ""

    @property
    def ok(self) -> bool:
        return self.level != "fail"

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}


def size(count: int) -> str:
    """Bytes for people, in powers of ten as file managers show them."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} bytes"
