"""The documents' `edge_config.json`, read as `export.*` settings.

It says quantisation (on or off, `int8`), pruning (on or off, a sparsity) and the formats; each of the two either as
a table of its own or as flat keys:

    {"quantization": {"enabled": true, "dtype": "int8"},
     "pruning": {"enabled": true, "sparsity": 0.3},
     "export_formats": ["onnx", "torchscript"]}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.config import Settings
from engine.config.schema import Export
from engine.errors import UsageError, nearest

_TABLES = {"quantization": {"enabled": "quantization", "dtype": "dtype", "type": "dtype"},
           "pruning": {"enabled": "pruning", "sparsity": "sparsity"}}  # fmt: skip
_FLAT = {"dtype": "dtype", "sparsity": "sparsity", "formats": "formats", "export_formats": "formats"}


def with_edge_config(settings: Settings, path: Path) -> Settings:
    """The settings with what the file says instead of theirs.

    Raises:
        UsageError: as `read_edge_config`, or a value that a setting cannot have.
    """
    merged = settings.export.model_dump() | read_edge_config(path)
    try:
        export = Export.model_validate(merged)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(str(part) for part in wrong["loc"])
        raise UsageError(
            f"{path}: '{name}' cannot be {wrong['input']!r} ({wrong['msg']})",
            "see docs/edge.md",
            kind="bad_config",
        ) from None
    return settings.model_copy(update={"export": export})


def read_edge_config(path: Path) -> dict[str, Any]:
    """The `export.*` settings that the file sets, by their names here.

    Raises:
        UsageError: no such file, no JSON, or a key that it cannot have.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no file {path}", "name the edge_config.json", kind="not_found") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON ({error})", "mend it", kind="bad_config") from None
    content = content.get("edge_config", content) if isinstance(content, dict) else content
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no JSON object", "see docs/edge.md", kind="bad_config")
    found: dict[str, Any] = {}
    for key, value in content.items():
        if key in _TABLES and isinstance(value, dict):
            for inner, inner_value in value.items():
                found[_known(inner, _TABLES[key], f"{key}.{inner}", path)] = inner_value
        elif key in _TABLES:
            found[key] = value
        else:
            found[_known(key, _FLAT, key, path, (*_TABLES, *_FLAT))] = value
    return found


def _known(key: str, names: dict[str, str], shown: str, path: Path, said: Iterable[str] = ()) -> str:
    if key not in names:
        raise UsageError(f"{path} has an unknown key '{shown}'", nearest(key, said or names), kind="bad_config")
    return names[key]
