"""What a file holds, as a type of the protocol, also where a part of it is damaged."""

from __future__ import annotations

from typing import Any, TypeVar

from engine.protocol import ProtocolError, from_json

T = TypeVar("T")


def lenient(shape: type[T], value: dict[str, Any], least: dict[str, Any]) -> T:
    """`value` as a dataclass; a key whose value has another shape is left out rather than hiding the rest."""
    try:
        return from_json(shape, value, shape.__name__.lower())
    except ProtocolError:
        kept = dict(least)
        for key, item in value.items():
            try:
                from_json(shape, {**least, key: item}, key)
            except ProtocolError:
                continue
            kept[key] = item
        return from_json(shape, kept, shape.__name__.lower())
