"""The environments of a config file: `[environments.NAME]`, partial settings for one of the places where it runs.

A leaf that engine and console share: both choose by the same rule, and the console loads no schema for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from engine.errors import UsageError, nearest

VARIABLE = "UNDERSTUDY_ENVIRONMENT"


def pick(tables: Any, name: str | None) -> tuple[str, Mapping[str, Any]]:
    """The chosen environment's name and settings; ("", {}) where none is chosen.

    Args:
        tables: the file's `environments`.
        name: what `--environment` says; None takes the variable.

    Raises:
        UsageError: `tables` holds something else than tables, or the name is not among them.
    """
    if not isinstance(tables, Mapping) or not all(isinstance(body, Mapping) for body in tables.values()):
        raise UsageError("'environments' in the config must be tables", "write [environments.NAME.SECTION]")
    if name == "":
        raise UsageError("'--environment' has an empty value", "leave --environment out, or give it one")
    name = name or os.environ.get(VARIABLE, "")
    if not name:
        return "", {}
    if name not in tables:
        hint = nearest(name, tables) or "this config has none: write [environments.NAME.SECTION]"
        raise UsageError(f"unknown environment '{name}'", hint, kind="unknown_environment")
    return name, tables[name]
